//! Indexes of a table that a large seed fills: made after its rows, and the same as before.

use std::fs;

use crate::seed::seeds;
use crate::support::{Checkout, has_postgres_15, skip};

const ROWS: usize = 20_000;
const TABLE: &str = "CREATE TABLE visit (id integer PRIMARY KEY, slug text CONSTRAINT visit_slug UNIQUE NULLS DISTINCT, \
    number integer UNIQUE, span int4range, amount integer, at timestamptz, CONSTRAINT visit_span EXCLUDE USING gist (span WITH &&))";
const INDEXES: &str = "CREATE INDEX visit_amount ON visit (amount DESC) WHERE amount > 5; \
    CREATE UNIQUE INDEX visit_lower ON visit (lower(slug)) INCLUDE (at) WITH (fillfactor = 70)";
/// What has something that its definition does not say, or that something else depends on.
const LASTING: &str = "CREATE INDEX visit_said ON visit (at); COMMENT ON INDEX visit_said IS 'by time'; \
    CREATE INDEX visit_measured ON visit ((amount * 2)); ALTER INDEX visit_measured ALTER COLUMN 1 SET STATISTICS 500; \
    CREATE INDEX visit_clustered ON visit (amount, id); ALTER TABLE visit CLUSTER ON visit_clustered; \
    CREATE TABLE stay (visit integer REFERENCES visit (number))";

/// Rows of which no two contradict each other, and then these lines.
fn visits(more: &str) -> String {
    let mut csv = "id,slug,number,span,amount,at\n".to_owned();
    for n in 0..ROWS {
        csv += &format!("{n},Visit {n} of a person,{n},\"[{n},{})\",{},2026-01-05 09:00:00+00\n", n + 1, n % 11);
    }
    csv + more
}

/// One line for each index: by its name, what it is, and whether it can be used.
fn definitions(checkout: &Checkout) -> String {
    checkout.sql(
        "user",
        "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid), conname, pg_get_constraintdef(made.oid), indisvalid, indisready, \
         indisclustered, obj_description(indexrelid, 'pg_class'), (SELECT max(attstattarget) FROM pg_attribute WHERE attrelid = indexrelid), \
         (SELECT reltablespace FROM pg_class WHERE oid = indexrelid) FROM pg_index LEFT JOIN pg_constraint AS made ON conindid = indexrelid AND contype <> 'f' \
         WHERE indrelid = 'visit'::regclass ORDER BY indexrelid::regclass::text",
    )
}

/// Every index by its name, with its number: one that was made again has another.
fn numbers(checkout: &Checkout) -> Vec<(String, String)> {
    let said = checkout.sql(
        "user",
        "SELECT indexrelid::regclass, indexrelid FROM pg_index WHERE indrelid = 'visit'::regclass ORDER BY indexrelid::regclass::text",
    );
    said.lines().filter_map(|line| line.split_once('|')).map(|(name, oid)| (name.to_owned(), oid.to_owned())).collect()
}

fn remade(checkout: &Checkout, before: &[(String, String)]) -> Vec<String> {
    let now = numbers(checkout);
    assert_eq!(now.len(), before.len());
    now.iter().zip(before).filter(|(now, before)| now.1 != before.1).map(|(now, _)| now.0.clone()).collect()
}

fn count(checkout: &Checkout) -> String {
    checkout.sql("user", "SELECT count(*) FROM visit")
}

