//! Cargo.lock against the manifests of the workspace, read as files: `cargo metadata --locked` would say less (no more than
//! that something differs), and without a network it fails for reasons of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};
use toml::{Table, Value};

use super::{Finding, Level};
use crate::files;
use crate::ui::units;

const MANIFEST: &str = "Cargo.toml";
const LOCK: &str = "Cargo.lock";
/// The newest format of Cargo.lock that is known here: Cargo writes it from 1.78 on.
const NEWEST_FORMAT: i64 = 4;
/// What differs is told up to here, and counted from there on.
const MOST_TOLD: usize = 6;
/// Where a manifest may name crates, by itself or below a target.
const DEPENDENCIES: [&str; 2] = ["dependencies", "build-dependencies"];
const DEV_DEPENDENCIES: &str = "dev-dependencies";

/// The manifests that a repository's Cargo.lock is for.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    packages: Vec<Package>,
    /// Manifests that cannot be read, and why.
    unreadable: Vec<String>,
}

#[derive(Debug)]
struct Package {
    /// Relative to the root.
    manifest: PathBuf,
    name: String,
    version: String,
    rust_version: Option<String>,
    wanted: Vec<Wanted>,
}

/// A crate that a manifest names.
#[derive(Debug)]
struct Wanted {
    name: String,
    requirement: String,
}

impl Workspace {
    /// `None`: there is no Cargo.toml at the root, and so nothing to agree.
    pub fn read(root: &Path) -> Option<Workspace> {
        let mut workspace = Workspace { root: root.to_owned(), packages: Vec::new(), unreadable: Vec::new() };
        if !root.join(MANIFEST).exists() {
            return None;
        }
        let Some(top) = workspace.table(Path::new("")) else { return Some(workspace) };
        let empty = Table::new();
        let shared = top.get("workspace").and_then(Value::as_table).unwrap_or(&empty);
        let mut left: Vec<PathBuf> = vec![PathBuf::new()];
        left.extend(texts(shared, "members").flat_map(|pattern| folders_of(root, pattern)));
        let excluded: BTreeSet<PathBuf> = texts(shared, "exclude").map(PathBuf::from).collect();
        let mut seen = BTreeSet::new();
        while let Some(folder) = left.pop() {
            if !seen.insert(folder.clone()) {
                continue;
            }
            let Some(manifest) = workspace.table(&folder) else { continue };
            // What lies in the workspace's folder is a member, and only a member's tests are locked.
            let is_member = !folder.starts_with("..") && !excluded.iter().any(|excluded| folder.starts_with(excluded));
            if let Some((package, paths)) = Package::read(&folder, &manifest, shared, is_member) {
                workspace.packages.push(package);
                left.extend(paths);
            }
        }
        workspace.packages.sort_by(|a, b| a.manifest.cmp(&b.manifest));
        Some(workspace)
    }

    fn table(&mut self, folder: &Path) -> Option<Table> {
        let path = folder.join(MANIFEST);
        let found = match files::read_text(&self.root.join(&path)) {
            Ok(text) => text.parse().map_err(|error: toml::de::Error| error.message().to_owned()),
            Err(unreadable) => Err(unreadable.found),
        };
        found.map_err(|why| self.unreadable.push(format!("{}: {why}", path.display()))).ok()
    }

    /// Each manifest that asks for a toolchain, and for which.
    pub fn rust_versions(&self) -> Vec<(String, String)> {
        let asking = |package: &Package| Some((package.manifest.display().to_string(), package.rust_version.clone()?));
        self.packages.iter().filter_map(asking).collect()
    }

    /// Whether Cargo.lock is there, can be read, and is in step with the manifests.
    pub fn lock(&self) -> Vec<Finding> {
        if !self.unreadable.is_empty() {
            return vec![Finding::new("cargo-manifest", Level::Error, self.unreadable.join("; "))];
        }
        let restore = "`git checkout Cargo.lock`, or `cargo generate-lockfile` where there is none to come back to";
        let path = self.root.join(LOCK);
        if !path.exists() {
            let text = "there is no Cargo.lock, which pins every crate";
            return vec![Finding::new("cargo-lock-missing", Level::Error, text).fix(restore)];
        }
        let lock = match files::read_text(&path) {
            Ok(text) => Lock::parse(&text),
            Err(unreadable) => Err(Unread::Damaged(unreadable.found)),
        };
        match lock {
            Ok(lock) => vec![self.compared(&lock)],
            Err(Unread::Damaged(why)) => {
                let text = format!("Cargo.lock cannot be read: {why}");
                vec![Finding::new("cargo-lock-unreadable", Level::Error, text).fix(restore)]
            }
            Err(Unread::TooNew(format)) => {
                let text = format!("Cargo.lock is of format {format}, newer than {NEWEST_FORMAT}: not compared");
                vec![Finding::new("cargo-lock-new", Level::Warning, text).fix("`rustup update`, or `nix develop`")]
            }
        }
    }

