//! Goal: every record reads back as it was written, and no bytes make decoding fail in another
//! way than by an error.

use super::super::record::*;
use super::super::{AcceptedEncoder, DecodeError};
use super::support::record;
use proptest::collection::vec;
use proptest::prelude::*;
use std::borrow::Cow;
use std::time::Duration;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn time() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn id() -> impl Strategy<Value = DeliveryId> {
    any::<u128>().prop_map(DeliveryId)
}

fn location() -> impl Strategy<Value = CopyLocation> {
    prop_oneof![
        text().prop_map(|file_name| CopyLocation::Maildir { file_name }),
        any::<(u64, bool)>().prop_map(|(size_before, without_status)| CopyLocation::Mbox {
            size_before,
            without_status,
        }),
        Just(CopyLocation::Shared),
    ]
}

fn recipient() -> impl Strategy<Value = AcceptedRecipient> {
    (text(), text(), text(), any::<(u32, u32)>(), location()).prop_map(
        |(address, original, mailbox, (uid, gid), location)| AcceptedRecipient {
            address,
            original,
            mailbox,
            uid,
            gid,
            location,
        },
    )
}

fn accepted() -> impl Strategy<Value = Accepted> {
    (id(), time(), text(), text(), vec(recipient(), 0..5)).prop_map(
        |(id, accepted_at, reverse_path, queue_id, mut recipients)| {
            // The first recipient has no one to share with.
            while recipients
                .first()
                .is_some_and(|r| r.location == CopyLocation::Shared)
            {
                recipients.remove(0);
            }
            Accepted {
                id,
                accepted_at,
                reverse_path,
                queue_id,
                recipients,
            }
        },
    )
}

fn outcome() -> impl Strategy<Value = DoneOutcome> {
    prop_oneof![
        Just(DoneOutcome::Settled),
        Just(DoneOutcome::Refused),
        any::<(u64, u64)>().prop_map(|(offset, length)| DoneOutcome::Mbox { offset, length }),
    ]
}

fn in_doubt() -> impl Strategy<Value = InDoubt> {
    (id(), any::<u32>(), any::<[u8; 32]>(), time()).prop_map(|(id, recipient, key, since)| {
        InDoubt {
            id,
            recipient,
            key,
            since,
        }
    })
}

fn any_record() -> impl Strategy<Value = Record<'static>> {
    let done = (id(), any::<u32>(), outcome()).prop_map(|(id, recipient, outcome)| Done {
        id,
        recipient,
        outcome,
    });
    let confirmed = (id(), proptest::option::of(0..u32::MAX))
        .prop_map(|(id, recipient)| Confirmed { id, recipient });
    let checkpoint =
        (any::<u64>(), vec(in_doubt(), 0..9)).prop_map(|(below, in_doubt)| Checkpoint {
            below: Sequence(below),
            in_doubt,
        });
    let place = (any::<u64>(), any::<u64>(), vec(any::<u32>(), 0..9));
    let extent = (".{0,20}", any::<u32>(), place).prop_map(|(mailbox, uid, place)| Extent {
        mailbox,
        uid,
        gid: uid ^ 1,
        offset: place.0,
        length: place.1,
        sums: place.2,
    });
    prop_oneof![
        (accepted(), vec(any::<u8>(), 0..600)).prop_map(|(envelope, content)| Record::Accepted {
            envelope,
            content: Cow::Owned(content),
        }),
        vec(done, 0..9).prop_map(Record::Done),
        vec(confirmed, 0..9).prop_map(Record::Confirmed),
        vec(in_doubt(), 0..9).prop_map(Record::InDoubt),
        checkpoint.prop_map(Record::Checkpoint),
        extent.prop_map(Record::Extent),
    ]
}

proptest! {
    #[test]
    fn any_record_reads_back_as_it_was_written(record in any_record()) {
        let encoded = record.encode();
        let kind = encoded.kind() as u8;
        prop_assert_eq!(Record::decode(kind, encoded.payload()), Ok(record));
    }

    #[test]
    fn the_length_of_an_accepted_record_is_known_before_it_is_made(
        envelope in accepted(),
        content in vec(any::<u8>(), 0..600),
    ) {
        let expected = envelope.record_bytes() + content.len();
        let content = Cow::Owned(content);
        let encoded = Record::Accepted { envelope, content }.encode();
        prop_assert_eq!(encoded.payload().len(), expected);
    }

    #[test]
    fn a_shortened_record_is_refused(record in any_record(), cut in 1..64usize) {
        // The content of a message goes to the end of its record, so there only the frame's
        // length can tell.
        prop_assume!(record.kind() != RecordKind::Accepted);
        let encoded = record.encode();
        let length = encoded.payload().len().saturating_sub(cut);
        let short = &encoded.payload()[..length];
        prop_assert!(Record::decode(encoded.kind() as u8, short).is_err());
    }

    #[test]
    fn decoding_any_bytes_ends_without_a_panic(kind: u8, bytes in vec(any::<u8>(), 0..400)) {
        drop(Record::decode(kind, &bytes));
    }
}

#[test]
fn content_pushed_in_pieces_is_the_same_record() {
    let whole = record(9, 3000);
    let Record::Accepted { envelope, content } = &whole else {
        panic!("record() makes accepted records");
    };
    let mut encoder = AcceptedEncoder::new(envelope, 0);
    for piece in content.chunks(77) {
        encoder.push(piece);
    }
    assert_eq!(encoder.content_bytes(), 3000);
    assert_eq!(encoder.finish(), whole.encode());
}

/// An accepted message as versions 1 and 2 of the format have it: with a digest and an encoding.
fn old_accepted(record: &Record<'_>, encoding: u8) -> Vec<u8> {
    let Record::Accepted { content, .. } = record else {
        panic!("an accepted record");
    };
    let mut bytes = record.encode().payload().to_vec();
    let content_from = bytes.len() - content.len();
    bytes.insert(content_from, encoding);
    let digest_from = 16 + 8;
    drop(bytes.splice(digest_from..digest_from, [0; 32]));
    bytes
}

proptest! {
    #[test]
    fn an_accepted_record_of_older_versions_says_what_one_of_this_version_says(
        envelope in accepted(),
        content in vec(any::<u8>(), 0..600),
    ) {
        let content = Cow::Owned(content);
        let record = Record::Accepted { envelope, content };
        let old = old_accepted(&record, 0);
        let decoded = Record::decode(1, &old);
        prop_assert_eq!(decoded.as_ref(), Ok(&record));
        prop_assert_eq!(old.len(), record.encode().payload().len() + 33);
        let of_another_encoding = old_accepted(&record, 1);
        prop_assert!(Record::decode(1, &of_another_encoding).is_err());
    }
}

#[test]
fn a_record_of_a_newer_kind_is_named_as_such() {
    assert_eq!(Record::decode(99, b"x"), Err(DecodeError::Kind(99)));
}
