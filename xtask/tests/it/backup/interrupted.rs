//! Helper or server killed at any moment of a backup and of a restore: the live database answers the same rows, nothing half
//! done is taken for a backup, and the next run works.

use std::time::{Duration, Instant};

use super::{SIDES, beside, files, fill, latest, listed, people, rows};
use crate::support::{Checkout, Engine, Random, finish, is_running, on_both_engines, pid_of, signal, wait_until};

const BACKUP: [&str; 3] = ["backup", "learning", "--json"];
const RESTORE: [&str; 3] = ["restore", "learning", "--json"];

on_both_engines! {
    killed_at_any_moment_of_a_backup_nothing_is_taken_for_one
    killed_at_any_moment_of_a_restore_the_same_rows_are_there
}

/// A checkout with enough rows for something to happen while they are read.
fn checkout_on(engine: Engine) -> Option<Checkout> {
    let checkout = Checkout::on(engine)?;
    checkout.run(&["up", "learning"]).ok();
    fill(&checkout, 30_000);
    Some(checkout)
}

/// Runs it once to its end, then again and again with an end by a signal somewhere within that time.
fn interrupt(checkout: &Checkout, engine: Engine, verb: &[&str], seed: u64, check: impl Fn(&str)) {
    let begun = Instant::now();
    checkout.run(verb).ok();
    let whole = u64::try_from(begun.elapsed().as_millis()).unwrap();
    let mut random = Random(seed);
    let rounds = if engine == Engine::Native { 20 } else { 6 };
    for round in 0..rounds {
        let moment = Duration::from_millis(random.below(whole + whole / 10));
        let name = ["KILL", "KILL", "INT"][round % 3];
        let helper = checkout.spawn(verb);
        std::thread::sleep(moment);
        signal(pid_of(&helper), name);
        let ran = finish(helper);
        assert!(ran.code.is_none_or(|code| code == 0 || code == 130), "{name} after {moment:?}: {}", ran.err);
        check(&format!("{name} after {moment:?}"));
    }
}

/// No client of the helper works on in the server once the helper is gone.
#[track_caller]
fn assert_nobody_is_left(checkout: &Checkout) {
    let clients =
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    wait_until("its clients are gone", || checkout.sql("learning", clients) == "0");
}

fn killed_at_any_moment_of_a_backup_nothing_is_taken_for_one(engine: Engine) {
    let Some(checkout) = checkout_on(engine) else { return };
    let live = people(&checkout);
    interrupt(&checkout, engine, &BACKUP, 17, |when| {
        assert_eq!(people(&checkout), live, "{when}");
        for backup in listed(&checkout) {
            assert!(backup["error"].is_null(), "{when}: {backup}");
        }
    });
    assert_nobody_is_left(&checkout);
    checkout.run(&BACKUP).ok();
    checkout.run(&["backup", "verify", "--every"]).ok();
    let kept = listed(&checkout).len();
    let folder = latest(&checkout, "learning").with_file_name("");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), kept, "{:?}", files(&folder));
}

fn killed_at_any_moment_of_a_restore_the_same_rows_are_there(engine: Engine) {
    let Some(checkout) = checkout_on(engine) else { return };
    let live = people(&checkout);
    checkout.run(&BACKUP).ok();
    interrupt(&checkout, engine, &RESTORE, 19, |when| {
        assert_eq!(rows(&people(&checkout)), rows(&live), "{when}");
    });
    checkout.run(&RESTORE).ok();
    assert_eq!(beside(&checkout, SIDES), "");
    assert_nobody_is_left(&checkout);
    assert_eq!(rows(&people(&checkout)), rows(&live));
    checkout.run(&["restore", "learning", "--drop-old", "--yes"]).ok();
}

#[test]
fn a_server_that_dies_under_a_backup_or_a_restore_loses_nothing() {
    let Some(checkout) = checkout_on(Engine::Native) else { return };
    let live = people(&checkout);
    checkout.run(&BACKUP).ok();
    let mut random = Random(23);
    for round in 0..20 {
        let verb = if round % 2 == 0 { &BACKUP } else { &RESTORE };
        let helper = checkout.spawn(verb);
        std::thread::sleep(Duration::from_millis(random.below(500)));
        let server = checkout.pid("learning");
        signal(server, "KILL");
        let ran = finish(helper);
        wait_until("the killed server is gone", || !is_running(server));
        assert!(matches!(ran.code, Some(0 | 1)), "{verb:?} in round {round}: {:?} {}", ran.code, ran.err);
        checkout.run(&["up", "learning"]).ok();
        assert_eq!(rows(&people(&checkout)), rows(&live), "{verb:?} in round {round}");
        assert!(listed(&checkout).iter().all(|backup| backup["error"].is_null()));
    }
    checkout.run(&BACKUP).ok();
    checkout.run(&RESTORE).ok();
    checkout.run(&["backup", "verify", "--every"]).ok();
    assert_eq!(beside(&checkout, SIDES), "");
    assert_eq!(rows(&people(&checkout)), rows(&live));
}