    fn compared(&self, lock: &Lock) -> Finding {
        let mut slips = lock.slips();
        slips.extend(self.packages.iter().flat_map(|package| package.slips(lock)));
        let is_here = |locked: &Locked| self.packages.iter().any(|package| package.name == locked.name);
        let gone = lock.packages.iter().filter(|locked| locked.source.is_none() && !is_here(locked));
        slips.extend(gone.map(|locked| format!("it has `{}`, which is no package here any more", locked.name)));
        if slips.is_empty() {
            let crates = units::count(lock.packages.len() as u64);
            let manifests = units::plural(self.packages.len(), "manifest");
            let text = format!("Cargo.lock pins {crates} packages, in step with {manifests}");
            return Finding::new("cargo-lock", Level::Info, text);
        }
        let more = slips.len().saturating_sub(MOST_TOLD);
        slips.truncate(MOST_TOLD);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        let text = format!("Cargo.lock does not agree: {}{more}", slips.join("; "));
        Finding::new("cargo-lock-stale", Level::Error, text)
            .fix("`cargo update --workspace` changes no more than it must; `git diff Cargo.lock` shows what")
    }
}

impl Package {
    /// The package of a manifest, if it has one, and the folders of the packages that it names by path.
    fn read(folder: &Path, manifest: &Table, shared: &Table, is_member: bool) -> Option<(Package, Vec<PathBuf>)> {
        let package = manifest.get("package")?.as_table()?;
        let empty = Table::new();
        let of_all = shared.get("package").and_then(Value::as_table).unwrap_or(&empty);
        let field = |key: &str| {
            let own = package.get(key)?;
            own.as_str().or_else(|| of_all.get(key)?.as_str()).map(str::to_owned)
        };
        let for_targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
        let places = std::iter::once(manifest).chain(for_targets.filter_map(Value::as_table));
        let kinds = DEPENDENCIES.into_iter().chain(is_member.then_some(DEV_DEPENDENCIES));
        let tables = places.flat_map(|place| kinds.clone().filter_map(|kind| place.get(kind)?.as_table()));
        let (mut wanted, mut paths) = (Vec::new(), Vec::new());
        for (key, own) in tables.flatten() {
            let is_shared = own.get("workspace").is_some();
            let given = match is_shared {
                true => shared.get("dependencies").and_then(|all| all.get(key)).unwrap_or(own),
                false => own,
            };
            let text = |field: &str| given.get(field).and_then(Value::as_str);
            let requirement = given.as_str().or_else(|| text("version")).unwrap_or("*").to_owned();
            wanted.push(Wanted { name: text("package").unwrap_or(key).to_owned(), requirement });
            let base = if is_shared { Path::new("") } else { folder };
            paths.extend(text("path").map(|path| plain(&base.join(path))));
        }
        let package = Package {
            manifest: folder.join(MANIFEST),
            name: field("name")?,
            version: field("version").unwrap_or_else(|| "0.0.0".to_owned()),
            rust_version: field("rust-version"),
            wanted,
        };
        Some((package, paths))
    }

    /// Where the lock is not of this manifest.
    fn slips(&self, lock: &Lock) -> Vec<String> {
        let own = |locked: &&Locked| locked.source.is_none() && locked.name == self.name;
        let Some(locked) = lock.packages.iter().find(own) else {
            return vec![format!("it has no `{}`", self.name)];
        };
        let manifest = self.manifest.display();
        let mut slips = Vec::new();
        if locked.version != self.version {
            slips.push(format!("it has `{} {}`, and {manifest} is {}", self.name, locked.version, self.version));
        }
        for Wanted { name, requirement } in &self.wanted {
            let versions: Vec<&str> = lock.chosen(locked, name).map(|chosen| chosen.version.as_str()).collect();
            let fits = |version: &&str| match (VersionReq::parse(requirement), Version::parse(version)) {
                (Ok(requirement), Ok(version)) => requirement.matches(&version),
                _ => false,
            };
            let asks = format!("{manifest} asks for `{name} {requirement}`");
            match (versions.is_empty(), versions.iter().any(fits)) {
                (true, _) => slips.push(format!("{asks}, and it has none for it")),
                (false, false) => slips.push(format!("{asks}, and it has {}", versions.join(" and "))),
                (false, true) => {}
            }
        }
        let is_wanted = |name: &str| self.wanted.iter().any(|wanted| wanted.name == name);
        let names = locked.dependencies.iter().map(|(name, _)| name).filter(|name| !is_wanted(name));
        slips.extend(names.map(|name| format!("it has `{name}` for `{}`, and {manifest} does not", self.name)));
        slips
    }
}

