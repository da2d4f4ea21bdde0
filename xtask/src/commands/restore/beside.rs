//! `cargo xtask restore DB --into NAME` and `--table T`: restored beside what is live, which stays as it is.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::json;

use super::{Members, server, tell_locales};
use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::data::restore::{database, table};
use crate::ui::{self, Exit, Failure, units};

pub async fn run(cx: &Context, args: &RestoreArgs, set: &Members) -> Result<Exit> {
    let (Some(source), Some(place)) = (set.sources.first(), set.places.first()) else {
        bail!(Failure::new(Exit::Usage, "`--table` and `--into` are for a database"));
    };
    let (name, option) = (&place.name, cx.stack_option());
    if let Some(wanted) = &args.table {
        let restored = table::beside(source, place, wanted, args.into.as_deref()).await?;
        if args.json {
            ui::json(
                &json!({ "stack": cx.stack.name, "name": name, "schema": restored.schema, "table": restored.table, "rows": restored.rows }),
            )?;
        }
        ui::tell(format!(
            "{} restored beside the live table, without indexes and constraints: `cargo xtask psql{option} {name} -c 'SELECT * FROM {}.{} LIMIT 5'`",
            units::plural(restored.rows, "row"),
            restored.schema,
            restored.table,
        ));
        return Ok(Exit::Done);
    }
    let Some(into) = &args.into else { return Ok(Exit::Usage) };
    if server(place).exists(into).await? {
        bail!(
            Failure::new(Exit::Refused, format!("there is a database `{into}` already, nothing was changed"))
                .hint("name another one, or leave `--into` out to replace the live one")
        );
    }
    let mut other_locale = None;
    for ready in database::prepare_all(std::slice::from_ref(source), std::slice::from_ref(place), "restoring").await? {
        server(place).swap(&ready.side.name, into, Timestamp::now(), "").await?;
        ready.side.keep();
        other_locale = ready.loaded.other_locale;
    }
    if args.json {
        ui::json(&json!({
            "stack": cx.stack.name, "name": name, "database": into, "rows": source.manifest.rows(),
            "other_locale": other_locale,
        }))?;
    }
    tell_locales([(&**into, &other_locale)]);
    ui::tell(format!(
        "{} restored and compared, into the database `{into}` beside `{}`: `cargo xtask run{option} {name} -- psql {into}`",
        units::plural(source.manifest.rows(), "row"),
        place.login.database,
    ));
    Ok(Exit::Done)
}
