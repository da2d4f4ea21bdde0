//! The stack: manifest, pins and overrides in, one valid model out.
//!
//! Data flows one way: [`manifest`] (as written) and [`overrides`] (what the environment and `.env` say) are checked
//! and joined by [`resolve`] into [`model::Stack`], in which every default is filled and every name leads somewhere.
//! Nothing here starts a process, and nothing behind here reads the environment.

pub mod checks;
pub mod env_file;
pub mod fault;
pub mod images;
pub mod manifest;
pub mod model;
pub mod overrides;
pub mod repository;
pub mod resolve;
pub mod toml_file;

pub use manifest::Profile;
pub use model::{Kind, Service, Stack};
pub use repository::Repository;
