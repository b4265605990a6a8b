//! `pgsql:/path/to/file.cf`: tables in PostgreSQL.
//!
//! Source: pgsql_table(5). As in Postfix 3.8 and later, the client's encoding is UTF-8 (3.7 and
//! earlier said LATIN1, and found no key beyond ASCII in a database in UTF-8).

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::super::{LookupTable, OpenError};
use super::cf::Cf;
use super::host::host_and_port;
use super::hosts::Order;
use super::place::{Backslash, Comments, Syntax};
use super::runtime::Driver;
use super::sql::{self, Dialect, SqlServer};
use crate::sync::Arc;

const PORT: u16 = 5432;

const DIALECT: Dialect = Dialect {
    syntax: Syntax {
        strings: &['\''],
        names: &[('"', '"')],
        // Nowhere else; see [`GREETING`].
        backslash: Backslash::InEscapeStrings,
        comments: Comments::Nested,
    },
    parameters: &[
        "hosts",
        "user",
        "password",
        "dbname",
        "encoding",
        sql::FUNCTION,
    ],
    ignored: &[],
    order: Order::Chance,
};

/// Our quoting is right only while a backslash means nothing in a string.
const GREETING: &str = "SET standard_conforming_strings = on";

/// Opens the table called `name` as `cf` describes it.
///
/// # Errors
/// The description is not complete or not well formed.
pub(super) fn open(
    name: &str,
    cf: &Cf,
    driver: Arc<Driver>,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let server = |word: &str| {
        let (options, is_local) = host(cf, word)?;
        let options = options
            .application_name("mailstow")
            .extra_float_digits(None)
            .disable_statement_logging();
        let greeting = GREETING;
        Ok((
            shown(word).to_owned(),
            is_local,
            SqlServer { options, greeting },
        ))
    };
    let servers = sql::hosts(cf).into_iter().map(server);
    let servers = servers.collect::<Result<_, OpenError>>()?;
    let encoding = cf.text_or("encoding", "UTF8");
    if !["UTF8", "UTF-8", "UNICODE"].contains(&encoding.to_uppercase().as_str()) {
        return Err(cf.wrong(&format!("encoding = {encoding}: only UTF8 is spoken here")));
    }
    sql::open(name, cf, driver, &DIALECT, servers)
}

/// `word` without what only the server is to know.
fn shown(word: &str) -> &str {
    match word.split_once("://") {
        Some((_, rest)) => {
            let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
            rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)
        }
        None => word,
    }
}

/// One of `hosts`: `[inet:]host[:port]`, `unix:/directory`, or a URI; and whether it is
/// on this machine.
fn host(cf: &Cf, word: &str) -> Result<(PgConnectOptions, bool), OpenError> {
    if word.starts_with("postgresql:") || word.starts_with("postgres:") {
        let options = PgConnectOptions::from_str(word);
        let options =
            options.map_err(|error| cf.wrong(&format!("hosts: {}: {error}", shown(word))))?;
        let mut options = options;
        if !cf.text("user").is_empty() {
            options = options.username(cf.text("user"));
        }
        if !cf.text("password").is_empty() {
            options = options.password(cf.text("password"));
        }
        if !cf.text("dbname").is_empty() {
            options = options.database(cf.text("dbname"));
        }
        let is_local = options.get_socket().is_some();
        return Ok((options, is_local));
    }
    let mut options = PgConnectOptions::new_without_pgpass()
        .ssl_mode(PgSslMode::Prefer)
        .database(cf.required("dbname")?)
        .password(cf.text("password"));
    if !cf.text("user").is_empty() {
        options = options.username(cf.text("user"));
    }
    let name = word.strip_prefix("unix:").or(word.strip_prefix("inet:"));
    let name = name.unwrap_or(word);
    if !name.starts_with('/') {
        let (name, port) = host_and_port(name, PORT)
            .ok_or_else(|| cf.wrong(&format!("hosts: {word}: not a port number")))?;
        return Ok((options.host(name).port(port), false));
    }
    // A path of the socket itself says the port with its name.
    let (directory, port) = match name.rsplit_once("/.s.PGSQL.") {
        Some((directory, port)) => (directory, port.parse().unwrap_or(PORT)),
        None => (name, PORT),
    };
    Ok((options.socket(directory).port(port), true))
}
