//! `ldap:/path/to/file.cf`: tables in LDAP directories.
//!
//! Source: ldap_table(5), RFC 4511. Differences to Postfix: LDAP version 3 is spoken whatever
//! `version` says (the default of Postfix is still 2, which servers refuse today); referrals are
//! not followed, an answer that is one is an error; certificates are checked against the system's
//! authorities or `tls_ca_cert_file`.

mod entry;
mod search;
mod tls;
mod url;

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use ldap3::{DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, Scope};
use tokio::time::timeout;

use super::super::attempt::{Asker, Asking, Reply};
use super::super::{KeyInValues, LookupTable, Matching, OpenError, TableError};
use super::cf::Cf;
use super::hosts::{Failure, Hosts, Order, Server};
use super::runtime::Driver;
use super::template::{Needs, Role, Template};
use crate::address::fold_case;
use crate::sync::Arc;
use search::{Plan, Question};

/// A lookup may take several searches; all of them together may take this many times `timeout`.
const SEARCHES_TIME: u32 = 6;

const KNOWN: [&str; 25] = [
    "server_host",
    "server_port",
    "search_base",
    "query_filter",
    "result_format",
    "result_filter",
    "result_attribute",
    "special_result_attribute",
    "leaf_result_attribute",
    "terminal_result_attribute",
    "scope",
    "bind",
    "bind_dn",
    "bind_pw",
    "version",
    "timeout",
    "dereference",
    "domain",
    "recursion_limit",
    "expansion_limit",
    "size_limit",
    "start_tls",
    "tls_require_cert",
    "tls_ca_cert_file",
    "tls_cert",
];

const IGNORED: [(&str, &str); 8] = [
    ("tls_ca_cert_dir", "name a file with tls_ca_cert_file"),
    ("tls_random_file", "the system's random numbers are used"),
    (
        "tls_cipher_suite",
        "the ciphers of TLS 1.2 and 1.3 that are safe today are used",
    ),
    ("debuglevel", "set the level of the log"),
    ("cache", "as in Postfix"),
    ("cache_expiry", "as in Postfix"),
    ("cache_size", "as in Postfix"),
    (
        "lookup_wildcards",
        "as in Postfix, special characters are quoted",
    ),
];

/// A directory server.
struct LdapServer {
    url: String,
    settings: LdapConnSettings,
    /// Name and password, unless there is no bind at all.
    bind: Option<(String, String)>,
    timeout: Duration,
    plan: Arc<Plan>,
}

impl Server for LdapServer {
    type Connection = Ldap;
    type Question = Question;
    type Answer = Option<String>;

    async fn connect(&self) -> Result<Ldap, Failure> {
        let connecting = LdapConnAsync::with_settings(self.settings.clone(), &self.url);
        let connected = timeout(self.timeout, connecting).await;
        let (connection, mut ldap) = connected
            .map_err(|_| Failure::Broken("cannot connect: timeout".to_owned()))?
            .map_err(|error| Failure::Broken(format!("cannot connect: {error}")))?;
        // It ends by itself when the connection is closed or `ldap` is dropped.
        tokio::spawn(connection.drive());
        if let Some((name, password)) = &self.bind {
            let bound = ldap
                .with_timeout(self.timeout)
                .simple_bind(name, password)
                .await;
            bound
                .and_then(ldap3::LdapResult::success)
                .map_err(|error| Failure::Broken(format!("cannot bind as \"{name}\": {error}")))?;
        }
        Ok(ldap)
    }

    async fn ask(
        &self,
        connection: &mut Ldap,
        question: &Question,
    ) -> Result<Option<String>, Failure> {
        search::lookup(&self.plan, connection, question).await
    }
}

/// A table in a directory.
struct LdapTable {
    asker: Asker,
    base: Template,
    filter: Template,
    needs: Needs,
    result_has_key: bool,
    hosts: Arc<Hosts<LdapServer>>,
    driver: Arc<Driver>,
    warnings: Vec<String>,
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
    let mut needs = Needs::default();
    let mut template = |parameter: &str, text: &str, role| {
        Template::parse(text, role, &mut needs)
            .map_err(|cause| cf.wrong(&format!("{parameter}: {cause}")))
    };
    let base = template("search_base", cf.text("search_base"), Role::Query)?;
    let default_filter = "(mailacceptinggeneralid=%s)";
    let filter = template(
        "query_filter",
        cf.text_or("query_filter", default_filter),
        Role::Query,
    )?;
    let format = cf.text_or("result_format", cf.text_or("result_filter", "%s"));
    let result = template("result_format", format, Role::Result)?;
    let result_has_key = result.has_key();
    let timeout = cf.timeout()?;
    let plan = Arc::new(Plan {
        needs,
        result,
        attributes: attributes(cf),
        scope: scope(cf)?,
        dereference: dereference(cf)?,
        is_base_dynamic: base.is_dynamic(),
        recursion_limit: cf.number("recursion_limit", 1000, 1..=10_000)?,
        expansion_limit: cf.number("expansion_limit", 0, 0..=u64::MAX)?,
        size_limit: i32::try_from(size_limit(cf)?).unwrap_or(i32::MAX),
        timeout,
    });
    let mut warnings = cf.complaints(
        &[&KNOWN[..], &["tls_key", "chase_referrals"]].concat(),
        &IGNORED,
    );
    if cf.number("chase_referrals", 0, 0..=1)? == 1 {
        let text = format!("{name}: chase_referrals: referrals are errors here, not followed");
        warnings.push(text);
    }
    warnings.extend(tls::complaints(name, cf)?);
    let servers = servers(cf, &plan, timeout)?;
    Ok(Arc::new(LdapTable {
        asker: Asker::new(name),
        base,
        filter,
        needs,
        result_has_key,
        hosts: Arc::new(Hosts::new(servers, Order::Listed, timeout * SEARCHES_TIME)),
        driver,
        warnings,
    }))
}

