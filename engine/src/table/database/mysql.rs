//! `mysql:/path/to/file.cf`: tables in MariaDB and MySQL.
//!
//! Source: mysql_table(5). As in Postfix 3.9 and later, the client's character set is utf8mb4.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::super::{LookupTable, OpenError};
use super::cf::Cf;
use super::host::host_and_port;
use super::hosts::Order;
use super::place::{Backslash, Comments, Syntax};
use super::runtime::Driver;
use super::sql::{self, Dialect, SqlServer};
use crate::sync::Arc;

const PORT: u16 = 3306;

/// Where systems have the server's socket; the host "localhost" means it.
const SOCKETS: [&str; 3] = [
    "/run/mysqld/mysqld.sock",
    "/var/lib/mysql/mysql.sock",
    "/tmp/mysql.sock",
];

/// What only libmysqlclient knows.
const IGNORED: [(&str, &str); 5] = [
    (
        "option_file",
        "no client library is used; set it in this file",
    ),
    (
        "option_group",
        "no client library is used; set it in this file",
    ),
    (
        "tls_ciphers",
        "the ciphers of TLS 1.2 and 1.3 that are safe today are used",
    ),
    ("tls_CApath", "name a file with tls_CAfile"),
    (
        "require_result_set",
        "a statement without a result finds nothing",
    ),
];

const DIALECT: Dialect = Dialect {
    syntax: Syntax {
        strings: &['\'', '"'],
        names: &[('`', '`')],
        // See [`GREETING`].
        backslash: Backslash::Everywhere,
        comments: Comments::Mysql,
    },
    parameters: &[
        "hosts",
        "user",
        "password",
        "dbname",
        "charset",
        "tls_CAfile",
        "tls_cert_file",
        "tls_key_file",
        "tls_verify_cert",
    ],
    ignored: &IGNORED,
    order: Order::Chance,
};

/// Our quoting is right only while a backslash escapes in a string, as it does by default.
const GREETING: &str = "SET SESSION sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', '')";

/// Opens the table called `name` as `cf` describes it.
///
/// # Errors
/// The description is not complete or not well formed.
pub(super) fn open(
    name: &str,
    cf: &Cf,
    driver: Arc<Driver>,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let common = common(cf)?;
    let server = |word: &str| {
        let (options, is_local) = host(cf, common.clone(), word)?;
        let greeting = GREETING;
        Ok((word.to_owned(), is_local, SqlServer { options, greeting }))
    };
    let servers = sql::hosts(cf).into_iter().map(server);
    let servers = servers.collect::<Result<_, OpenError>>()?;
    sql::open(name, cf, driver, &DIALECT, servers)
}

/// What holds for every host.
fn common(cf: &Cf) -> Result<MySqlConnectOptions, OpenError> {
    let charset = cf.text_or("charset", "utf8mb4");
    if !["utf8mb4", "utf8", "utf8mb3"].contains(&charset) {
        return Err(cf.wrong(&format!("charset = {charset}: only utf8mb4 is spoken here")));
    }
    // The driver would change what `||` means, and the time zone.
    let mut options = MySqlConnectOptions::new()
        .database(cf.required("dbname")?)
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .disable_statement_logging();
    match (
        cf.text("user"),
        nix::unistd::User::from_uid(nix::unistd::geteuid()),
    ) {
        ("", Ok(Some(user))) => options = options.username(&user.name),
        (user, _) => options = options.username(user),
    }
    if !cf.text("password").is_empty() {
        options = options.password(cf.text("password"));
    }
    let [ca, cert, key] = ["tls_CAfile", "tls_cert_file", "tls_key_file"].map(|name| cf.text(name));
    let verify = cf.flag("tls_verify_cert", false)?;
    let mut mode = MySqlSslMode::Disabled;
    if !ca.is_empty() {
        (options, mode) = (options.ssl_ca(ca), MySqlSslMode::VerifyCa);
    }
    if !cert.is_empty() {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
        mode = if ca.is_empty() {
            MySqlSslMode::Required
        } else {
            mode
        };
    }
    if verify {
        mode = MySqlSslMode::VerifyIdentity;
    }
    Ok(options.ssl_mode(mode))
}

/// One of `hosts`: `[inet:]host[:port]` or `unix:/socket`; and whether it is on this machine.
fn host(
    cf: &Cf,
    options: MySqlConnectOptions,
    word: &str,
) -> Result<(MySqlConnectOptions, bool), OpenError> {
    if let Some(socket) = word.strip_prefix("unix:") {
        return Ok((options.socket(socket), true));
    }
    let name = word.strip_prefix("inet:").unwrap_or(word);
    let (name, port) = host_and_port(name, PORT)
        .ok_or_else(|| cf.wrong(&format!("hosts: {word}: not a port number")))?;
    if name == "localhost" {
        let there = |socket: &&&str| Path::new(socket).exists();
        let socket = SOCKETS.iter().find(there).unwrap_or(&SOCKETS[0]);
        return Ok((options.socket(socket), true));
    }
    Ok((options.host(name).port(port), false))
}
