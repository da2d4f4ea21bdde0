//! Indexes of an empty table that a large file is about to fill: dropped before, and made again after, all in the seeds' own
//! transaction. That takes a fraction of what it takes to keep an index up to date row by row (PostgreSQL's documentation,
//! "Populating a Database").
//!
//! Only what comes back exactly as it was is dropped: nothing that other objects depend on, such as a primary key that foreign
//! keys refer to, that has properties which its definition does not say, or that takes more than what comes with the server to
//! compute. And only if nobody has the table in use now: who comes later waits until the seeds are there.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

/// How large a file must be, in bytes. With some ten thousand rows, a sixth of the time is saved; with fewer, little is.
pub const WORTHWHILE: u64 = 1_000_000;

/// What makes the indexes that were dropped, statement by statement.
#[derive(Debug)]
pub struct Dropped(Vec<String>);

/// Drops what it can of the indexes of a table, whose name is as SQL writes it, before these columns are filled. Where that is
/// nothing, for whatever reason the server has, all is as before. An error is one of the connection.
pub async fn drop_from(
    connection: &mut PgConnection,
    table: &str,
    columns: &[String],
) -> Result<Option<Dropped>, sqlx::Error> {
    match attempt(connection, table, columns).await {
        Ok(dropped) if !dropped.0.is_empty() => Ok(Some(dropped)),
        Err(error) if error.as_database_error().is_none() => Err(error),
        _ => undo(connection).await.map(|()| None),
    }
}

async fn attempt(connection: &mut PgConnection, table: &str, columns: &[String]) -> Result<Dropped, sqlx::Error> {
    let droppable = droppable(table, columns);
    let none = Dropped(Vec::new());
    // Asked first without a lock, and of the catalog alone: it may be a view.
    let ask = format!("SAVEPOINT indexes; {droppable}");
    let seen = statements(&sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *connection).await?)?;
    if seen.is_empty() {
        return Ok(none);
    }
    let ask = format!(
        "LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE NOWAIT; {droppable}; SELECT EXISTS (SELECT FROM ONLY {table})"
    );
    let mut rows = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *connection).await?;
    let has_rows = rows.pop().is_none_or(|row| row.try_get(0).unwrap_or(true));
    if has_rows || statements(&rows)? != seen {
        return Ok(none);
    }
    let (drop, make): (Vec<String>, Vec<String>) = seen.into_iter().unzip();
    sqlx::raw_sql(AssertSqlSafe(drop.join("; "))).execute(connection).await?;
    Ok(Dropped(make))
}

/// Of each index, what drops it and what makes it.
fn statements(rows: &[PgRow]) -> Result<Vec<(String, String)>, sqlx::Error> {
    rows.iter().map(|row| Ok((row.try_get("drop")?, row.try_get("make")?))).collect()
}

impl Dropped {
    /// Makes them again, over the rows that are there now.
    pub async fn make_again(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(self.0.join("; "))).execute(connection).await.map(drop)
    }
}

/// The table as it was before [`drop_from`]: with its indexes, without rows.
pub async fn undo(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK TO indexes").execute(connection).await.map(drop)
}

/// The indexes that can be dropped. What would be different without them:
///
/// - Triggers, checks, domains and defaults may call a function that looks for rows while they are filled. A default that draws
///   from a sequence would draw twice, should the file have to be sent again.
/// - A trigger that is deferred is still to run when the table is altered, and triggers on events are to hear of nothing.
/// - An index is made with another search path, and by another role, than those that its functions are called with otherwise.
///   What comes with the server does not care, and is no dependency.
/// - No definition says the tablespace, and a constraint's not how its index is stored.
fn droppable(table: &str, columns: &[String]) -> String {
    let table = sql::literal(table);
    let columns = columns.iter().map(|name| sql::literal(name)).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT \
         CASE WHEN made.conname IS NULL THEN format('DROP INDEX %s', own.oid::regclass) \
         ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', owner.oid::regclass, made.conname) END AS drop, \
         CASE WHEN made.conname IS NULL THEN pg_get_indexdef(own.oid) \
         ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', owner.oid::regclass, made.conname, pg_get_constraintdef(made.oid)) \
         END AS make \
         FROM pg_index JOIN pg_class AS own ON own.oid = indexrelid JOIN pg_class AS owner ON owner.oid = indrelid \
         LEFT JOIN pg_constraint AS made ON made.conindid = indexrelid AND made.contype IN ('p', 'u', 'x') \
         WHERE indrelid = to_regclass({table}) AND owner.relkind = 'r' AND NOT owner.relispartition \
         AND indisvalid AND indisready AND NOT indisclustered AND NOT indisreplident \
         AND own.reltablespace = 0 AND current_setting('default_tablespace') = '' \
         AND (made.oid IS NULL OR own.reloptions IS NULL) \
         AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = own.oid AND attstattarget >= 0) \
         AND NOT EXISTS (SELECT FROM pg_description WHERE objoid IN (own.oid, made.oid)) \
         AND NOT EXISTS (SELECT FROM pg_depend WHERE refobjid IN (own.oid, made.oid) AND objid <> own.oid) \
         AND NOT EXISTS (SELECT FROM pg_depend WHERE objid IN (own.oid, made.oid) \
         AND (deptype IN ('e', 'x') OR refclassid NOT IN ('pg_class'::regclass, 'pg_constraint'::regclass))) \
         AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = owner.oid AND (tgdeferrable OR NOT tgisinternal)) \
         AND NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtenabled <> 'D') \
         AND NOT EXISTS (SELECT FROM pg_constraint AS checked JOIN pg_depend ON objid = checked.oid \
         WHERE conrelid = owner.oid AND contype = 'c' AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)) \
         AND NOT EXISTS (SELECT FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid \
         WHERE attrelid = owner.oid AND NOT attisdropped AND typtype = 'd') \
         AND NOT EXISTS (SELECT FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
         LEFT JOIN pg_depend ON objid = pg_attrdef.oid AND refobjid <> attrelid \
         WHERE attrelid = owner.oid AND attnum > 0 AND NOT attisdropped AND attname NOT IN ({columns}) \
         AND (attidentity <> '' OR refobjid IS NOT NULL)) \
         ORDER BY indisprimary DESC, own.relname"
    )
}
