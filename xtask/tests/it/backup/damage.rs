//! Broken backups: a bit, an end, a file that is not what was written is found, and nothing is restored from it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{REPLACED, SIDES, beside, files, fill, latest, listed, people};
use crate::support::{Checkout, Random};

/// Every so many breakages, a restore is tried.
const TRIED: usize = 20;

/// A backup of two members, whose files are broken one after another.
struct Victim {
    checkout: Checkout,
    files: Vec<PathBuf>,
    live: String,
}

impl Victim {
    fn new() -> Victim {
        let checkout = Checkout::new();
        checkout.run(&["up", "learning", "redis"]).ok();
        fill(&checkout, 2000);
        checkout.run(&["redis-cli", "SET", "kept", "yes"]).ok();
        checkout.run(&["backup"]).ok();
        // The live database has moved on: a restore would show.
        checkout.sql("learning", "UPDATE people SET name = 'live' WHERE id = 1");
        let files = ["learning", "redis"].iter().flat_map(|name| files(&latest(&checkout, name))).collect();
        let live = people(&checkout);
        Victim { checkout, files, live }
    }

    /// A file by chance: a large one no more often than a small one, which the manifest is.
    fn file(&self, random: &mut Random) -> &Path {
        &self.files[usize::try_from(random.below(self.files.len() as u64)).unwrap()]
    }

    /// Breaks one file, and mends it again.
    #[track_caller]
    fn is_found(&self, round: usize, path: &Path, what: &str, break_it: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        let whole = fs::read(path).unwrap();
        match break_it(&whole) {
            Some(broken) => fs::write(path, broken).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let verified = self.checkout.run(&["backup", "verify", "--json"]);
        assert_eq!(verified.code, Some(3), "{what} in {}: {}", path.display(), verified.err);
        let results = verified.json();
        let (broken, name) = match path.components().any(|part| part.as_os_str() == "redis") {
            true => (1, "redis"),
            false => (0, "learning"),
        };
        let results = results["backups"].as_array().unwrap();
        assert_eq!(results[broken]["name"], name);
        assert!(results[broken]["error"].is_string() && results[1 - broken]["error"].is_null(), "{results:?}");
        if round.is_multiple_of(TRIED) && name == "learning" {
            self.checkout.run(&["restore", "learning"]).exits(3).says("is broken");
            self.checkout.run(&["backup", "list"]).ok();
            assert_eq!(people(&self.checkout), self.live);
            assert_eq!(beside(&self.checkout, SIDES) + &beside(&self.checkout, REPLACED), "");
        }
        fs::write(path, whole).unwrap();
    }
}

#[test]
fn every_flipped_bit_every_cut_and_every_lost_file_is_found_and_never_restored() {
    let victim = Victim::new();
    let mut random = Random(5);
    for round in 0..200 {
        let path = victim.file(&mut random);
        let (at, bit) = (random.below(fs::metadata(path).unwrap().len()), random.below(8));
        victim.is_found(round, path, &format!("bit {bit} of byte {at}"), |whole| {
            let mut broken = whole.to_vec();
            broken[usize::try_from(at).unwrap()] ^= 1 << bit;
            Some(broken)
        });
    }
    for round in 0..50 {
        let path = victim.file(&mut random);
        let end = random.below(fs::metadata(path).unwrap().len());
        let cut = |whole: &[u8]| Some(whole[..usize::try_from(end).unwrap()].to_vec());
        victim.is_found(round, path, &format!("cut at {end}"), cut);
    }
    for (round, path) in victim.files.iter().enumerate() {
        victim.is_found(round, path, "lost", |_| None);
    }
    let longer = |whole: &[u8]| Some([whole, b"\0"].concat());
    victim.is_found(0, &victim.files[0], "a byte more", longer);
    victim.checkout.run(&["backup", "verify"]).ok();
    assert_eq!(people(&victim.checkout), victim.live);
    victim.checkout.run(&["restore", "learning"]).ok();
    assert_ne!(people(&victim.checkout), victim.live);
}

/// What `verify` notes is a file that can break, too.
#[test]
fn a_note_of_a_verification_that_is_broken_or_anothers_says_nothing() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning"]).ok();
    checkout.run(&["backup"]).ok();
    checkout.run(&["backup", "verify"]).ok();
    let said = listed(&checkout)[0]["verified"].clone();
    assert_eq!(said["was_restored"], false);
    let note = latest(&checkout, "learning").join("verified.json");
    let whole = fs::read(&note).unwrap();
    let mut random = Random(13);
    for _ in 0..60 {
        let mut broken = whole.clone();
        let at = usize::try_from(random.below(whole.len() as u64)).unwrap();
        broken[at] ^= 1 << random.below(8);
        fs::write(&note, &broken).unwrap();
        let found = listed(&checkout)[0]["verified"].clone();
        assert!(found.is_null() || found == said, "{found} by {}", String::from_utf8_lossy(&broken));
    }
    for cut in 0..whole.len() / 8 {
        fs::write(&note, &whole[..cut * 8]).unwrap();
        assert!(listed(&checkout)[0]["verified"].is_null());
    }
    // Beside another backup it proves nothing of that one.
    checkout.run(&["backup"]).ok();
    fs::write(latest(&checkout, "learning").join("verified.json"), &whole).unwrap();
    assert!(listed(&checkout)[1]["verified"].is_null());
}
