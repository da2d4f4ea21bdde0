//! `config/images.toml`: every container image with the digest that pins it.

use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use super::fault::{Fault, Faults};
use super::toml_file::TomlFile;

pub const IMAGES_FILE: &str = "config/images.toml";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    pub name: String,
    pub tag: String,
    /// `sha256:` and 64 hexadecimal digits: of the index, so that it holds for every platform.
    pub digest: String,
    /// The variable that overrides the whole reference.
    pub variable: String,
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}@{}", self.name, self.tag, self.digest)
    }
}

/// All images by key.
pub fn read(root: &Path, faults: &mut Faults) -> IndexMap<String, Image> {
    let Some(file) = TomlFile::read(root, Path::new(IMAGES_FILE), faults) else { return IndexMap::new() };
    let images: IndexMap<String, Image> = file.parse(faults).unwrap_or_default();
    for (key, image) in &images {
        let hex = image.digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            faults.push(Fault {
                file: file.path.clone(),
                line: file.line_of(&format!("{key}.digest")),
                key: format!("{key}.digest"),
                found: format!("`{}`", image.digest),
                expected: "`sha256:` and 64 hexadecimal digits".into(),
                fix: None,
            });
        }
    }
    images
}
