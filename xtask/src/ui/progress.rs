//! One line that says what is being waited for, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A wait shorter than this shows nothing.
const QUIET: Duration = Duration::from_millis(300);

/// A spinner that disappears when dropped.
#[derive(Debug)]
pub struct Waiting(ProgressBar);

impl Waiting {
    pub fn new(message: impl Into<String>) -> Waiting {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}").unwrap_or(ProgressStyle::default_spinner()),
        );
        bar.set_message(message.into());
        let late = bar.clone();
        // Drawn only once the wait is long enough to wonder about.
        std::thread::spawn(move || {
            std::thread::sleep(QUIET);
            if !late.is_finished() {
                late.enable_steady_tick(Duration::from_millis(100));
            }
        });
        Waiting(bar)
    }

    pub fn say(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
