//! What is known of the parameters of section `transport` that concern other servers.
//!
//! Imports nothing beyond this room. The security levels are named after Postfix's parameters, and
//! are not read from main.cf: what holds for Postfix's way to the world need not hold for the way
//! to our stores.

use std::path::PathBuf;
use std::time::Duration;

use super::kind::Kind::{Choice, Number, Path, Time};
use super::parameters::{TIME_MAX, parameter, to_usize};
use super::registry::Parameter;

/// Whether TLS is used with other servers (postconf(5) `smtp_tls_security_level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsLevel {
    /// Never.
    #[default]
    None,
    /// Where a server offers it; no certificate is checked.
    May,
    /// Always; no certificate is checked.
    Encrypt,
    /// Always, and the certificate must be valid for the name of the server.
    Verify,
}

/// What `[transport]` says of other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// TLS of `lmtp:`.
    pub lmtp_tls_security_level: TlsLevel,
    /// TLS of `smtp:` and `relay:`.
    pub smtp_tls_security_level: TlsLevel,
    /// Certificates by which servers are verified; empty: those of the system.
    pub tls_ca_file: PathBuf,
    /// Sessions with one server at once.
    pub destination_concurrency_limit: usize,
    /// Recipients of one transaction.
    pub destination_recipient_limit: usize,
    /// Transactions that may wait for a session with one server.
    pub destination_queue_limit: usize,
    /// How long connecting may take: the name, the connection, the handshake.
    pub connect_timeout: Duration,
    /// How long a server may take for its reply to a command.
    pub reply_timeout: Duration,
    /// How long a session without mail is kept.
    pub connection_idle_time: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            lmtp_tls_security_level: TlsLevel::None,
            smtp_tls_security_level: TlsLevel::None,
            tls_ca_file: PathBuf::new(),
            destination_concurrency_limit: 20,
            destination_recipient_limit: 50,
            destination_queue_limit: 1000,
            connect_timeout: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(30),
            connection_idle_time: Duration::from_secs(30),
        }
    }
}

/// In the order in which they are printed.
pub(super) static RELAY: &[Parameter] = &[
    parameter(
        "transport",
        "lmtp_tls_security_level",
        "none",
        Choice(&[
            ("none", |s| s.relay.lmtp_tls_security_level = TlsLevel::None),
            ("may", |s| s.relay.lmtp_tls_security_level = TlsLevel::May),
            ("encrypt", |s| {
                s.relay.lmtp_tls_security_level = TlsLevel::Encrypt;
            }),
            ("verify", |s| {
                s.relay.lmtp_tls_security_level = TlsLevel::Verify;
            }),
        ]),
        "TLS with lmtp: servers on TCP; may: where it is offered; encrypt: always; verify: always, \
         with a certificate for the name in the nexthop",
    ),
    parameter(
        "transport",
        "smtp_tls_security_level",
        "none",
        Choice(&[
            ("none", |s| s.relay.smtp_tls_security_level = TlsLevel::None),
            ("may", |s| s.relay.smtp_tls_security_level = TlsLevel::May),
            ("encrypt", |s| {
                s.relay.smtp_tls_security_level = TlsLevel::Encrypt;
            }),
            ("verify", |s| {
                s.relay.smtp_tls_security_level = TlsLevel::Verify;
            }),
        ]),
        "The same for smtp: and relay: servers",
    ),
    parameter(
        "transport",
        "tls_ca_file",
        "",
        Path(|s, v| s.relay.tls_ca_file = v),
        "Certificates by which servers are verified; empty means those of the system",
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
