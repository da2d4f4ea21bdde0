//! `cargo xtask env`: the variables that a program needs. Addresses, users and passwords are those of the running
//! instance; where something does not run, those it would have.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::cli::{EnvArgs, EnvFormat};
use crate::context::{Context, unknown};
use crate::engine::Engine;
use crate::engine::native::servers::ADDRESS;
use crate::engine::postgres::Login;
use crate::engine::server::{Observed, Server};
use crate::stack::manifest::Protocol;
use crate::stack::model::{Application, Postgres};
use crate::stack::{Kind, Service};
use crate::ui::{self, Exit};

/// What a URL may hold as it is in a user name, a password or a path.
const URL_SAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Variables of the shell that would lead a client of PostgreSQL to another server, or keep it from this one. A command
/// that is given the variables here must not inherit those.
pub const ELSEWHERE: [&str; 5] = ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGSSLMODE", "PGOPTIONS"];

pub type Variables = Vec<(String, String)>;

pub async fn run(cx: &Context, args: &EnvArgs) -> Result<Exit> {
    let variables = variables(cx, args.name.as_deref()).await?;
    match args.format {
        EnvFormat::Json => {
            let object: serde_json::Map<_, _> =
                variables.into_iter().map(|(name, value)| (name, value.into())).collect();
            ui::json(&object)?;
        }
        format => ui::data(&variables.iter().map(|(name, value)| line(format, name, value)).collect::<String>())?,
    }
    Ok(Exit::Done)
}

fn line(format: EnvFormat, name: &str, value: &str) -> String {
    let is_plain = value.chars().all(|part| part.is_ascii_alphanumeric() || "_-.,:/@%?=&+~".contains(part));
    match format {
        EnvFormat::Shell => format!("export {name}='{}'\n", value.replace('\'', "'\\''")),
        _ if is_plain => format!("{name}={value}\n"),
        _ if !value.contains('\'') => format!("{name}='{value}'\n"),
        _ => format!("{name}=\"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$")),
    }
}

/// The variables of an application, a database, a service, or the whole stack.
pub async fn variables(cx: &Context, name: Option<&str>) -> Result<Variables> {
    let mut present = Present::look(cx).await?;
    let Some(name) = name else { return whole_stack(cx, &mut present) };
    if let Some(application) = cx.stack.application(name) {
        return application_variables(cx, &mut present, application);
    }
    if let Some(service) = cx.stack.service(name) {
        return Ok(service_variables(service, present.live(cx, service)?));
    }
    let known: Vec<&str> = cx.stack.applications.iter().map(|application| application.name.as_str()).collect();
    let known: Vec<&str> = known.into_iter().chain(cx.stack.service_names()).collect();
    bail!(unknown("application or service", name, known))
}

/// Where a service is, and the login that it takes.
#[derive(Debug)]
pub struct Live {
    pub port: u16,
    pub login: Option<Login>,
    pub project: Option<String>,
    /// `None`: it does not run, and the rest is what the configuration says.
    pub server: Option<Server>,
}

/// What the instance has of each service, asked once.
#[derive(Debug)]
pub struct Present(BTreeMap<String, Result<Observed>>);

impl Present {
    pub async fn look(cx: &Context) -> Result<Present> {
        let Some(instance) = cx.instance()? else { return Ok(Present(BTreeMap::new())) };
        let services: Vec<&Service> = cx.stack.services.iter().collect();
        let observed = Engine::of(&cx.repository, &cx.stack, &instance).observe(&services).await?;
        Ok(Present(services.iter().map(|service| service.short_name.clone()).zip(observed).collect()))
    }

    /// Tells the person where the instance differs from the configuration, or does not run.
    pub fn live(&mut self, cx: &Context, service: &Service) -> Result<Live> {
        let configured = Live {
            port: service.port().number,
            login: service.postgres().map(Login::of),
            project: match &service.kind {
                Kind::PubSub(pubsub) => Some(pubsub.project.clone()),
                _ => None,
            },
            server: None,
        };
        let (name, option) = (&service.short_name, cx.stack_option());
        let observed = self.0.remove(name).transpose()?.unwrap_or(Observed::Absent);
        let Observed::Running(server) = observed else {
            if service.profile.is_none() {
                ui::tell(format!("note: `{name}` is not running; `cargo xtask up {name}{option}` starts it"));
            }
            return Ok(configured);
        };
        if server.port != configured.port || server.login != configured.login {
            ui::tell(format!(
                "note: `{name}` still runs with earlier settings; `cargo xtask up{option}` applies the new ones"
            ));
        }
        let project = server.project.clone().or(configured.project);
        Ok(Live { port: server.port, login: server.login.clone(), project, server: Some(server) })
    }
}

/// `postgresql://user:password@127.0.0.1:5433/learning_db`.
pub fn database_url(postgres: &Postgres, live: &Live) -> String {
    let encode = |text: &str| utf8_percent_encode(text, URL_SAFE).to_string();
    let schema = postgres.url_schema.as_ref().map_or_else(String::new, |schema| format!("?schema={}", encode(schema)));
    match &live.login {
        Some(login) => format!(
            "postgresql://{}:{}@{ADDRESS}:{}/{}{schema}",
            encode(&login.user),
            encode(&login.password),
            live.port,
            encode(&login.database)
        ),
        None => String::new(),
    }
}

