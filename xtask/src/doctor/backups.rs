//! Backups that were to come by themselves, and did not.

use super::{Finding, Level};
use crate::data::backup::schedule::Standing;
use crate::ui::units;

/// How it stands with the scheduled backups, if there are any.
pub fn scheduled(standing: Option<&Standing>, option: &str) -> Vec<Finding> {
    let ago = |time| units::span(units::since(time));
    let fix = format!("`cargo xtask backup schedule --show{option}` shows its log");
    match standing {
        Some(Standing::Failed { at, error }) => {
            let text = format!("the last scheduled backup failed {} ago: {error}", ago(*at));
            vec![Finding::new("scheduled-backup-failed", Level::Warning, text).fix(fix)]
        }
        Some(Standing::Overdue { due }) => {
            let text = format!("the scheduled backup did not run; it was due {} ago", ago(*due));
            vec![Finding::new("scheduled-backup-overdue", Level::Warning, text).fix(fix)]
        }
        Some(Standing::Done { at }) => {
            let text = format!("the last one was taken {} ago", ago(*at));
            vec![Finding::new("scheduled-backup", Level::Info, text)]
        }
        Some(Standing::Waiting | Standing::Running { .. }) | None => Vec::new(),
    }
}
