//! The mailbox of an address, as virtual(8) finds it: path, format, owner.
//!
//! The lookup key is the whole recipient, folded. Owners below `virtual_minimum_uid` and paths that
//! leave `virtual_mailbox_base` are refused as configuration errors: the mail is deferred, never
//! bounced.

use super::error::RouteError;
use super::opener::Opener;
use super::search::{self, KeyForms, Keys, Maps, Search, Strategy};
use super::trace::Trace;
use crate::address::{Address, ExtensionRule, fold_case};
use crate::config::RoutingSettings;
use crate::table::{KeyInValues, LookupTable, OpenError, TableError, steers};
use crate::target::{Format, MailboxPath, MailboxPathError, MailboxTarget};

/// virtual(8) tries keys in these forms.
const FORMS: KeyForms = KeyForms::ExternalThenInternal;

/// The three tables of the virtual mailbox class.
#[derive(Debug)]
pub(crate) struct MailboxTables {
    mailboxes: Maps,
    uids: Maps,
    gids: Maps,
    paths: Option<Maps>,
    rule: ExtensionRule,
    virtual_minimum_uid: u32,
    /// Nothing says where mail is stored, nor as whom.
    is_elsewhere: bool,
}

impl MailboxTables {
    /// Opens the tables.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn open(settings: &RoutingSettings, opener: &Opener<'_>) -> Result<Self, OpenError> {
        let open = |parameter, list| Maps::open(parameter, list, opener);
        Ok(Self {
            mailboxes: open("virtual_mailbox_maps", &settings.virtual_mailbox_maps)?,
            uids: open("virtual_uid_maps", &settings.virtual_uid_maps)?,
            gids: open("virtual_gid_maps", &settings.virtual_gid_maps)?,
            paths: match settings.mailbox_path.as_str() {
                "" => None,
                template => Some(Maps::template("mailbox_path", template, opener)?),
            },
            rule: super::alias::extension_rule(settings),
            virtual_minimum_uid: settings.virtual_minimum_uid,
            is_elsewhere: settings.virtual_mailbox_base.as_os_str().is_empty()
                && settings.virtual_uid_maps.is_empty()
                && settings.virtual_gid_maps.is_empty(),
        })
    }

    /// `virtual_mailbox_maps`, for reports.
    pub(crate) fn maps(&self) -> &Maps {
        &self.mailboxes
    }

    /// What the tables do not have may be in them soon: the error to be given in place of that.
    pub(crate) fn unsettled(&self) -> Option<TableError> {
        let mut all = self.all_maps().into_iter();
        all.find_map(|maps| maps.tables().unsettled())
    }

    /// All tables, for reports.
    pub(crate) fn all_maps(&self) -> [&Maps; 3] {
        [&self.mailboxes, &self.uids, &self.gids]
    }

    /// The mailbox of `address`, `None` when no table lists it.
    ///
    /// # Errors
    /// A table could not answer, or what it answered cannot be used.
    pub(crate) fn find(
        &self,
        address: &Address,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
        trace: &mut Trace,
    ) -> Result<Option<MailboxTarget>, RouteError> {
        let internal = address.internal();
        let folded = fold_case(&internal);
        let whole = search::Address::new(&folded, &self.rule, FORMS);
        self.find_keys(address, &Keys::new(&whole), is_own_domain, trace)
    }

    /// As [`MailboxTables::find`], with the keys of `address`, folded.
    ///
    /// # Errors
    /// As [`MailboxTables::find`].
    pub(crate) fn find_keys<'t>(
        &'t self,
        address: &Address,
        keys: &Keys<'_, 't>,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
        trace: &mut Trace,
    ) -> Result<Option<MailboxTarget>, RouteError> {
        let search = self.search(is_own_domain);
        let mut value = String::new();
        let Some(found) = search.find_keys(&self.mailboxes, keys, &mut value, trace)? else {
            return Ok(None);
        };
        if self.paths.is_none() {
            self.refuse_steering(address, &value, found.table())?;
        }
        if let Some(paths) = &self.paths {
            value.clear();
            // A local part of nothing but quotes has no mailbox, even with a catch-all.
            let found = search.find_keys(paths, keys, &mut value, trace)?;
            if found.is_none() {
                return Ok(None);
            }
        }
        if self.is_elsewhere {
            return Err(RouteError::StoredElsewhere {
                address: address.external(),
            });
        }
        let (path, format) = check_path(address, value)?;
        let mut text = String::new();
        let mut owner = |maps: &'t Maps, minimum| {
            text.clear();
            let Some(found) = search.find_keys(maps, keys, &mut text, trace)? else {
                return Err(RouteError::NoOwner {
                    address: address.external(),
                    parameter: maps.parameter(),
                });
            };
            if found.table().key_in_values() == KeyInValues::Always {
                return Err(bad_owner(
                    address,
                    maps.parameter(),
                    &text,
                    format!(
                        "table {} makes it from the address (result_format), so that a sender \
                         would choose the owner; take it from the table alone",
                        found.table().name()
                    ),
                ));
            }
            number(address, maps.parameter(), &text, minimum)
        };
        let uid = owner(&self.uids, Some(self.virtual_minimum_uid))?;
        let gid = owner(&self.gids, None)?;
        Ok(Some(MailboxTarget {
            path,
            format,
            uid,
            gid,
        }))
    }

    /// What the map of that name has for `address`, as it stands in the table.
    ///
    /// # Errors
    /// A table could not answer.
    pub(crate) fn value(
        &self,
        parameter: &str,
        address: &Address,
        is_own_domain: impl Fn(&str) -> Result<bool, TableError>,
    ) -> Result<Option<String>, TableError> {
        let all = [&self.mailboxes, &self.uids, &self.gids];
        let Some(maps) = all.into_iter().find(|maps| maps.parameter() == parameter) else {
            return Ok(None);
        };
        let internal = address.internal();
        let search = self.search(is_own_domain);
        let found = search.find(maps, &fold_case(&internal), &mut Trace::off())?;
        Ok(found.map(|found| found.value))
    }

    /// Refuses a path that may have text of the address in it which is more than a name.
    fn refuse_steering(
        &self,
        address: &Address,
        value: &str,
        table: &dyn LookupTable,
    ) -> Result<(), RouteError> {
        let domain = address.domain.as_deref().unwrap_or_default();
        if !steers(&address.local_part) && !steers(domain) {
            return Ok(());
        }
        let value_folded = fold_case(value);
        let is_in_value = |text: &str| {
            let text = fold_case(text);
            // What is nothing but separators shows as an empty component, or one to be dropped.
            match text.trim_matches(['/', '.']) {
                "" => value_folded.contains("//") || value_folded.contains("/./"),
                _ => value_folded.contains(text.as_ref()),
            }
        };
        let local_part = address.local_part.as_str();
        let user = self
            .rule
            .split(local_part)
            .map_or(local_part, |(user, _)| user);
        let is_steered = match table.key_in_values() {
            KeyInValues::Never => false,
            KeyInValues::Perhaps => [local_part, user, domain]
                .into_iter()
                .any(|text| steers(text) && is_in_value(text)),
            KeyInValues::Always => true,
        };
        if !is_steered {
            return Ok(());
        }
        Err(RouteError::BadPath {
            address: address.external(),
            path: value.to_owned(),
            cause: "a \"/\", or a \".\" at the beginning, comes from the address, so that a \
                sender would choose the directory; name the path in the table",
        })
    }

    fn search<F>(&self, is_own_domain: F) -> Search<'_, F> {
        Search {
            rule: &self.rule,
            forms: FORMS,
            strategy: Strategy::Address,
            is_own_domain,
        }
    }
}

