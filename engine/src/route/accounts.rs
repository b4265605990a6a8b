//! The accounts of this machine and their mailboxes.
//!
//! Every question goes to the account database through the name service switch, and may wait for a
//! network: it is asked as a table is. Source: local(8) `home_mailbox`, `mail_spool_directory`,
//! `default_privs`.

use super::types::{Destination, Rights};
use crate::config::RoutingSettings;
use crate::octets;
use crate::table::{Aside, LookupTable, Matching, TableError};
use crate::target::Format;
use nix::unistd::{Uid, User};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "unix:passwd.byname";

/// An account as far as mail is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) rights: Rights,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// Where mailboxes of accounts are, and the user for those without an account.
#[derive(Debug)]
pub(crate) struct Accounts {
    default_privs: String,
    home_mailbox: String,
    mail_spool_directory: String,
    database: Aside<Database>,
}

impl Accounts {
    pub(crate) fn new(settings: &RoutingSettings) -> Self {
        Self {
            default_privs: settings.default_privs.clone(),
            home_mailbox: settings.home_mailbox.clone(),
            mail_spool_directory: settings.mail_spool_directory.clone(),
            database: Aside::new(Database),
        }
    }

    /// The mailbox of `account`, whose mail is for `user`.
    pub(crate) fn mailbox(&self, user: &str, account: &Account) -> Destination {
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
        Destination::User {
            format: Format::of(&path),
            path: path.into(),
            rights: account.rights.clone(),
        }
    }

    /// Returns true for the path of an mbox in `mail_spool_directory`, in which others than the
    /// users may make mailboxes.
    pub(crate) fn is_in_spool(&self, path: &Path) -> bool {
        self.home_mailbox.is_empty() && path.parent() == Some(Path::new(&self.mail_spool_directory))
    }

    /// The rights of `default_privs`.
    ///
    /// # Errors
    /// There is no such account, or the account database does not answer.
    pub(crate) fn default_rights(&self) -> Result<Rights, TableError> {
        let account = self.named(&self.default_privs)?;
        account.map(|account| account.rights).ok_or_else(|| {
            unavailable(format!(
                "default_privs names {}: no such user",
                self.default_privs
            ))
        })
    }

    /// The account of that name; `None` when there is none.
    ///
    /// # Errors
    /// The account database does not answer.
    pub(crate) fn named(&self, user: &str) -> Result<Option<Account>, TableError> {
        if user.contains('\0') {
            return Ok(None);
        }
        self.ask(&format!("name:{user}"))
    }

    /// The account with that user id.
    ///
    /// # Errors
    /// There is none, or the account database does not answer.
    pub(crate) fn by_id(&self, uid: u32) -> Result<Account, TableError> {
        self.ask(&format!("id:{uid}"))?.ok_or_else(|| {
            unavailable(format!(
                "user id {uid}, who owns an alias file, has no account"
            ))
        })
    }

    fn ask(&self, key: &str) -> Result<Option<Account>, TableError> {
        let Some(line) = self.database.lookup(key)? else {
            return Ok(None);
        };
        let account = parse(&line).ok_or_else(|| unavailable("no account line".to_owned()))?;
        Ok(Some(account))
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

/// The account database, as a table: `name:USER` and `id:NUMBER` have the account, its fields
/// separated by NUL.
#[derive(Debug)]
struct Database;

impl LookupTable for Database {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        let found = match key.split_once(':') {
            Some(("id", id)) => match id.parse() {
                Ok(id) => User::from_uid(Uid::from_raw(id)),
                Err(_) => Ok(None),
            },
            Some((_, name)) => User::from_name(name),
            None => Ok(None),
        };
        let found = found.map_err(|error| unavailable(error.to_string()))?;
        Ok(found.map(|user| {
            let home = octets::text(user.dir.as_os_str().as_bytes()).into_owned();
            let shell = octets::text(user.shell.as_os_str().as_bytes()).into_owned();
            let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
            [user.name, uid, gid, home, shell].join("\0")
        }))
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        NAME
    }
}

fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split('\0');
    Some(Account {
        rights: Rights {
            user: fields.next()?.to_owned(),
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        },
        home: octets::path(fields.next()?).into_owned(),
        shell: octets::path(fields.next()?).into_owned(),
    })
}

fn unavailable(cause: String) -> TableError {
    TableError::Unavailable {
        name: NAME.into(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(change: impl FnOnce(&mut RoutingSettings)) -> (String, Format) {
        let mut settings = RoutingSettings::default();
        change(&mut settings);
        let accounts = Accounts::new(&settings);
        let root = accounts.named("root").unwrap().unwrap();
        match accounts.mailbox("root", &root) {
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
        assert_eq!(accounts.named("no such user"), Ok(None));
        assert!(accounts.default_rights().is_err());
        assert!(accounts.by_id(0).is_ok());
        assert!(accounts.by_id(4_000_000_001).is_err());
        assert_eq!(accounts.of_include(0, &None), Ok(None));
    }
}
