//! Locales: a restored database sorts as the one that was backed up, or it is said that it may not.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use crate::support::{Checkout, ENGINES, Engine};

/// What a database sorts by, and what that does: `É` is a large letter of most locales, but not of `C`.
const LOCALE: &str = "SELECT datlocprovider, datcollate, datctype, datlocale, pg_encoding_to_char(encoding), \
    upper('é') FROM pg_database WHERE datname = current_database()";
/// Of a database as `up` makes it.
const DEFAULT: &str = "b|C|C|C.UTF-8|UTF8|É";

/// Makes the live database anew, with a table.
#[track_caller]
fn make(checkout: &Checkout, options: &str) {
    let make = format!("CREATE DATABASE learning_db TEMPLATE template0 {options}");
    let arguments =
        ["psql", "learning", "-X", "-d", "postgres", "-c", "DROP DATABASE learning_db WITH (FORCE)", "-c", &make];
    checkout.run(&arguments).ok();
    checkout
        .sql("learning", "CREATE TABLE words (word text PRIMARY KEY); INSERT INTO words VALUES ('é'), ('z'), ('B')");
}

/// In another database of the server.
#[track_caller]
fn sql_in(checkout: &Checkout, database: &str, statement: &str) -> String {
    checkout.run(&["psql", "learning", "-XAt", "-d", database, "-c", statement]).ok().out.trim().to_owned()
}

/// The latest backup in pg_dump's custom format.
fn export(checkout: &Checkout, file: &str) -> String {
    let exported = checkout.command(&["backup", "show", "learning", "--export"]).output().unwrap();
    assert!(exported.status.success());
    put(checkout, file, &exported.stdout)
}

fn put(checkout: &Checkout, file: &str, content: &[u8]) -> String {
    let path = checkout.beside(file);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Other bytes, as many of them.
#[track_caller]
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    assert_eq!(from.len(), to.len());
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

/// Makes the latest backup one of a database with another locale: what verifies is as it was written, also elsewhere.
#[track_caller]
fn rewrite_backup(checkout: &Checkout, from: &str, to: &str) {
    let shown = checkout.run(&["backup", "show", "learning", "--json"]).ok().json();
    let folder = checkout.root.join("backups/effect/learning").join(shown["backup"].as_str().unwrap());
    let file = shown["subject"]["database"]["head"].as_str().unwrap();
    let head = folder.join(file);
    let mut content = Vec::new();
    archive::part::decode(Box::new(fs::File::open(&head).unwrap()), None).unwrap().read_to_end(&mut content).unwrap();
    fs::remove_file(&head).unwrap();
    let mut writer = archive::part::Writer::new(Box::new(archive::part::create(&head).unwrap()), None).unwrap();
    writer.write_all(&replaced(&content, from, to)).unwrap();
    let written = writer.finish().unwrap();
    let manifest = folder.join("manifest.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let part = text["parts"].as_array_mut().unwrap().iter_mut().find(|part| part["file"] == file).unwrap();
    part["bytes"] = written.bytes.into();
    part["blake3"] = written.blake3.into();
    fs::write(&manifest, serde_json::to_vec_pretty(&text).unwrap()).unwrap();
    let (hash, _) = archive::part::digest(fs::File::open(&manifest).unwrap()).unwrap();
    fs::write(Path::new(&folder).join("manifest.json.b3"), format!("{hash}  manifest.json\n")).unwrap();
}

#[test]
fn a_restored_database_sorts_as_the_one_that_was_backed_up() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "--no-migrate"]).ok();
        assert_eq!(checkout.sql("learning", LOCALE), DEFAULT);
        for (options, locale) in [
            ("LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'", "c|C|C.UTF-8||UTF8|É"),
            ("LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'LATIN1'", "c|C|C||LATIN1|é"),
        ] {
            make(&checkout, options);
            assert_eq!(checkout.sql("learning", LOCALE), locale);
            checkout.run(&["backup", "learning"]).ok();
            let dump = export(&checkout, "learning.dump");
            checkout.run(&["backup", "verify", "--restore"]).ok().says("the same").silent_about("locale");
            // The live one is another by now.
            make(&checkout, "");
            assert_eq!(checkout.sql("learning", LOCALE), DEFAULT);
            let restored = checkout.run(&["restore", "learning", "--json"]).ok().silent_about("not here").json();
            assert!(restored["restored"][0]["other_locale"].is_null());
            assert_eq!(checkout.sql("learning", LOCALE), locale);
            assert_eq!(checkout.sql("learning", "SELECT string_agg(word, '' ORDER BY word) FROM words"), "Bzé");

            checkout.run(&["restore", "learning", "--into", "tried"]).ok().silent_about("not here");
            assert_eq!(sql_in(&checkout, "tried", LOCALE), locale);
            make(&checkout, "");
            checkout.run(&["restore", "learning", "--from", &dump]).ok().silent_about("not here");
            assert_eq!(checkout.sql("learning", LOCALE), locale, "of a dump made elsewhere");
            sql_in(&checkout, "postgres", "DROP DATABASE tried");
            checkout.run(&["restore", "learning", "--drop-old", "--yes"]).ok();
        }
    }
}

