//! How a database sorts, and which letters it takes for large and small: what a dump says of that, and how a server is
//! asked for the same. A dump is somebody else's text: its statement is taken apart into names, and a new one is
//! written of those.
//!
//! A collation's version is left out: it is the C library's or ICU's, and other here.

use std::collections::BTreeMap;
use std::fmt;

use archive::custom::Head;
use serde::Serialize;
use sql::literal;

use crate::stack::model::initdb_locale;

/// Of a name, in bytes: longer than any that there is.
const NAME_LIMIT: usize = 120;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locale {
    collate: String,
    ctype: String,
    provider: Provider,
}

/// Who sorts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Provider {
    /// The C library, by the two names that every database has.
    Libc,
    Icu {
        locale: String,
        rules: Option<String>,
    },
    /// PostgreSQL itself, from 17 on.
    Builtin {
        locale: String,
    },
}

impl Locale {
    /// By PostgreSQL's names, or letters, of providers; nothing if there is no such thing.
    pub fn new(
        provider: &str,
        collate: String,
        ctype: String,
        locale: Option<String>,
        rules: Option<String>,
    ) -> Option<Locale> {
        let provider = match (provider, locale) {
            ("libc" | "c", _) => Provider::Libc,
            ("icu" | "i", Some(locale)) => Provider::Icu { locale, rules },
            ("builtin" | "b", Some(locale)) => Provider::Builtin { locale },
            _ => return None,
        };
        Some(Locale { collate, ctype, provider })
    }

    /// What servers of that version are made with here.
    fn default_of(major: u32) -> Option<Locale> {
        let arguments = initdb_locale(major);
        let value = |name: &str| {
            let mut values = arguments.iter().filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
            values.next().map(str::to_owned)
        };
        let names = value("--locale")?;
        let provider = value("--locale-provider").unwrap_or_else(|| "libc".to_owned());
        Locale::new(&provider, names.clone(), names, value("--builtin-locale"), None)
    }

    /// The one that every server has, for every encoding.
    fn plain() -> Locale {
        Locale { collate: "C".to_owned(), ctype: "C".to_owned(), provider: Provider::Libc }
    }

    /// As CREATE DATABASE takes it. What an older server does not know, it refuses itself.
    fn options(&self, major: u32) -> String {
        let mut options = format!(" LC_COLLATE {} LC_CTYPE {}", literal(&self.collate), literal(&self.ctype));
        match &self.provider {
            // Before 15 there was no other.
            Provider::Libc if major < 15 => {}
            Provider::Libc => options.push_str(" LOCALE_PROVIDER libc"),
            Provider::Icu { locale, rules } => {
                options.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)));
                if let Some(rules) = rules {
                    options.push_str(&format!(" ICU_RULES {}", literal(rules)));
                }
            }
            Provider::Builtin { locale } => {
                options.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale)));
            }
        }
        options
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Provider::Libc if self.collate == self.ctype => write!(formatter, "{} (libc)", self.collate),
            Provider::Libc => write!(formatter, "{} (libc), LC_CTYPE {}", self.collate, self.ctype),
            Provider::Icu { locale, rules: None } => write!(formatter, "{locale} (icu)"),
            Provider::Icu { locale, rules: Some(_) } => write!(formatter, "{locale} (icu), rules of its own"),
            Provider::Builtin { locale } => write!(formatter, "{locale} (builtin)"),
        }
    }
}

/// The database that a dump is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The major version of its server.
    major: Option<u32>,
    pub encoding: Option<String>,
    locale: Said,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Locale(Locale),
    /// In a way that pg_dump has never said it.
    Unclear,
}

/// One way to ask a server for a database.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Of CREATE DATABASE.
    pub options: String,
    pub is_as_wanted: bool,
    /// Rules of ICU, which CREATE DATABASE takes as they are.
    pub has_rules: bool,
}

impl Origin {
    /// By the entry that an archive always has.
    pub fn of(head: &Head) -> Origin {
        let entry = head.entries.iter().find(|entry| entry.kind == "DATABASE");
        Origin::new(&head.server_version, entry.map(|entry| entry.definition.as_str()))
    }

    /// By what pg_dump writes with `--create`.
    pub fn new(server_version: &str, statement: Option<&str>) -> Origin {
        let major = server_version.split(|letter: char| !letter.is_ascii_digit()).next();
        let mut origin = Origin { major: major.and_then(|major| major.parse().ok()), ..Origin::default() };
        let Some(statement) = statement else { return origin };
        match said(statement) {
            Some((encoding, locale)) => {
                origin.encoding = encoding;
                origin.locale = locale.map_or(Said::Nothing, Said::Locale);
            }
            None => origin.locale = Said::Unclear,
        }
        origin
    }

