//! What the log remembers: the kinds of records and their fields.
//!
//! A record names everything recovery needs to do a delivery again without asking a table: settings
//! and tables may have changed since. `manual::log_format` describes how the kinds work together.

use crate::target::Format;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The place of a record in the order of the log; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one accepted message for the life of the store; the LMTP reply shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u128);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Tells the kinds of records apart on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A message with its resolved recipients: the promise a flush makes durable.
    Accepted = 7,
    /// What became of single recipients of accepted messages.
    Done = 2,
    /// The client has read the reply.
    Confirmed = 3,
    /// Deliveries whose reply may not have been read, for those not accepted through the log.
    InDoubt = 4,
    /// What recovery need not look at any more, and the in-doubt memory as it stands.
    Checkpoint = 5,
    /// What is about to stand in an mbox of a message that is not in the log.
    Extent = 6,
}

/// [`RecordKind::Accepted`] in versions 1 and 2 of the format, where it had two fields more.
pub(super) const ACCEPTED_UNTIL_2: u8 = 1;

impl RecordKind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            ACCEPTED_UNTIL_2 | 7 => Some(Self::Accepted),
            2 => Some(Self::Done),
            3 => Some(Self::Confirmed),
            4 => Some(Self::InDoubt),
            5 => Some(Self::Checkpoint),
            6 => Some(Self::Extent),
            _ => None,
        }
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Accepted => 7,
            Self::Done => 2,
            Self::Confirmed => 3,
            Self::InDoubt => 4,
            Self::Checkpoint => 5,
            Self::Extent => 6,
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Done => "done",
            Self::Confirmed => "confirmed",
            Self::InDoubt => "in_doubt",
            Self::Checkpoint => "checkpoint",
            Self::Extent => "extent",
        })
    }
}

/// The envelope of an accepted message, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Names the message.
    pub id: DeliveryId,
    /// When it was accepted, since the UNIX epoch; also the date of an mbox `From ` line, so that
    /// a copy written again has the same bytes.
    pub accepted_at: Duration,
    /// In external form; empty for the null reverse-path.
    pub reverse_path: String,
    /// The client's queue id, for the log; empty when unknown.
    pub queue_id: String,
    /// At least one.
    pub recipients: Vec<AcceptedRecipient>,
}

impl Accepted {
    /// Returns the recipients that the copy of recipient `index` is for: that one, and those
    /// behind it that share its copy. Empty for an index without a recipient.
    pub fn sharing(&self, index: usize) -> &[AcceptedRecipient] {
        let from = self.recipients.get(index..).unwrap_or_default();
        let more = from
            .iter()
            .skip(1)
            .take_while(|r| r.location == CopyLocation::Shared);
        from.get(..1 + more.count()).unwrap_or_default()
    }

    /// Returns the recipient whose location says where the copy for recipient `index` goes: that
    /// one, unless it shares the copy of an earlier one.
    pub fn copy_of(&self, index: u32) -> u32 {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let before = self.recipients.get(..=at).unwrap_or_default().iter().rev();
        let shared = before
            .take_while(|r| r.location == CopyLocation::Shared)
            .count();
        debug_assert!(shared <= at, "a copy is shared with later recipients");
        index.saturating_sub(u32::try_from(shared).unwrap_or(u32::MAX))
    }
}

/// One recipient of an accepted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedRecipient {
    /// The forward-path in external form; becomes `Delivered-To`.
    pub address: String,
    /// The original recipient; empty when unknown; becomes `X-Original-To`.
    pub original: String,
    /// The mailbox, below `virtual_mailbox_base`.
    pub mailbox: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where in the mailbox the copy goes.
    pub location: CopyLocation,
}

/// Where a copy is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyLocation {
    /// A Maildir and the name the file gets in `new/`.
    Maildir {
        /// Without directory and without flags.
        file_name: String,
    },
    /// An mbox.
    Mbox {
        /// Bytes of the mbox when the delivery was planned: a copy can only follow them,
        /// unless a reader rewrote the file since.
        size_before: u64,
        /// The copy lacks the header fields in which mbox readers keep their state.
        without_status: bool,
    },
    /// The copy of the recipient before, which names this one too. Never that of the first
    /// recipient.
    Shared,
}

impl CopyLocation {
    /// The format of the mailbox; `None` where an earlier recipient says it.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Maildir { .. } => Some(Format::Maildir),
            Self::Mbox { .. } => Some(Format::Mbox),
            Self::Shared => None,
        }
    }
}

/// What became of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The message.
    pub id: DeliveryId,
    /// Which recipient of its accepted record, from 0.
    pub recipient: u32,
    /// The outcome.
    pub outcome: DoneOutcome,
}

/// How a recipient was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneOutcome {
    /// Settled, durably, whatever the mailbox: there is nothing to be done or undone.
    Settled,
    /// Appended to an mbox; durable only after the next checkpoint.
    Mbox {
        /// Where the copy begins, in bytes.
        offset: u64,
        /// Bytes appended, with the `From ` line and the empty line at the end.
        length: u64,
    },
    /// Nothing was stored, and the client was or will be answered so: recovery must not deliver it.
    Refused,
}

/// The client has read the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The message.
    pub id: DeliveryId,
    /// One recipient, or all of them.
    pub recipient: Option<u32>,
}

/// A delivery of which the client may not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The message.
    pub id: DeliveryId,
    /// Which of its recipients, from 0.
    pub recipient: u32,
    /// What a repetition is recognised by: digest of content, sender, recipient, mailbox and queue
    /// id. The last bit says that the client named the message by a queue id.
    pub key: [u8; 32],
    /// Since when, from the UNIX epoch; the memory is kept for a bounded time.
    pub since: Duration,
}

/// Where recovery begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every message accepted by a record before this one is durable in its mailboxes or
    /// refused; records before it are needed no more.
    pub below: Sequence,
    /// The whole in-doubt memory: what earlier records said of it is void.
    pub in_doubt: Vec<InDoubt>,
}

/// A message too long for the log, about to be appended to an mbox and flushed there. Should a
/// crash leave a part of it, recovery knows that part by its sums and cuts it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The mbox, below `virtual_mailbox_base`.
    pub mailbox: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where the message begins, in bytes.
    pub offset: u64,
    /// Bytes, with the `From ` line and the empty line at the end.
    pub length: u64,
    /// CRC-32 of what it has in each sector of 512 bytes of the file.
    pub sums: Vec<u32>,
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// See [`RecordKind::Accepted`].
    Accepted {
        /// Envelope and location.
        envelope: Accepted,
        /// The content in its stored form, once for all recipients.
        content: Cow<'a, [u8]>,
    },
    /// See [`RecordKind::Done`].
    Done(Vec<Done>),
    /// See [`RecordKind::Confirmed`].
    Confirmed(Vec<Confirmed>),
    /// See [`RecordKind::InDoubt`].
    InDoubt(Vec<InDoubt>),
    /// See [`RecordKind::Checkpoint`].
    Checkpoint(Checkpoint),
    /// See [`RecordKind::Extent`].
    Extent(Extent),
}

impl Record<'_> {
    /// The kind of this record.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Accepted { .. } => RecordKind::Accepted,
            Self::Done(_) => RecordKind::Done,
            Self::Confirmed(_) => RecordKind::Confirmed,
            Self::InDoubt(_) => RecordKind::InDoubt,
            Self::Checkpoint(_) => RecordKind::Checkpoint,
            Self::Extent(_) => RecordKind::Extent,
        }
    }
}
