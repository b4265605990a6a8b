//! What `pgsql:`, `mysql:` and `sqlite:` have in common: a query made from the key, and a result
//! made from the columns of all rows.
//!
//! What differs is how to connect and how text is quoted, a [`Dialect`]. The query is sent as the
//! text it is, without parameters, because in Postfix's files the expansions stand inside the
//! quotes of the query; so each expansion is quoted as its database wants it.

use std::fmt;
use std::future::poll_fn;

use sqlx::{
    AssertSqlSafe, ColumnIndex, ConnectOptions, Connection, Database, Decode, Executor,
    IntoArguments, Row,
};

use super::super::attempt::{Asker, Asking, Reply};
use super::super::{KeyInValues, LookupTable, Matching, OpenError, TableError};
use super::cf::Cf;
use super::hosts::{Failure, Hosts, Order, Server};
use super::place::{Place, Syntax};
use super::runtime::Driver;
use super::template::{Needs, Role, Template};
use crate::address::fold_case;
use crate::limits::{DATABASE_BYTES_MAX, DATABASE_VALUES_MAX};
use crate::sync::Arc;
use crate::table::text::problems::excerpt;

/// Parameters that all SQL tables have.
const PARAMETERS: [&str; 9] = [
    "query",
    "result_format",
    "domain",
    "expansion_limit",
    "table",
    "select_field",
    "where_field",
    "additional_conditions",
    "timeout",
];

/// An older way to say what to ask, which only PostgreSQL has.
pub(super) const FUNCTION: &str = "select_function";

/// What is special about one kind of database.
pub(super) struct Dialect {
    /// What is no plain text in a query.
    pub(super) syntax: Syntax,
    /// Parameters that other kinds do not have.
    pub(super) parameters: &'static [&'static str],
    /// Parameters of Postfix without effect here, and why.
    pub(super) ignored: &'static [(&'static str, &'static str)],
    /// In which order servers are asked.
    pub(super) order: Order,
}

/// A server, and the statements that make our quoting right.
pub(super) struct SqlServer<O> {
    pub(super) options: O,
    pub(super) greeting: &'static str,
}

impl<O, C, D> Server for SqlServer<O>
where
    O: ConnectOptions<Connection = C>,
    C: Connection<Database = D, Options = O> + 'static,
    D: Database<Connection = C>,
    for<'c> &'c mut C: Executor<'c, Database = D>,
    usize: ColumnIndex<D::Row>,
    for<'r> Option<&'r str>: Decode<'r, D>,
    D::Arguments: IntoArguments<D>,
{
    type Connection = C;
    type Question = String;
    type Answer = Vec<String>;

    async fn connect(&self) -> Result<C, Failure> {
        let mut connection = self.options.connect().await.map_err(not_connected)?;
        (&mut connection)
            .execute(self.greeting)
            .await
            .map_err(not_connected)?;
        Ok(connection)
    }

    async fn ask(&self, connection: &mut C, query: &String) -> Result<Vec<String>, Failure> {
        ask::<D, _>(connection, query, usize::MAX).await
    }
}

/// The words of `hosts`, this machine when there are none.
pub(super) fn hosts(cf: &Cf) -> Vec<&str> {
    match cf.words("hosts") {
        none if none.is_empty() => vec!["localhost"],
        words => words,
    }
}

/// Opens the table called `name`, which is asked of `servers`: each with its name and whether it
/// is on this machine.
///
/// # Errors
/// The description is not complete or not well formed.
pub(super) fn open<S: Server<Question = String, Answer = Vec<String>>>(
    name: &str,
    cf: &Cf,
    driver: Arc<Driver>,
    dialect: &Dialect,
    servers: Vec<(String, bool, S)>,
) -> Result<Arc<dyn LookupTable>, OpenError> {
    let known = [dialect.parameters, &PARAMETERS].concat();
    let function = match known.contains(&FUNCTION) {
        true => cf.text(FUNCTION),
        false => "",
    };
    let form = Form::read(cf, function, dialect.syntax)?;
    let mut warnings = cf.complaints(&known, dialect.ignored);
    warnings.extend(form.complaint(name));
    Ok(Arc::new(SqlTable {
        asker: Asker::new(name),
        form: Arc::new(form),
        hosts: Arc::new(Hosts::new(servers, dialect.order, cf.timeout()?)),
        driver,
        warnings,
    }))
}

/// How a table asks and what it makes of the answer.
struct Form {
    query: Template,
    /// Of the expansions in `query`.
    places: Vec<Place>,
    result: Template,
    needs: Needs,
    expansion_limit: u64,
}

impl Form {
    /// Reads `query` (or the older parameters it is made of) and `result_format`. `function` is
    /// the older `select_function` of PostgreSQL.
    ///
    /// # Errors
    /// One of them is missing or not well formed.
    fn read(cf: &Cf, function: &str, syntax: Syntax) -> Result<Self, OpenError> {
        let query = match (cf.text("query"), function) {
            ("", "") => format!(
                "SELECT {} FROM {} WHERE {}='%s' {}",
                cf.required("select_field").map_err(|_| no_query(cf))?,
                cf.required("table").map_err(|_| no_query(cf))?,
                cf.required("where_field").map_err(|_| no_query(cf))?,
                cf.text("additional_conditions"),
            ),
            ("", function) => format!("SELECT {function}('%s')"),
            (query, _) => query.to_owned(),
        };
        let mut needs = Needs::default();
        let mut template = |name: &str, text: &str, role| {
            Template::parse(text, role, &mut needs)
                .map_err(|cause| cf.wrong(&format!("{name}: {cause}")))
        };
        let query = template("query", &query, Role::Query)?;
        Ok(Self {
            places: query.places(syntax),
            query,
            result: template(
                "result_format",
                cf.text_or("result_format", "%s"),
                Role::Result,
            )?,
            needs,
            expansion_limit: cf.number("expansion_limit", 0, 0..=u64::MAX)?,
        })
    }

