//! The volumes of a project: whose they are, what they hold, and how a new one gets an initialised cluster.
//!
//! An initdb for each of eight databases is what makes a first start slow. It runs once for each image and login, in a
//! container, into a volume that is kept as the template; every new volume gets a copy before its server first starts. The
//! official image takes an initialised PGDATA as it takes any restart's. An image that does not look like the official one
//! initialises itself, as under plain Compose.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Deserialize;

use super::client;
use super::containers::PROJECT_LABEL;
use super::images::Image;
use crate::engine::postgres::{Login, SPARE_DATABASE};
use crate::files;
use crate::instance::{Identity, random_id};
use crate::render::compose::volume_target;
use crate::stack::Service;
use crate::stack::model::initdb_locale;
use crate::toolbox::{cache_folder, lock_beside};
use crate::tools::{Input, Ran};
use crate::ui::{Exit, Failure};

const VOLUME_LABEL: &str = "com.docker.compose.volume";
pub const INSTANCE_LABEL: &str = "cargo-xtask.instance";
pub const CHECKOUT_LABEL: &str = "cargo-xtask.checkout";
pub const SERVICE_LABEL: &str = "cargo-xtask.service";
/// PostgreSQL: the role that initdb made.
pub const SUPERUSER_LABEL: &str = "cargo-xtask.superuser";
const TEMPLATE_LABEL: &str = "cargo-xtask.template";
/// The end of the name of an empty volume that says of a template that it is whole.
const MARK: &str = "-whole";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub name: String,
    pub created_at: Timestamp,
    pub labels: Option<BTreeMap<String, String>>,
}

impl Volume {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// As the Compose file calls it.
    pub fn short_name(&self) -> &str {
        self.label(VOLUME_LABEL).unwrap_or(&self.name)
    }
}

/// A volume as it must be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    pub name: String,
    pub labels: Vec<(String, String)>,
}

impl NewVolume {
    /// The volume of a service: with the labels that Compose looks for, so that it takes it for its own, and with whose it
    /// is. `None`: the service has none.
    pub fn of(service: &Service, project: &str, identity: &Identity) -> Option<NewVolume> {
        let volume = service.volume.as_ref()?;
        let new = NewVolume { name: format!("{project}_{volume}"), labels: Vec::new() }
            .label(PROJECT_LABEL, project)
            .label(VOLUME_LABEL, volume)
            .label(INSTANCE_LABEL, &identity.id)
            .label(CHECKOUT_LABEL, identity.checkout.display().to_string())
            .label(SERVICE_LABEL, &service.short_name);
        Some(match service.postgres() {
            Some(postgres) => new.label(SUPERUSER_LABEL, &postgres.user),
            None => new,
        })
    }

    /// Where the engine's own driver keeps it below the engine's `root`: on this machine, if the engine is here.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join("volumes").join(&self.name).join("_data")
    }

    fn label(mut self, name: &str, value: impl Into<String>) -> NewVolume {
        self.labels.push((name.to_owned(), value.into()));
        self
    }

    /// For `--mount`, which makes the volume if it is not there. The value is a line of CSV.
    fn mount(&self, target: &str) -> String {
        let mut fields = vec!["type=volume".to_owned(), format!("source={}", self.name), format!("target={target}")];
        fields.extend(self.labels.iter().map(|(name, value)| format!("volume-label={name}={value}")));
        let quoted = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        quoted.collect::<Vec<_>>().join(",")
    }
}

/// All volumes of a project.
pub async fn of_project(project: &str) -> Result<Vec<Volume>> {
    with_label(&format!("{PROJECT_LABEL}={project}")).await
}

/// The volumes of instances that a checkout made.
pub async fn of_checkout(checkout: &str) -> Result<Vec<Volume>> {
    with_label(&format!("{CHECKOUT_LABEL}={checkout}")).await
}

pub async fn with_label(label: &str) -> Result<Vec<Volume>> {
    let names = client::list(&["volume", "ls", "--quiet", "--filter", &format!("label={label}")]).await?;
    client::inspect("volume", &names).await
}