    /// How a server of that version is asked for such a database, the best way first: with the same locale; else with
    /// the server's own; else with the one that takes every encoding. From one major version to another, the default of
    /// the one becomes that of the other: both sort by code point, and the newer one no longer hangs on the C library.
    /// Where nothing is said of a locale, every one is as good.
    pub fn attempts(&self, encoding: &str, major: u32) -> Vec<Attempt> {
        let attempt = |options: &str, is_as_wanted| Attempt {
            options: format!("TEMPLATE template0 ENCODING {}{options}", literal(encoding)),
            is_as_wanted,
            has_rules: false,
        };
        let plain = |is_as_wanted| attempt(&Locale::plain().options(major), is_as_wanted);
        match &self.locale {
            Said::Nothing => vec![attempt("", true), plain(true)],
            Said::Unclear => vec![attempt("", false), plain(false)],
            Said::Locale(locale) => {
                let has_rules = matches!(locale.provider, Provider::Icu { rules: Some(_), .. });
                let own = Attempt { has_rules, ..attempt(&locale.options(major), true) };
                let moved = self.major.filter(|from| *from != major);
                match moved.and_then(Locale::default_of).is_some_and(|default| default == *locale) {
                    true => vec![attempt("", true), own, plain(false)],
                    false => vec![own, attempt("", false), plain(false)],
                }
            }
        }
    }

    /// That the server made something else: nothing where that has no name.
    pub fn other(&self, instead: Option<&Locale>, why: &str) -> OtherLocale {
        let wanted = match &self.locale {
            Said::Locale(locale) => Some(locale.to_string()),
            Said::Nothing | Said::Unclear => None,
        };
        OtherLocale { wanted, instead: instead.map(Locale::to_string), why: why.to_owned() }
    }
}

/// A locale that a database got in the place of the one that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherLocale {
    /// Nothing where the dump does not say it clearly.
    wanted: Option<String>,
    /// Nothing where this helper has no name for it.
    instead: Option<String>,
    /// What the server says.
    why: String,
}

impl OtherLocale {
    /// As a person is told.
    pub fn told(&self, database: &str) -> String {
        let and = match &self.instead {
            Some(instead) => format!("`{database}` has `{instead}` and may sort otherwise"),
            None => format!("`{database}` has another and may sort otherwise"),
        };
        match &self.wanted {
            Some(wanted) => format!("not here: the locale `{wanted}`, {}; {and}", self.why),
            None => format!("not understood: what the dump says of its locale; {and}"),
        }
    }
}

/// Encoding and locale of `CREATE DATABASE name WITH option = value …;`, as far as it says them. Nothing if it is not
/// that.
fn said(statement: &str) -> Option<(Option<String>, Option<Locale>)> {
    let mut options = options(statement)?;
    let mut name = |option: &str| match options.remove(option) {
        Some(value) if is_name(&value) => Some(Some(value)),
        Some(_) => None,
        None => Some(None),
    };
    let encoding = name("ENCODING")?;
    let both = name("LOCALE")?;
    let (collate, ctype) = (name("LC_COLLATE")?.or_else(|| both.clone()), name("LC_CTYPE")?.or(both));
    let provider = name("LOCALE_PROVIDER")?;
    let locale = match name("BUILTIN_LOCALE")? {
        None => name("ICU_LOCALE")?,
        locale => locale,
    };
    let rules = options.remove("ICU_RULES");
    if rules.as_ref().is_some_and(|rules| rules.contains('\0')) {
        return None;
    }
    match (collate, ctype, provider) {
        (None, None, None) => Some((encoding, None)),
        (Some(collate), Some(ctype), provider) => {
            // Before 15 there was one provider, and nobody named it.
            let provider = provider.map_or_else(|| "libc".to_owned(), |provider| provider.to_lowercase());
            Some((encoding, Some(Locale::new(&provider, collate, ctype, locale, rules)?)))
        }
        _ => None,
    }
}

/// Names of locales and encodings have no other letters, and what is shown to a person must have none.
fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(is_letter)
}

