//! Data that an upgrade has replaced: a volume that is no part of the Compose project, so that nothing of Compose's removes it.

use anyhow::{Context, Result};

use super::volumes::{self, INSTANCE_LABEL, NewVolume, SERVICE_LABEL};
use super::{Docker, client, containers};
use crate::engine::aside::{Aside, Note};
use crate::stack::Service;

/// The name of the volume that the data were in.
const OF_LABEL: &str = "cargo-xtask.aside-of";
/// The [`Note`], as JSON.
const NOTE_LABEL: &str = "cargo-xtask.aside-note";

impl Docker<'_> {
    /// Copies the volume of a service that does not run, and only then empties it.
    pub async fn put_aside(&self, service: &Service, note: &Note) -> Result<()> {
        let identity = &self.instance.identity;
        let Some(volume) = NewVolume::of(service, &self.project, identity) else { return Ok(()) };
        let ids: Vec<String> = containers::of_project(&self.project)
            .await?
            .into_iter()
            .filter(|container| container.service == service.name)
            .map(|container| container.id)
            .collect();
        if !ids.is_empty() {
            // It would run the old server on the new data.
            let ids = ids.iter().map(String::as_str);
            client::ask(&["rm", "--force", "--volumes"].into_iter().chain(ids).collect::<Vec<_>>()).await?;
        }
        let aside = format!("{}-{}", volume.name, note.backup);
        let labels = [
            format!("{OF_LABEL}={}", volume.name),
            format!("{INSTANCE_LABEL}={}", identity.id),
            format!("{SERVICE_LABEL}={}", service.short_name),
            format!("{NOTE_LABEL}={}", serde_json::to_string(note)?),
        ];
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let words: Vec<&str> = ["volume", "create"].into_iter().chain(labels).chain([aside.as_str()]).collect();
        client::ask(&words).await?;
        let mounts = [format!("{}:/from", volume.name), format!("{aside}:/to")];
        let mounts: Vec<&str> = mounts.iter().flat_map(|mount| ["--volume", mount]).collect();
        let (image, container) = (self.stack.image_of(service), self.container("aside"));
        let ran = volumes::container_with("run", &container, &mounts, &image, MOVE, &[]).await?;
        client::checked(ran).with_context(|| format!("cannot put the volume `{}` aside", volume.name))?;
        Ok(())
    }

    /// What was put aside of each service.
    pub async fn aside(&self) -> Result<Vec<Aside>> {
        let mut volumes = volumes::with_label(OF_LABEL).await?;
        volumes.retain(|volume| volume.label(INSTANCE_LABEL) == Some(&self.instance.identity.id));
        volumes.sort_by_key(|volume| volume.created_at);
        let aside = volumes.into_iter().map(|volume| Aside {
            service: volume.label(SERVICE_LABEL).unwrap_or_default().to_owned(),
            bytes: None,
            note: volume.label(NOTE_LABEL).and_then(|note| serde_json::from_str(note).ok()),
            place: volume.name,
        });
        Ok(aside.collect())
    }
}

/// A copy that was interrupted is begun anew. One that is whole has its mark, and nothing is copied over it: from then on the
/// volume is being emptied, first of what would make it look like a cluster.
const MOVE: &str = r#"
set -eu
if [ ! -e /to/.whole ]; then
  find /to -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
  cp -a /from/. /to/
  sync
  touch /to/.whole
  sync
fi
find /from -maxdepth 3 -name PG_VERSION ! -path '*/base/*' -exec rm {} +
find /from -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +
"#;
