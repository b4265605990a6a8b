//! The parameters of the delivery log.
//!
//! A part of the table of all parameters.

use super::kind::Kind::{Bytes, Time};
use super::parameter::{Parameter, SIZE_MAX, TIME_MAX, parameter, to_usize};

/// In the order in which they are printed.
pub(super) static DELIVERY_LOG: &[Parameter] = &[
    parameter(
        "delivery_log",
        "bytes_max",
        "1073741824",
        Bytes(1 << 20..=SIZE_MAX, |s, v| s.delivery_log.bytes_max = v),
        "Bytes of the whole delivery log; full, it holds deliveries back",
    ),
    parameter(
        "delivery_log",
        "segment_bytes",
        "33554432",
        Bytes(1 << 14..=1 << 30, |s, v| {
            s.delivery_log.segment_bytes = v & !4095;
        }),
        "Bytes of one file of the delivery log; at most a sixteenth of bytes_max",
    ),
    parameter(
        "delivery_log",
        "in_flight_bytes",
        "67108864",
        Bytes(4096..=SIZE_MAX, |s, v| {
            s.delivery_log.in_flight_bytes = to_usize(v)
        }),
        "Bytes that wait for the delivery log before deliveries are held back",
    ),
    parameter(
        "delivery_log",
        "message_bytes_max",
        "1048576",
        Bytes(0..=1 << 28, |s, v| s.delivery_log.message_bytes_max = v),
        "Longer messages are flushed in their mailboxes instead",
    ),
    parameter(
        "delivery_log",
        "checkpoint_interval",
        "10s",
        Time(1..=TIME_MAX, |s, v| s.delivery_log.checkpoint_interval = v),
        "Longest time until mailboxes are flushed and the delivery log is freed",
    ),
    parameter(
        "delivery_log",
        "full_wait",
        "10s",
        Time(0..=TIME_MAX, |s, v| s.delivery_log.full_wait = v),
        "How long a delivery waits for a full delivery log before it is answered 452 4.3.1",
    ),
    parameter(
        "delivery_log",
        "in_doubt_time",
        "1d",
        Time(0..=TIME_MAX, |s, v| s.delivery_log.in_doubt_time = v),
        "How long a delivery whose reply may not have been read is remembered, so that its \
         repetition makes no second copy, when XFORWARD or the first Received: line names a queue id",
    ),
    parameter(
        "delivery_log",
        "in_doubt_time_without_id",
        "5m",
        Time(0..=TIME_MAX, |s, v| {
            s.delivery_log.in_doubt_time_without_id = v
        }),
        "The same for messages without a queue id, because equal ones may be sent on purpose",
    ),
];
