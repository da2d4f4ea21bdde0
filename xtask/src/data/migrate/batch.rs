//! Everything that one database is to do in a transaction, as one message; and what went wrong in it, told by the place in
//! the file that it came from.

use anyhow::{Result, anyhow};
use futures_util::TryStreamExt;
use sql::literal;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Column, Either, Row};

use super::catalog::{self, Catalog};
use super::history::{self, History};
use super::locks::Timeouts;
use super::plan::Step;

/// Said by the message itself: somebody else is migrating, or has migrated since the plan was made. No number is spelled so,
/// and the server says which text it takes for none: that needs no PL/pgSQL, which takes a new connection a while to load.
const LOCKED: &str = "XT001";
const CHANGED: &str = "XT002";
const NO_NUMBER: &str = "22P02";
const TABLE_EXISTS: &str = "42P07";
/// The row before a stretch of steps, and its time in nanoseconds. What was applied is recorded with COMMIT, all rows at
/// once.
const MARK: &str = "xtask_step";
/// The row with the catalog that the message leaves, where it is asked for.
pub const CATALOG: &str = "xtask_catalog";
const MOMENT: &str = "(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000000::float8)::bigint";

/// What a message has done; the transaction is still open.
#[derive(Debug, Default)]
pub struct Done {
    /// By step. Those between two marks share the time equally.
    pub nanoseconds: Vec<i64>,
    /// That the message leaves, if it asks for it.
    pub catalog: Option<Catalog>,
}

/// How a message ended.
#[derive(Debug)]
pub enum Outcome {
    Done(Box<Done>),
    Locked,
    Changed,
    Failed(Box<StepError>),
    /// The connection itself.
    Lost(anyhow::Error),
}

impl Outcome {
    /// Of an error: what the server `refused`, or the loss of the connection.
    fn of_error(error: sqlx::Error, refused: impl FnOnce(&PgDatabaseError) -> Outcome) -> Outcome {
        let lost = match &error {
            sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                // Shut down, or torn away.
                Some(database) if database.code().starts_with("57P") => anyhow!("{}", database.message()),
                Some(database) => return refused(database),
                None => anyhow!("an error that PostgreSQL does not have"),
            },
            _ => error.into(),
        };
        Outcome::Lost(lost)
    }

    /// Of an error that no step is to blame for.
    pub fn of(error: sqlx::Error) -> Outcome {
        Outcome::of_error(error, |error| Outcome::Failed(Box::new(StepError::of(error))))
    }
}

/// What the server said, and where in the file.
#[derive(Debug, Clone)]
pub struct StepError {
    /// Which step, counted from 0; `None`: none of them.
    pub step: Option<usize>,
    /// Byte of the step's text.
    pub offset: Option<usize>,
    /// Bytes to underline.
    pub length: usize,
    pub code: String,
    pub message: String,
    pub notes: Vec<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub constraint: Option<String>,
}

/// A message, and where the texts of its steps are in it.
#[derive(Debug)]
pub struct Batch<'b> {
    pub text: String,
    steps: Vec<Step<'b>>,
    /// By step, in bytes.
    places: Vec<usize>,
    /// How many steps lie between one mark and the next.
    stretches: Vec<usize>,
}

impl<'b> Batch<'b> {
    /// Begins a transaction, takes the lock, looks whether the history still is what the plan was made for, applies the
    /// steps, and says what is to be said at the `end`. The transaction has the settings of `begin`, expressions for SELECT.
    /// COMMIT is not in it.
    pub fn new(
        history: &History,
        tables: &[&str],
        steps: &[Step<'b>],
        timeouts: Timeouts,
        key: i64,
        begin: &str,
        end: &str,
    ) -> Batch<'b> {
        let mut text = format!("BEGIN;\nSELECT {}, {begin};\n", settings(history, timeouts));
        let unless = |holds: &str, what| format!("SELECT (CASE WHEN {holds} THEN '0' ELSE '{what}' END)::integer;\n");
        text.push_str(&unless(&format!("pg_catalog.pg_try_advisory_xact_lock({key})"), LOCKED));
        for (index, table) in tables.iter().enumerate() {
            text.push_str(&match history.has_table[index] {
                true => {
                    let (now, then) = (history.state_query(table), literal(&history.state(index)));
                    unless(&format!("({now}) = {then}"), CHANGED)
                }
                false => history::create_history(history, table),
            });
        }
        text.push_str(&history::create_ours(history));
        // Where nothing was applied before, what makes tables takes no time, and less than a mark does.
        let is_new = history.count() == 0;
        let (mut places, mut stretches) = (Vec::new(), Vec::new());
        let mark = format!("SELECT {MOMENT} AS {MARK}");
        let reset = format!("{mark}, {}", settings(history, timeouts));
        let mut has_defined = true;
        for step in steps {
            let only_defines = step.script.reading().only_defines;
            match stretches.last_mut() {
                Some(stretch) if is_new && has_defined && only_defines => *stretch += 1,
                _ => {
                    text.push_str(&format!("{};\n", if has_defined { &mark } else { &reset }));
                    stretches.push(1);
                }
            }
            places.push(text.len());
            text.push_str(&step.script.text);
            text.push_str("\n;\n");
            has_defined = only_defines;
            if !only_defines {
                // What COMMIT would check is checked now, where it still says which step it was.
                text.push_str("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED;\n");
            }
        }
        text.push_str(&format!("SET CONSTRAINTS ALL IMMEDIATE;\n{reset};\n{end}"));
        Batch { text, steps: steps.to_vec(), places, stretches }
    }

