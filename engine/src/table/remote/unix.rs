//! `unix:passwd.byname` and `unix:group.byname`: the accounts of this machine.
//!
//! The value is the line as passwd(5) and group(5) have it. The lookup goes through the name
//! service switch and may wait for a network. Source: Postfix DATABASE_README, "unix".

use crate::address::fold_case;
use crate::table::{KeyInValues, LookupTable, Matching, OpenError, TableError};
use nix::unistd::{Group, User};

/// Which of the two.
#[derive(Clone, Copy, Debug)]
enum Database {
    Users,
    Groups,
}

/// The user or group database.
#[derive(Debug)]
pub(in crate::table) struct UnixTable {
    name: String,
    database: Database,
}

impl UnixTable {
    /// Opens the table called `name`; `text` is `passwd.byname` or `group.byname`.
    ///
    /// # Errors
    /// It is neither.
    pub(in crate::table) fn open(name: &str, text: &str) -> Result<Self, OpenError> {
        let database = match text {
            "passwd.byname" => Database::Users,
            "group.byname" => Database::Groups,
            _ => {
                return Err(OpenError::Content {
                    name: name.to_owned(),
                    cause: "no such database; write unix:passwd.byname or unix:group.byname"
                        .to_owned(),
                });
            }
        };
        Ok(Self {
            name: name.to_owned(),
            database,
        })
    }
}

impl LookupTable for UnixTable {
    fn lookup(&self, key: &str) -> Result<Option<String>, TableError> {
        if key.contains('\0') {
            return Ok(None);
        }
        // As Postfix asks it: names of accounts are in lower case.
        let key = fold_case(key);
        let key = key.as_ref();
        let found = match self.database {
            Database::Users => User::from_name(key).map(|user| user.map(|user| line(&user))),
            Database::Groups => Group::from_name(key).map(|group| {
                group.map(|group| {
                    let members = group.mem.join(",");
                    format!("{}:x:{}:{members}", group.name, group.gid)
                })
            }),
        };
        found.map_err(|error| TableError::Unavailable {
            name: self.name.clone(),
            cause: format!("the account database does not answer: {error}"),
        })
    }

    fn matching(&self) -> Matching {
        Matching::Exact
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key_in_values(&self) -> KeyInValues {
        KeyInValues::Never
    }
}

/// The line of passwd(5); the password field says nothing.
fn line(user: &User) -> String {
    format!(
        "{}:x:{}:{}:{}:{}:{}",
        user.name,
        user.uid,
        user.gid,
        user.gecos.to_string_lossy(),
        user.dir.display(),
        user.shell.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_root_is_found_and_unknown_ones_are_not() {
        let users = UnixTable::open("unix:passwd.byname", "passwd.byname").unwrap();
        let root = users.lookup("root").unwrap().unwrap();
        assert!(root.starts_with("root:x:0:0:"), "{root}");
        assert_eq!(users.lookup("Root").unwrap(), Some(root));
        assert_eq!(users.lookup("no such user").unwrap(), None);
        assert_eq!(users.lookup("a\0b").unwrap(), None);
        let groups = UnixTable::open("unix:group.byname", "group.byname").unwrap();
        assert!(
            groups
                .lookup("root")
                .unwrap()
                .unwrap()
                .starts_with("root:x:0:")
        );
        assert!(UnixTable::open("unix:hosts", "hosts").is_err());
    }
}