fn size_limit(cf: &Cf) -> Result<u64, OpenError> {
    let most = u64::from(u32::MAX >> 1);
    let expansion_limit = cf.number("expansion_limit", 0, 0..=u64::MAX)?;
    cf.number("size_limit", expansion_limit, 0..=most)
}

/// The attributes to ask for: terminal, leaf, ordinary and special ones, in this order.
fn attributes(cf: &Cf) -> entry::Attributes {
    let list = |name| cf.words(name).into_iter().map(str::to_owned).collect();
    let ordinary = match cf.text_or("result_attribute", "maildrop") {
        "maildrop" => vec!["maildrop".to_owned()],
        _ => list("result_attribute"),
    };
    entry::Attributes {
        terminal: list("terminal_result_attribute"),
        leaf: list("leaf_result_attribute"),
        ordinary,
        special: list("special_result_attribute"),
    }
}

fn scope(cf: &Cf) -> Result<Scope, OpenError> {
    match cf.text_or("scope", "sub") {
        "sub" => Ok(Scope::Subtree),
        "one" => Ok(Scope::OneLevel),
        "base" => Ok(Scope::Base),
        other => Err(cf.wrong(&format!("scope = {other}: write sub, one or base"))),
    }
}

fn dereference(cf: &Cf) -> Result<DerefAliases, OpenError> {
    Ok(match cf.number("dereference", 0, 0..=3)? {
        0 => DerefAliases::Never,
        1 => DerefAliases::Searching,
        2 => DerefAliases::Finding,
        _ => DerefAliases::Always,
    })
}

/// `server_host`: names or URLs, tried as listed.
fn servers(
    cf: &Cf,
    plan: &Arc<Plan>,
    timeout: Duration,
) -> Result<Vec<(String, bool, LdapServer)>, OpenError> {
    let bind = match cf.text_or("bind", "yes") {
        "yes" | "simple" => Some((cf.text("bind_dn").to_owned(), cf.text("bind_pw").to_owned())),
        "no" | "none" => None,
        other => {
            let cause = format!("bind = {other}: only simple binds are spoken here");
            return Err(cf.wrong(&cause));
        }
    };
    let port = cf.number("server_port", 389, 1..=65535)?;
    let settings = tls::settings(cf)?.set_conn_timeout(timeout);
    let mut words = cf.words("server_host");
    if words.is_empty() {
        words.push("localhost");
    }
    let server = |word: &str| {
        let url = match word {
            url if url.contains("://") => url.to_owned(),
            host if host.contains(':') => format!("ldap://{host}"),
            host => format!("ldap://{host}:{port}"),
        };
        let server = LdapServer {
            url: url.clone(),
            settings: settings.clone(),
            bind: bind.clone(),
            timeout,
            plan: Arc::clone(plan),
        };
        (url.clone(), url.starts_with("ldapi:"), server)
    };
    Ok(words.into_iter().map(server).collect())
}

impl LookupTable for LdapTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        if key.contains('\0') {
            return Ok(None);
        }
        let key = fold_case(key).into_owned();
        let base = self.needs.query(&self.base, &key, quote_in_name);
        let filter = self.needs.query(&self.filter, &key, quote_in_filter);
        let (Some(base), Some(filter)) = (base, filter) else {
            return Ok(None);
        };
        let name = Arc::clone(self.asker.name());
        let (hosts, driver) = (Arc::clone(&self.hosts), Arc::clone(&self.driver));
        let question = Question {
            key: key.clone(),
            base,
            filter,
        };
        let start = move |reply: Reply| {
            driver.ask(&hosts, question, reply, move |answer| {
                answer.map_err(|cause| TableError::Unavailable {
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
        if self.result_has_key {
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
impl fmt::Debug for LdapTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdapTable")
            .field("name", &self.asker.name())
            .finish_non_exhaustive()
    }
}

/// RFC 4515 section 3: what would be part of the filter's grammar.
fn quote_in_filter(text: &str, out: &mut String) {
    quote(text, out, |c| matches!(c, '*' | '(' | ')' | '\\'));
}

/// RFC 4514 section 2.4: what would be part of the name's grammar; `=` too, and all blanks,
/// which harms nothing.
fn quote_in_name(text: &str, out: &mut String) {
    quote(text, out, |c| {
        matches!(
            c,
            ' ' | '\t' | '"' | '#' | '+' | ',' | ';' | '<' | '>' | '=' | '\\'
        ) || c.is_control()
    });
}

fn quote(text: &str, out: &mut String, is_special: impl Fn(char) -> bool) {
    for c in text.chars() {
        if !is_special(c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\{byte:02X}");
        }
    }
}