/// What Cargo.lock says.
#[derive(Debug)]
struct Lock {
    packages: Vec<Locked>,
}

#[derive(Debug)]
struct Locked {
    name: String,
    version: String,
    /// `None`: a package of the workspace, or beside it.
    source: Option<String>,
    checksum: Option<String>,
    /// Names, with a version where there are several packages of the name.
    dependencies: Vec<(String, Option<String>)>,
}

/// Why a lock says nothing.
#[derive(Debug)]
enum Unread {
    Damaged(String),
    TooNew(i64),
}

impl Lock {
    fn parse(text: &str) -> Result<Lock, Unread> {
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| Unread::Damaged(error.message().to_owned()))?;
        // The first two formats do not name theirs.
        let format = table.get("version").and_then(Value::as_integer).unwrap_or(1);
        if format > NEWEST_FORMAT {
            return Err(Unread::TooNew(format));
        }
        let packages = table.get("package").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let packages = packages.iter().map(|package| {
            let text = |key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
            let (Some(name), Some(version)) = (text("name"), text("version")) else {
                return Err(Unread::Damaged("a package without a name or a version".to_owned()));
            };
            let dependencies = package.as_table().into_iter().flat_map(|package| texts(package, "dependencies"));
            let dependencies = dependencies.filter_map(|dependency| {
                let mut words = dependency.split(' ');
                Some((words.next()?.to_owned(), words.next().map(str::to_owned)))
            });
            let dependencies = dependencies.collect();
            Ok(Locked { name, version, source: text("source"), checksum: text("checksum"), dependencies })
        });
        Ok(Lock { packages: packages.collect::<Result<_, _>>()? })
    }

    /// The packages of a name that another one depends on.
    fn chosen<'a>(&'a self, of: &'a Locked, name: &'a str) -> impl Iterator<Item = &'a Locked> {
        let named = of.dependencies.iter().filter(move |(dependency, _)| dependency == name);
        named.flat_map(move |(name, version)| self.named(name, version.as_deref()))
    }

    fn named<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> impl Iterator<Item = &'a Locked> {
        self.packages
            .iter()
            .filter(move |package| package.name == *name && version.is_none_or(|version| version == package.version))
    }

    /// Where it does not agree with itself.
    fn slips(&self) -> Vec<String> {
        let mut slips = BTreeSet::new();
        for package in &self.packages {
            for (name, version) in &package.dependencies {
                if self.named(name, version.as_deref()).next().is_none() {
                    let wanted = version.as_ref().map_or_else(|| name.clone(), |version| format!("{name} {version}"));
                    slips.insert(format!("`{}` needs `{wanted}`, which it does not have", package.name));
                }
            }
            let is_registered = package.source.as_ref().is_some_and(|source| !source.starts_with("git+"));
            let is_sum = |sum: &String| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_registered && !package.checksum.as_ref().is_some_and(is_sum) {
                slips.insert(format!("`{} {}` has no checksum", package.name, package.version));
            }
        }
        slips.into_iter().collect()
    }
}

/// The texts of a list in a table.
fn texts<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = &'a str> {
    table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The folders with a manifest that a member's pattern means; `*` stands for any part of one folder's name.
fn folders_of(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/') {
        let Some((before, after)) = part.split_once('*') else {
            found.iter_mut().for_each(|folder| folder.push(part));
            continue;
        };
        let below = found.into_iter().flat_map(|folder| {
            let entries = std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let fits = names.filter(|name| {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            });
            fits.map(|name| folder.join(name)).collect::<Vec<_>>()
        });
        found = below.filter(|folder| root.join(folder).join(MANIFEST).exists() || !pattern.ends_with(part)).collect();
    }
    found.iter().map(|folder| plain(folder)).collect()
}

