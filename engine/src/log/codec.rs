//! Records to bytes and back.
//!
//! Invariants: encoding any record and decoding it gives the same record; decoding never panics and
//! never reserves more than its input is long. The layout is drawn in `manual::log_format`.

use super::bytes::{DecodeError, Put as _, Take};
use super::record::{
    ACCEPTED_UNTIL_2, Accepted, AcceptedRecipient, Checkpoint, Confirmed, CopyLocation, DeliveryId,
    Done, DoneOutcome, Extent, InDoubt, Record, RecordKind, Sequence,
};
use std::borrow::Cow;
use std::io;
use std::time::Duration;

const LOCATION_MAILDIR: u8 = 1;
const LOCATION_MBOX: u8 = 2;
const LOCATION_SHARED: u8 = 3;
const LOCATION_MBOX_WITHOUT_STATUS: u8 = 4;
/// Of versions 1 and 2.
const DIGEST_BYTES: usize = 32;
const CONTENT_PLAIN: u8 = 0;
const OUTCOME_SETTLED: u8 = 1;
const OUTCOME_MBOX: u8 = 2;
const OUTCOME_REFUSED: u8 = 3;
/// All recipients, in a confirmation.
const RECIPIENT_ALL: u32 = u32::MAX;
/// Fewest bytes of a recipient, of an outcome, of a confirmation, of an in-doubt entry.
const RECIPIENT_BYTES_MIN: usize = 4 + 4 + 4 + 4 + 4 + 1;
const DONE_BYTES_MIN: usize = 16 + 4 + 1;
const CONFIRMED_BYTES: usize = 16 + 4;
const IN_DOUBT_BYTES: usize = 16 + 4 + 32 + 8;

/// A record ready to be appended; its payload checksum is computed here, on the caller's thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    kind: RecordKind,
    payload: Vec<u8>,
    payload_crc: u32,
}

impl EncodedRecord {
    fn new(kind: RecordKind, payload: Vec<u8>) -> Self {
        debug_assert!(!payload.is_empty(), "every record has a field");
        Self {
            kind,
            payload_crc: crc32fast::hash(&payload),
            payload,
        }
    }

    /// What it is.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The bytes behind the frame header.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// CRC-32 of the payload.
    pub(super) fn payload_crc(&self) -> u32 {
        self.payload_crc
    }
}

/// Takes the content of an accepted message piece by piece, so that a message that lies in
/// chunks or in a file is copied once.
#[derive(Debug)]
pub struct AcceptedEncoder {
    payload: Vec<u8>,
    #[cfg(any(test, feature = "sim"))]
    content_from: usize,
}

impl AcceptedEncoder {
    /// Writes the envelope; `content_bytes` is reserved for what [`Self::push`] will bring.
    pub fn new(envelope: &Accepted, content_bytes: usize) -> Self {
        let mut payload = Vec::with_capacity(256 + 128 * envelope.recipients.len() + content_bytes);
        put_accepted(&mut payload, envelope);
        debug_assert_eq!(
            payload.len(),
            envelope.record_bytes(),
            "room for the bytes was reserved"
        );
        Self {
            #[cfg(any(test, feature = "sim"))]
            content_from: payload.len(),
            payload,
        }
    }

    /// Appends a piece of the content.
    pub fn push(&mut self, content: &[u8]) {
        self.payload.put(content);
    }

    /// Bytes of content taken so far.
    #[cfg(any(test, feature = "sim"))]
    pub fn content_bytes(&self) -> usize {
        self.payload.len() - self.content_from
    }

    /// The whole record.
    pub fn finish(self) -> EncodedRecord {
        EncodedRecord::new(RecordKind::Accepted, self.payload)
    }
}

impl Accepted {
    /// Bytes of the record without its content.
    pub fn record_bytes(&self) -> usize {
        let recipients = self.recipients.iter().map(|recipient| {
            let texts = [&recipient.address, &recipient.original, &recipient.mailbox];
            let location = match &recipient.location {
                CopyLocation::Maildir { file_name } => 4 + file_name.len(),
                CopyLocation::Mbox { .. } => 8,
                CopyLocation::Shared => 0,
            };
            texts.map(|text| 4 + text.len()).iter().sum::<usize>() + 4 + 4 + 1 + location
        });
        let texts = 4 + self.reverse_path.len() + 4 + self.queue_id.len();
        16 + 8 + texts + 4 + recipients.sum::<usize>()
    }
}

