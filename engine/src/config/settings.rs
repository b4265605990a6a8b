//! The effective settings, typed.
//!
//! Routing parameters carry their Postfix names (postconf(5)); a table list is kept as its text
//! (`hash:/etc/postfix/vmailbox, static:5000`) with all `$name` expanded, and opened by `route`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::autoreply_settings::AutoreplySettings;
use super::listen::ListenAddress;
use super::local_settings::LocalSettings;
use super::relay_settings::RelaySettings;
use super::transport_settings::TransportSettings;

/// All settings of mailstow, after defaults, files and flags were merged.
///
/// ```
/// use mailstow_engine::{Durability, Settings};
///
/// let mut settings = Settings::default();
/// settings.routing.virtual_mailbox_base = "/var/mail/vhosts".into();
/// settings.store.durability = Durability::Direct;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[routing]`: Postfix's parameters.
    pub routing: RoutingSettings,
    /// `[lmtp]`: the server.
    pub lmtp: LmtpSettings,
    /// `[socketmap]`: our tables for Postfix.
    pub socketmap: SocketmapSettings,
    /// `[store]`: how mailboxes are written.
    pub store: StoreSettings,
    /// `[delivery_log]`: the log that makes `durability = "logged"`.
    pub delivery_log: DeliveryLogSettings,
    /// `[transport]`: mail that goes elsewhere than into a mailbox.
    pub transport: TransportSettings,
    /// `[transport]`: other servers.
    pub relay: RelaySettings,
    /// `[autoreply]`: replies to senders.
    pub autoreply: AutoreplySettings,
    /// `[limits]`: bounds.
    pub limits: Limits,
    /// `[log]`: log lines.
    pub log: LogSettings,
    /// Postfix's configuration directory, whose main.cf was read; empty when none was.
    pub postfix_directory: PathBuf,
    /// Where mailstow keeps its own files (`--state-directory`); empty when it was not given
    /// and there is no home directory to default to.
    pub state_directory: PathBuf,
}

/// Postfix's routing parameters, by name and meaning.
///
/// ```
/// use mailstow_engine::RoutingSettings;
///
/// let routing = RoutingSettings {
///     virtual_mailbox_domains: "example.com".into(),
///     recipient_delimiter: "+".into(),
///     ..RoutingSettings::default()
/// };
/// assert_eq!(routing.message_size_limit, 10_240_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each field is the Postfix parameter of that name, postconf(5)"
)]
pub struct RoutingSettings {
    pub virtual_mailbox_domains: String,
    pub virtual_mailbox_maps: String,
    pub virtual_mailbox_base: PathBuf,
    pub virtual_uid_maps: String,
    pub virtual_gid_maps: String,
    pub virtual_minimum_uid: u32,
    /// Bytes of one mailbox file; 0 means no limit.
    pub virtual_mailbox_limit: u64,
    pub virtual_mailbox_lock: Vec<MboxLock>,
    pub strict_mailbox_ownership: bool,
    pub recipient_delimiter: String,
    /// Not of Postfix: when set, `virtual_mailbox_maps` only says which recipients exist, as in
    /// the VIRTUAL_README's "non-Postfix mailbox store", and the mailbox path is made from this
    /// template (`%d/%u/`: domain, local part).
    pub mailbox_path: String,
    /// Not of Postfix: what replaces `$1` in a result of `virtual_mailbox_maps`.
    pub mailbox_path_substitution: PathSubstitution,
    /// Bytes of one message; 0 means no limit.
    pub message_size_limit: u64,
    pub virtual_transport: String,
    pub local_transport: String,
    pub relay_transport: String,
    pub default_transport: String,
    pub relayhost: String,
    pub mydestination: String,
    pub virtual_alias_domains: String,
    pub relay_domains: String,
    pub myhostname: String,
    pub mydomain: String,
    pub myorigin: String,
    pub inet_interfaces: String,
    pub proxy_interfaces: String,
    pub parent_domain_matches_subdomains: String,
    pub default_database_type: String,
    pub deliver_lock_attempts: u32,
    pub deliver_lock_delay: Duration,
    pub stale_lock_time: Duration,
    /// `hold_time` of `[tables]`: how long a table or list that seems to be in the middle of being
    /// written is held back.
    pub table_hold_time: Duration,
    pub virtual_alias_maps: String,
    pub virtual_alias_recursion_limit: usize,
    pub virtual_alias_expansion_limit: usize,
    /// Bytes of one address an alias expands to.
    pub virtual_alias_address_length_limit: usize,
    pub propagate_unmatched_extensions: String,
    pub append_at_myorigin: bool,
    pub append_dot_mydomain: bool,
    /// Lines of tables that are not UTF-8 are skipped.
    pub smtputf8_enable: bool,
    pub swap_bangpath: bool,
    pub allow_percent_hack: bool,
    pub resolve_dequoted_address: bool,
    pub resolve_null_domain: bool,
    pub resolve_numeric_domain: bool,
    pub allow_min_user: bool,
    pub empty_address_recipient: String,
    pub transport_maps: String,
    pub relocated_maps: String,
    pub relay_recipient_maps: String,
    pub local_recipient_maps: String,
    pub alias_maps: String,
    pub allow_mail_to_commands: String,
    pub allow_mail_to_files: String,
    pub owner_request_special: bool,
    pub expand_owner_alias: bool,
    pub reset_owner_alias: bool,
    pub frozen_delivered_to: bool,
    pub duplicate_filter_limit: usize,
    /// The user that runs commands and writes files of aliases that no other user owns.
    pub default_privs: String,
    pub sendmail_path: PathBuf,
    pub setgid_group: String,
    pub home_mailbox: String,
    pub mail_spool_directory: String,
    pub mailbox_delivery_lock: Vec<MboxLock>,
    /// Bytes of one mailbox file of an account; 0 means no limit.
    pub mailbox_size_limit: u64,
    pub local: LocalSettings,
    /// What `main.cf` sets that is no parameter of Postfix: those of database tables that are
    /// not described by a file (`ldap:name` has `name_server_host`).
    pub other_parameters: OtherParameters,
}

