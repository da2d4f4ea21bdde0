//! One line that says what is being waited for, on a terminal only.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units;

/// A wait shorter than this shows nothing.
const QUIET: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(200);

/// A spinner that disappears when dropped.
#[derive(Debug)]
pub struct Waiting {
    bar: ProgressBar,
    pending: RefCell<Vec<String>>,
}

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
        Waiting { bar, pending: RefCell::default() }
    }

    /// Waits for several: the line names those that are not [`done`](Self::done) yet.
    pub fn for_each(names: impl IntoIterator<Item = String>) -> Waiting {
        let waiting = Waiting::new("");
        waiting.pending.borrow_mut().extend(names);
        waiting.name_pending();
        waiting
    }

    pub fn done(&self, name: &str) {
        self.pending.borrow_mut().retain(|pending| pending != name);
        self.name_pending();
    }

    fn name_pending(&self) {
        self.say(format!("waiting for {}", self.pending.borrow().join(", ")));
    }

    pub fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Work on several things, measured in bytes: the line names what is not done yet, and how much passed.
#[derive(Debug)]
pub struct Progress {
    waiting: Waiting,
    verb: &'static str,
    left: RefCell<Vec<String>>,
    /// Raised by whoever does the work, on any thread.
    pub bytes: Arc<AtomicU64>,
}

impl Progress {
    /// `verb` is what a person sees being done: `backing up`.
    pub fn new(verb: &'static str, names: &[String]) -> Progress {
        let waiting = Waiting::new(format!("{verb} {}", names.join(", ")));
        Progress { waiting, verb, left: RefCell::new(names.to_vec()), bytes: Arc::default() }
    }

    pub fn done(&self, name: &str) {
        self.left.borrow_mut().retain(|left| left != name);
    }

    /// Does the work and tells of it.
    pub async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TICK) => {
                    let bytes = units::megabytes(self.bytes.load(Ordering::Relaxed));
                    self.waiting.say(format!("{} {} · {bytes}", self.verb, self.left.borrow().join(", ")));
                }
            }
        }
    }
}