#[test]
fn what_comes_back_as_it_was_is_made_after_the_rows() {
    let checkout = Checkout::new();
    checkout.run(&["up", "user", "--no-migrate"]).ok();
    for statement in [TABLE, INDEXES, LASTING] {
        checkout.sql("user", statement);
    }
    let mut apart = checkout.session("user");
    apart.say("SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE apart LOCATION '';");
    apart.say("CREATE INDEX visit_apart ON visit (slug) TABLESPACE apart;");
    apart.end();
    let (defined, before) = (definitions(&checkout), numbers(&checkout));
    seeds(&checkout, "user", &[("0001_visit.csv", &visits(""))]);
    checkout.run(&["seed", "user"]).ok().says("20,000 rows");
    assert_eq!(count(&checkout), ROWS.to_string());
    assert_eq!(definitions(&checkout), defined);
    let again = ["visit_amount", "visit_lower", "visit_pkey", "visit_slug", "visit_span"];
    assert_eq!(remade(&checkout, &before), again);
    // They hold: each finds its row, and what contradicts them is refused.
    let found = "SET enable_seqscan = off; SELECT id FROM visit WHERE lower(slug) = 'visit 7 of a person'";
    assert!(checkout.sql("user", found).ends_with('7'));
    checkout.run(&["psql", "user", "-c", "INSERT INTO visit (id) VALUES (7)"]).exits(1).says("visit_pkey");

    // Rows that contradict each other are told by their line, and nothing was changed.
    let before = numbers(&checkout);
    for (line, named) in [
        ("7,again,-1,\"[-2,-1)\",1,2026-01-05", "visit_pkey"),
        ("-1,VISIT 7 OF A PERSON,-1,\"[-2,-1)\",1,2026-01-05", "visit_lower"),
        ("-1,again,-1,\"[7,9)\",1,2026-01-05", "visit_span"),
        ("-1,again,7,\"[-2,-1)\",1,2026-01-05", "visit_number_key"),
    ] {
        seeds(&checkout, "user", &[("0001_visit.csv", &visits(&format!("{line}\n")))]);
        let place = format!("0001_visit.csv:{}", ROWS + 2);
        checkout.run(&["seed", "user", "--again", "--yes", "--no-backup"]).exits(1).says(&place).says(named);
        assert_eq!(count(&checkout), ROWS.to_string());
        assert!(remade(&checkout, &before).is_empty());
    }
    assert_eq!(definitions(&checkout), defined);

    // Where it turns out that they cannot be made, they are kept after all, and no row counts twice.
    checkout.sql(
        "user",
        "ALTER DATABASE user_db SET temp_file_limit = '64kB'; ALTER DATABASE user_db SET maintenance_work_mem = '1MB'",
    );
    seeds(&checkout, "user", &[("0001_visit.csv", &visits(""))]);
    checkout.run(&["seed", "user", "--again", "--yes", "--no-backup"]).ok().says("20,000 rows");
    assert_eq!(count(&checkout), ROWS.to_string());
    assert!(remade(&checkout, &before).is_empty());
}