/// How an mbox is locked, in the order of `virtual_mailbox_lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MboxLock {
    /// POSIX record lock over the whole file.
    Fcntl,
    /// BSD lock.
    Flock,
    /// `MAILBOX.lock` beside the mailbox.
    Dotlock,
}

/// `[lmtp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LmtpSettings {
    /// Where the server listens; empty when nothing was configured and there is no default.
    pub listen: Vec<ListenAddress>,
    /// The name in greetings and trace headers.
    pub hostname: String,
    /// Permission bits of UNIX sockets.
    pub socket_mode: u32,
    /// Owner of UNIX sockets, by name or number; empty: the user of the server.
    pub socket_owner: String,
    /// Group of UNIX sockets, by name or number; empty: that of the server.
    pub socket_group: String,
    /// Users that may connect to UNIX sockets, by name or number, beside root and the user of the
    /// server; empty: all whom the permission bits let in.
    pub socket_users: String,
    /// How long a session may be silent.
    pub idle_timeout: Duration,
    /// After this a recipient whose delivery has not finished is answered 451 4.2.1.
    pub delivery_deadline: Duration,
    /// `connect_timeout`
    pub connect_timeout: Duration,
    /// How long SIGTERM waits for running transactions.
    pub drain_timeout: Duration,
    /// What to do with a line end without CR in a message.
    pub bare_newline: BareNewline,
    /// What to do with NUL in a message.
    pub nul: NulPolicy,
    /// Apply `virtual_alias_maps` to the recipients.
    pub expand_aliases: bool,
    /// Accept `MAIL FROM: <a@b>` and paths without brackets.
    pub lenient_paths: bool,
    /// Whether success notices are sent to senders, and DSN is offered.
    pub success_notices: SuccessNotices,
}

/// Who sends the success notices that senders ask for (RFC 3461 `NOTIFY=SUCCESS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SuccessNotices {
    /// mailstow, where it has a way out for them and remembers what it has delivered; else the
    /// client, and DSN is not offered.
    #[default]
    Auto,
    /// mailstow, in any case.
    Yes,
    /// The client: DSN is not offered.
    No,
}

/// `[socketmap]`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SocketmapSettings {
    /// Where Postfix may ask (socketmap_table(5)); empty: nowhere. Owner, group and mode of UNIX
    /// sockets are those of `[lmtp]`.
    pub listen: Vec<ListenAddress>,
}

/// What to do with a bare LF in a message (only CRLF.CRLF ever ends one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// Keep the message; in the mailbox every line ends with LF anyway.
    #[default]
    Accept,
    /// Refuse the message, 554 5.6.0.
    Reject,
}

/// What to do with NUL bytes in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NulPolicy {
    /// Store them unchanged.
    #[default]
    Accept,
    /// Refuse the message, 554 5.6.0.
    Reject,
}

/// What replaces `$1` in a result of `virtual_mailbox_maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PathSubstitution {
    /// Nothing: the rule is skipped, as virtual(8) does.
    #[default]
    Refuse,
    /// The matched text, made one safe path component as by `mailbox_path`.
    Component,
}

/// When an acknowledged message is durable.
///
/// ```
/// use mailstow_engine::{Durability, Settings};
///
/// assert_eq!(Settings::default().store.durability, Durability::Logged);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// File and directory are flushed before the answer.
    Direct,
    /// The delivery log is flushed before the answer, the mailboxes by its checkpoints.
    #[default]
    Logged,
}

