//! `cargo xtask logs`: what servers wrote, each line with its service, in the order of time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;

use crate::cli::LogsArgs;
use crate::context::Context;
use crate::engine::native::observe;
use crate::engine::native::servers::log_file;
use crate::ui::{self, Exit, Failure, paint};

/// Lines of each service when nothing else is asked for.
const TAIL: usize = 200;
/// How often a followed file is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightRed];

/// A line, and its time where one is known.
type TimedLine = (Option<Timestamp>, String);

struct Source {
    path: PathBuf,
    prefix: String,
    /// Bytes shown so far.
    shown: u64,
    /// What follows the last line's end.
    rest: Vec<u8>,
}

pub async fn run(cx: &Context, args: &LogsArgs) -> Result<Exit> {
    let asked = cx.services(&args.services)?;
    let since = args.since.as_deref().map(time_ago).transpose()?;
    let Some(instance) = cx.instance()? else {
        bail!(
            Failure::new(Exit::Failed, format!("{} was never started here", cx.stack.name))
                .hint(format!("`cargo xtask up{}`", cx.stack_option()))
        );
    };
    let names: Vec<String> = match asked.is_empty() {
        true => {
            let folders = observe::service_folders(&instance)?;
            let in_stack = cx.stack.services.iter().map(|service| service.short_name.clone());
            let in_order = in_stack.filter(|name| folders.contains(name));
            in_order.collect()
        }
        false => asked.iter().map(|service| service.short_name.clone()).collect(),
    };
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let mut lines: Vec<TimedLine> = Vec::new();
    let mut sources = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let style = Style::new().fg_color(Some(COLOURS[index % COLOURS.len()].into()));
        let path = log_file(&instance, name);
        let prefix = paint(style, format!("{name:width$} │ "));
        let (last, shown) = last_lines(&path, args.tail.unwrap_or(TAIL), since)?;
        lines.extend(last.into_iter().map(|(time, line)| (time, format!("{prefix}{line}\n"))));
        sources.push(Source { path, prefix, shown, rest: Vec::new() });
    }
    lines.sort_by_key(|(time, _)| *time);
    ui::data(&lines.into_iter().map(|(_, line)| line).collect::<String>())?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        for source in &mut sources {
            let fresh = source.read()?;
            if !fresh.is_empty() {
                ui::data(&fresh)?;
            }
        }
    }
}

/// The last lines of a log with their times, and its length. A line without a time belongs to the one before it.
fn last_lines(path: &PathBuf, tail: usize, since: Option<Timestamp>) -> Result<(VecDeque<TimedLine>, u64)> {
    let mut last = VecDeque::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((last, 0)),
        file => file.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let mut reader = BufReader::new(file);
    let (mut shown, mut time, mut bytes) = (0, None, Vec::new());
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok((last, shown));
        }
        shown += read as u64;
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        time = time_of(&line).or(time);
        if since.is_some_and(|since| time.is_none_or(|time| time < since)) {
            continue;
        }
        last.push_back((time, line));
        if last.len() > tail {
            last.pop_front();
        }
    }
}

impl Source {
    /// What was written since, whole lines with their prefix. A log that became shorter was begun anew.
    fn read(&mut self) -> Result<String> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(String::new()) };
        if file.metadata()?.len() < self.shown {
            self.shown = 0;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.shown))?;
        let read = file.read_to_end(&mut self.rest)?;
        self.shown += read as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(String::new()) };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(|line| format!("{}{line}\n", self.prefix)).collect())
    }
}

/// The time of a line: PostgreSQL's, Redis's or the emulator's. All servers write UTC.
fn time_of(line: &str) -> Option<Timestamp> {
    let utc = |format: &str, text: &str| -> Option<Timestamp> {
        let time: DateTime = strtime::parse(format, text).ok()?.to_datetime().ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    // 2026-11-22 09:12:00.123 GMT [812] LOG:  …
    let postgres = line.get(..23).and_then(|text| utc("%Y-%m-%d %H:%M:%S%.f", text));
    // 812:M 22 Nov 2026 09:12:00.123 * …
    let redis = || utc("%d %b %Y %H:%M:%S%.f", line.split_once(' ')?.1.get(..24)?);
    // Nov 22, 2026 9:12:00 AM com.google.…
    let emulator = || {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        utc("%b %d, %Y %I:%M:%S %p", &words.get(..5)?.join(" "))
    };
    postgres.or_else(redis).or_else(emulator)
}

/// `10m` as the time ten minutes ago.
fn time_ago(text: &str) -> Result<Timestamp> {
    let wrong =
        || Failure::new(Exit::Usage, format!("`--since {text}` is not a time ago")).hint("write 30s, 10m, 2h or 1d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!(wrong()),
    };
    let ago = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)?;
    Ok(Timestamp::now().checked_sub(ago).map_err(|_| wrong())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_servers_times_are_read() {
        let postgres = time_of("2026-11-22 09:12:00.123 GMT [812] LOG:  started").unwrap();
        let redis = time_of("812:M 22 Nov 2026 09:12:00.123 * Ready").unwrap();
        assert_eq!(postgres, redis);
        assert!(time_of("Nov 22, 2026 9:12:00 AM com.google.cloud").is_some());
        assert_eq!(time_of("\tDETAIL: none"), None);
        assert_eq!(time_of("ログ"), None);
    }
}
