//! The address of a server that is not this instance's, as people and services write it:
//! `postgres://user:password@localhost:5432/database`. What comes of a password ends here: no error shows it.
//!
//! Only this machine's servers: a password must not cross a network in the open, and a TLS library would cost every first
//! build more than it gives to the few who migrate over a network. They forward a port.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::engine::postgres::{Door, Login};
use crate::stack::model::Postgres;
use crate::ui::{Exit, Failure};

/// What a pooler's host ends with in its first label, at Neon and elsewhere.
const POOLER: &str = "-pooler";
const PORT: u16 = 5432;

#[derive(Debug, Clone)]
pub struct Address {
    port: u16,
    /// What the URL leaves out, the manifest says.
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
}

impl FromStr for Address {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Address, Failure> {
        let usage =
            |why: String| Failure::new(Exit::Usage, why).hint("write it as `postgres://user@localhost:5432/name`");
        let url = Url::parse(text).map_err(|error| usage(format!("the URL cannot be read: {error}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(usage(format!("the URL begins with `{}`, not with `postgres`", url.scheme())));
        }
        let host = url.host_str().unwrap_or_default();
        if let Some((first, rest)) = host.split_once('.').filter(|(first, _)| first.ends_with(POOLER)) {
            let direct = format!("{}.{rest}", first.trim_end_matches(POOLER));
            return Err(Failure::new(Exit::Refused, format!("`{host}` is a pooler, nothing was done"))
                .body(
                    "  it gives every transaction another session: the lock that keeps two clients apart, settings and what\n  \
                     runs outside of transactions would not hold\n",
                )
                .hint(format!("take the server itself, `{direct}`")));
        }
        if !matches!(host, "localhost" | "127.0.0.1") {
            let port = url.port().unwrap_or(PORT);
            return Err(Failure::new(Exit::Refused, format!("`{host}` is not this machine, nothing was done"))
                .body("  this helper speaks no TLS, and a password does not cross a network in the open\n")
                .hint(format!(
                    "forward a port, `ssh -L 6543:{host}:{port} …`, and write `localhost:6543` in its place"
                )));
        }
        if let Some((_, mode)) =
            url.query_pairs().find(|(name, mode)| name == "sslmode" && mode.starts_with(['r', 'v']))
        {
            return Err(usage(format!("the URL asks for `sslmode={mode}`, and this helper speaks no TLS")));
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let named = |text: &str| Some(decoded(text)).filter(|text| !text.is_empty());
        Ok(Address {
            port: url.port().unwrap_or(PORT),
            user: named(url.username()),
            password: url.password().map(decoded),
            database: named(url.path().trim_start_matches('/')),
        })
    }
}

impl Address {
    /// The way in, and as whom; `password` is what the environment has, for a URL without one.
    pub fn door(self, postgres: &Postgres, password: Option<&str>) -> (Door, Login) {
        let password = self.password.or(password.map(str::to_owned)).unwrap_or_default();
        let login = Login {
            user: self.user.unwrap_or_else(|| postgres.user.clone()),
            password: password.clone(),
            database: self.database.unwrap_or_else(|| postgres.database.clone()),
        };
        (Door::Tcp { port: self.port, password }, login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_services_write_it() {
        let address = Address::from_str("postgresql://me%40x:p%2Fw@localhost/a%20b").unwrap();
        let parts = (address.user.as_deref(), address.password.as_deref(), address.database.as_deref());
        assert_eq!((address.port, parts), (PORT, (Some("me@x"), Some("p/w"), Some("a b"))));
        let address = Address::from_str("postgres://127.0.0.1:6543").unwrap();
        assert_eq!((address.port, address.user, address.password, address.database), (6543, None, None, None));
    }

    #[test]
    fn what_cannot_be_migrated_safely_is_refused_without_the_password() {
        for (url, exit, said) in [
            ("postgres://me:secret@ep-x-1-pooler.eu.example.com/db", Exit::Refused, "`ep-x-1.eu.example.com`"),
            ("postgres://me:secret@ep-x-1.eu.example.com/db", Exit::Refused, "-L 6543:ep-x-1.eu.example.com:5432"),
            ("postgres://me:secret@localhost/db?sslmode=require", Exit::Usage, "sslmode=require"),
            ("mysql://me:secret@localhost/db", Exit::Usage, "`mysql`"),
            ("me:secret@localhost", Exit::Usage, "postgres"),
            ("postgres://me:secret@localhost:port/db", Exit::Usage, "port"),
        ] {
            let failure = Address::from_str(url).unwrap_err();
            let text = format!("{}\n{}{}", failure.title, failure.body, failure.hint.unwrap_or_default());
            assert_eq!(failure.exit, exit, "{url}");
            assert!(text.contains(said) && !text.contains("secret"), "{text}");
        }
    }
}