/// How mailbox files are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlushMethod {
    /// One `syncfs` for several files that wait together, where the kernel reports its errors
    /// (Linux 5.8), else `fsync` of each.
    #[default]
    Auto,
    /// `fsync` of each file and directory.
    Fsync,
    /// `syncfs` whenever more than one file waits.
    Syncfs,
}

/// The form of message files in Maildirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compress {
    /// As it is.
    #[default]
    None,
    /// One zstd frame for each file, as Dovecot's zlib plugin reads it. Needs the feature `zstd`.
    Zstd,
}

/// How many copies of a message recipients with the same mailbox get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Copies {
    /// One for the mailbox, which names them all.
    #[default]
    Mailbox,
    /// One for each recipient, as virtual(8) does.
    Recipient,
}

/// What becomes of header fields of a message in which mbox readers keep their state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StatusFields {
    /// They are left out of copies in mboxes.
    #[default]
    Remove,
    /// They stay, as with virtual(8).
    Keep,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// When a message counts as stored.
    pub durability: Durability,
    /// How files are flushed.
    pub flush: FlushMethod,
    /// The form of new message files in Maildirs.
    pub compress: Compress,
    /// How many copies of a message one mailbox gets.
    pub copies: Copies,
    /// What becomes of `Status`, `Content-Length` and the like in mboxes.
    pub mbox_status_fields: StatusFields,
    /// Threads that write mailboxes.
    pub writers: usize,
    /// Deliveries one writer takes at once.
    pub batch: usize,
    /// A step in a mailbox that takes longer than this counts as one that may never end.
    pub mailbox_timeout: Duration,
    /// Files in Maildir `tmp/` older than this are removed.
    pub tmp_age_max: Duration,
    /// Host name in Maildir file names.
    pub host: String,
    /// Make `virtual_mailbox_base` when it is missing. True for a base named on the command
    /// line; one named in a file may be a volume that is not mounted, and mail must not land
    /// beneath its mount point.
    pub make_base: bool,
}

/// `[delivery_log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryLogSettings {
    /// Bytes of all segments together, at least 1 MiB. Half of it filled begins a checkpoint.
    pub bytes_max: u64,
    /// Bytes of one segment file; a multiple of 4096, at most a sixteenth of `bytes_max`.
    pub segment_bytes: u64,
    /// Bytes that wait for the log's flush before deliveries are held back.
    pub in_flight_bytes: usize,
    /// Longest message that goes through the log, in bytes; a longer one is flushed in its
    /// mailbox.
    pub message_bytes_max: u64,
    /// Longest time between checkpoints while mail comes in.
    pub checkpoint_interval: Duration,
    /// How long a full log is waited for before a delivery is answered 452 4.3.1.
    pub full_wait: Duration,
    /// How long a delivery whose reply may not have been read is remembered when the client named
    /// the message by a queue id.
    pub in_doubt_time: Duration,
    /// How long when it did not; never longer than `in_doubt_time`.
    pub in_doubt_time_without_id: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Of one peer: a user behind a UNIX socket, an address behind TCP. 0: all but an eighth, and
    /// at most 2000.
    pub connections_per_peer: usize,
    /// Unfinished transactions of one peer.
    pub transactions_per_peer: usize,
    /// Bytes of the envelopes of all transactions, until their replies are known to be read; half
    /// of them are for one peer.
    pub envelope_bytes: usize,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Bytes of one command line, CRLF included.
    pub command_line_bytes: usize,
    /// Bytes of one line of a message, CRLF included; 0 means no limit.
    pub message_line_bytes: usize,
    /// Bad commands before a session is closed.
    pub command_errors: u32,
    /// Bytes of one message kept in memory; the rest goes to an unlinked file in the state
    /// directory.
    pub message_memory_bytes: usize,
    /// Bytes of all messages kept in memory; past it every message goes to a file at once.
    pub memory_bytes: usize,
    /// Deliveries accepted and not done before sessions are held back. Those that wait for a lock
    /// which another program holds are not counted; a quarter of this may wait so.
    pub queued_deliveries: usize,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// As a Postfix log reads.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