impl io::Write for AcceptedEncoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Record<'_> {
    /// The record as bytes.
    pub fn encode(&self) -> EncodedRecord {
        let mut out = Vec::new();
        match self {
            Self::Accepted { envelope, content } => {
                let mut encoder = AcceptedEncoder::new(envelope, content.len());
                encoder.push(content);
                return encoder.finish();
            }
            Self::Done(entries) => put_all(&mut out, entries, put_done),
            Self::Confirmed(entries) => put_all(&mut out, entries, put_confirmed),
            Self::InDoubt(entries) => put_all(&mut out, entries, put_in_doubt),
            Self::Checkpoint(checkpoint) => {
                out.put_u64(checkpoint.below.0);
                put_all(&mut out, &checkpoint.in_doubt, put_in_doubt);
            }
            Self::Extent(extent) => put_extent(&mut out, extent),
        }
        EncodedRecord::new(self.kind(), out)
    }
}

impl<'a> Record<'a> {
    /// Reads a record of kind `kind` from a whole payload.
    ///
    /// # Errors
    /// The bytes are not a record of this format version, or of one before it.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let is_old = kind == ACCEPTED_UNTIL_2;
        let kind = RecordKind::from_byte(kind).ok_or(DecodeError::Kind(kind))?;
        let mut take = Take::new(payload);
        let record = match kind {
            RecordKind::Accepted => return take_accepted(take, is_old),
            RecordKind::Done => Self::Done(take_all(&mut take, DONE_BYTES_MIN, take_done)?),
            RecordKind::Confirmed => {
                Self::Confirmed(take_all(&mut take, CONFIRMED_BYTES, take_confirmed)?)
            }
            RecordKind::InDoubt => {
                Self::InDoubt(take_all(&mut take, IN_DOUBT_BYTES, take_in_doubt)?)
            }
            RecordKind::Checkpoint => Self::Checkpoint(Checkpoint {
                below: Sequence(take.u64("below")?),
                in_doubt: take_all(&mut take, IN_DOUBT_BYTES, take_in_doubt)?,
            }),
            RecordKind::Extent => Self::Extent(take_extent(&mut take)?),
        };
        take.end()?;
        Ok(record)
    }
}

fn put_all<T>(out: &mut Vec<u8>, entries: &[T], put: fn(&mut Vec<u8>, &T)) {
    out.put_count(entries.len());
    for entry in entries {
        put(out, entry);
    }
}

