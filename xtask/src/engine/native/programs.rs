//! Where the servers' programs come from: `PATH` (a Nix shell), else a system install, else the toolbox.
//!
//! PostgreSQL's major version must be the manifest's; another one is never used. Everything that cannot be found is told
//! at once, for all services, before anything starts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::instance::server_user::ServerUser;
use crate::stack::{Kind, Service};
use crate::toolbox::{self, Toolbox};
use crate::tools;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Path,
    System,
    Toolbox,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Origin::Path => "from PATH",
            Origin::System => "of this system",
            Origin::Toolbox => "from the toolbox",
        })
    }
}

#[derive(Debug, Clone)]
pub struct PostgresPrograms {
    /// The folder with `postgres`, `initdb`, `psql`, …
    pub bin: PathBuf,
    pub version: String,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub struct Emulator {
    pub java: PathBuf,
    pub jar: PathBuf,
}

#[derive(Debug, Default)]
pub struct Programs {
    pub postgres: BTreeMap<u32, PostgresPrograms>,
    pub redis: Option<(PathBuf, String, Origin)>,
    pub emulator: Option<Emulator>,
}

/// A program that is not there: who needs it, and the ways to get it.
#[derive(Debug)]
pub struct Missing {
    pub services: Vec<String>,
    pub what: String,
    /// Why each place did not have it.
    pub looked: Vec<String>,
    pub ways: Vec<String>,
}

impl Programs {
    pub fn postgres(&self, major: u32) -> Result<&PostgresPrograms> {
        self.postgres.get(&major).with_context(|| format!("PostgreSQL {major} was not looked for"))
    }

    pub fn redis(&self) -> Result<&PathBuf> {
        self.redis.as_ref().map(|(program, ..)| program).context("Redis was not looked for")
    }

    pub fn emulator(&self) -> Result<&Emulator> {
        self.emulator.as_ref().context("the emulator was not looked for")
    }

    /// `PostgreSQL 18.6 and Redis 8.2.3 from the toolbox`.
    pub fn describe(&self) -> String {
        let postgres = self.postgres.values().map(|found| (format!("PostgreSQL {}", found.version), found.origin));
        let redis = self.redis.iter().map(|(_, version, origin)| (format!("Redis {version}"), *origin));
        let mut groups: Vec<(Origin, Vec<String>)> = Vec::new();
        for (name, origin) in postgres.chain(redis) {
            match groups.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, names)) => names.push(name),
                None => groups.push((origin, vec![name])),
            }
        }
        let groups = groups.into_iter().map(|(origin, names)| format!("{} {origin}", names.join(" and ")));
        groups.collect::<Vec<_>>().join(", ")
    }
}

/// Finds what the services need, fetching from the toolbox if need be.
pub async fn find(
    services: &[&Service],
    user: Option<&ServerUser>,
    toolbox: &Toolbox,
) -> Result<(Programs, Vec<Missing>)> {
    let mut programs = Programs::default();
    let mut missing: Vec<Missing> = Vec::new();
    for service in services {
        let problem = match &service.kind {
            Kind::Postgres(postgres) if programs.postgres.contains_key(&postgres.major) => None,
            Kind::Postgres(postgres) => match find_postgres(postgres.major, user, toolbox).await? {
                Ok(found) => {
                    programs.postgres.insert(postgres.major, found);
                    None
                }
                Err(problem) => Some(problem),
            },
            Kind::Redis(redis) => match find_redis(redis.major, user, toolbox).await? {
                Ok(found) => {
                    programs.redis = Some(found);
                    None
                }
                Err(problem) => Some(problem),
            },
            Kind::PubSub(_) => match find_emulator() {
                Ok(found) => {
                    programs.emulator = Some(found);
                    None
                }
                Err(problem) => Some(problem),
            },
            Kind::Tool(_) => None,
        };
        let Some(mut problem) = problem else { continue };
        match missing.iter_mut().find(|known| known.what == problem.what) {
            Some(known) => known.services.push(service.short_name.clone()),
            None => {
                problem.services.push(service.short_name.clone());
                missing.push(problem);
            }
        }
    }
    Ok((programs, missing))
}

/// PostgreSQL of exactly this major version.
pub async fn find_postgres(
    major: u32,
    user: Option<&ServerUser>,
    toolbox: &Toolbox,
) -> Result<Result<PostgresPrograms, Missing>> {
    let on_path = tools::on_path("postgres").into_iter().map(|program| (program, Origin::Path));
    let system = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/opt/homebrew/opt/postgresql@{major}/bin"),
        format!("/usr/local/opt/postgresql@{major}/bin"),
        format!("/usr/local/pgsql-{major}/bin"),
    ];
    let system = system.into_iter().map(|folder| (Path::new(&folder).join("postgres"), Origin::System));
    let mut looked = Vec::new();
    for (program, origin) in on_path.chain(system) {
        let Some(bin) = program.parent().filter(|_| program.is_file()).map(Path::to_owned) else { continue };
        let version = version_of(&program, "(PostgreSQL)");
        let found = version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        match version {
            Some(_) if !bin.join("initdb").is_file() => {
                looked.push(format!("`{}` has no `initdb` beside it", program.display()))
            }
            Some(_) if user.is_some_and(|user| !user.reaches(&bin)) => {
                looked.push(format!("`{}` is out of reach for the servers' user", program.display()));
            }
            Some(version) if found == Some(major) => return Ok(Ok(PostgresPrograms { bin, version, origin })),
            Some(version) => looked.push(format!("`{}` is version {version}", program.display())),
            None => looked.push(format!("`{}` does not say its version", program.display())),
        }
    }
    match toolbox.provide(toolbox::POSTGRESQL, |version| version.split('.').next() == Some(&major.to_string())).await? {
        Ok(tool) => {
            return Ok(Ok(PostgresPrograms { bin: tool.bin, version: tool.version, origin: Origin::Toolbox }));
        }
        Err(reason) => looked.push(reason),
    }
    Ok(Err(Missing {
        services: vec![],
        what: format!("PostgreSQL {major}"),
        looked,
        ways: vec![
            format!("apt-get install postgresql-{major}   (Debian, Ubuntu)"),
            format!("brew install postgresql@{major}      (macOS)"),
        ],
    }))
}

