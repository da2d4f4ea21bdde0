//! Backups: verified logical copies to keep.
//!
//! One backup is a folder `backups/<stack>/<name>/<time>[-label]`, of a database, of Redis, or of the event bus' topics; those
//! that one run made have the same time and were taken in one cut. Reading order: [`manifest`] (what a backup says of itself),
//! [`place`] and [`remote`] (where they lie), [`store`] (all of a stack), [`begun`] (one that is being written), [`cut`] (one
//! moment in all databases), [`dump`] (a database's data into parts), [`earlier`] (what of them the backup before has already),
//! [`unchanged`] (what of that need not even be sent), [`take`] (all of it together), [`verify`], [`export`], [`retention`]
//! (which ones stay), [`schedule`] (by themselves, every day).

pub mod begun;
pub mod cut;
pub mod dump;
pub mod earlier;
pub mod export;
pub mod manifest;
pub mod place;
pub mod remote;
pub mod retention;
pub mod schedule;
pub mod seal;
pub mod store;
pub mod take;
pub mod unchanged;
pub mod verify;
