//! Tables in databases, described by Postfix's own `*.cf` files.
//!
//! Every trouble a database has is an error of the lookup, which defers: unreachable, too slow,
//! wrong password, wrong query, too many results. Each kind of database is a cargo feature.
//! Sources: pgsql_table(5), mysql_table(5), sqlite_table(5), ldap_table(5).

#![cfg_attr(
    not(all(
        feature = "pgsql",
        feature = "mysql",
        feature = "sqlite",
        feature = "ldap"
    )),
    allow(
        dead_code,
        reason = "each kind of database uses its part of what they share"
    )
)]

#[cfg(feature = "databases")]
mod cf;
mod description;
#[cfg(any(feature = "pgsql", feature = "mysql"))]
mod host;
#[cfg(feature = "databases")]
mod hosts;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "pgsql")]
mod pgsql;
#[cfg(feature = "databases")]
mod place;
#[cfg(feature = "databases")]
mod runtime;
#[cfg(any(feature = "pgsql", feature = "mysql", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "databases")]
mod template;

pub(super) use description::Description;

use super::kind::DatabaseKind;
use super::{LookupTable, OpenError, TableName};
use crate::sync::Arc;

/// A table as its file describes it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) table: Arc<dyn LookupTable>,
    /// `domain`: when not empty, only addresses in these domains are to be looked up.
    pub(super) domain: String,
}

/// Opens the table called `name` as `description` has it. Nothing is connected to yet.
///
/// # Errors
/// The description is not complete or not well formed, or mailstow was built without this
/// kind of database.
#[cfg(feature = "databases")]
pub(super) fn open(
    kind: DatabaseKind,
    name: &TableName,
    description: &Description<'_>,
) -> Result<Described, OpenError> {
    let cf = cf::Cf::read(name.full(), description)?;
    let table = match kind {
        #[cfg(feature = "pgsql")]
        DatabaseKind::Pgsql => pgsql::open(name.full(), &cf, driver(name)?)?,
        #[cfg(feature = "mysql")]
        DatabaseKind::Mysql => mysql::open(name.full(), &cf, driver(name)?)?,
        #[cfg(feature = "sqlite")]
        DatabaseKind::Sqlite => sqlite::open(name.full(), &cf, driver(name)?)?,
        #[cfg(feature = "ldap")]
        DatabaseKind::Ldap => ldap::open(name.full(), &cf, driver(name)?)?,
        #[allow(unreachable_patterns, reason = "unless every feature is on")]
        _ => return Err(built_without(name)),
    };
    let domain = cf.text("domain").to_owned();
    Ok(Described { table, domain })
}

/// As with the features.
#[cfg(not(feature = "databases"))]
pub(super) fn open(
    _kind: DatabaseKind,
    name: &TableName,
    _description: &Description<'_>,
) -> Result<Described, OpenError> {
    Err(built_without(name))
}

/// The thread of a table.
#[cfg(feature = "databases")]
fn driver(name: &TableName) -> Result<Arc<runtime::Driver>, OpenError> {
    let driver = runtime::Driver::start().map_err(|error| OpenError::Content {
        name: name.full().to_owned(),
        cause: format!("no thread for it: {error}; raise the limit on processes"),
    })?;
    Ok(Arc::new(driver))
}

#[cfg_attr(
    all(
        feature = "pgsql",
        feature = "mysql",
        feature = "sqlite",
        feature = "ldap"
    ),
    allow(dead_code, reason = "there is nothing that could be missing")
)]
fn built_without(name: &TableName) -> OpenError {
    let (kind, _) = name.full().split_once(':').unwrap_or_default();
    OpenError::Content {
        name: name.full().to_owned(),
        cause: format!(
            "mailstow was built without {kind} tables; build mailstow-engine with the feature \
             \"{kind}\""
        ),
    }
}
