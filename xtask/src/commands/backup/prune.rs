//! `cargo xtask backup prune`: removes the backups that no rule keeps, and what interrupted ones have left.

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::list::{self, names};
use super::store;
use crate::cli::BackupPruneArgs;
use crate::commands::restore::old::Replaced;
use crate::context::Context;
use crate::data::backup::manifest::{Manifest, Origin};
use crate::data::backup::retention::{self, Candidate, State, Verdict};
use crate::data::backup::store::{Kept, Partial, Store};
use crate::stack::manifest::Backup as Rule;
use crate::ui::{self, Exit, failure, paint, table, units};

/// What is to be done; the dry run prints it, and the run walks it.
#[derive(Debug)]
struct Plan {
    backups: Vec<Decided>,
    /// Left by interrupted runs.
    partials: Vec<Partial>,
    /// What restores have replaced, if that is to go as well.
    replaced: Vec<Replaced>,
}

#[derive(Debug)]
struct Decided {
    kept: Kept,
    origin: Option<Origin>,
    bytes: u64,
    verdict: Verdict,
}

pub async fn run(cx: &Context, args: &BackupPruneArgs) -> Result<Exit> {
    // What is being written now is no leftover: nobody writes while this holds the lock.
    let _lock = cx.lock().await?;
    let store = store(cx, args.at.as_deref())?;
    let replaced = match cx.instance()?.filter(|_| args.old_databases) {
        Some(instance) => Replaced::of(cx, &instance, &args.names).await?,
        None => Vec::new(),
    };
    let plan = plan(&store, &names(cx, &store, &args.names)?, &rule(cx.stack.backup, args), replaced)?;
    if args.json {
        ui::json(&as_json(cx, args, &plan))?;
    } else if args.dry_run {
        ui::data(&plan.rendered())?;
    } else {
        ui::tell(plan.rendered());
    }
    let removed = plan.removed();
    if args.dry_run {
        ui::tell(plan.summary("would go", "would stay"));
        return Ok(Exit::Done);
    }
    if removed.is_empty() && plan.partials.is_empty() && plan.replaced.is_empty() {
        ui::tell(plan.summary("went", "stay"));
        return Ok(Exit::Done);
    }
    let loses_something = !removed.is_empty() || !plan.replaced.is_empty();
    if loses_something && !args.yes {
        let mut words = vec!["cargo xtask backup prune".to_owned()];
        words.extend(args.names.iter().cloned());
        words.extend(args.old_databases.then(|| "--old-databases".to_owned()));
        words.extend(args.at.iter().map(|at| format!("--at '{}'", at.display())));
        cx.agree(&format!("{} --yes{}", words.join(" "), cx.stack_option()), "nothing was removed").await?;
    }
    let mut errors = Vec::new();
    // One that cannot be removed is no reason to keep the others.
    errors.extend(plan.partials.iter().filter_map(|partial| partial.remove().err()));
    errors.extend(removed.iter().filter_map(|decided| decided.kept.remove().err()));
    for replaced in &plan.replaced {
        errors.extend(replaced.let_go().await.err());
    }
    failure::all_of(errors, Exit::Failed, |count| format!("{count} of them could not be removed"))?;
    ui::tell(plan.summary("went", "stay"));
    Ok(Exit::Done)
}

/// The manifest's rule, with what the person says otherwise.
fn rule(written: Rule, args: &BackupPruneArgs) -> Rule {
    Rule {
        keep_last: args.keep_last.unwrap_or(written.keep_last),
        keep_daily: args.keep_daily.unwrap_or(written.keep_daily),
        keep_weekly: args.keep_weekly.unwrap_or(written.keep_weekly),
        keep_monthly: args.keep_monthly.unwrap_or(written.keep_monthly),
    }
}

fn plan(store: &Store, names: &[String], rule: &Rule, replaced: Vec<Replaced>) -> Result<Plan> {
    let partials = store.partials(names)?;
    let mut backups = Vec::new();
    for name in names {
        let mut all: Vec<(Kept, Result<Manifest>)> =
            store.list(name)?.into_iter().map(|kept| (kept.clone(), kept.manifest())).collect();
        all.retain(|(kept, _)| !partials.iter().any(|partial| partial.is(kept)));
        let candidates: Vec<Candidate> = all.iter().map(|(kept, manifest)| candidate(kept, manifest)).collect();
        let verdicts = retention::decide(rule, &candidates, &TimeZone::system());
        backups.extend(all.into_iter().zip(verdicts).map(|((kept, manifest), verdict)| {
            let (bytes, origin) = manifest.map_or((0, None), |manifest| (manifest.bytes(), manifest.origin));
            Decided { kept, origin, bytes, verdict }
        }));
    }
    Ok(Plan { backups, partials, replaced })
}