async fn find_redis(
    major: u32,
    user: Option<&ServerUser>,
    toolbox: &Toolbox,
) -> Result<Result<(PathBuf, String, Origin), Missing>> {
    let enough = |version: &str| {
        version.split('.').next().and_then(|found| found.parse().ok()).is_some_and(|found: u32| found >= major)
    };
    let on_path = tools::on_path("redis-server").into_iter().map(|program| (program, Origin::Path));
    let system = ["/usr/bin", "/opt/homebrew/opt/redis/bin", "/usr/local/opt/redis/bin"];
    let system = system.into_iter().map(|folder| (Path::new(folder).join("redis-server"), Origin::System));
    let mut looked = Vec::new();
    for (program, origin) in on_path.chain(system) {
        if !program.is_file() || looked.iter().any(|line: &String| line.contains(&format!("`{}`", program.display()))) {
            continue;
        }
        match version_of(&program, "v=") {
            Some(_) if user.is_some_and(|user| !user.reaches(program.parent().unwrap_or(&program))) => {
                looked.push(format!("`{}` is out of reach for the servers' user", program.display()));
            }
            Some(version) if enough(&version) => return Ok(Ok((program, version, origin))),
            Some(version) => looked.push(format!("`{}` is version {version}", program.display())),
            None => looked.push(format!("`{}` does not say its version", program.display())),
        }
    }
    match toolbox.provide(toolbox::REDIS, enough).await? {
        Ok(tool) => return Ok(Ok((tool.bin.join("redis-server"), tool.version, Origin::Toolbox))),
        Err(reason) => looked.push(reason),
    }
    Ok(Err(Missing {
        services: vec![],
        what: format!("Redis {major} or newer"),
        looked,
        ways: vec![
            "brew install redis         (macOS)".into(),
            format!("your system's package of Redis, if it is {major} or newer"),
        ],
    }))
}

/// The Cloud SDK's jar, run directly: `gcloud` itself would start Python and a shell around it.
fn find_emulator() -> Result<Emulator, Missing> {
    let mut looked = Vec::new();
    let java =
        std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")).filter(|java| java.is_file());
    let java = java.or_else(|| tools::on_path("java").into_iter().next());
    if java.is_none() {
        looked.push("no `java` on PATH".to_owned());
    }
    let roots = cloud_sdk_roots();
    let jar = roots.iter().find_map(|root| {
        let folder = root.join("platform/pubsub-emulator/lib");
        let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        names.into_iter().find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("cloud-pubsub-emulator") && name.ends_with("-all.jar")
        })
    });
    if jar.is_none() {
        looked.push(match roots.first() {
            Some(root) => format!("the Cloud SDK in `{}` has no Pub/Sub emulator", root.display()),
            None => "no Google Cloud SDK".to_owned(),
        });
    }
    match (java, jar) {
        (Some(java), Some(jar)) => Ok(Emulator { java, jar }),
        (java, jar) => Err(Missing {
            services: vec![],
            what: "Pub/Sub emulator with Java".into(),
            looked,
            ways: [
                jar.is_none()
                    .then(|| "the Google Cloud SDK, then `gcloud components install pubsub-emulator`".to_owned()),
                java.is_none().then(|| {
                    "apt-get install default-jre-headless   (Debian, Ubuntu), brew install openjdk (macOS)".to_owned()
                }),
                Some("go on without it: `cargo xtask up --without pubsub`".to_owned()),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }),
    }
}

fn cloud_sdk_roots() -> Vec<PathBuf> {
    let by_variable = std::env::var_os("CLOUDSDK_ROOT_DIR").map(PathBuf::from);
    let by_program = tools::on_path("gcloud").into_iter().filter_map(|program| {
        let program = std::fs::canonicalize(program).ok()?;
        // `<root>/bin/gcloud`, or a wrapper beside `<root>/google-cloud-sdk/bin/gcloud`.
        let folder = program.parent()?.parent()?.to_owned();
        let nested = folder.join("google-cloud-sdk");
        Some(if nested.is_dir() { nested } else { folder })
    });
    let usual = [
        Some("/usr/lib/google-cloud-sdk".into()),
        Some("/usr/share/google-cloud-sdk".into()),
        Some("/opt/homebrew/share/google-cloud-sdk".into()),
        std::env::home_dir().map(|home| home.join("google-cloud-sdk")),
    ];
    let roots = by_variable.into_iter().chain(by_program).chain(usual.into_iter().flatten());
    let mut roots: Vec<PathBuf> = roots.filter(|root| root.is_dir()).collect();
    roots.dedup();
    // A root that has the emulator goes before one that has not.
    roots.sort_by_key(|root| !root.join("platform/pubsub-emulator").is_dir());
    roots
}

/// What `--version` says behind `marker`.
pub fn version_of(program: &Path, marker: &str) -> Option<String> {
    let shell = tools::shell_in(Path::new("/")).ok()?;
    let text = tools::read(cmd!(shell, "{program} --version"), None).ok()?;
    let version = text.split_once(marker)?.1.split_whitespace().next()?;
    Some(version.to_owned())
}