/// By the last word of each name, in capitals.
fn options(statement: &str) -> Option<BTreeMap<String, String>> {
    let mut tokens = tokens(statement)?.into_iter();
    for expected in ["CREATE", "DATABASE"] {
        matches!(tokens.next()?, Token::Word(word) if word == expected).then_some(())?;
    }
    let (Token::Word(_) | Token::Name) = tokens.next()? else { return None };
    let (mut options, mut name) = (BTreeMap::new(), None);
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => name = Some(word.to_uppercase()),
            Token::Equals => {
                let value = match tokens.next()? {
                    Token::Word(value) | Token::Text(value) => value,
                    Token::Name => String::new(),
                    Token::Equals => return None,
                };
                options.insert(name.take()?, value);
            }
            Token::Name | Token::Text(_) => return None,
        }
    }
    name.is_none().then_some(options)
}

/// Whether a statement is at its end, which a semicolon in quotes is not.
pub fn is_whole(statement: &str) -> bool {
    let mut quote = None;
    statement.chars().any(|letter| {
        match quote {
            // A doubled one ends its quotes, and begins them again.
            Some(open) if open == letter => quote = None,
            None if "'\"".contains(letter) => quote = Some(letter),
            _ => {}
        }
        letter == ';' && quote.is_none()
    })
}

#[derive(Debug)]
enum Token {
    Word(String),
    /// In double quotes: of a database or a tablespace, which are no concern of a restore.
    Name,
    Text(String),
    Equals,
}

