//! The built helper against real servers, one module a subject. `support` makes a checkout of its own for each test, with
//! ports, state and data of its own.
//!
//! What a machine cannot have (PostgreSQL 15, Java, root) skips a test, which says so; with `XTASK_REQUIRE_ALL=1`, as in
//! `.ci/run`, a skipped test is a failure, and with `XTASK_REQUIRE_DOCKER=1` so is one that needs Docker's engine.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests start programs and write files as people do"
)]

mod backup;
mod backup_incremental;
mod backup_keeping;
mod backup_remote;
mod backup_schedule;
mod compose;
mod configuration;
mod contract;
mod data;
mod docker;
mod doctor;
mod engine_restart;
mod interruptions;
mod lifecycle;
mod migrate;
mod output;
mod pins;
mod ports;
mod restore;
mod restore_locale;
mod restore_roles;
mod seed;
mod seed_indexes;
mod support;
mod toolbox;
mod tools;
mod upgrade;