    /// What is wrong with a query that has expansions outside of strings.
    fn complaint(&self, name: &str) -> Option<String> {
        self.places.contains(&Place::Bare).then(|| {
            format!(
                "table {name}: the query has an expansion outside of a string, where a sender \
                 could write a query: only digits are put there; write quotes around it"
            )
        })
    }

    /// The result for `key` out of the `values` found.
    fn result(&self, key: &str, values: &[String]) -> Result<Option<String>, String> {
        let mut result = String::new();
        let mut count = 0;
        for value in values {
            if self.needs.add_value(&self.result, value, key, &mut result) {
                count += 1;
            }
            if self.expansion_limit > 0 && count > self.expansion_limit {
                return Err(format!(
                    "more than expansion_limit = {} results for \"{key}\"",
                    self.expansion_limit
                ));
            }
        }
        Ok((!result.is_empty()).then_some(result))
    }
}

fn no_query(cf: &Cf) -> OpenError {
    cf.wrong("no query (nor the older table, select_field and where_field)")
}

/// A table in an SQL database.
struct SqlTable<S: Server> {
    asker: Asker,
    form: Arc<Form>,
    hosts: Arc<Hosts<S>>,
    driver: Arc<Driver>,
    warnings: Vec<String>,
}

impl<S: Server> SqlTable<S> {
    fn unavailable(&self, cause: String) -> TableError {
        TableError::Unavailable {
            name: self.asker.name().to_string(),
            cause,
        }
    }
}

impl<S: Server<Question = String, Answer = Vec<String>>> LookupTable for SqlTable<S> {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        // C programs, as Postfix and most databases are, cannot have such a key.
        if key.contains('\0') {
            return Ok(None);
        }
        let key = fold_case(key);
        let Form { query, places, .. } = &*self.form;
        let query = match self.form.needs.query_at(query, &key, places) {
            Ok(Some(query)) => query,
            Ok(None) => return Ok(None),
            Err((cause, text)) => {
                let text = excerpt(text.as_bytes());
                return Err(self.unavailable(format!("\"{text}\" of the key {cause}")));
            }
        };
        let (form, name) = (Arc::clone(&self.form), Arc::clone(self.asker.name()));
        let (hosts, driver) = (Arc::clone(&self.hosts), Arc::clone(&self.driver));
        let found_for = key.clone().into_owned();
        let start = move |reply: Reply| {
            driver.ask(&hosts, query, reply, move |answer| {
                answer
                    .and_then(|values| form.result(&found_for, &values))
                    .map_err(|cause| TableError::Unavailable {
                        name: name.to_string(),
                        cause,
                    })
            });
        };
        self.asker
            .answer(&key, Asking::of_server(&self.asker, start))
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        self.asker.name()
    }

    fn key_in_values(&self) -> KeyInValues {
        if self.form.result.has_key() {
            KeyInValues::Always
        } else {
            KeyInValues::Perhaps
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn may_block(&self) -> bool {
        true
    }
}

/// Says nothing of what the file has: there is a password in it.
impl<S: Server> fmt::Debug for SqlTable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTable")
            .field("name", &self.asker.name())
            .finish_non_exhaustive()
    }
}

/// Runs `query` and gathers every value that is not NULL, of up to `columns_max` columns.
pub(super) async fn ask<'c, D, E>(
    connection: E,
    query: &str,
    columns_max: usize,
) -> Result<Vec<String>, Failure>
where
    D: sqlx::Database,
    E: Executor<'c, Database = D>,
    usize: ColumnIndex<D::Row>,
    for<'r> Option<&'r str>: Decode<'r, D>,
    D::Arguments: IntoArguments<D>,
{
    // Every expansion in the query was quoted.
    let query = sqlx::raw_sql(AssertSqlSafe(query.to_owned()));
    let mut rows = connection.fetch(query);
    let mut values = Vec::new();
    let mut bytes = 0;
    while let Some(row) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        let row = row.map_err(failure)?;
        for column in 0..row.len().min(columns_max) {
            let value: Option<&str> = row.try_get_unchecked(column).map_err(abandon)?;
            bytes += value.map_or(0, str::len);
            values.extend(value.map(str::to_owned));
        }
        if values.len() > DATABASE_VALUES_MAX || bytes > DATABASE_BYTES_MAX {
            return Err(Failure::Abandoned(format!(
                "more than {DATABASE_VALUES_MAX} values or {DATABASE_BYTES_MAX} bytes; narrow the \
                 query"
            )));
        }
    }
    Ok(values)
}

/// What a value that cannot be read, with more of them to come, means for the connection.
fn abandon(error: sqlx::Error) -> Failure {
    match failure(error) {
        Failure::Refused(cause) => Failure::Abandoned(cause),
        other => other,
    }
}

/// What an error while asking means for the connection.
fn failure(error: sqlx::Error) -> Failure {
    let of_the_query = match &error {
        sqlx::Error::Database(said) => !said.code().is_some_and(|code| ends_connection(&code)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    };
    match of_the_query {
        true => Failure::Refused(error.to_string()),
        false => Failure::Broken(error.to_string()),
    }
}

/// SQLSTATE classes after which a server closes the connection: connection exceptions, operator
/// intervention (shutdown), insufficient resources, and MariaDB's "connection was killed".
fn ends_connection(sqlstate: &str) -> bool {
    ["08", "57P", "53", "70100"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

/// What an error while connecting means.
pub(super) fn not_connected(error: sqlx::Error) -> Failure {
    Failure::Broken(format!("cannot connect: {error}"))
}
