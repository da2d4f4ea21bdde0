//! `cargo xtask render`: writes, checks or prints the files that are generated.

use anyhow::{Result, bail};

use crate::cli::{RenderArgs, Rendered};
use crate::context::Context;
use crate::files;
use crate::render::{self, GeneratedFile};
use crate::ui::{self, Exit, Failure};

pub fn run(cx: &Context, args: &RenderArgs) -> Result<Exit> {
    let is_asked = |what: Rendered| args.what.is_empty() || args.what.contains(&what);
    let mut generated: Vec<GeneratedFile> = Vec::new();
    if is_asked(Rendered::Schema) {
        generated.push(render::schema::file()?);
    }
    if is_asked(Rendered::EnvExample) {
        generated.extend(render::env_example::files(&cx.repository).map_err(crate::context::configuration_failure)?);
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
