//! The settings and records that the checks of the log use.

use super::super::record::{Accepted, AcceptedRecipient, CopyLocation, DeliveryId, Record};
use super::super::{EncodedRecord, LogWriterSettings};
use std::time::Duration;

/// Small segments, so that a few records make many.
pub(super) fn settings() -> LogWriterSettings {
    LogWriterSettings {
        segment_bytes: 16 << 10,
        log_bytes_max: 96 << 10,
        in_flight_bytes_max: 64 << 10,
        record_bytes_max: 24 << 10,
        ..LogWriterSettings::default()
    }
}

/// A record with this identity and so many bytes of content.
pub(super) fn accepted(id: u128, bytes: usize) -> EncodedRecord {
    let recipient = AcceptedRecipient {
        address: "ann@example.org".to_owned(),
        original: String::new(),
        mailbox: "example.org/ann".to_owned(),
        uid: 5000,
        gid: 5000,
        location: CopyLocation::Mbox {
            size_before: 0,
            without_status: false,
        },
    };
    let envelope = Accepted {
        id: DeliveryId(id),
        accepted_at: Duration::from_secs(1_700_000_000),
        reverse_path: "sender@example.com".to_owned(),
        queue_id: String::new(),
        recipients: vec![recipient],
    };
    let [low, ..] = id.to_le_bytes();
    let content = vec![low; bytes].into();
    Record::Accepted { envelope, content }.encode()
}