/// Up to the end of the statement.
fn tokens(statement: &str) -> Option<Vec<Token>> {
    let (mut tokens, mut rest) = (Vec::new(), statement.trim_start());
    while let Some(first) = rest.chars().next().filter(|first| *first != ';') {
        let length = match first {
            '=' => {
                tokens.push(Token::Equals);
                1
            }
            '\'' | '"' => {
                let (text, length) = quoted(rest, first)?;
                tokens.push(if first == '"' { Token::Name } else { Token::Text(text) });
                length
            }
            _ => {
                let is_end = |letter: char| letter.is_whitespace() || "='\";".contains(letter);
                let length = rest.find(is_end).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

/// What is in the quotes that the text begins with, where a doubled one is one of the content; and how long it was.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let (mut content, mut at) = (String::new(), 1);
    loop {
        let end = at + text[at..].find(quote)?;
        content.push_str(&text[at..end]);
        at = end + 1;
        if !text[at..].starts_with(quote) {
            return Some((content, at));
        }
        content.push(quote);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(version: &str, options: &str) -> Origin {
        Origin::new(version, Some(&format!("CREATE DATABASE x WITH TEMPLATE = template0 {options};\n")))
    }

    /// What a server is asked for first, behind the encoding, and whether that is what was wanted.
    fn first(origin: &Origin, major: u32) -> (String, bool) {
        let attempt = origin.attempts("UTF8", major).remove(0);
        let options = attempt.options.strip_prefix("TEMPLATE template0 ENCODING 'UTF8'").unwrap();
        (options.trim_start().to_owned(), attempt.is_as_wanted)
    }

    #[test]
    fn what_every_version_of_pg_dump_says_is_asked_for_again() {
        let cases = [
            ("14.3", "ENCODING = 'UTF8' LOCALE = 'C.UTF-8'", "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"),
            (
                "15.18 (Debian 15.18-0+deb12u1)",
                "ENCODING = 'UTF8' LOCALE_PROVIDER = libc LC_COLLATE = 'C' LC_CTYPE = 'de_DE.utf8' \
                TABLESPACE = \"a \"\"b; =\"",
                "LC_COLLATE 'C' LC_CTYPE 'de_DE.utf8' LOCALE_PROVIDER libc",
            ),
            (
                "16.2",
                "ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'und' \
                ICU_RULES = '&a < ''\\u0301''\n; b' \
                COLLATION_VERSION = '153.120' CONNECTION LIMIT = -1 IS_TEMPLATE = true ALLOW_CONNECTIONS = false",
                "LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'und' \
                ICU_RULES  E'&a < ''\\\\u0301''\n; b'",
            ),
            (
                "18.6",
                "ENCODING = 'UTF8' LOCALE_PROVIDER = builtin LOCALE = 'C' BUILTIN_LOCALE = 'C.UTF-8'",
                "LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
            ),
        ];
        for (version, said, asked) in cases {
            let origin = origin(version, said);
            assert_eq!(origin.encoding.as_deref(), Some("UTF8"));
            assert_eq!(first(&origin, version[..2].parse().unwrap()), (asked.to_owned(), true), "{said}");
        }
    }

    #[test]
    fn between_major_versions_only_a_default_becomes_the_default() {
        let default_of_15 = origin("15.18", "ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8'");
        assert_eq!(first(&default_of_15, 18), (String::new(), true));
        let own = "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' LOCALE_PROVIDER libc";
        assert_eq!(first(&default_of_15, 15), (own.to_owned(), true));
        // Where the new default cannot be had, as with another encoding, the old one is as good.
        assert!(default_of_15.attempts("SQL_ASCII", 18)[1].is_as_wanted);
        let another =
            origin("15.18", "ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C.UTF-8' ICU_LOCALE = 'en-US'");
        assert!(first(&another, 18).0.ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"));
        let wanted: Vec<bool> = another.attempts("UTF8", 18).iter().map(|attempt| attempt.is_as_wanted).collect();
        assert_eq!(wanted, [true, false, false]);
    }

    #[test]
    fn a_hostile_statement_gives_names_or_nothing() {
        let name = "C'; DROP DATABASE postgres; --";
        let quoted = origin("18.6", &format!("LOCALE = '{}'", name.replace('\'', "''")));
        let own = "LC_COLLATE 'C''; DROP DATABASE postgres; --' LC_CTYPE 'C''; DROP DATABASE postgres; --' \
            LOCALE_PROVIDER libc";
        assert_eq!(first(&quoted, 18).0, own);
        assert_eq!(origin("18.6", "LOCALE = 'C'; DROP DATABASE postgres").locale, Said::Locale(Locale::plain()));
        for unclear in [
            "LOCALE = 'C",
            "LOCALE = E'\\x41'",
            "LOCALE = ''",
            "LOCALE = 'C\u{1b}[31m'",
            "LOCALE 'C'",
            "= 'C'",
            "LOCALE = = 'C'",
            "LOCALE = 'C' 'D'",
            "LC_COLLATE = 'C'",
            "LOCALE_PROVIDER = another LOCALE = 'C'",
            "LOCALE_PROVIDER = icu LOCALE = 'C'",
            "LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'en' ICU_RULES = '&a\0'",
            "ENCODING = '日本語'",
            "OWNER",
        ] {
            let origin = origin("18.6", unclear);
            assert_eq!((origin.locale.clone(), origin.encoding.clone()), (Said::Unclear, None), "{unclear}");
            assert_eq!(first(&origin, 18), (String::new(), false));
        }
        for other in ["", "CREATE", "DROP DATABASE x", "CREATE DATABASE = 'x'", "CREATE DATABASE \"x"] {
            assert_eq!(Origin::new("18.6", Some(other)).locale, Said::Unclear, "{other}");
        }
    }

    #[test]
    fn a_dump_that_says_nothing_gets_what_the_server_has() {
        for origin in [Origin::default(), Origin::new("", None), origin("18.6", "")] {
            assert_eq!(first(&origin, 18), (String::new(), true));
            // That one need not take the encoding, and no other was wanted.
            let last = origin.attempts("LATIN1", 18).pop().unwrap();
            assert!(last.options.ends_with("LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc") && last.is_as_wanted);
        }
    }

    #[test]
    fn rules_are_tried_by_whoever_asks_for_them() {
        let options = "ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'und'";
        for (rules, expected) in [("", [false; 3]), ("ICU_RULES = '&a < b'", [true, false, false])] {
            let attempts = origin("16.2", &format!("{options} {rules}")).attempts("UTF8", 18);
            let tried: Vec<bool> = attempts.iter().map(|attempt| attempt.has_rules).collect();
            assert_eq!(tried, expected, "{rules}");
        }
    }

    #[test]
    fn a_locale_without_a_name_is_told_as_such() {
        let told = origin("18.6", "LOCALE = 'C'").other(None, "no such locale").told("x");
        assert_eq!(told, "not here: the locale `C (libc)`, no such locale; `x` has another and may sort otherwise");
    }

    #[test]
    fn a_statement_ends_outside_of_its_quotes() {
        for (statement, whole) in [
            ("CREATE DATABASE x;", true),
            ("CREATE DATABASE x\n", false),
            ("CREATE DATABASE \"x;\"", false),
            ("CREATE DATABASE \"x\"\"';\";", true),
            ("CREATE DATABASE x WITH ICU_RULES = '&a < '';\n", false),
            ("CREATE DATABASE x WITH ICU_RULES = '&a < '';\n \"';", true),
        ] {
            assert_eq!(is_whole(statement), whole, "{statement}");
        }
    }
}
