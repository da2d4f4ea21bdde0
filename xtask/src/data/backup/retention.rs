//! Which backups stay: the last ones, and the latest of each of the last days, weeks and months (grandfather, father, son).
//! Pure: backups of one name in, a verdict with its reasons for each out. Where several checkouts keep theirs in one place,
//! each is decided of as if it were alone.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::Serialize;

use super::manifest::Origin;
use crate::stack::manifest::Backup as Rule;

/// A backup as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Those that do not say it are one series.
    pub origin: Option<Origin>,
    pub taken: Timestamp,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Verified,
    Unverified,
    /// It does not say what it is: it counts for nothing, and it is not for a rule to remove it.
    Broken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// For at least one reason.
    Keep(Vec<Reason>),
    Remove,
    Broken,
}

/// Why a backup stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Last,
    /// The latest of a day.
    Daily,
    /// The latest of a week, which begins on Monday.
    Weekly,
    /// The latest of a month.
    Monthly,
    /// No later one is verified.
    LastVerified,
    /// There is no other.
    Only,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Reason::Last => "last",
            Reason::Daily => "daily",
            Reason::Weekly => "weekly",
            Reason::Monthly => "monthly",
            Reason::LastVerified => "the last that is verified",
            Reason::Only => "the only one",
        })
    }
}

/// A verdict for each, in their order. Days begin at midnight of `zone`.
pub fn decide(rule: &Rule, backups: &[Candidate], zone: &TimeZone) -> Vec<Verdict> {
    let mut series: BTreeMap<Option<&Origin>, Vec<usize>> = BTreeMap::new();
    for (at, backup) in backups.iter().enumerate().filter(|(_, backup)| backup.state != State::Broken) {
        series.entry(backup.origin.as_ref()).or_default().push(at);
    }
    let mut verdicts = vec![Verdict::Broken; backups.len()];
    for mut newest_first in series.into_values() {
        newest_first.sort_by_key(|at| std::cmp::Reverse(backups[*at].taken));
        for (at, reasons) in reasons(rule, backups, &newest_first, zone) {
            verdicts[at] = if reasons.is_empty() { Verdict::Remove } else { Verdict::Keep(reasons) };
        }
    }
    verdicts
}

/// Why each of one series stays.
fn reasons(
    rule: &Rule,
    backups: &[Candidate],
    newest_first: &[usize],
    zone: &TimeZone,
) -> BTreeMap<usize, Vec<Reason>> {
    let mut reasons: BTreeMap<usize, Vec<Reason>> = newest_first.iter().map(|at| (*at, Vec::new())).collect();
    let mut keep = |at: &usize, reason| reasons.entry(*at).or_default().push(reason);
    for at in newest_first.iter().take(rule.keep_last as usize) {
        keep(at, Reason::Last);
    }
    let periods = [
        (Reason::Daily, rule.keep_daily, itself as fn(Date) -> Date),
        (Reason::Weekly, rule.keep_weekly, monday_of),
        (Reason::Monthly, rule.keep_monthly, Date::first_of_month),
    ];
    for (reason, count, begin_of) in periods {
        let mut kept: Vec<Date> = Vec::new();
        for at in newest_first {
            let begin = begin_of(backups[*at].taken.to_zoned(zone.clone()).date());
            if kept.len() < count as usize && !kept.contains(&begin) {
                kept.push(begin);
                keep(at, reason);
            }
        }
    }
    if let Some(at) = newest_first.iter().find(|at| backups[**at].state == State::Verified) {
        keep(at, Reason::LastVerified);
    }
    // Whatever the rule says, something stays to go back to.
    if let Some(newest) = newest_first.first()
        && reasons.values().all(Vec::is_empty)
    {
        reasons.entry(*newest).or_default().push(Reason::Only);
    }
    reasons
}

fn itself(day: Date) -> Date {
    day
}

