//! `cargo xtask logs`: what servers wrote, each line with its service, in the order of time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;

use crate::cli::LogsArgs;
use crate::context::Context;
use crate::engine::Engine;
use crate::engine::docker::{client, container_of};
use crate::engine::native::observe;
use crate::engine::native::servers::log_file;
use crate::instance::Instance;
use crate::stack::Service;
use crate::tools::{self, Input};
use crate::ui::{self, Exit, Failure, paint};

/// Lines of each service when nothing else is asked for.
const TAIL: usize = 200;
/// How often a followed file is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightRed];

/// A line, and its time where one is known.
type TimedLine = (Option<Timestamp>, String);

/// Where a server's lines are.
enum Place {
    File {
        path: PathBuf,
        shown: u64,
        rest: Vec<u8>,
    },
    /// The engine keeps them.
    Container {
        id: String,
    },
}

struct Source {
    prefix: String,
    place: Place,
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
    let places = places(cx, &instance, &asked).await?;
    let width = places.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let tail = args.tail.unwrap_or(TAIL);
    let mut lines: Vec<TimedLine> = Vec::new();
    let mut sources = Vec::new();
    let begun = Timestamp::now();
    for (index, (name, mut place)) in places.into_iter().enumerate() {
        let style = Style::new().fg_color(Some(COLOURS[index % COLOURS.len()].into()));
        let prefix = paint(style, format!("{name:width$} │ "));
        let last = match &mut place {
            Place::File { path, shown, .. } => {
                let (last, length) = last_lines(path, tail, since)?;
                *shown = length;
                last
            }
            Place::Container { id } => of_container(id, tail, since, begun).await?,
        };
        lines.extend(last.into_iter().map(|(time, line)| (time, format!("{prefix}{line}\n"))));
        sources.push(Source { prefix, place });
    }
    lines.sort_by_key(|(time, _)| *time);
    ui::data(&lines.into_iter().map(|(_, line)| line).collect::<String>())?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    follow(sources, begun).await
}

/// The services that have lines, in the stack's order.
async fn places(cx: &Context, instance: &Instance, asked: &[&Service]) -> Result<Vec<(String, Place)>> {
    let is_asked = |service: &&Service| asked.is_empty() || asked.iter().any(|one| one.name == service.name);
    let services = cx.stack.services.iter().filter(is_asked);
    Ok(match Engine::of(&cx.repository, &cx.stack, instance) {
        Engine::Native(_) => {
            let folders = observe::service_folders(instance)?;
            let has_lines = |service: &&Service| !asked.is_empty() || folders.contains(&service.short_name);
            let place = |service: &Service| {
                let path = log_file(instance, &service.short_name);
                (service.short_name.clone(), Place::File { path, shown: 0, rest: Vec::new() })
            };
            services.filter(has_lines).map(place).collect()
        }
        Engine::Docker(docker) => {
            let look = docker.look().await?;
            let place = |service: &Service| {
                let container = container_of(&look.containers, service)?;
                Some((service.short_name.clone(), Place::Container { id: container.id.clone() }))
            };
            services.filter_map(place).collect()
        }
    })
}

/// What a container wrote to both its streams, up to `until`.
async fn of_container(
    id: &str,
    tail: usize,
    since: Option<Timestamp>,
    until: Timestamp,
) -> Result<VecDeque<TimedLine>> {
    let (tail, until) = (tail.to_string(), until.to_string());
    let since = since.map(|since| since.to_string());
    let mut arguments = vec!["logs", "--timestamps", "--tail", &tail, "--until", &until];
    if let Some(since) = &since {
        arguments.extend(["--since", since]);
    }
    arguments.push(id);
    let ran = client::docker(&arguments, Input::Text(String::new())).await?;
    let text = format!("{}{}", ran.stdout, ran.stderr);
    client::checked(ran)?;
    let mut lines: Vec<TimedLine> = text.lines().map(stamped).collect();
    lines.sort_by_key(|(time, _)| *time);
    Ok(lines.into())
}

/// `2026-11-22T09:12:00.123456789Z text` as the engine writes it.
fn stamped(line: &str) -> TimedLine {
    match line.split_once(' ').map(|(time, text)| (time.parse().ok(), text)) {
        Some((Some(time), text)) => (Some(time), text.to_owned()),
        _ => (None, line.to_owned()),
    }
}

/// Goes on until interrupted.
async fn follow(sources: Vec<Source>, since: Timestamp) -> Result<Exit> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
    let mut files = Vec::new();
    for source in sources {
        match source.place {
            Place::File { .. } => files.push(source),
            Place::Container { id } => follow_container(id, since, &source.prefix, &sender)?,
        }
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {
                for source in &mut files {
                    let fresh = source.read()?;
                    if !fresh.is_empty() {
                        ui::data(&fresh)?;
                    }
                }
            }
            Some(line) = receiver.recv() => ui::data(&line)?,
        }
    }
}

/// Sends each line from now on. The client ends with the helper: nobody reads its pipe any more.
fn follow_container(
    id: String,
    since: Timestamp,
    prefix: &str,
    sender: &tokio::sync::mpsc::UnboundedSender<String>,
) -> Result<()> {
    let mut command = tools::program("docker");
    command.args(["logs", "--follow", "--since", &since.to_string(), &id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    for stream in streams.into_iter().flatten() {
        let (sender, prefix) = (sender.clone(), prefix.to_owned());
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut bytes) {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                if sender.send(format!("{prefix}{line}\n")).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
    }
    Ok(())
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
        let Place::File { path, shown, rest } = &mut self.place else { return Ok(String::new()) };
        let Ok(mut file) = File::open(path) else { return Ok(String::new()) };
        if file.metadata()?.len() < *shown {
            *shown = 0;
            rest.clear();
        }
        file.seek(SeekFrom::Start(*shown))?;
        let read = file.read_to_end(rest)?;
        *shown += read as u64;
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(String::new()) };
        let whole: Vec<u8> = rest.drain(..=end).collect();
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
