//! The native engine: servers are ordinary detached processes of this machine.
//!
//! Reading order: [`record`] (what is known of a running server), [`process`] (proof that a process is that server),
//! [`launch`] (how one starts without ever being unrecorded), [`programs`] (where the servers' programs come from),
//! [`template`] (one initdb for many databases), [`servers`] (each kind's command line), [`start`] and [`stop`].

pub mod launch;
pub mod observe;
pub mod process;
pub mod programs;
pub mod record;
pub mod servers;
pub mod start;
pub mod stop;
pub mod template;
