//! `cargo xtask restore DB --from FILE`: a dump that was made elsewhere, swapped in as a backup is.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use archive::split::Treatment;
use jiff::Timestamp;
use serde_json::json;

use super::{connected, name, name_of, places, server, service, tell_locales};
use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::data::backup::dump::{self, Wanted};
use crate::data::restore::foreign::{self, Dump, Wanting};
use crate::data::restore::load;
use crate::data::space;
use crate::instance::Instance;
use crate::instance::known::Known;
use crate::ui::progress::Progress;
use crate::ui::{self, Exit, Failure, units};

pub async fn run(cx: &Context, args: &RestoreArgs, instance: &Instance, file: &Path) -> Result<Exit> {
    let begun = Instant::now();
    let Some(asked) = name(args) else {
        bail!(Failure::new(Exit::Usage, "`--from` needs the database that the dump is for"));
    };
    let service = service(cx, asked)?;
    if service.postgres().is_none() {
        bail!(Failure::new(Exit::Usage, format!("`{}` is no database", service.short_name)));
    }
    let dump = Dump::open(file)?;
    let names = [service.short_name.clone()];
    let places = places(cx, instance, &names).await?;
    let place = places.first().context("there is no such server")?;
    let live = args.into.as_ref().unwrap_or(&place.login.database);
    if args.into.is_some() && server(place).exists(live).await? {
        let title = format!("there is a database `{live}` already, nothing was changed");
        bail!(Failure::new(Exit::Refused, title).hint("name another one"));
    }
    server(place).check_clients(live, connected(args)).await?;
    space::check("restoring", &[(place, dump.bytes()?)]).await?;
    let progress = Progress::new("restoring", &names);
    let not_restored = || format!("`{}` was not restored, and is as it was", place.name);
    let mut named = progress.watch(dump.look()).await.with_context(not_restored)?;
    let side = named.side(place).await.with_context(not_restored)?;
    let wanting = progress.watch(dump.fill(named, place, &side, &progress.bytes)).await.with_context(not_restored)?;
    load::analyze(&side).await.with_context(not_restored)?;
    let wanted = Wanted::all_of(&place.clients, &side.name);
    let bytes = Arc::clone(&progress.bytes);
    let counted = tokio::task::spawn_blocking(move || dump::dump(&wanted, None, &|_| Treatment::Digest, &bytes));
    let (tables, rows) = foreign::summary(&counted.await?.with_context(not_restored)?);
    drop(progress);
    server(place).check_clients(live, connected(args)).await?;
    Known::forget(instance)?;
    server(place).swap(&side.name, live, Timestamp::now(), "").await?;
    side.keep();
    if args.json {
        ui::json(&json!({
            "stack": cx.stack.name, "name": place.name, "database": live, "tables": tables, "rows": rows,
            "server_version": wanting.server_version, "roles": wanting.roles, "left_out": wanting.left_out,
            "settings": wanting.settings, "other_encoding": wanting.other_encoding,
            "other_locale": wanting.other_locale,
        }))?;
    }
    tell(&wanting, &place.login.user, live);
    tell_locales([(live.as_str(), &wanting.other_locale)]);
    ui::tell(format!(
        "{}, {} restored in {}, into `{live}`",
        units::plural(tables, "table"),
        units::plural(rows, "row"),
        units::seconds(begun.elapsed()),
    ));
    if args.into.is_none() {
        let option = cx.stack_option();
        ui::tell(format!(
            "What was there is kept: `cargo xtask restore{} --undo{option}` brings it back. \
            Next: `cargo xtask migrate status{option}`",
            name_of(args)
        ));
    }
    Ok(Exit::Done)
}

/// What the dump wanted and did not get.
fn tell(wanting: &Wanting, user: &str, database: &str) {
    let list = |set: &std::collections::BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if !wanting.server_version.is_empty() {
        ui::tell(format!("made by PostgreSQL {}", wanting.server_version));
    }
    if !wanting.roles.is_empty() {
        ui::tell(format!("not here: the roles {}; what they own is `{user}`'s", list(&wanting.roles)));
    }
    if !wanting.left_out.is_empty() {
        ui::tell(format!("left out: {}", list(&wanting.left_out)));
    }
    if !wanting.settings.is_empty() {
        ui::tell(format!("unknown to this server: {}", list(&wanting.settings)));
    }
    if let Some(other) = &wanting.other_encoding {
        ui::tell(ui::paint(ui::WARNING, other.told(database)));
    }
}
