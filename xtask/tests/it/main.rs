//! The built helper against real servers, one module a subject. `support` makes a checkout of its own for each test, with
//! ports, state and data of its own.
//!
//! What a machine cannot have (PostgreSQL 15, Java, root) skips a test, which says so; with `XTASK_REQUIRE_ALL=1`, as in
//! `.ci/run`, a skipped test is a failure.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests start programs and write files as people do"
)]

mod compose;
mod configuration;
mod data;
mod doctor;
mod interruptions;
mod lifecycle;
mod output;
mod ports;
mod seed;
mod support;
mod toolbox;