impl Default for RoutingSettings {
    /// Postfix's defaults, with `$name` references already resolved for a nameless host.
    fn default() -> Self {
        Self {
            virtual_mailbox_domains: String::new(),
            virtual_mailbox_maps: String::new(),
            virtual_mailbox_base: PathBuf::new(),
            virtual_uid_maps: String::new(),
            virtual_gid_maps: String::new(),
            virtual_minimum_uid: 100,
            virtual_mailbox_limit: 51_200_000,
            virtual_mailbox_lock: vec![MboxLock::Fcntl, MboxLock::Dotlock],
            strict_mailbox_ownership: true,
            recipient_delimiter: String::new(),
            mailbox_path: String::new(),
            mailbox_path_substitution: PathSubstitution::Refuse,
            message_size_limit: 10_240_000,
            virtual_transport: "virtual".into(),
            local_transport: "local:localhost".into(),
            relay_transport: "relay".into(),
            default_transport: "smtp".into(),
            relayhost: String::new(),
            mydestination: "localhost".into(),
            virtual_alias_domains: String::new(),
            relay_domains: String::new(),
            myhostname: "localhost".into(),
            mydomain: "localdomain".into(),
            myorigin: "localhost".into(),
            inet_interfaces: "all".into(),
            proxy_interfaces: String::new(),
            parent_domain_matches_subdomains: String::new(),
            default_database_type: "hash".into(),
            deliver_lock_attempts: 20,
            deliver_lock_delay: Duration::from_secs(1),
            stale_lock_time: Duration::from_secs(500),
            table_hold_time: Duration::from_secs(60),
            virtual_alias_maps: String::new(),
            virtual_alias_recursion_limit: 1000,
            virtual_alias_expansion_limit: 1000,
            virtual_alias_address_length_limit: 1000,
            propagate_unmatched_extensions: "canonical, virtual".into(),
            append_at_myorigin: true,
            append_dot_mydomain: false,
            smtputf8_enable: true,
            swap_bangpath: true,
            allow_percent_hack: true,
            resolve_dequoted_address: true,
            resolve_null_domain: false,
            resolve_numeric_domain: false,
            allow_min_user: false,
            empty_address_recipient: "MAILER-DAEMON".into(),
            transport_maps: String::new(),
            relocated_maps: String::new(),
            relay_recipient_maps: String::new(),
            local_recipient_maps: String::new(),
            alias_maps: String::new(),
            allow_mail_to_commands: "alias, forward".into(),
            allow_mail_to_files: "alias, forward".into(),
            owner_request_special: true,
            expand_owner_alias: false,
            reset_owner_alias: false,
            frozen_delivered_to: true,
            other_parameters: OtherParameters::default(),
            duplicate_filter_limit: 1000,
            default_privs: "nobody".into(),
            sendmail_path: "/usr/sbin/sendmail".into(),
            setgid_group: "postdrop".into(),
            home_mailbox: String::new(),
            mail_spool_directory: "/var/mail".into(),
            mailbox_delivery_lock: vec![MboxLock::Fcntl, MboxLock::Dotlock],
            mailbox_size_limit: 51_200_000,
            local: LocalSettings::default(),
        }
    }
}

impl Default for LmtpSettings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            hostname: "localhost".into(),
            socket_mode: 0o600,
            socket_owner: String::new(),
            socket_group: String::new(),
            socket_users: String::new(),
            idle_timeout: Duration::from_secs(600),
            delivery_deadline: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(60),
            bare_newline: BareNewline::Accept,
            nul: NulPolicy::Accept,
            expand_aliases: false,
            lenient_paths: false,
            success_notices: SuccessNotices::default(),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Logged,
            flush: FlushMethod::Auto,
            compress: Compress::default(),
            copies: Copies::default(),
            mbox_status_fields: StatusFields::default(),
            writers: 4,
            batch: 64,
            mailbox_timeout: Duration::from_secs(30),
            tmp_age_max: Duration::from_secs(36 * 3600),
            host: "localhost".into(),
            make_base: false,
        }
    }
}

impl Default for DeliveryLogSettings {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            segment_bytes: 32 << 20,
            in_flight_bytes: 64 << 20,
            message_bytes_max: 1 << 20,
            checkpoint_interval: Duration::from_secs(10),
            full_wait: Duration::from_secs(10),
            in_doubt_time: Duration::from_secs(24 * 3600),
            in_doubt_time_without_id: Duration::from_secs(300),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 0,
            transactions_per_peer: 1000,
            envelope_bytes: 64 * 1024 * 1024,
            recipients: 1000,
            command_line_bytes: 12_288,
            message_line_bytes: 0,
            command_errors: 10,
            message_memory_bytes: 256 * 1024,
            memory_bytes: 64 * 1024 * 1024,
            queued_deliveries: 4096,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".into(),
        }
    }
}

/// Parameters of `main.cf` that Postfix does not know, expanded. Some of them are passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtherParameters {
    /// The file.
    pub path: PathBuf,
    /// Name, value and line.
    pub values: Vec<(String, String, usize)>,
}

impl fmt::Debug for OtherParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.values.iter().map(|(name, ..)| name);
        f.debug_list().entries(names).finish()
    }
}
