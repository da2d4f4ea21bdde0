//! `cargo xtask render`: writes, checks or prints the files that are generated.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::cli::{RenderArgs, Rendered};
use crate::context::{Context, configuration_failure};
use crate::files;
use crate::render::{self, GeneratedFile};
use crate::stack::{Stack, resolve};
use crate::ui::{self, Exit, Failure};

pub fn run(cx: &Context, args: &RenderArgs) -> Result<Exit> {
    let is_asked = |what: Rendered| args.what.is_empty() || args.what.contains(&what);
    let mut generated: Vec<GeneratedFile> = Vec::new();
    if is_asked(Rendered::Schema) {
        generated.push(render::schema::file()?);
    }
    if is_asked(Rendered::EnvExample) {
        generated.extend(plain_stacks(cx)?.iter().map(render::env_example::file));
    }
    if is_asked(Rendered::Compose) {
        generated.extend(plain_stacks(cx)?.iter().map(render::compose::file));
    }
    let mut differing = String::new();
    for file in &generated {
        let path = cx.repository.root.join(&file.path);
        let shown = cx.relative(&path);
        if args.print {
            ui::data(&file.text)?;
            continue;
        }
        let present = files::read_text(&path).unwrap_or_default();
        if present == file.text {
            if !args.check {
                ui::tell(format!("  {}  unchanged", shown.display()));
            }
        } else if args.check {
            differing.push_str(&render::difference(&shown.display().to_string(), &present, &file.text));
        } else {
            files::create_folder(path.parent().unwrap_or(&cx.repository.root))?;
            files::write_atomically(&path, file.text.as_bytes(), 0o644)?;
            ui::tell(format!("  {}  written", shown.display()));
        }
    }
    if !differing.is_empty() {
        bail!(
            Failure::new(Exit::Found, "generated files are not what manifests and types say")
                .body(differing)
                .hint("`cargo xtask render`, and commit the result")
        );
    }
    Ok(Exit::Done)
}

/// Every stack of the repository as its manifest says: of the process environment nothing, and of `.env` only defaults are
/// rendered.
fn plain_stacks(cx: &Context) -> Result<Vec<Stack>> {
    let names = cx.repository.stacks.iter();
    let stacks = names.map(|name| resolve::load(&cx.repository, name, &BTreeMap::new()).map_err(configuration_failure));
    Ok(stacks.collect::<Result<_, _>>()?)
}