/// The variables of one service.
pub fn service_variables(service: &Service, live: Live) -> Variables {
    let mut variables = Variables::new();
    let mut add = |name: &str, value: String| variables.push((name.to_owned(), value));
    match &service.kind {
        Kind::Postgres(postgres) => {
            add("DATABASE_URL", database_url(postgres, &live));
            add("PGHOST", ADDRESS.to_owned());
            add("PGPORT", live.port.to_string());
            if let Some(login) = live.login {
                add("PGUSER", login.user);
                add("PGPASSWORD", login.password);
                add("PGDATABASE", login.database);
            }
        }
        Kind::Redis(_) => add("REDIS_URL", format!("redis://{ADDRESS}:{}", live.port)),
        Kind::PubSub(_) => {
            add("PUBSUB_EMULATOR_HOST", format!("{ADDRESS}:{}", live.port));
            add("PUBSUB_PROJECT_ID", live.project.unwrap_or_default());
        }
        Kind::Tool(tool) => {
            for (name, value) in &tool.environment {
                add(name, value.clone());
            }
            for port in &service.ports {
                add(&port.variable, port.number.to_string());
            }
        }
    }
    variables
}

fn application_variables(cx: &Context, present: &mut Present, application: &Application) -> Result<Variables> {
    let mut variables = Variables::new();
    let mut used = Vec::new();
    used.extend(application.database.as_ref().and_then(|database| cx.stack.service(database)));
    if application.redis {
        used.extend(cx.stack.find(|kind| matches!(kind, Kind::Redis(_))));
    }
    if application.pubsub {
        used.extend(cx.stack.find(|kind| matches!(kind, Kind::PubSub(_))));
    }
    for service in used {
        // An application wants URLs; the parts of one are for psql.
        let service_variables = service_variables(service, present.live(cx, service)?);
        variables.extend(service_variables.into_iter().filter(|(name, _)| !name.starts_with("PG")));
    }
    if let Some(port) = application.port {
        variables.push(("SERVICE_PORT".into(), port.to_string()));
    }
    for called in &application.calls {
        if let Some((protocol, port)) =
            cx.stack.application(called).and_then(|called| Some((called.protocol, called.port?)))
        {
            let scheme = match protocol {
                Protocol::Grpc | Protocol::Http => "http",
            };
            let name = called.to_uppercase().replace('-', "_");
            variables.push((format!("{name}_URL"), format!("{scheme}://{ADDRESS}:{port}")));
        }
    }
    if application.database.is_some()
        && let Some(pool) = cx.stack.pool
    {
        variables.push(("DATABASE_MIN_CONNECTIONS".into(), pool.min_connections.to_string()));
        variables.push(("DATABASE_MAX_CONNECTIONS".into(), pool.max_connections.to_string()));
        variables.push(("DATABASE_IDLE_TIMEOUT_SECS".into(), pool.idle_timeout_secs.to_string()));
    }
    variables.extend(application.environment.clone());
    variables.push((cx.stack.environment_variable.clone(), cx.stack.environment.clone()));
    Ok(variables)
}

/// Every database by its own name, then what is shared.
fn whole_stack(cx: &Context, present: &mut Present) -> Result<Variables> {
    let mut variables = Variables::new();
    let databases: Vec<(&Service, &Postgres)> = cx.stack.databases().collect();
    let alone = databases.len() == 1;
    for (service, postgres) in databases {
        let live = present.live(cx, service)?;
        let name = match alone {
            true => "DATABASE_URL".to_owned(),
            false => format!("{}_DATABASE_URL", service.short_name.to_uppercase().replace('-', "_")),
        };
        variables.push((name, database_url(postgres, &live)));
        variables.push((service.port().variable.clone(), live.port.to_string()));
        if let Some(login) = live.login.filter(|_| !variables.iter().any(|(name, _)| name == "POSTGRES_USER")) {
            variables.push(("POSTGRES_USER".into(), login.user));
            variables.push(("POSTGRES_PASSWORD".into(), login.password));
        }
    }
    for service in cx.stack.core().filter(|service| service.postgres().is_none()) {
        variables.extend(service_variables(service, present.live(cx, service)?));
    }
    variables.push((cx.stack.environment_variable.clone(), cx.stack.environment.clone()));
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_format() {
        assert_eq!(line(EnvFormat::Dotenv, "A", "redis://127.0.0.1:6379"), "A=redis://127.0.0.1:6379\n");
        assert_eq!(line(EnvFormat::Dotenv, "A", "a b#c"), "A='a b#c'\n");
        assert_eq!(line(EnvFormat::Dotenv, "A", "it's $x"), "A=\"it's \\$x\"\n");
        assert_eq!(line(EnvFormat::Shell, "A", "it's"), "export A='it'\\''s'\n");
    }
}
