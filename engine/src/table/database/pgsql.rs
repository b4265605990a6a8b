//! `pgsql:/path/to/file.cf`: tables in PostgreSQL.
//!
//! Imports nothing of the engine. Source: pgsql_table(5). As in Postfix 3.8 and later, the
//! client's encoding is UTF-8 (3.7 and earlier said LATIN1, and found no key beyond ASCII in a
//! database in UTF-8).

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Executor, Postgres};

use super::super::{LookupTable, OpenError};
use super::cf::Cf;
use super::hosts::{Failure, Hosts, Order, Server};
use super::runtime::Driver;
use super::sql::{self, Form, SqlTable};
use crate::sync::Arc;

const PORT: u16 = 5432;

/// A PostgreSQL server.
struct PgServer(PgConnectOptions);

impl Server for PgServer {
    type Connection = PgConnection;
    type Question = String;
    type Answer = Vec<String>;

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let mut connection = self.0.connect().await.map_err(sql::not_connected)?;
        // Our quoting is right only while a backslash means nothing in a string.
        connection
            .execute("SET standard_conforming_strings = on")
            .await
            .map_err(sql::not_connected)?;
        Ok(connection)
    }

    async fn ask(
        &self,
        connection: &mut PgConnection,
        query: &String,
    ) -> Result<Vec<String>, Failure> {
        sql::ask::<Postgres, _>(connection, query, usize::MAX).await
    }
}

/// Opens the table called `name` as `cf` describes it.
///
/// # Errors
/// The description is not complete or not well formed.
pub(super) fn open(
    name: &str,
    cf: &Cf,
    driver: Arc<Driver>,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let mut words = cf.words("hosts");
    if words.is_empty() {
        words.push("localhost");
    }
    let mut servers = Vec::new();
    for word in words {
        let (options, is_local) = host(cf, word)?;
        let options = options
            .application_name("mailstow")
            .extra_float_digits(None)
            .disable_statement_logging();
        servers.push((shown(word).to_owned(), is_local, PgServer(options)));
    }
    let encoding = cf.text_or("encoding", "UTF8");
    if !["UTF8", "UTF-8", "UNICODE"].contains(&encoding.to_uppercase().as_str()) {
        return Err(cf.wrong(&format!("encoding = {encoding}: only UTF8 is spoken here")));
    }
    let hosts = Hosts::new(servers, Order::Chance, cf.timeout()?);
    let mut known = vec![
        "hosts",
        "user",
        "password",
        "dbname",
        "encoding",
        "select_function",
    ];
    known.extend(sql::PARAMETERS);
    let warnings = cf.complaints(&known, &[]);
    let form = Form::read(cf, cf.text("select_function"))?;
    Ok(Arc::new(SqlTable::new(
        name, form, quote, hosts, driver, warnings,
    )))
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
        let (name, port) = super::host_and_port(name, PORT)
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

/// A quote is doubled; a backslash is a character like others in a string, see
/// [`PgServer::connect`].
fn quote(text: &str, out: &mut String) {
    out.push_str(&text.replace('\'', "''"));
}