/// Format and checked path.
fn check_path(address: &Address, mut value: String) -> Result<(MailboxPath, Format), RouteError> {
    let format = Format::of(&value);
    if format == Format::Maildir {
        value.pop();
    }
    let bad = |MailboxPathError { mut path, cause }| {
        if format == Format::Maildir {
            path.push('/');
        }
        RouteError::BadPath {
            address: address.external(),
            path,
            cause,
        }
    };
    let path = MailboxPath::new(value, format).map_err(bad)?;
    match path.is_empty() {
        false => Ok((path, format)),
        true => Err(bad(MailboxPathError::base(String::new()))),
    }
}

#[cold]
fn bad_owner(address: &Address, parameter: &'static str, value: &str, cause: String) -> RouteError {
    RouteError::BadOwner {
        address: address.external(),
        parameter,
        value: value.to_owned(),
        cause,
    }
}

/// A uid or gid that mail may be written as: not 0, and not -1, which the kernel takes for
/// "unchanged".
fn number(
    address: &Address,
    parameter: &'static str,
    value: &str,
    minimum: Option<u32>,
) -> Result<u32, RouteError> {
    let bad = |cause: &str| bad_owner(address, parameter, value, cause.to_owned());
    let number: u32 = value
        .parse()
        .map_err(|_| bad("it is not a number between 1 and 4294967294; give the numeric id"))?;
    match (number, minimum) {
        (0, _) => Err(bad(
            "mail is never written as root; give an unprivileged id",
        )),
        (u32::MAX, _) => Err(bad("4294967295 means no id; use another")),
        (number, Some(minimum)) if number < minimum => {
            Err(bad(&format!("it is below virtual_minimum_uid = {minimum}")))
        }
        (number, _) => Ok(number),
    }
}
