//! What backups are made of, and all that has to be fast about them. It knows files and streams, no servers and no stacks.
//!
//! Reading order: [`custom`] (pg_dump's custom format, read and written), [`content`] (rows counted and hashed whatever
//! their order), [`part`] (a file that is compressed, hashed and, if asked for, encrypted while it is written), [`split`]
//! (a whole dump taken apart into such files while it runs).

pub mod content;
pub mod custom;
pub mod part;
pub mod split;
