//! `.env.example` and `.env.<stack>.example`: every variable that a stack reads, with its default and a word.

use super::GeneratedFile;
use crate::stack::Stack;
use crate::stack::model::SettingGroup;

/// The stack's file.
pub fn file(stack: &Stack) -> GeneratedFile {
    GeneratedFile { path: format!("{}.example", stack.env_file.display()).into(), text: text(stack) }
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
        (SettingGroup::Image, "Images of containers"),
        (SettingGroup::Compose, "Docker Compose, also plain `docker compose` from the repository's root"),
    ];
    for (group, title) in titles {
        let settings: Vec<_> = stack.settings.iter().filter(|setting| setting.group == group).collect();
        if settings.is_empty() {
            continue;
        }
        // Image references differ too much in length to stand in columns.
        let longest = settings.iter().map(|setting| setting.name.len() + setting.default.len()).max().unwrap_or(0);
        let width = if group == SettingGroup::Image { 0 } else { longest + 1 };
        text.push_str(&format!("\n# {title}\n"));
        for setting in settings {
            let assignment = format!("{}={}", setting.name, setting.default);
            text.push_str(&format!("{assignment:width$}  # {}\n", setting.word));
        }
    }
    text
}