fn monday_of(day: Date) -> Date {
    day.saturating_sub(i64::from(day.weekday().to_monday_zero_offset()).days())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Rule = Rule { keep_last: 0, keep_daily: 0, keep_weekly: 0, keep_monthly: 0 };

    fn at(time: &str, state: State) -> Candidate {
        Candidate { origin: None, taken: time.parse().unwrap(), state }
    }

    fn of(machine: &str) -> Option<Origin> {
        Some(Origin { machine: machine.to_owned(), checkout: "/src/effect".to_owned() })
    }

    fn unverified(times: &[&str]) -> Vec<Candidate> {
        times.iter().map(|time| at(time, State::Unverified)).collect()
    }

    fn kept(rule: &Rule, backups: &[Candidate]) -> Vec<usize> {
        let verdicts = decide(rule, backups, &TimeZone::UTC);
        (0..backups.len()).filter(|at| matches!(verdicts[*at], Verdict::Keep(_))).collect()
    }

    #[test]
    fn the_last_ones_stay_whatever_their_order() {
        let backups = unverified(&["2026-11-20T03:00:00Z", "2026-11-22T03:00:00Z", "2026-11-21T03:00:00Z"]);
        assert_eq!(kept(&Rule { keep_last: 2, ..NOTHING }, &backups), [1, 2]);
        assert_eq!(kept(&Rule { keep_last: 9, ..NOTHING }, &backups), [0, 1, 2]);
        assert_eq!(kept(&NOTHING, &backups), [1], "one stays even where nothing is to be kept");
        assert!(decide(&NOTHING, &[], &TimeZone::UTC).is_empty());
    }

    #[test]
    fn a_day_a_week_and_a_month_keep_their_latest() {
        let backups = unverified(&[
            "2026-09-30T23:00:00Z",
            "2026-10-31T03:00:00Z",
            "2026-11-15T03:00:00Z", // a Sunday
            "2026-11-16T03:00:00Z", // a Monday
            "2026-11-22T03:00:00Z",
            "2026-11-22T09:00:00Z",
        ]);
        assert_eq!(kept(&Rule { keep_daily: 2, ..NOTHING }, &backups), [3, 5]);
        assert_eq!(kept(&Rule { keep_weekly: 2, ..NOTHING }, &backups), [2, 5], "weeks begin on Monday");
        assert_eq!(kept(&Rule { keep_monthly: 3, ..NOTHING }, &backups), [0, 1, 5]);
        let verdicts =
            decide(&Rule { keep_last: 1, keep_daily: 1, keep_weekly: 1, keep_monthly: 1 }, &backups, &TimeZone::UTC);
        use Reason::{Daily, Last, Monthly, Weekly};
        assert_eq!(verdicts[5], Verdict::Keep(vec![Last, Daily, Weekly, Monthly]), "one may have every reason");
    }

    #[test]
    fn days_are_those_of_the_place() {
        // Half past midnight of the 22nd in Tokyo, and noon of the same day there.
        let backups = unverified(&["2026-11-21T15:30:00Z", "2026-11-22T03:00:00Z"]);
        let rule = Rule { keep_daily: 2, ..NOTHING };
        assert_eq!(kept(&rule, &backups), [0, 1]);
        let tokyo = TimeZone::fixed(jiff::tz::offset(9));
        assert_eq!(decide(&rule, &backups, &tokyo)[0], Verdict::Remove);
    }

    #[test]
    fn the_last_verified_one_stays_and_a_broken_one_counts_for_nothing() {
        let mut backups = unverified(&["2026-11-19T03:00:00Z", "2026-11-20T03:00:00Z", "2026-11-21T03:00:00Z"]);
        backups[0].state = State::Verified;
        backups[1].state = State::Verified;
        backups.push(at("2026-11-22T03:00:00Z", State::Broken));
        let verdicts = decide(&Rule { keep_last: 1, ..NOTHING }, &backups, &TimeZone::UTC);
        let expected = [
            Verdict::Remove,
            Verdict::Keep(vec![Reason::LastVerified]),
            Verdict::Keep(vec![Reason::Last]),
            Verdict::Broken,
        ];
        assert_eq!(verdicts, expected);
        let only_broken = [at("2026-11-22T03:00:00Z", State::Broken)];
        assert_eq!(decide(&NOTHING, &only_broken, &TimeZone::UTC), [Verdict::Broken]);
    }

    #[test]
    fn nobody_pushes_the_backups_of_another_out() {
        let mut backups = unverified(&["2026-11-19T03:00:00Z", "2026-11-20T03:00:00Z", "2026-11-21T03:00:00Z"]);
        backups[0].state = State::Verified;
        let rule = Rule { keep_last: 1, ..NOTHING };
        backups.extend(backups.clone().into_iter().map(|backup| Candidate { origin: of("laptop"), ..backup }));
        assert_eq!(kept(&rule, &backups), [0, 2, 3, 5]);
        assert_eq!(kept(&NOTHING, &backups), [0, 3], "the last verified one of each");
        backups[4].origin = of("desk");
        assert_eq!(kept(&rule, &backups), [0, 2, 3, 4, 5]);
    }

    /// A generator of numbers is all that the next test needs of one.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        }
    }

    #[test]
    fn what_must_hold_of_every_decision_does() {
        let mut next = numbers(7);
        for round in 0..2000 {
            let count = next(40);
            let backups: Vec<Candidate> = (0..count)
                .map(|_| Candidate {
                    origin: [None, of("laptop")][next(2) as usize].clone(),
                    taken: Timestamp::from_second(1_700_000_000 + i64::try_from(next(40_000_000)).unwrap()).unwrap(),
                    state: [State::Verified, State::Unverified, State::Unverified, State::Broken][next(4) as usize],
                })
                .collect();
            let mut number = || u32::try_from(next(8)).unwrap();
            let rule =
                Rule { keep_last: number(), keep_daily: number(), keep_weekly: number(), keep_monthly: number() };
            let verdicts = decide(&rule, &backups, &TimeZone::UTC);
            let keeps = |at: usize| matches!(verdicts[at], Verdict::Keep(_));
            for origin in [None, of("laptop")] {
                let sound = (0..backups.len()).filter(|at| backups[*at].state != State::Broken);
                let sound: Vec<usize> = sound.filter(|at| backups[*at].origin == origin).collect();
                let newest = |state: &dyn Fn(State) -> bool| {
                    sound.iter().copied().filter(|at| state(backups[*at].state)).max_by_key(|at| backups[*at].taken)
                };
                // The last verified one and, where anything is left at all, the newest are never removed.
                assert!(newest(&|state| state == State::Verified).is_none_or(keeps), "round {round}");
                if rule != NOTHING {
                    assert!(newest(&|_| true).is_none_or(keeps), "round {round}");
                }
                let kept = sound.iter().filter(|at| keeps(**at)).count();
                assert_eq!(sound.is_empty(), kept == 0, "round {round}");
                let most = rule.keep_last + rule.keep_daily + rule.keep_weekly + rule.keep_monthly + 1;
                assert!(kept <= most as usize, "round {round}");
            }
            for at in 0..backups.len() {
                assert_eq!(verdicts[at] == Verdict::Broken, backups[at].state == State::Broken, "round {round}");
                assert_ne!(verdicts[at], Verdict::Keep(vec![]), "round {round}: no reason");
            }
            // Doing it changes nothing that a second look would decide otherwise.
            let left: Vec<Candidate> = (0..backups.len())
                .filter(|at| verdicts[*at] != Verdict::Remove)
                .map(|at| backups[at].clone())
                .collect();
            assert!(!decide(&rule, &left, &TimeZone::UTC).contains(&Verdict::Remove), "round {round}");
            // To keep more never removes what less would keep.
            let more = Rule { keep_last: rule.keep_last + 1, keep_weekly: rule.keep_weekly + 1, ..rule };
            for (less, more) in verdicts.iter().zip(decide(&more, &backups, &TimeZone::UTC)) {
                let is_only = *less == Verdict::Keep(vec![Reason::Only]);
                assert!(is_only || !matches!(less, Verdict::Keep(_)) || more != Verdict::Remove, "round {round}");
            }
        }
    }
}
