//! The databases of a server beside the one that its service is for.

use anyhow::Result;
use sql::literal;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::restore::database::Place;
use crate::engine::aside::Behind;
use crate::engine::postgres::{self, FIRST_OF_USERS, MAINTENANCE_DATABASE, SPARE_DATABASE};

/// Those that a person or a restore has made; and the server's own, once somebody has made a table in it.
pub async fn beside(place: &Place) -> Result<Vec<Behind>> {
    let mut admin = postgres::open(&place.door, &place.login.user, MAINTENANCE_DATABASE).await?;
    let sql = format!(
        "SELECT datname::text, pg_database_size(oid)::text FROM pg_database \
         WHERE datname NOT IN ('template0', 'template1', '{SPARE_DATABASE}', {live}) \
         AND (datname <> '{MAINTENANCE_DATABASE}' OR EXISTS \
           (SELECT FROM pg_class WHERE oid >= {FIRST_OF_USERS} AND relkind IN ('r', 'p', 'm'))) ORDER BY datname",
        live = literal(&place.login.database)
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut admin).await?;
    admin.close().await?;
    let behind =
        rows.iter().map(|row| Ok(Behind { database: row.try_get(0)?, bytes: row.try_get::<&str, _>(1)?.parse()? }));
    behind.collect()
}

/// Whether nobody has made anything in a database.
pub async fn is_empty(place: &Place, database: &str) -> Result<bool> {
    let mut connection = postgres::open(&place.door, &place.login.user, database).await?;
    let sql = format!("SELECT count(*)::text FROM pg_class WHERE oid >= {FIRST_OF_USERS}");
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(row.try_get::<&str, _>(0)? == "0")
}
