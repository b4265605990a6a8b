//! `sqlite:/path/to/file.cf`: tables in SQLite files.
//!
//! Source: sqlite_table(5). The file is opened for reading only, and opened again when it was
//! replaced by another.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Sqlite};

use super::super::{LookupTable, OpenError};
use super::cf::Cf;
use super::hosts::{Failure, Order, Server};
use super::place::{Backslash, Comments, Syntax};
use super::runtime::Driver;
use super::sql::{self, Dialect};
use crate::sync::Arc;

const DIALECT: Dialect = Dialect {
    syntax: Syntax {
        strings: &['\''],
        names: &[('"', '"'), ('`', '`'), ('[', ']')],
        backslash: Backslash::Nowhere,
        comments: Comments::Standard,
    },
    parameters: &["dbpath"],
    ignored: &[],
    order: Order::Listed,
};

/// An SQLite file.
struct SqliteFile {
    path: PathBuf,
    options: SqliteConnectOptions,
}

impl Server for SqliteFile {
    type Connection = SqliteConnection;
    type Question = String;
    type Answer = Vec<String>;

    async fn connect(&self) -> Result<SqliteConnection, Failure> {
        self.options.connect().await.map_err(sql::not_connected)
    }

    async fn ask(
        &self,
        connection: &mut SqliteConnection,
        query: &String,
    ) -> Result<Vec<String>, Failure> {
        // The result is the first column alone, unlike that of other databases.
        sql::ask::<Sqlite, _>(connection, query, 1).await
    }

    fn generation(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let file = std::fs::metadata(&self.path);
        file.map(|file| (file.dev(), file.ino()))
            .ok()
            .hash(&mut hasher);
        hasher.finish()
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
    let path = PathBuf::from(cf.required("dbpath")?);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .read_only(true)
        .create_if_missing(false)
        .thread_name(|number| format!("mailstow-sqlite{number}"))
        .disable_statement_logging();
    let shown = path.display().to_string();
    let servers = vec![(shown, true, SqliteFile { path, options })];
    sql::open(name, cf, driver, &DIALECT, servers)
}