#[test]
fn a_table_that_is_not_ours_alone_keeps_its_indexes() {
    let checkout = Checkout::new();
    checkout.run(&["up", "user", "--no-migrate"]).ok();
    checkout.sql("user", TABLE);
    let before = numbers(&checkout);
    seeds(&checkout, "user", &[("0001_visit.csv", &visits(""))]);
    let kept = || {
        checkout.run(&["seed", "user"]).ok().says("20,000 rows");
        assert!(remade(&checkout, &before).is_empty());
    };
    let empty = || checkout.sql("user", "DROP TABLE _xtask_seeds; TRUNCATE visit");
    let seeded = || {
        kept();
        empty();
    };
    // Somebody reads, and is not waited for.
    let mut reader = checkout.session("user");
    reader.say("BEGIN; SELECT count(*) FROM visit;");
    kept();
    reader.end();
    empty();
    // A trigger may look at the rows.
    checkout.sql(
        "user",
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM FROM visit WHERE id = NEW.id; RETURN NEW; END'; \
         CREATE TRIGGER look AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION look()",
    );
    seeded();
    checkout.sql(
        "user",
        "DROP TRIGGER look ON visit; CREATE FUNCTION hear() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
        CREATE EVENT TRIGGER hear ON sql_drop EXECUTE FUNCTION hear()",
    );
    seeded();
    // What is deferred is still to run when the table would be altered.
    checkout.sql(
        "user",
        "DROP EVENT TRIGGER hear; CREATE TABLE place (id integer PRIMARY KEY); INSERT INTO place VALUES (1); \
         ALTER TABLE visit ADD place integer DEFAULT 1 REFERENCES place DEFERRABLE INITIALLY DEFERRED",
    );
    seeded();
    // Functions that may look at rows, or that see other things when an index is made than later.
    checkout.sql("user", "ALTER TABLE visit DROP COLUMN place");
    let seen =
        "CREATE FUNCTION seen(at integer) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'";
    for (make, remove) in [
        ("ALTER TABLE visit ADD CONSTRAINT looked CHECK (seen(amount))", "ALTER TABLE visit DROP CONSTRAINT looked"),
        ("ALTER TABLE visit ADD good boolean DEFAULT seen(1)", "ALTER TABLE visit DROP good"),
        ("ALTER TABLE visit ADD number_of_it serial", "ALTER TABLE visit DROP number_of_it"),
        ("ALTER TABLE visit ADD it integer GENERATED ALWAYS AS IDENTITY", "ALTER TABLE visit DROP it"),
        (
            "CREATE DOMAIN small AS integer CHECK (seen(VALUE)); ALTER TABLE visit ADD s small",
            "ALTER TABLE visit DROP s",
        ),
    ] {
        checkout.sql("user", &format!("{seen}; {make}"));
        seeded();
        checkout.sql("user", &format!("{remove}; DROP FUNCTION seen CASCADE"));
    }
    // A plain default is none of these; an index of such a function is kept, and the others are made again.
    checkout.sql(
        "user",
        &format!(
            "{seen}; CREATE INDEX visit_seen ON visit (seen(amount)); ALTER TABLE visit ADD t timestamptz DEFAULT now()"
        ),
    );
    let more = numbers(&checkout);
    checkout.run(&["seed", "user"]).ok().says("20,000 rows");
    assert_eq!(remade(&checkout, &more), ["visit_number_key", "visit_pkey", "visit_slug", "visit_span"]);
    checkout.sql("user", "DROP TABLE _xtask_seeds; TRUNCATE visit; DROP FUNCTION seen CASCADE");
    let before = numbers(&checkout);
    // A view is not looked into.
    checkout.sql(
        "user",
        "CREATE VIEW look AS SELECT visit.* FROM visit, (SELECT 1 / 0 AS never) AS fails; \
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO visit (id) VALUES (NEW.id); RETURN NEW; END'; \
         CREATE TRIGGER put INSTEAD OF INSERT ON look FOR EACH ROW EXECUTE FUNCTION put()",
    );
    seeds(&checkout, "user", &[("0001_look.csv", &visits(""))]);
    checkout.run(&["seed", "user"]).ok().says("20,000 rows");
    assert!(remade(&checkout, &before).is_empty());
    checkout.sql("user", "DROP TABLE _xtask_seeds; TRUNCATE visit");
    // Rows are there.
    let first = "INSERT INTO visit (id) VALUES (-1)";
    seeds(&checkout, "user", &[("0001_first.sql", first), ("0002_visit.csv", &visits(""))]);
    checkout.run(&["seed", "user"]).ok().says("20,001 rows");
    assert!(remade(&checkout, &before).is_empty());
}

#[test]
fn migrations_and_the_other_stacks_server_find_them_unchanged() {
    let checkout = Checkout::new();
    checkout.run(&["up", "user"]).ok();
    let migration = "config/effect/user/migrations/20990101000000_visit";
    fs::write(checkout.root.join(format!("{migration}.up.sql")), format!("{TABLE};\n{INDEXES};\n")).unwrap();
    fs::write(checkout.root.join(format!("{migration}.down.sql")), "DROP TABLE visit;\n").unwrap();
    checkout.run(&["migrate", "user"]).ok();
    let before = numbers(&checkout);
    seeds(&checkout, "user", &[("0001_visit.csv", &visits(""))]);
    checkout.run(&["seed", "user"]).ok();
    assert_eq!(remade(&checkout, &before).len(), before.len());
    checkout.run(&["migrate", "check", "user"]).ok();

    if !has_postgres_15() {
        return skip("no PostgreSQL 15");
    }
    let checkout = Checkout::new();
    checkout.run(&["up", "game", "--stack", "nanika", "--no-migrate"]).ok();
    let psql = |statement: &str| checkout.run(&["psql", "game", "--stack", "nanika", "-XAtc", statement]).ok().out;
    for statement in [TABLE, INDEXES, LASTING] {
        psql(statement);
    }
    let numbers = "SELECT indexrelid FROM pg_index WHERE indrelid = 'visit'::regclass ORDER BY indexrelid";
    let before = psql(numbers);
    let seeds = checkout.root.join("config/nanika/game/seeds");
    fs::remove_dir_all(&seeds).unwrap();
    fs::create_dir_all(&seeds).unwrap();
    fs::write(seeds.join("0001_visit.csv"), visits("")).unwrap();
    checkout.run(&["seed", "--stack", "nanika"]).ok().says("20,000 rows");
    let now = psql(numbers);
    let kept = now.lines().filter(|number| before.lines().any(|one| one == *number)).count();
    assert_eq!((now.lines().count(), kept), (9, 4), "{before}\n{now}");
}