fn take_all<T>(
    take: &mut Take<'_>,
    bytes_min: usize,
    one: fn(&mut Take<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = take.count(bytes_min, "count")?;
    (0..count).map(|_| one(take)).collect()
}

/// Nanoseconds, of which 64 bits last until the year 2554.
fn put_time(out: &mut Vec<u8>, time: Duration) {
    out.put_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

fn take_time(take: &mut Take<'_>, field: &'static str) -> Result<Duration, DecodeError> {
    take.u64(field).map(Duration::from_nanos)
}

fn put_accepted(out: &mut Vec<u8>, envelope: &Accepted) {
    out.put_u128(envelope.id.0);
    put_time(out, envelope.accepted_at);
    out.put_text(&envelope.reverse_path);
    out.put_text(&envelope.queue_id);
    out.put_count(envelope.recipients.len());
    let first = envelope.recipients.first();
    debug_assert!(
        first.is_none_or(|recipient| recipient.location != CopyLocation::Shared),
        "the first recipient has no one to share a copy with"
    );
    for recipient in &envelope.recipients {
        out.put_text(&recipient.address);
        out.put_text(&recipient.original);
        out.put_text(&recipient.mailbox);
        out.put_u32(recipient.uid);
        out.put_u32(recipient.gid);
        match &recipient.location {
            CopyLocation::Maildir { file_name } => {
                out.put_u8(LOCATION_MAILDIR);
                out.put_text(file_name);
            }
            CopyLocation::Mbox {
                size_before,
                without_status,
            } => {
                out.put_u8(match without_status {
                    true => LOCATION_MBOX_WITHOUT_STATUS,
                    false => LOCATION_MBOX,
                });
                out.put_u64(*size_before);
            }
            CopyLocation::Shared => out.put_u8(LOCATION_SHARED),
        }
    }
}

/// `is_old`: of version 1 or 2, with a digest of the content, which is zero, and its encoding.
fn take_accepted(mut take: Take<'_>, is_old: bool) -> Result<Record<'_>, DecodeError> {
    let id = DeliveryId(take.u128("id")?);
    let accepted_at = take_time(&mut take, "accepted_at")?;
    if is_old {
        take.bytes(DIGEST_BYTES, "content digest")?;
    }
    let reverse_path = take.text("reverse_path")?;
    let queue_id = take.text("queue_id")?;
    let recipients = take_all(&mut take, RECIPIENT_BYTES_MIN, take_recipient)?;
    if recipients
        .first()
        .is_some_and(|r| r.location == CopyLocation::Shared)
    {
        return Err(DecodeError::Value {
            field: "location of the first recipient",
            value: u64::from(LOCATION_SHARED),
        });
    }
    if is_old {
        let encoding = take.u8("content encoding")?;
        if encoding != CONTENT_PLAIN {
            return Err(DecodeError::Value {
                field: "content encoding",
                value: u64::from(encoding),
            });
        }
    }
    let content = take.rest();
    Ok(Record::Accepted {
        envelope: Accepted {
            id,
            accepted_at,
            reverse_path,
            queue_id,
            recipients,
        },
        content: Cow::Borrowed(content),
    })
}

fn take_recipient(take: &mut Take<'_>) -> Result<AcceptedRecipient, DecodeError> {
    Ok(AcceptedRecipient {
        address: take.text("recipient address")?,
        original: take.text("original recipient")?,
        mailbox: take.text("mailbox")?,
        uid: take.u32("uid")?,
        gid: take.u32("gid")?,
        location: match take.u8("location")? {
            LOCATION_MAILDIR => CopyLocation::Maildir {
                file_name: take.text("file name")?,
            },
            kind @ (LOCATION_MBOX | LOCATION_MBOX_WITHOUT_STATUS) => CopyLocation::Mbox {
                size_before: take.u64("mbox size")?,
                without_status: kind == LOCATION_MBOX_WITHOUT_STATUS,
            },
            LOCATION_SHARED => CopyLocation::Shared,
            value => {
                return Err(DecodeError::Value {
                    field: "location",
                    value: u64::from(value),
                });
            }
        },
    })
}

fn put_done(out: &mut Vec<u8>, done: &Done) {
    out.put_u128(done.id.0);
    out.put_u32(done.recipient);
    match done.outcome {
        DoneOutcome::Settled => out.put_u8(OUTCOME_SETTLED),
        DoneOutcome::Mbox { offset, length } => {
            out.put_u8(OUTCOME_MBOX);
            out.put_u64(offset);
            out.put_u64(length);
        }
        DoneOutcome::Refused => out.put_u8(OUTCOME_REFUSED),
    }
}

fn take_done(take: &mut Take<'_>) -> Result<Done, DecodeError> {
    Ok(Done {
        id: DeliveryId(take.u128("id")?),
        recipient: take.u32("recipient")?,
        outcome: match take.u8("outcome")? {
            OUTCOME_SETTLED => DoneOutcome::Settled,
            OUTCOME_MBOX => DoneOutcome::Mbox {
                offset: take.u64("offset")?,
                length: take.u64("length")?,
            },
            OUTCOME_REFUSED => DoneOutcome::Refused,
            value => {
                return Err(DecodeError::Value {
                    field: "outcome",
                    value: u64::from(value),
                });
            }
        },
    })
}

fn put_confirmed(out: &mut Vec<u8>, confirmed: &Confirmed) {
    debug_assert_ne!(
        confirmed.recipient,
        Some(RECIPIENT_ALL),
        "no recipient has that number"
    );
    out.put_u128(confirmed.id.0);
    out.put_u32(confirmed.recipient.unwrap_or(RECIPIENT_ALL));
}

fn take_confirmed(take: &mut Take<'_>) -> Result<Confirmed, DecodeError> {
    Ok(Confirmed {
        id: DeliveryId(take.u128("id")?),
        recipient: match take.u32("recipient")? {
            RECIPIENT_ALL => None,
            recipient => Some(recipient),
        },
    })
}

fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    out.put_text(&extent.mailbox);
    out.put_u32(extent.uid);
    out.put_u32(extent.gid);
    out.put_u64(extent.offset);
    out.put_u64(extent.length);
    put_all(out, &extent.sums, |out, sum| out.put_u32(*sum));
}

fn take_extent(take: &mut Take<'_>) -> Result<Extent, DecodeError> {
    Ok(Extent {
        mailbox: take.text("mailbox")?,
        uid: take.u32("uid")?,
        gid: take.u32("gid")?,
        offset: take.u64("offset")?,
        length: take.u64("length")?,
        sums: take_all(take, 4, |take| take.u32("sum"))?,
    })
}

fn put_in_doubt(out: &mut Vec<u8>, entry: &InDoubt) {
    out.put_u128(entry.id.0);
    out.put_u32(entry.recipient);
    out.put(&entry.key);
    put_time(out, entry.since);
}

fn take_in_doubt(take: &mut Take<'_>) -> Result<InDoubt, DecodeError> {
    Ok(InDoubt {
        id: DeliveryId(take.u128("id")?),
        recipient: take.u32("recipient")?,
        key: take.array("key")?,
        since: take_time(take, "since")?,
    })
}
