//! `cargo xtask toolbox`: which pinned builds there are, and fetching them before they are needed.

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::{ToolboxArgs, ToolboxVerb};
use crate::context::{Context, unknown};
use crate::ui::{self, Exit, Failure, table, units};

pub async fn run(cx: &Context, args: &ToolboxArgs) -> Result<Exit> {
    let toolbox = cx.toolbox()?;
    match &args.verb {
        ToolboxVerb::List { json } => {
            let list = toolbox.list();
            if *json {
                let builds: Vec<_> = list
                    .iter()
                    .map(|(name, build, pin, is_there)| {
                        json!({
                            "name": name, "version": build.version, "package": build.package,
                            "package_version": build.package_version, "sha256": pin.map(|pin| &pin.sha256),
                            "size": pin.map(|pin| pin.size), "fetched": is_there,
                            "bin": toolbox.bin_of(name),
                        })
                    })
                    .collect();
                ui::json(&builds)?;
                return Ok(Exit::Done);
            }
            let rows = list.iter().map(|(name, build, pin, is_there)| {
                let state = match (pin, is_there) {
                    (None, _) => "no build for this platform".to_owned(),
                    (Some(_), true) => "fetched".to_owned(),
                    (Some(pin), false) => format!("not fetched, {}", units::megabytes(pin.size)),
                };
                let package = format!("{} {}", build.package, build.package_version);
                let hash = pin.map_or_else(String::new, |pin| format!("sha256 {}…", &pin.sha256[..12]));
                vec![(*name).to_owned(), build.version.clone(), package, hash, state]
            });
            ui::data(&table::columns(rows.collect(), &[]))?;
            Ok(Exit::Done)
        }
        ToolboxVerb::Fetch { names } => {
            let list = toolbox.list();
            let known: Vec<&str> = list.iter().map(|(name, ..)| *name).collect();
            if let Some(wrong) = names.iter().find(|name| !known.contains(&name.as_str())) {
                bail!(unknown("build", wrong, known));
            }
            let mut refused = Vec::new();
            for (name, build, pin, _) in &list {
                let is_asked = if names.is_empty() { pin.is_some() } else { names.iter().any(|asked| asked == name) };
                if !is_asked {
                    continue;
                }
                match toolbox.provide(name, |_| true).await? {
                    Ok(provided) => ui::tell(format!("  {name} {}  {}", build.version, provided.bin.display())),
                    Err(reason) => refused.push(reason),
                }
            }
            match refused.is_empty() {
                true => Ok(Exit::Done),
                false => bail!(
                    Failure::new(Exit::Failed, "not everything could be fetched")
                        .body(refused.iter().map(|reason| format!("  {reason}\n")).collect::<String>())
                ),
            }
        }
    }
}
