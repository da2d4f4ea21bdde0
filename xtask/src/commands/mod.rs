//! One file a verb, named as a person types it.

pub mod backup;
pub mod check;
pub mod completions;
pub mod doctor;
pub mod down;
pub mod env;
pub mod logs;
pub mod migrate;
pub mod ports;
pub mod psql;
pub mod redis_cli;
pub mod render;
pub mod restart;
pub mod restore;
pub mod run;
pub mod seed;
pub mod status;
pub mod stop;
pub mod toolbox;
pub mod up;
pub mod upgrade;
