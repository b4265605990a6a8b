//! What can go wrong with a table.

use super::watch::watched::Hold;
use crate::status::Status;
use crate::sync::Arc;

/// A table that cannot be opened. The text says the object, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The list of tables is not written as `type:name, type:name ...`.
    #[error("table list \"{list}\": {cause}; write type:name, separated by commas or blanks")]
    Syntax {
        /// The list as configured.
        list: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A table type we do not know.
    #[error("table {name}: unknown table type \"{kind}\"{hint}")]
    UnknownType {
        /// `type:name`
        name: String,
        /// The type.
        kind: String,
        /// What to write instead.
        hint: String,
    },
    /// The file behind the table cannot be read.
    #[error("table {name}: cannot read {path}: {source}; {remedy}")]
    Read {
        /// `type:name`
        name: String,
        /// The text source.
        path: String,
        /// The system's answer.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The table's own text is wrong.
    #[error("table {name}: {cause}")]
    Content {
        /// `type:name`
        name: String,
        /// What, where, and the remedy.
        cause: String,
    },
    /// Any of the others, with the parameter whose value names the table.
    #[error("{parameter}: {cause}")]
    InParameter {
        /// The parameter.
        parameter: String,
        /// What is wrong.
        cause: Box<OpenError>,
    },
}

impl OpenError {
    /// With the name of the parameter that names the table, unless it is there already.
    pub(crate) fn in_parameter(self, parameter: &str) -> Self {
        match self {
            Self::InParameter { .. } => self,
            cause => Self::InParameter {
                parameter: parameter.to_owned(),
                cause: Box::new(cause),
            },
        }
    }
}

/// A table that was opened but cannot answer a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The table answered with an empty string, which Postfix calls a configuration error.
    #[error("table {name}: the value of \"{key}\" is empty; give it a value or remove the key")]
    EmptyValue {
        /// `type:name`
        name: String,
        /// The key asked for.
        key: String,
    },
    /// The table answered with something that cannot be a value.
    #[error("table {name}: the value of \"{key}\" {cause}; correct it")]
    BadValue {
        /// `type:name`
        name: String,
        /// The key asked for.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The table cannot be asked now.
    #[error("table {name}: {cause}")]
    Unavailable {
        /// `type:name`
        name: String,
        /// Why.
        cause: String,
    },
    /// A file system with files that mail is looked up in does not answer.
    #[error("{place}: the file system does not answer: {cause}; repair or unmount it")]
    NoFileSystem {
        /// A file server, or where it is mounted.
        place: String,
        /// What was seen of it.
        cause: String,
    },
    /// The table does not have the key, but its file is about to have others than it had.
    #[error("{cause}; what it does not have is deferred")]
    Unsettled {
        /// The table, and what is the matter with its file.
        cause: String,
    },
}

impl TableError {
    /// The error to be given in place of "not found", if one of `holds` holds a file back.
    pub(crate) fn unsettled(holds: &[Arc<Hold>]) -> Option<Self> {
        let cause = holds.iter().find_map(|hold| hold.cause())?;
        Some(Self::Unsettled { cause })
    }

    /// A table error always defers (virtual(8): `mail system configuration error`).
    pub fn status(&self) -> Status {
        match self {
            Self::EmptyValue { .. } | Self::BadValue { .. } => {
                Status::configuration("mail system configuration error")
            }
            Self::Unavailable { .. } | Self::Unsettled { .. } => {
                Status::system("temporary lookup failure")
            }
            Self::NoFileSystem { .. } => {
                Status::system("the file system with the files of the account does not answer")
            }
        }
    }
}
