//! Roles: a server that has none of those that a backup speaks of gets them with it.

use crate::support::{Checkout, ENGINES};

#[test]
fn roles_that_a_new_server_lacks_are_made_whoever_speaks_of_them() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "--no-migrate"]).ok();
        checkout.sql(
            "learning",
            "CREATE TABLE words (word text); INSERT INTO words VALUES ('a'); \
             CREATE ROLE metabase LOGIN; GRANT CONNECT ON DATABASE learning_db TO metabase; \
             CREATE ROLE nightly; ALTER ROLE nightly IN DATABASE learning_db SET work_mem = '64MB'; \
             CREATE ROLE reader; GRANT SELECT ON words TO reader",
        );
        checkout.run(&["backup", "learning"]).ok();
        checkout.run(&["down", "--volumes", "--yes"]).ok();
        // The first role of the new server is another one, too.
        checkout.set("POSTGRES_USER=somebody");
        checkout.run(&["up", "learning", "--no-migrate"]).ok();
        let restored = checkout.run(&["restore", "learning", "--json"]).ok().json();
        let roles: Vec<&str> =
            restored["restored"][0]["new_roles"].as_array().unwrap().iter().filter_map(|role| role.as_str()).collect();
        assert_eq!(roles, ["effect", "metabase", "nightly", "reader"]);
        let rights = "SELECT has_database_privilege('metabase', 'learning_db', 'CONNECT'), \
            has_table_privilege('reader', 'words', 'SELECT'), \
            (SELECT setconfig FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole WHERE rolname = 'nightly'), \
            (SELECT tableowner FROM pg_tables WHERE tablename = 'words')";
        assert_eq!(checkout.sql("learning", rights), "t|t|{work_mem=64MB}|effect");
    }
}