/// What a look into a volume finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Nothing,
    /// A cluster of PostgreSQL of that major version.
    Cluster(u32),
    Other,
}

/// Looks into volumes, all by one container.
pub async fn look_into(names: &[String], image: &str, container: &str) -> Result<BTreeMap<String, Content>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mounts = names.iter().enumerate().map(|(index, name)| format!("{name}:/v/{index}:ro")).collect::<Vec<_>>();
    let arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--volume", mount]).collect();
    let ran = container_with("run", container, &arguments, image, LOOK, &[]).await?;
    let mut found = BTreeMap::new();
    for line in client::checked(ran)?.lines() {
        let (index, content) =
            line.split_once(' ').with_context(|| format!("cannot read what is in a volume: `{line}`"))?;
        let content = match content {
            "empty" => Content::Nothing,
            "other" => Content::Other,
            major => Content::Cluster(major.parse().with_context(|| format!("`{major}` is no major version"))?),
        };
        let name = index.parse().ok().and_then(|index: usize| names.get(index));
        found.insert(name.with_context(|| format!("there is no volume {index}"))?.clone(), content);
    }
    Ok(found)
}

/// The cluster lies in the volume's root, or from 18 on in `<major>/docker`. Each of its databases has a PG_VERSION as well.
const LOOK: &str = r#"
for volume in /v/*; do
  index=${volume##*/}
  file=$(find "$volume" -maxdepth 3 -name PG_VERSION ! -path '*/base/*' | head -n 1)
  if [ -n "$file" ]; then echo "$index $(cat "$file")"
  elif [ -n "$(find "$volume" -mindepth 1 ! -name lost+found | head -n 1)" ]; then echo "$index other"
  else echo "$index empty"
  fi
done
"#;

/// The volume that new volumes are copied from, made if need be; `None` where the image is not known to take one.
pub async fn template(image: &Image, major: u32, login: &Login) -> Result<Option<String>> {
    if !image.is_official_postgres(major) {
        return Ok(None);
    }
    let locale = initdb_locale(major).join(" ");
    let key = files::short_hash([&image.id, &login.user, &login.password, &locale, SPARE_DATABASE, INITIALISE]);
    let name = format!("cargo-xtask-template-{major}-{key}");
    let folder = cache_folder().join("docker");
    files::create_folder(&folder)?;
    let _lock = lock_beside(&folder.join(&name)).await?;
    // The mark is made after the container's work is done. It is on the engine as well, so that everybody who uses it sees it.
    let mark = format!("{name}{MARK}");
    let volumes: Vec<Volume> = client::inspect("volume", &[name.clone(), mark.clone()]).await?;
    let named = |name: &String| volumes.iter().find(|volume| volume.name == *name);
    match (named(&name), named(&mark)) {
        (Some(template), Some(mark)) if mark.created_at >= template.created_at => return Ok(Some(name)),
        (None, None) => {}
        _ => {
            client::ask(&["rm", "--force", "--volumes", &name]).await?;
            client::ask(&["volume", "rm", "--force", &mark, &name]).await?;
        }
    }
    let label = format!("{TEMPLATE_LABEL}={major}");
    client::ask(&["volume", "create", "--label", &label, &name]).await?;
    let mount = format!("{name}:{}", volume_target(major));
    let initdb_arguments = format!("--encoding=UTF8 {locale}");
    let environment =
        [("XTASK_USER", login.user.as_str()), ("XTASK_PASSWORD", &login.password), ("XTASK_INITDB", &initdb_arguments)];
    let arguments = ["--user", "postgres", "--volume", &mount];
    let ran = container_with("run", &name, &arguments, &image.reference, INITIALISE, &environment).await?;
    client::checked(ran).context("cannot initialise a PostgreSQL cluster in a container")?;
    client::ask(&["volume", "create", "--label", &label, &mark]).await?;
    Ok(Some(name))
}

