//! Restores: into a database beside the live one, compared with what was backed up, and only then swapped by a rename. Until
//! that rename the live database is as it was; after it, the old one is kept.
//!
//! Reading order: [`super::side`] (the database that is filled), [`load`] (filling it from a backup), [`compare`] (is it what was
//! backed up), [`swap`] (the rename, and the way back), [`group`] (several of them, or none).

pub mod compare;
pub mod database;
pub mod foreign;
pub mod group;
pub mod load;
pub mod redis;
pub mod swap;
pub mod table;
