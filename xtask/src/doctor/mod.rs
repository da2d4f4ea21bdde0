//! What could be wrong on this machine. Each look gives findings; nothing here changes anything but [`mend`].

pub mod backups;
pub mod crates;
pub mod machine;
pub mod mend;
pub mod pins;
pub mod services;
pub mod toolchain;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something will not work.
    Error,
    /// Something may not work, or not well.
    Warning,
    /// Good to know.
    Info,
}

/// What was found. The code is stable: scripts may look for it.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub level: Level,
    pub text: String,
    /// What to do, a command where there is one.
    pub fix: Option<String>,
    #[serde(skip)]
    pub mend: Option<mend::Mend>,
}

impl Finding {
    pub fn new(code: &'static str, level: Level, text: impl Into<String>) -> Finding {
        Finding { code, level, text: text.into(), fix: None, mend: None }
    }

    pub fn fix(self, fix: impl Into<String>) -> Finding {
        Finding { fix: Some(fix.into()), ..self }
    }

    pub fn mend(self, mend: mend::Mend) -> Finding {
        Finding { mend: Some(mend), ..self }
    }
}