/// As the image's own entrypoint does it, and one empty database more, which is renamed to the one that is asked for.
const INITIALISE: &str = r#"
set -eu
mkdir -p "$PGDATA"
(umask 077 && printf '%s\n' "$XTASK_PASSWORD" > /tmp/password)
eval "initdb --no-sync --no-instructions --username=\"\$XTASK_USER\" --pwfile=/tmp/password $XTASK_INITDB --pgdata=\"\$PGDATA\""
printf '\nhost all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
echo 'CREATE DATABASE xtask_spare' | postgres --single -F -D "$PGDATA" postgres
"#;

/// Makes the volumes, and a container that is ready to copy the template into each of `targets`; `others` stay empty.
pub async fn make(
    template: &str,
    targets: &[NewVolume],
    others: &[NewVolume],
    image: &str,
    container: &str,
) -> Result<()> {
    let mut mounts = vec![format!("type=volume,source={template},target=/template,readonly")];
    mounts.extend(targets.iter().enumerate().map(|(index, volume)| volume.mount(&format!("/to/{index}"))));
    mounts.extend(others.iter().enumerate().map(|(index, volume)| volume.mount(&format!("/other/{index}"))));
    let arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
    // Where on the disk a copy goes hangs on the name it has at first.
    let environment = [("XTASK_COPY", random_id()?)];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let ran = container_with("create", container, &arguments, image, COPY, &environment).await?;
    client::checked(ran).map(drop)
}

/// Gives each volume a copy of the template. A copy is whole or looks like no cluster at all: what makes it one
/// (`PG_VERSION`, or the folder above it) comes last, by rename.
pub async fn fill(container: &str, lock: File) -> Result<()> {
    let ran = client::docker(&["start", "--attach", container], Input::Held(lock)).await?;
    if ran.stderr.contains("No space left on device") {
        bail!(Failure::new(Exit::Failed, "there is no space for new databases on the disk of Docker's volumes").hint(
            "free some (`docker system df` shows what takes it), then run `cargo xtask up` again; nothing is lost"
        ));
    }
    client::checked(ran).context("cannot copy an initialised cluster into new volumes")?;
    Ok(())
}

const COPY: &str = r#"
set -eu
owner=$(stat -c %u:%g /template)
mode=$(stat -c %a /template)
copy() (
  to=$1
  copying=$to/.copying-$XTASK_COPY
  trap 'rm -rf "$copying"' EXIT
  find "$to" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
  mkdir "$copying"
  cp -a /template/. "$copying/"
  for entry in "$copying"/*; do
    [ "${entry##*/}" = PG_VERSION ] || mv "$entry" "$to/"
  done
  [ ! -e "$copying/PG_VERSION" ] || mv "$copying/PG_VERSION" "$to/"
  chown "$owner" "$to"
  chmod "$mode" "$to"
)
copies=
for to in /to/*; do
  copy "$to" &
  copies="$copies $!"
done
for one in $copies; do wait "$one"; done
"#;

/// `run` or `create` of a container for one script. Its name keeps a second one, or one that outlived its helper, from
/// working on the same volumes.
pub async fn container_with(
    verb: &str,
    name: &str,
    arguments: &[&str],
    image: &str,
    script: &str,
    environment: &[(&str, &str)],
) -> Result<Ran> {
    let mut words = vec![verb, "--rm", "--name", name, "--pull", "never", "--network", "none", "--entrypoint", "sh"];
    if !arguments.contains(&"--user") {
        words.extend(["--user", "0"]);
    }
    for (variable, _) in environment {
        words.extend(["--env", variable]);
    }
    words.extend(arguments);
    words.extend([image, "-c", script]);
    let ran = client::docker_with(&words, environment, Input::Text(String::new())).await?;
    if ran.status.success() || !ran.stderr.contains("is already in use by container") {
        return Ok(ran);
    }
    client::ask(&["rm", "--force", "--volumes", name]).await?;
    client::docker_with(&words, environment, Input::Text(String::new())).await
}
