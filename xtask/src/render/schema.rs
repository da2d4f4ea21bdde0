//! `config/stack.schema.json`, from the manifest's types: completion and checking in an editor.

use anyhow::Result;

use super::GeneratedFile;
use crate::stack::manifest::Manifest;

pub fn file() -> Result<GeneratedFile> {
    let mut schema = schemars::schema_for!(Manifest);
    let comment = "Generated from xtask/src/stack/manifest.rs by `cargo xtask render`; do not edit.";
    schema.insert("$comment".into(), comment.into());
    Ok(GeneratedFile {
        path: "config/stack.schema.json".into(),
        text: format!("{}\n", serde_json::to_string_pretty(&schema)?),
    })
}
