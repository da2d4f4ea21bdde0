//! `cargo xtask backup verify`: proves backups, by reading them or by a restore for a try.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::list::names;
use super::{opened_by, sources};
use crate::cli::BackupVerifyArgs;
use crate::context::Context;
use crate::data::backup::store::{Kept, Verified};
use crate::data::backup::verify;
use crate::ui::progress::Waiting;
use crate::ui::{self, Exit, failure, table, units};

pub async fn run(cx: &Context, args: &BackupVerifyArgs) -> Result<Exit> {
    let (store, seal) = sources(cx, &args.place)?;
    let mut all: Vec<Kept> = Vec::new();
    for name in names(cx, &store, &args.names)? {
        match args.every {
            true => all.extend(store.list(&name)?),
            false => all.push(store.find(&name, &args.backup)?),
        }
    }
    let (mut rows, mut results, mut errors) = (Vec::new(), Vec::<Value>::new(), Vec::new());
    for kept in &all {
        let _waiting = Waiting::new(format!("reading {}", kept.shown()));
        let checked = kept.manifest().and_then(|manifest| opened_by(&manifest, seal.as_ref()));
        let proven = match checked {
            Ok(seal) => verify::content(kept, seal),
            Err(_) => verify::bytes(kept),
        };
        let verified = Verified { at: Timestamp::now(), was_restored: false };
        match proven {
            Ok(manifest) => {
                kept.note_verified(&verified)?;
                results.push(json!({ "name": kept.name, "backup": kept.backup, "verified": verified }));
                let bytes = units::megabytes(manifest.bytes());
                rows.push(vec![
                    kept.name.clone(),
                    kept.backup.clone(),
                    bytes,
                    ui::paint(ui::GOOD, "as it was written"),
                ]);
            }
            Err(error) => {
                kept.forget_verified()?;
                results.push(json!({ "name": kept.name, "backup": kept.backup, "error": format!("{error:#}") }));
                rows.push(vec![kept.name.clone(), kept.backup.clone(), String::new(), ui::paint(ui::BAD, "broken")]);
                errors.push(error);
            }
        }
    }
    if args.json {
        ui::json(&json!({ "stack": cx.stack.name, "backups": results }))?;
    }
    ui::tell(table::columns(rows, &[2]));
    failure::all_of(errors, Exit::Found, |count| format!("{count} backups are broken"))?;
    ui::tell(format!("\n{} verified", units::plural(all.len(), "backup")));
    Ok(Exit::Done)
}