fn candidate(kept: &Kept, manifest: &Result<Manifest>) -> Candidate {
    let state = match (manifest, kept.verified()) {
        (Err(_), _) => State::Broken,
        (Ok(_), Some(_)) => State::Verified,
        (Ok(_), None) => State::Unverified,
    };
    let manifest = manifest.as_ref().ok();
    let taken = manifest.map(|manifest| manifest.taken).or(kept.time());
    let origin = manifest.and_then(|manifest| manifest.origin.clone());
    Candidate { origin, taken: taken.unwrap_or_default(), state }
}

impl Plan {
    fn removed(&self) -> Vec<&Decided> {
        self.backups.iter().filter(|decided| decided.verdict == Verdict::Remove).collect()
    }

    fn rendered(&self) -> String {
        let mut sound = self.backups.iter().filter(|decided| decided.verdict != Verdict::Broken);
        let first = sound.next().map(|decided| &decided.origin);
        let is_shared = sound.any(|decided| Some(&decided.origin) != first);
        let mut rows: Vec<Vec<String>> = self
            .backups
            .iter()
            .map(|Decided { kept, origin, bytes, verdict }| {
                let (word, why) = match verdict {
                    Verdict::Keep(reasons) => (
                        paint(ui::GOOD, "keep"),
                        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                    ),
                    Verdict::Remove => (paint(ui::WARNING, "remove"), String::new()),
                    Verdict::Broken => (
                        paint(ui::BAD, "broken"),
                        format!("left alone: `cargo xtask backup show {}` says why", kept.shown()),
                    ),
                };
                let size = if *verdict == Verdict::Broken { String::new() } else { units::megabytes(*bytes) };
                let from = match is_shared && *verdict != Verdict::Broken {
                    true => format!("from {}", list::origin(origin.as_ref())),
                    false => String::new(),
                };
                vec![kept.name.clone(), kept.backup.clone(), size, word, why, from]
            })
            .collect();
        rows.extend(self.partials.iter().map(|partial| {
            vec![
                partial.name.clone(),
                partial.shown.clone(),
                String::new(),
                paint(ui::WARNING, "remove"),
                "left by an interrupted run".to_owned(),
            ]
        }));
        rows.extend(self.replaced().map(|(name, replaced, bytes)| {
            vec![
                name.to_owned(),
                "old database".to_owned(),
                units::megabytes(bytes),
                paint(ui::WARNING, "remove"),
                format!("replaced {}", units::clock(replaced)),
            ]
        }));
        table::columns(rows, &[2])
    }

    fn replaced(&self) -> impl Iterator<Item = (&str, Timestamp, u64)> {
        self.replaced.iter().flat_map(Replaced::each)
    }

    /// `2 backups went, up to 12.4 MB; 7 stay; 1 is broken`.
    fn summary(&self, gone: &str, rest: &str) -> String {
        let removed = self.removed();
        let kept = self.backups.iter().filter(|decided| matches!(decided.verdict, Verdict::Keep(_))).count();
        let broken = self.backups.len() - removed.len() - kept;
        let mut words = match removed.len() {
            0 => vec![format!("nothing to remove; {} {rest}", units::plural(kept, "backup"))],
            count => {
                let bytes = units::megabytes(removed.iter().map(|decided| decided.bytes).sum());
                vec![format!("{} {gone}, up to {bytes}", units::plural(count, "backup")), format!("{kept} {rest}")]
            }
        };
        if !self.partials.is_empty() {
            words.push(format!("{} {gone}", units::plural(self.partials.len(), "leftover")));
        }
        let replaced = self.replaced().count();
        if replaced > 0 {
            words.push(format!("{} {gone}", units::plural(replaced, "old database")));
        }
        if broken > 0 {
            words.push(format!("{broken} broken, left alone"));
        }
        format!("\n{}", words.join("; "))
    }
}

fn as_json(cx: &Context, args: &BackupPruneArgs, plan: &Plan) -> Value {
    let backups = plan.backups.iter().map(|Decided { kept, origin, bytes, verdict }| {
        let (word, reasons) = match verdict {
            Verdict::Keep(reasons) => ("keep", reasons.as_slice()),
            Verdict::Remove => ("remove", &[][..]),
            Verdict::Broken => ("broken", &[][..]),
        };
        json!({
            "name": kept.name, "backup": kept.backup, "origin": origin, "bytes": bytes, "verdict": word,
            "reasons": reasons,
        })
    });
    let leftovers = plan.partials.iter().map(|partial| json!({ "name": partial.name, "folder": partial.shown }));
    let replaced = plan.replaced();
    let replaced =
        replaced.map(|(name, replaced, bytes)| json!({ "name": name, "replaced": replaced, "bytes": bytes }));
    json!({
        "stack": cx.stack.name,
        "dry_run": args.dry_run,
        "backups": backups.collect::<Vec<_>>(),
        "leftovers": leftovers.collect::<Vec<_>>(),
        "old_databases": replaced.collect::<Vec<_>>(),
    })
}