/// A path without `.` and `..` where it can be.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of two crates, with all the ways to name a third; `change` may break its lock.
    fn finding(change: impl Fn(String) -> String) -> Finding {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            files::create_folder(path.parent().unwrap()).unwrap();
            files::write_atomically(&path, text.as_bytes(), 0o600).unwrap();
        };
        write(
            MANIFEST,
            "[workspace]\nmembers = ['crates/*']\npackage.version = '0.3.0'\n\
             [workspace.dependencies]\nserde = '1.0.200'\nb = { path = 'crates/b' }\n",
        );
        write(
            "crates/a/Cargo.toml",
            "[package]\nname = 'a'\nversion.workspace = true\n[dependencies]\nserde.workspace = true\n\
             [dev-dependencies]\nb.workspace = true\n[target.'cfg(unix)'.dependencies]\nold = { package = 'rand', version = '0.8' }\n",
        );
        write("crates/b/Cargo.toml", "[package]\nname = 'b'\nversion = '0.1.0'\n[build-dependencies]\nrand = '0.9'\n");
        let registered = |name: &str, version: &str| {
            let sum = "0123456789abcdef".repeat(4);
            format!("[[package]]\nname = '{name}'\nversion = '{version}'\nsource = 'registry+x'\nchecksum = '{sum}'\n")
        };
        let lock = format!(
            "version = 4\n\
             [[package]]\nname = 'a'\nversion = '0.3.0'\ndependencies = ['b', 'rand 0.8.5', 'serde']\n\
             [[package]]\nname = 'b'\nversion = '0.1.0'\ndependencies = ['rand 0.9.2']\n{}{}{}",
            registered("rand", "0.8.5"),
            registered("rand", "0.9.2"),
            registered("serde", "1.0.229")
        );
        write(LOCK, &change(lock));
        let mut findings = Workspace::read(folder.path()).unwrap().lock();
        assert_eq!(findings.len(), 1);
        findings.remove(0)
    }

    #[test]
    fn a_lock_in_step_is_good_to_know() {
        let finding = finding(|lock| lock);
        assert_eq!(finding.code, "cargo-lock", "{}", finding.text);
        assert!(finding.text.contains("5 packages, in step with 2 manifests"), "{}", finding.text);
    }

    #[test]
    fn every_slip_in_a_lock_is_found() {
        let slips = [
            ("version = 4", "version = 5", "cargo-lock-new", "of format 5"),
            ("[[package]]", "[[package", "cargo-lock-unreadable", "cannot be read"),
            ("name = 'b'\n", "", "cargo-lock-unreadable", "without a name"),
            ("1.0.229", "1.0.100", "cargo-lock-stale", "asks for `serde 1.0.200`, and it has 1.0.100"),
            ("1.0.229", "2.0.0", "cargo-lock-stale", "and it has 2.0.0"),
            ("'0.8.5'", "'0.8.4'", "cargo-lock-stale", "`a` needs `rand 0.8.5`, which it does not have"),
            ("name = 'serde'", "name = 'serge'", "cargo-lock-stale", "`a` needs `serde`"),
            (", 'serde'", "", "cargo-lock-stale", "crates/a/Cargo.toml asks for `serde 1.0.200`, and it has none"),
            ("['b', ", "['b', 'serde', 'rand 0.9.2', 'c', ", "cargo-lock-stale", "it has `c` for `a`"),
            ("version = '0.3.0'", "version = '0.2.0'", "cargo-lock-stale", "it has `a 0.2.0`"),
            ("name = 'a'", "name = 'd'", "cargo-lock-stale", "it has no `a`; it has `d`, which is no package here"),
            ("checksum = '01", "checksum = '", "cargo-lock-stale", "has no checksum"),
        ];
        for (from, to, code, said) in slips {
            let finding = finding(|lock| {
                assert!(lock.contains(from), "{from}");
                lock.replace(from, to)
            });
            assert_eq!(finding.code, code, "{from} → {to}: {}", finding.text);
            assert!(finding.text.contains(said), "{from} → {to}: {}", finding.text);
        }
    }

    #[test]
    fn a_pattern_of_members_means_folders() {
        assert_eq!(plain(Path::new("crates/a/../b/./c")), Path::new("crates/b/c"));
        assert_eq!(plain(Path::new("../b")), Path::new("../b"));
        assert_eq!(folders_of(Path::new("/"), "./xtask"), [Path::new("xtask")]);
    }
}
