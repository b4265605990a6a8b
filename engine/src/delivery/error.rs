//! Why a store cannot be opened, and why a delivery fails.

use crate::io::PathError;
use crate::log::LogError;
use crate::mailbox::MailboxError;
use crate::status::Status;
use crate::sync::Arc;
use std::io;
use std::path::PathBuf;

/// Why a delivery fails.
#[derive(Clone, Debug)]
pub(super) enum DeliveryError {
    /// The mailbox refuses the message. One error may end several deliveries.
    Mailbox(Arc<MailboxError>),
    /// The delivery log refuses the message.
    Log(LogError),
}

impl DeliveryError {
    /// Returns the outcome for the recipient.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Mailbox(error) => error.status(),
            Self::Log(error) => error.status(),
        }
    }

    /// Returns true when the message may be in the mailbox although the delivery failed: the flush
    /// failed, and the data that a failing disk keeps is unknown.
    pub(super) fn may_be_stored(&self) -> bool {
        match self {
            Self::Mailbox(error) => matches!(
                **error,
                MailboxError::Flush { .. } | MailboxError::Interrupted { .. }
            ),
            // The message itself records whether the log has it.
            Self::Log(_) => false,
        }
    }

    /// Returns true when the file system of the mailbox is full.
    pub(super) fn is_no_space(&self) -> bool {
        match self {
            Self::Mailbox(error) => error.is_no_space(),
            Self::Log(_) => false,
        }
    }
}

impl From<MailboxError> for DeliveryError {
    fn from(error: MailboxError) -> Self {
        Self::Mailbox(Arc::new(error))
    }
}

impl From<Arc<MailboxError>> for DeliveryError {
    fn from(error: Arc<MailboxError>) -> Self {
        Self::Mailbox(error)
    }
}

impl From<LogError> for DeliveryError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Why a store cannot be opened.
///
/// ```
/// use mailstow_engine::{Engine, EngineError, Settings, StoreError};
///
/// let mut settings = Settings::default();
/// settings.routing.virtual_mailbox_base = "vhosts".into();
/// let error = Engine::open(&settings).expect_err("the path is relative");
/// assert!(matches!(error, EngineError::Store(StoreError::RelativeBase { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `virtual_mailbox_base` is not set.
    #[error(
        "virtual_mailbox_base is not set; set it to the directory that holds the mailboxes: mail \
         cannot be delivered without"
    )]
    NoBase,
    /// `virtual_mailbox_base` is not an absolute path.
    #[error(
        "virtual_mailbox_base = {}: not an absolute path; set it to the directory that holds the \
         mailboxes",
        base.display()
    )]
    RelativeBase {
        /// As configured.
        base: PathBuf,
    },
    /// The base is missing and cannot be made, or is not a directory.
    #[error("virtual_mailbox_base {}: {source}; {}", base.display(), base_remedy(source))]
    Base {
        /// As configured.
        base: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The state directory cannot be made, or others can replace what is in it.
    #[error(
        "state directory {}: {source}; create it for the user mailstow runs as, or set \
         state_directory to another one",
        directory.display()
    )]
    State {
        /// As configured.
        directory: PathBuf,
        /// The cause.
        source: PathError,
    },
    /// The delivery log cannot be opened or recovered.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A thread cannot be started.
    #[error(
        "cannot start a writer thread: {source}; raise the limit on processes (TasksMax=, ulimit -u)"
    )]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
}

/// Returns the remedy for a base that cannot be used.
fn base_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => {
            "create it, and the directories above it, or mount what belongs there"
        }
        io::ErrorKind::PermissionDenied => {
            "create it for the user that runs mailstow, and allow that user to search the \
             directories above it"
        }
        _ => "name a directory",
    }
}