    /// Sends it and reads every answer.
    pub async fn send(&self, connection: &mut PgConnection) -> Outcome {
        let mut done = Done::default();
        // Which stretch is at work, and how many of its statements are done.
        let (mut stretch, mut finished, mut begun) = (None::<usize>, 0_usize, 0_i64);
        let mut answers = sqlx::raw_sql(AssertSqlSafe(self.text.clone())).fetch_many(connection);
        loop {
            match answers.try_next().await {
                Ok(None) => {
                    return Outcome::Done(Box::new(done));
                }
                Ok(Some(Either::Left(_))) => finished += 1,
                Ok(Some(Either::Right(row))) => match row.columns().first().map(Column::name) {
                    Some(MARK) => {
                        let now: i64 = row.try_get(0).unwrap_or(begun);
                        if let Some(steps) = stretch.and_then(|stretch| self.stretches.get(stretch)) {
                            let each = (now - begun) / i64::try_from(*steps).unwrap_or(1);
                            done.nanoseconds.extend(std::iter::repeat_n(each, *steps));
                        }
                        (stretch, finished, begun) = (Some(stretch.map_or(0, |stretch| stretch + 1)), 0, now);
                    }
                    Some(CATALOG) => match row.try_get(0).map_err(Into::into).and_then(catalog::kept) {
                        Ok(catalog) => done.catalog = Some(catalog),
                        Err(error) => return Outcome::Lost(error),
                    },
                    _ => {}
                },
                Err(error) => {
                    return Outcome::of_error(error, |error| {
                        let said = |word| stretch.is_none() && error.message().contains(word);
                        match error.code() {
                            NO_NUMBER if said(LOCKED) => Outcome::Locked,
                            NO_NUMBER if said(CHANGED) => Outcome::Changed,
                            TABLE_EXISTS if stretch.is_none() => Outcome::Changed,
                            _ => Outcome::Failed(Box::new(self.locate(error, stretch, finished))),
                        }
                    });
                }
            }
        }
    }

    /// From the place in the message to the place in the file. A syntax error comes before any step has begun.
    fn locate(&self, error: &PgDatabaseError, stretch: Option<usize>, finished: usize) -> StepError {
        let mut found = StepError::of(error);
        let steps = &self.steps;
        if let Some(PgErrorPosition::Original(position)) = error.position() {
            let at = self.text.char_indices().nth(position.saturating_sub(1)).map_or(self.text.len(), |(at, _)| at);
            let owner = self.places.iter().rposition(|start| *start <= at);
            if let Some(owner) = owner.filter(|owner| at <= self.places[*owner] + steps[*owner].script.text.len()) {
                found.point(owner, &steps[owner].script.text, at - self.places[owner]);
                return found;
            }
        }
        // No place: the statement that was at work. The first answer is the mark's.
        let Some(stretch) = stretch.filter(|stretch| *stretch < self.stretches.len()) else { return found };
        let first: usize = self.stretches[..stretch].iter().sum();
        let last = first + self.stretches[stretch] - 1;
        let (mut step, mut finished) = (first, finished.saturating_sub(1));
        let mut statements = sql::statements(&steps[step].script.text).unwrap_or_default();
        while step < last && finished >= statements.len() {
            finished -= statements.len();
            step += 1;
            statements = sql::statements(&steps[step].script.text).unwrap_or_default();
        }
        found.step = Some(step);
        let text = &steps[step].script.text;
        if let Some(statement) = statements.get(finished) {
            found.offset = Some(statement.start);
            found.length = text[statement.start..statement.end].lines().next().map_or(1, str::len);
        }
        found
    }
}

impl StepError {
    pub fn of(error: &PgDatabaseError) -> StepError {
        let mut notes: Vec<String> = [error.detail(), error.hint()].into_iter().flatten().map(str::to_owned).collect();
        if let Some(context) = error.r#where() {
            notes.extend(context.lines().take(4).map(str::to_owned));
        }
        let text = |text: Option<&str>| text.map(str::to_owned);
        StepError {
            step: None,
            offset: None,
            length: 1,
            code: error.code().to_owned(),
            message: error.message().to_owned(),
            notes,
            table: text(error.table()),
            column: text(error.column()),
            constraint: text(error.constraint()),
        }
    }

    /// Points at a byte of a step's text, and underlines the word there.
    pub fn point(&mut self, step: usize, text: &str, offset: usize) {
        let rest = &text[offset.min(text.len())..];
        let word = rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_');
        self.step = Some(step);
        self.offset = Some(offset);
        self.length = word.map(char::len_utf8).sum::<usize>().max(1);
    }
}

/// What every step begins with. They are set again where the step before may have set others.
fn settings(history: &History, timeouts: Timeouts) -> String {
    let set = |name: &str, value: &str| format!("pg_catalog.set_config('{name}', {}, true)", literal(value));
    let values = [
        set("role", "none"),
        set("search_path", &history.search_path),
        set("lock_timeout", &format!("{}ms", timeouts.lock.as_millis())),
        set("statement_timeout", &format!("{}ms", timeouts.statement.as_millis())),
        // A server that lost its client does not go on working for nobody.
        set("client_connection_check_interval", "1s"),
    ];
    values.join(", ")
}

/// The settings for a session, for what runs outside of transactions.
pub async fn set_session(connection: &mut PgConnection, timeouts: Timeouts) -> Result<()> {
    let sql = format!(
        "SET lock_timeout = '{}ms'; SET statement_timeout = '{}ms'; SET client_connection_check_interval = '1s'",
        timeouts.lock.as_millis(),
        timeouts.statement.as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
