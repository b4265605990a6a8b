//! The accounts of this machine and their mailboxes.
//!
//! Every question goes to the account database through the name service switch, and may wait for a
//! network. Source: local(8) `home_mailbox`, `mail_spool_directory`, `default_privs`.

use super::types::{Destination, Rights};
use crate::config::RoutingSettings;
use crate::table::TableError;
use crate::target::Format;
use nix::unistd::{Uid, User};
use std::path::PathBuf;

/// An account as far as mail is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) rights: Rights,
    pub(crate) home: PathBuf,
}

/// Where mailboxes of accounts are, and the user for those without an account.
#[derive(Debug)]
pub(crate) struct Accounts {
    default_privs: String,
    home_mailbox: String,
    mail_spool_directory: String,
}

impl Accounts {
    pub(crate) fn new(settings: &RoutingSettings) -> Self {
        Self {
            default_privs: settings.default_privs.clone(),
            home_mailbox: settings.home_mailbox.clone(),
            mail_spool_directory: settings.mail_spool_directory.clone(),
        }
    }

    /// The mailbox of the account `user`; `None` when there is no such account.
    ///
    /// # Errors
    /// The account database does not answer.
    pub(crate) fn mailbox(&self, user: &str) -> Result<Option<Destination>, TableError> {
        let Some(account) = named(user)? else {
            return Ok(None);
        };
        let at_home = || format!("{}/{}", account.home.display(), self.home_mailbox);
        let spool = &self.mail_spool_directory;
        // A Maildir is preferred, wherever it is.
        let path = if self.home_mailbox.ends_with('/') {
            at_home()
        } else if spool.ends_with('/') {
            format!("{spool}{user}/")
        } else if !self.home_mailbox.is_empty() {
            at_home()
        } else {
            format!("{spool}/{user}")
        };
        Ok(Some(Destination::User {
            format: Format::of(&path),
            path: path.into(),
            rights: account.rights,
        }))
    }

    /// The rights of `default_privs`.
    ///
    /// # Errors
    /// There is no such account, or the account database does not answer.
    pub(crate) fn default_rights(&self) -> Result<Rights, TableError> {
        let account = named(&self.default_privs)?;
        account.map(|account| account.rights).ok_or_else(|| {
            unavailable(format!(
                "default_privs names {}: no such user",
                self.default_privs
            ))
        })
    }

    /// The account with that user id.
    ///
    /// # Errors
    /// There is none, or the account database does not answer.
    pub(crate) fn by_id(&self, uid: u32) -> Result<Account, TableError> {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Ok(Account::from(user)),
            Ok(None) => Err(unavailable(format!(
                "user id {uid}, who owns an alias file, has no account"
            ))),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// Whose rights the members of an `:include:` file have: those of the alias that names it,
    /// but if that is root's, those of who owns the file.
    ///
    /// # Errors
    /// As [`Accounts::by_id`].
    pub(crate) fn of_include(
        &self,
        owner: u32,
        of_alias: &Option<Account>,
    ) -> Result<Option<Account>, TableError> {
        match of_alias {
            Some(account) => Ok(Some(account.clone())),
            None if owner == 0 => Ok(None),
            None => self.by_id(owner).map(Some),
        }
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            rights: Rights {
                user: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            },
            home: user.dir,
        }
    }
}

fn named(user: &str) -> Result<Option<Account>, TableError> {
    if user.contains('\0') {
        return Ok(None);
    }
    match User::from_name(user) {
        Ok(user) => Ok(user.map(Account::from)),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn unavailable(cause: String) -> TableError {
    TableError::Unavailable {
        name: "unix:passwd.byname".into(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(change: impl FnOnce(&mut RoutingSettings)) -> (String, Format) {
        let mut settings = RoutingSettings::default();
        change(&mut settings);
        match Accounts::new(&settings).mailbox("root").unwrap().unwrap() {
            Destination::User {
                path,
                format,
                rights,
            } => {
                assert_eq!((rights.user.as_str(), rights.uid), ("root", 0));
                (path.display().to_string(), format)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mailboxes_are_in_the_spool_or_at_home() {
        assert_eq!(path(|_| {}), ("/var/mail/root".into(), Format::Mbox));
        assert_eq!(
            path(|s| s.mail_spool_directory = "/spool/".into()),
            ("/spool/root/".into(), Format::Maildir)
        );
        let (at_home, format) = path(|s| s.home_mailbox = "Mail/".into());
        assert!(
            at_home.ends_with("/Mail/") && format == Format::Maildir,
            "{at_home}"
        );
        let both = |s: &mut RoutingSettings| {
            s.home_mailbox = "Mail".into();
            s.mail_spool_directory = "/spool/".into();
        };
        assert_eq!(path(both).0, "/spool/root/");
    }

    #[test]
    fn who_has_no_account_has_no_mailbox_and_no_rights() {
        let accounts = Accounts::new(&RoutingSettings {
            default_privs: "no such user".into(),
            ..RoutingSettings::default()
        });
        assert_eq!(accounts.mailbox("no such user"), Ok(None));
        assert!(accounts.default_rights().is_err());
        assert!(accounts.by_id(0).is_ok());
        assert!(accounts.by_id(4_000_000_001).is_err());
        assert_eq!(accounts.of_include(0, &None), Ok(None));
    }
}
