//! The command line of each kind of server. The configuration files are the ones that containers mount; overridden are
//! only addresses, ports and directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::launch::Launch;
use super::process::Birth;
use super::programs::Programs;
use super::record::Record;
use crate::engine::postgres::Login;
use crate::files;
use crate::instance::{Instance, registry};
use crate::stack::model::ConfigFile;
use crate::stack::{Kind, Repository, Service};

/// The longest path of a Unix socket: `sun_path` is 104 bytes on macOS, 108 on Linux, with the closing zero.
const LONGEST_SOCKET_PATH: usize = 103;
/// Only loopback ever reaches a native server.
pub const ADDRESS: &str = "127.0.0.1";

/// A server as it should run: what to start and how to recognise a change.
#[derive(Debug)]
pub struct Blueprint {
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// The configuration file, to be copied into the service's folder before the start.
    pub config: Option<Config>,
    pub fingerprint: String,
    pub login: Option<Login>,
    pub sockets: Option<PathBuf>,
    pub project: Option<String>,
}

/// A configuration file of the stack and its copy for one server.
#[derive(Debug)]
pub struct Config {
    pub source: PathBuf,
    pub copy: PathBuf,
    hash: String,
}

/// The folder of the sockets: in the data folder, or in `/tmp` where the path would be too long. Never in `TMPDIR`, which
/// differs between shells.
pub fn socket_folder(instance: &Instance) -> PathBuf {
    let beside = instance.data_folder().join("run");
    match beside.as_os_str().len() + "/.s.PGSQL.65535.lock".len() <= LONGEST_SOCKET_PATH {
        true => beside,
        false => PathBuf::from(format!("/tmp/xtask-{}", instance.identity.id)),
    }
}

/// Where a service's server keeps its data.
pub fn data_folder(instance: &Instance, short_name: &str) -> PathBuf {
    instance.service_folder(short_name).join("data")
}

/// `None` for a service that has no native server.
pub fn blueprint(repository: &Repository, instance: &Instance, service: &Service) -> Result<Option<Blueprint>> {
    let folder = instance.service_folder(&service.short_name);
    let data = data_folder(instance, &service.short_name);
    let port = service.port().number;
    let mut environment = BTreeMap::from(
        [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let text = |path: &Path| path.display().to_string();
    let blueprint = match &service.kind {
        Kind::Postgres(postgres) => {
            let sockets = socket_folder(instance);
            let config = folder.join("postgresql.conf");
            let mut settings = vec![
                ("config_file", text(&config)),
                ("hba_file", text(&data.join("pg_hba.conf"))),
                ("ident_file", text(&data.join("pg_ident.conf"))),
                ("listen_addresses", ADDRESS.to_owned()),
                ("port", port.to_string()),
                ("unix_socket_directories", format!("\"{}\"", text(&sockets).replace('"', "\"\""))),
                ("cluster_name", instance.cluster_name(&service.short_name)),
            ];
            if cfg!(target_os = "macos") && postgres.major < 18 {
                // Without posix_fadvise, older servers accept nothing else.
                settings.push(("effective_io_concurrency", "0".to_owned()));
            }
            let settings = settings.into_iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]);
            Blueprint {
                arguments: ["-D".to_owned(), text(&data)].into_iter().chain(settings).collect(),
                environment,
                config: Some(Config::new(repository, &postgres.config, config)),
                fingerprint: String::new(),
                login: Some(Login::of(postgres)),
                sockets: Some(sockets),
                project: None,
            }
        }
        Kind::Redis(redis) => {
            let config = folder.join("redis.conf");
            let port = port.to_string();
            let options = [
                ("--bind", ADDRESS),
                ("--port", &port),
                ("--dir", &text(&data)),
                ("--daemonize", "no"),
                ("--logfile", ""),
                ("--pidfile", ""),
            ]
            .map(|(name, value)| [name.to_owned(), value.to_owned()])
            .concat();
            Blueprint {
                arguments: [text(&config)].into_iter().chain(options).collect(),
                environment,
                config: Some(Config::new(repository, &redis.config, config)),
                fingerprint: String::new(),
                login: None,
                sockets: None,
                project: None,
            }
        }
        Kind::PubSub(pubsub) => {
            environment.insert("HOME".into(), text(&data));
            let temporary = format!("-Djava.io.tmpdir={}", text(&data));
            let arguments = [
                // A short start matters more here than speed under load.
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-XX:-UsePerfData",
                "-Xmx256m",
                &temporary,
                "-jar",
            ];
            Blueprint {
                arguments: arguments.map(str::to_owned).to_vec(),
                environment,
                config: None,
                fingerprint: String::new(),
                login: None,
                sockets: None,
                project: Some(pubsub.project.clone()),
            }
        }
        Kind::Tool(_) => return Ok(None),
    };
    Ok(Some(blueprint.with_fingerprint(port)))
}

impl Config {
    fn new(repository: &Repository, file: &ConfigFile, copy: PathBuf) -> Config {
        Config { source: repository.root.join(&file.path), copy, hash: file.hash.clone() }
    }

    pub fn write(&self) -> Result<()> {
        let text = files::read_text(&self.source)
            .map_err(|problem| anyhow::anyhow!("{}", problem.found))
            .with_context(|| format!("cannot read `{}`", self.source.display()))?;
        files::write_atomically(&self.copy, text.as_bytes(), 0o644)
    }
}

impl Blueprint {
    /// The login is not part of it: another user, password or database needs no restart.
    fn with_fingerprint(mut self, port: u16) -> Blueprint {
        let config = self.config.as_ref().map(|config| config.hash.as_str());
        let port = port.to_string();
        let parts = self.arguments.iter().map(String::as_str).chain(config).chain([port.as_str()]);
        self.fingerprint = files::short_hash(parts);
        self
    }

    /// The launch of this blueprint with the programs that were found.
    pub fn launch(&self, instance: &Instance, service: &Service, programs: &Programs) -> Result<Launch> {
        let folder = instance.service_folder(&service.short_name);
        let mut arguments = self.arguments.clone();
        let program = match &service.kind {
            Kind::Postgres(postgres) => programs.postgres(postgres.major)?.bin.join("postgres"),
            Kind::Redis(_) => programs.redis()?.clone(),
            Kind::PubSub(_) => {
                let emulator = programs.emulator()?;
                arguments.push(emulator.jar.display().to_string());
                arguments.extend([format!("--host={ADDRESS}"), format!("--port={}", service.port().number)]);
                emulator.java.clone()
            }
            Kind::Tool(_) => anyhow::bail!("`{}` has no native server", service.short_name),
        };
        Ok(Launch {
            record: Record {
                service: service.short_name.clone(),
                pid: 0,
                birth: Birth::unknown(),
                started: Timestamp::now(),
                fingerprint: self.fingerprint.clone(),
                port: service.port().number,
                program: program.clone(),
                login: self.login.clone(),
                sockets: self.sockets.clone(),
                project: self.project.clone(),
            },
            program,
            arguments,
            environment: self.environment.clone(),
            working_folder: data_folder(instance, &service.short_name),
            log: log_file(instance, &service.short_name),
            user: instance.identity.server_user.clone(),
            registry_copy: registry::folder_of(instance).join(format!("{}.json", service.short_name)),
            service_folder: folder,
        })
    }
}

/// Where a service's server writes what it has to say.
pub fn log_file(instance: &Instance, short_name: &str) -> PathBuf {
    instance.service_folder(short_name).join("server.log")
}
