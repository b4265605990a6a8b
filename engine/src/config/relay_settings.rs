//! What `[transport]` says of other servers, as values.
//!
//! The security levels are named after Postfix's parameters, and are not read from main.cf: what
//! holds for Postfix's way to the world need not hold for the way to our stores.

use std::path::PathBuf;
use std::time::Duration;

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
