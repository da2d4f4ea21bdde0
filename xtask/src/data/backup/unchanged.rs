//! Tables that hold what they held at an earlier cut, as the numbers of the transactions that wrote their rows prove. The
//! server counts the rows and sends none.
//!
//! Every transaction below the earlier cut's `xmin` had ended by then. A row that is visible now and was written by one of them
//! was visible then: whoever had deleted it before that cut would hide it now as well. So if no row is younger, and there are as
//! many as there were, they are the same rows. That they also read the same takes a definition as old as the rows are, and types
//! of the server's own whose text depends on nothing else: a `regclass` reads otherwise once its table is renamed.

use anyhow::Result;
use sql::{identifier, literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::manifest::Standing;
use crate::engine::postgres::FIRST_OF_USERS;

/// How many tables are asked for in one statement, and how many are proven at all: each is an argument of the dump.
const AT_ONCE: usize = 100;
const MOST: usize = 2000;

/// Transactions between two cuts that leave no doubt which of two numbers is the older one, of 2³¹ that the server tells
/// apart.
const FARTHEST: u64 = 1 << 30;

/// As for the dump itself: how long it waits for a table that somebody holds exclusively; and that no rows are hidden.
const SESSION: &str = "SET LOCAL lock_timeout = '60s'; SET LOCAL row_security = off";

/// Two cuts within one run of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Below it, every transaction had ended at the earlier cut.
    horizon: u64,
}

impl Span {
    /// `None` where numbers may not mean the same at both: data that are put back to an older state count them again.
    pub fn between(earlier: &Standing, now: &Standing) -> Option<Span> {
        // `xmin:xmax:xip,…`, of 64 bits each.
        let horizon: u64 = earlier.snapshot.split(':').next()?.parse().ok()?;
        let next: u64 = now.snapshot.split(':').nth(1)?.parse().ok()?;
        let is_near = next.checked_sub(horizon).is_some_and(|count| count < FARTHEST);
        (earlier.within == now.within && is_near).then_some(Span { horizon })
    }

    /// The SQL for the age of what is just too young.
    fn age(self) -> String {
        format!("(SELECT age('{}'::xid8::xid))", self.horizon)
    }
}

/// A table that may be unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub schema: String,
    pub table: String,
    /// That it had at the earlier cut.
    pub rows: u64,
}

/// A table that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchanged {
    pub schema: String,
    pub table: String,
    /// The statement that its rows are for, as a dump has it.
    pub copy: String,
}

/// Proves what can be proven, within the transaction that is the later cut.
pub async fn prove(connection: &mut PgConnection, span: Span, candidates: &[Candidate]) -> Result<Vec<Unchanged>> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let mut proven = Vec::new();
    sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
    let defined = sqlx::raw_sql(AssertSqlSafe(as_defined(span, candidates))).fetch_all(&mut *connection).await?;
    let defined: Vec<(&Candidate, String)> = defined
        .iter()
        .map(|row| Ok((&candidates[row.try_get::<&str, _>(0)?.parse::<usize>()?], row.try_get(1)?)))
        .collect::<Result<_>>()?;
    for some in defined[..defined.len().min(MOST)].chunks(AT_ONCE) {
        let counts = some.iter().enumerate().map(|(place, (candidate, _))| count(span, place, candidate));
        let sql = format!("{} ORDER BY place", counts.collect::<Vec<_>>().join(" UNION ALL "));
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        for (row, (candidate, copy)) in rows.iter().zip(some) {
            let (rows, is_old): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
            if is_old == "true" && rows == candidate.rows.to_string() {
                let (schema, table) = (candidate.schema.clone(), candidate.table.clone());
                proven.push(Unchanged { schema, table, copy: copy.clone() });
            }
        }
    }
    Ok(proven)
}

/// The places of the candidates that are defined as they were, each with its statement.
///
/// Rows of a partition below a hash may be loaded by way of its root, which only a dump decides. A type counts if it is the
/// server's own, or an enum, or an array of one. A table that is not a heap need not know who wrote a row.
fn as_defined(span: Span, candidates: &[Candidate]) -> String {
    let named = candidates
        .iter()
        .enumerate()
        .map(|(place, one)| format!("({place}, {}, {})", literal(&one.schema), literal(&one.table)));
    format!(
        "WITH candidates (place, schema, name) AS (VALUES {named}) \
         SELECT place::text, format('COPY %I.%I (%s) FROM stdin;', nspname, relname, columns) || E'\\n' \
         FROM candidates JOIN pg_namespace ON nspname = schema \
         JOIN pg_class ON relnamespace = pg_namespace.oid AND relname = name AND relkind = 'r' \
           AND relam = (SELECT oid FROM pg_am WHERE amname = 'heap'), \
         LATERAL (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM pg_attribute \
           WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') of_it \
         WHERE columns IS NOT NULL AND age(pg_class.xmin) > {age} \
         AND NOT EXISTS (SELECT FROM pg_partition_ancestors(pg_class.oid) JOIN pg_partitioned_table ON partrelid = relid \
           WHERE partstrat = 'h') \
         AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND age(xmin) <= {age}) \
         AND NOT EXISTS (SELECT FROM pg_attribute JOIN pg_type own ON own.oid = atttypid \
           JOIN pg_type ON pg_type.oid = CASE own.typoutput WHEN 'array_out'::regproc THEN own.typelem ELSE own.oid END \
           WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND NOT ( \
             age(own.xmin) > {age} AND age(pg_type.xmin) > {age} \
             AND (pg_type.typtype IN ('b', 'r', 'm') AND pg_type.oid < {FIRST_OF_USERS} OR pg_type.typtype = 'e') \
             AND pg_type.typname !~ '^reg' AND pg_type.typname NOT IN ('aclitem', 'money') \
             AND NOT EXISTS (SELECT FROM pg_enum WHERE enumtypid = pg_type.oid AND age(pg_enum.xmin) <= {age}))) \
         ORDER BY pg_relation_size(pg_class.oid) DESC",
        named = named.collect::<Vec<_>>().join(", "),
        age = span.age(),
    )
}

/// How many rows there are, and whether all are old enough.
fn count(span: Span, place: usize, candidate: &Candidate) -> String {
    format!(
        "SELECT {place} AS place, count(*)::text, coalesce(bool_and(age(xmin) > {}), true)::text FROM ONLY {}.{}",
        span.age(),
        identifier(&candidate.schema),
        identifier(&candidate.table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(within: &str, snapshot: &str) -> Standing {
        Standing { within: within.to_owned(), snapshot: snapshot.to_owned() }
    }

    #[test]
    fn numbers_are_compared_within_one_run_of_a_server_and_no_farther_than_they_can_be_told_apart() {
        let earlier = at("monday", "700:705:701,703");
        let horizon = |now: &Standing| Span::between(&earlier, now).map(|span| span.horizon);
        assert_eq!(horizon(&at("monday", "900:900:")), Some(700));
        assert_eq!(horizon(&at("tuesday", "900:900:")), None);
        assert_eq!(horizon(&at("monday", "600:600:")), None, "it was put back");
        assert_eq!(horizon(&at("monday", "5000000000:5000000000:")), None);
        assert_eq!(horizon(&at("monday", "")), None);
    }
}