#[test]
fn a_locale_that_the_server_has_not_is_told_and_the_rows_come_back() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "--no-migrate"]).ok();
        make(&checkout, "");
        checkout.run(&["backup", "learning"]).ok();
        let (here, elsewhere) = ("BUILTIN_LOCALE = 'C.UTF-8'", "BUILTIN_LOCALE = 'X.UTF-8'");
        let dump = fs::read(export(&checkout, "learning.dump")).unwrap();
        let dump = put(&checkout, "elsewhere.dump", &replaced(&dump, here, elsewhere));
        rewrite_backup(&checkout, here, elsewhere);
        checkout.sql("learning", "DELETE FROM words");
        let told = "not here: the locale `X.UTF-8 (builtin)`, invalid locale name \"X.UTF-8\" for builtin provider; ";
        let told_of = |name: &str| format!("{told}`{name}` has `C.UTF-8 (builtin)` and may sort otherwise");
        checkout.run(&["backup", "verify"]).ok();
        checkout.run(&["backup", "verify", "--restore"]).ok().says("restored, and the same").says(&told_of("learning"));
        checkout.run(&["restore", "learning", "--into", "tried"]).ok().says(&told_of("tried"));
        let restored = checkout.run(&["restore", "learning", "--json"]).ok().says(&told_of("learning")).json();
        assert_eq!(restored["restored"][0]["other_locale"]["wanted"], "X.UTF-8 (builtin)");
        assert_eq!(checkout.sql("learning", LOCALE), DEFAULT);
        assert_eq!(checkout.sql("learning", "SELECT count(*) FROM words"), "3");
        checkout.run(&["restore", "learning", "--from", &dump]).ok().says(&told_of("learning_db"));
        assert_eq!(checkout.sql("learning", LOCALE), DEFAULT);

        if engine == Engine::Native {
            // The server's own does not take this encoding, and musl's C library would take any name.
            make(&checkout, "LOCALE_PROVIDER libc LOCALE 'C' ENCODING 'LATIN1'");
            checkout.run(&["backup", "learning"]).ok();
            rewrite_backup(&checkout, "LOCALE = 'C'", "LOCALE = 'Q'");
            checkout.run(&["restore", "learning"]).ok().says("not here: the locale `Q (libc)`").says("has `C (libc)`");
            assert_eq!(checkout.sql("learning", LOCALE), "c|C|C||LATIN1|é");
        }
    }
}

#[test]
fn plain_dumps_say_their_locale_and_can_say_no_more_with_it() {
    let checkout = Checkout::new();
    checkout.run(&["up", "learning", "--no-migrate"]).ok();
    let begin = "-- Dumped from database version 18.1\n\nCREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8'";
    let end = "\\connect x\nCREATE TABLE words (word text);\n";
    for (locale, got, told) in [
        ("LOCALE_PROVIDER = libc LOCALE = 'C'", "c|C|C||UTF8|é", "made by PostgreSQL 18.1"),
        ("LOCALE_PROVIDER = libc LOCALE = E'\\x43'", DEFAULT, "not understood: what the dump says of its locale"),
        (
            "LOCALE = 'C'' OWNER nobody; DROP DATABASE learning_db; --'",
            DEFAULT,
            "not here: the locale `C' OWNER nobody; DROP DATABASE learning_db; -- (libc)`",
        ),
        (
            "LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'X'\n  \
            ICU_RULES = '&a < ''b''\nALTER x OWNER TO somebody;\n' ",
            DEFAULT,
            "not here: the locale `X (icu), rules of its own`",
        ),
    ] {
        let dump = put(&checkout, "plain.sql", format!("{begin} {locale};\n{end}").as_bytes());
        checkout.run(&["restore", "learning", "--from", &dump]).ok().says(told).silent_about("the roles");
        assert_eq!(checkout.sql("learning", LOCALE), got, "{locale}");
    }
    let row = "CREATE TABLE t (a text);\nCOPY t (a) FROM stdin;\n\
        CREATE DATABASE x WITH LOCALE_PROVIDER = libc LOCALE = 'C';\n\\.\n";
    let dump = put(&checkout, "row.sql", row.as_bytes());
    checkout.run(&["restore", "learning", "--from", &dump]).ok().silent_about("locale");
    assert_eq!(checkout.sql("learning", LOCALE), DEFAULT, "a row is no statement");
}

#[test]
fn an_encoding_without_a_locale_is_kept_and_one_that_there_is_not_becomes_utf8() {
    for engine in ENGINES {
        let Some(checkout) = Checkout::on(engine) else { continue };
        checkout.run(&["up", "learning", "--no-migrate"]).ok();
        let restore = |options: &str| {
            let dump = format!(
                "CREATE DATABASE x WITH TEMPLATE = template0 {options};\nSET client_encoding = 'UTF8';\n\
                CREATE TABLE words (word text);\nINSERT INTO words VALUES ('é');\n"
            );
            let dump = put(&checkout, "encoded.sql", dump.as_bytes());
            let restored = checkout.run(&["restore", "learning", "--from", &dump, "--json"]).ok();
            assert_eq!(checkout.sql("learning", "SELECT convert_to(word, 'UTF8') FROM words"), "\\xc3a9");
            (restored, checkout.sql("learning", LOCALE))
        };
        let (restored, locale) = restore("ENCODING = 'LATIN1'");
        assert_eq!(locale, "c|C|C||LATIN1|é");
        let restored = restored.silent_about("not here").silent_about("not understood").json();
        assert!(restored["other_encoding"].is_null());

        for (encoding, options, got) in [
            ("KLINGON", "", DEFAULT),
            ("SJIS", "", DEFAULT),
            ("SJIS", "LOCALE_PROVIDER = libc LOCALE = 'C'", "c|C|C||UTF8|é"),
        ] {
            let (restored, locale) = restore(&format!("ENCODING = '{encoding}' {options}"));
            assert_eq!(locale, got, "{encoding} {options}");
            let restored = restored
                .says(&format!("not here: the encoding `{encoding}`, "))
                .says("; `learning_db` has `UTF8`")
                .silent_about("the locale")
                .json();
            assert_eq!(restored["other_encoding"]["wanted"], encoding);
            assert!(restored["other_locale"].is_null());
        }
    }
}
