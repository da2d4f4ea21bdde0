//! `.env.example` and `.env.<stack>.example`: every variable that a stack reads, with its default and a word.

use std::collections::BTreeMap;

use super::GeneratedFile;
use crate::stack::fault::Faults;
use crate::stack::model::SettingGroup;
use crate::stack::{Repository, Stack, resolve};

/// One file for each stack, without any override in effect.
pub fn files(repository: &Repository) -> Result<Vec<GeneratedFile>, Faults> {
    let mut files = Vec::new();
    for name in &repository.stacks {
        let stack = resolve::load(repository, name, &BTreeMap::new())?;
        let path = format!("{}.example", stack.env_file.display());
        files.push(GeneratedFile { path: path.into(), text: text(&stack) });
    }
    Ok(files)
}

fn text(stack: &Stack) -> String {
    let file = stack.env_file.display();
    let mut text = format!(
        "# Settings of the stack {name}. Copy what differs to {file}; the process environment goes before it.\n\
         # Generated from {manifest} by `cargo xtask render`; do not edit.\n",
        name = stack.name,
        manifest = stack.manifest_file.display(),
    );
    let titles = [
        (SettingGroup::Environment, "Where this runs"),
        (SettingGroup::Login, "Logins"),
        (SettingGroup::Port, "Ports on 127.0.0.1"),
        (SettingGroup::Tool, "Tools"),
        (SettingGroup::Application, "Applications"),
        (SettingGroup::Image, "Images of the Docker engine"),
    ];
    for (group, title) in titles {
        let settings: Vec<_> = stack.settings.iter().filter(|setting| setting.group == group).collect();
        if settings.is_empty() {
            continue;
        }
        let width = settings.iter().map(|setting| setting.name.len() + setting.default.len()).max().unwrap_or(0) + 3;
        text.push_str(&format!("\n# {title}\n"));
        for setting in settings {
            let assignment = format!("{}={}", setting.name, setting.default);
            text.push_str(&format!("{assignment:width$}# {}\n", setting.word));
        }
    }
    text
}
