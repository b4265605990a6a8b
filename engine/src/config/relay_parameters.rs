//! The parameters of `[transport]` that concern other servers.

use super::kind::Kind::{Choice, Number, Path, Time};
use super::parameter::{Parameter, TIME_MAX, parameter, to_usize};
use super::relay_settings::TlsLevel;

/// The levels of TLS, for a field of the settings.
macro_rules! tls_level {
    ($field:ident) => {
        Choice(&[
            ("none", |s| s.relay.$field = TlsLevel::None),
            ("may", |s| s.relay.$field = TlsLevel::May),
            ("encrypt", |s| s.relay.$field = TlsLevel::Encrypt),
            ("verify", |s| s.relay.$field = TlsLevel::Verify),
        ])
    };
}

/// In the order in which they are printed.
pub(super) static RELAY: &[Parameter] = &[
    parameter(
        "transport",
        "lmtp_tls_security_level",
        "none",
        tls_level!(lmtp_tls_security_level),
        "TLS with lmtp: servers on TCP; may: where it is offered; encrypt: always; verify: always, \
         with a certificate for the name in the nexthop",
    ),
    parameter(
        "transport",
        "smtp_tls_security_level",
        "none",
        tls_level!(smtp_tls_security_level),
        "The same for smtp: and relay: servers",
    ),
    parameter(
        "transport",
        "tls_ca_file",
        "",
        Path(|s, v| s.relay.tls_ca_file = v),
        "Certificates for verifying servers; empty means those of the system",
    ),
    parameter(
        "transport",
        "destination_concurrency_limit",
        "20",
        Number("sessions", 1..=10_000, |s, v| {
            s.relay.destination_concurrency_limit = to_usize(v);
        }),
        "Sessions with one server at once",
    ),
    parameter(
        "transport",
        "destination_recipient_limit",
        "50",
        Number("recipients", 1..=10_000, |s, v| {
            s.relay.destination_recipient_limit = to_usize(v);
        }),
        "Recipients of one transaction with a server",
    ),
    parameter(
        "transport",
        "destination_queue_limit",
        "1000",
        Number("transactions", 1..=1_000_000, |s, v| {
            s.relay.destination_queue_limit = to_usize(v);
        }),
        "Transactions that wait for a session with one server; further ones are answered 451 4.3.2",
    ),
    parameter(
        "transport",
        "connect_timeout",
        "10s",
        Time(1..=TIME_MAX, |s, v| s.relay.connect_timeout = v),
        "How long it may take to find a server's address, to connect, and to greet it",
    ),
    parameter(
        "transport",
        "reply_timeout",
        "30s",
        Time(1..=TIME_MAX, |s, v| s.relay.reply_timeout = v),
        "How long a server may take for its reply to a command; the reply to the message has until \
         delivery_deadline",
    ),
    parameter(
        "transport",
        "connection_idle_time",
        "30s",
        Time(1..=TIME_MAX, |s, v| s.relay.connection_idle_time = v),
        "How long a session with a server is kept for further mail",
    ),
];
