//! The table of all parameters, but for those in `recipient_parameters`,
//! `store_parameters` and `log_parameters`.
//!
//! A new parameter is one entry here and one field of [`Settings`](super::Settings). Invariant:
//! entries of section `routing` have the names and defaults of postconf(5).

use super::kind::Kind::{
    Bytes, Choice, Host, List, Listen, Locks, Mode, Number, Path, Tables, Text, Time, YesNo,
};
use super::parameter::{
    Fallback, Parameter, SIZE_MAX, TIME_MAX, parameter, routing, to_u32, to_usize,
};
use super::settings::{BareNewline, LogFormat, NulPolicy, SuccessNotices};

/// Highest user id; the one above it means "none" to chown(2).
const UID_MAX: u64 = 0xffff_fffe;

/// In the order in which they are printed.
pub(super) static GENERAL: &[Parameter] = &[
    parameter(
        "",
        "state_directory",
        "/var/lib/mailstow, for others than root $XDG_STATE_HOME/mailstow",
        Path(|s, v| s.state_directory = v),
        "Directory for the files of mailstow",
    )
    .computed(),
    parameter(
        "postfix",
        "config_directory",
        "",
        Path(|s, v| s.postfix_directory = v),
        "Postfix's configuration directory, whose main.cf is read",
    ),
    routing(
        "virtual_mailbox_domains",
        "$virtual_mailbox_maps",
        List(|s, v| s.routing.virtual_mailbox_domains = v),
        "Domains whose mailboxes are stored here",
    ),
    routing(
        "virtual_mailbox_maps",
        "",
        Tables(|s, v| s.routing.virtual_mailbox_maps = v),
        "From recipient to mailbox path; a path that ends in / is a Maildir",
    ),
    routing(
        "virtual_mailbox_base",
        "",
        Path(|s, v| s.routing.virtual_mailbox_base = v),
        "Directory that every mailbox path is below",
    ),
    routing(
        "virtual_uid_maps",
        "",
        Tables(|s, v| s.routing.virtual_uid_maps = v),
        "From recipient to the user id that owns the mailbox",
    ),
    routing(
        "virtual_gid_maps",
        "",
        Tables(|s, v| s.routing.virtual_gid_maps = v),
        "From recipient to the group id that owns the mailbox",
    ),
    routing(
        "virtual_minimum_uid",
        "100",
        Number("user id", 1..=UID_MAX, |s, v| {
            s.routing.virtual_minimum_uid = to_u32(v)
        }),
        "Lowest user id that virtual_uid_maps may answer",
    ),
    routing(
        "virtual_mailbox_limit",
        "51200000",
        Bytes(0..=SIZE_MAX, |s, v| s.routing.virtual_mailbox_limit = v),
        "Largest mailbox file (mbox) or message file (Maildir); 0 means no limit",
    ),
    routing(
        "virtual_mailbox_lock",
        "fcntl, dotlock",
        Locks(|s, v| s.routing.virtual_mailbox_lock = v),
        "How an mbox is locked while it is written",
    ),
    routing(
        "strict_mailbox_ownership",
        "yes",
        YesNo(|s, v| s.routing.strict_mailbox_ownership = v),
        "Whether an mbox that its recipient does not own is refused",
    ),
    routing(
        "recipient_delimiter",
        "",
        Text(|s, v| s.routing.recipient_delimiter = v),
        "Characters that separate user and extension in a local part",
    ),
    routing(
        "message_size_limit",
        "10240000",
        Bytes(0..=SIZE_MAX, |s, v| s.routing.message_size_limit = v),
        "Largest message; 0 means no limit",
    ),
    routing(
        "virtual_transport",
        "virtual",
        Text(|s, v| s.routing.virtual_transport = v),
        "Postfix's transport for virtual_mailbox_domains",
    ),
    routing(
        "local_transport",
        "local:$myhostname",
        Text(|s, v| s.routing.local_transport = v),
        "Postfix's transport for mydestination",
    ),
    routing(
        "relay_transport",
        "relay",
        Text(|s, v| s.routing.relay_transport = v),
        "Postfix's transport for relay_domains",
    ),
    routing(
        "default_transport",
        "smtp",
        Text(|s, v| s.routing.default_transport = v),
        "Postfix's transport for all other domains",
    ),
    routing(
        "relayhost",
        "",
        Text(|s, v| s.routing.relayhost = v),
        "Next hop of default_transport",
    ),
    routing(
        "mydestination",
        "$myhostname, localhost.$mydomain, localhost",
        List(|s, v| s.routing.mydestination = v),
        "Domains of the local class: every local part is an alias or an account of this machine",
    ),
    routing(
        "virtual_alias_domains",
        "$virtual_alias_maps",
        List(|s, v| s.routing.virtual_alias_domains = v),
        "Domains whose addresses are all aliases",
    ),
    routing(
        "relay_domains",
        "${{$compatibility_level} <level {2} ? {$mydestination} : {}}",
        List(|s, v| s.routing.relay_domains = v),
        "Domains that Postfix relays",
    ),
    Parameter {
        section: "routing",
        name: "myhostname",
        fallback: Fallback::Computed("the machine's host name with $mydomain"),
        kind: Host(|s, v| s.routing.myhostname = v),
        meaning: "The name of this mail system",
    },
    Parameter {
        section: "routing",
        name: "mydomain",
        fallback: Fallback::Computed("$myhostname without its first component"),
        kind: Host(|s, v| s.routing.mydomain = v),
        meaning: "The domain of this mail system",
    },
    routing(
        "myorigin",
        "$myhostname",
        Text(|s, v| s.routing.myorigin = v),
        "Domain of addresses without a domain",
    ),
    routing(
        "inet_interfaces",
        "all",
        List(|s, v| s.routing.inet_interfaces = v),
        "Network addresses whose address literals are local",
    ),
    routing(
        "default_database_type",
        "hash",
        Text(|s, v| s.routing.default_database_type = v),
        "Table type of a table named without one",
    ),
    routing(
        "deliver_lock_attempts",
        "20",
        Number("attempts", 1..=1_000_000, |s, v| {
            s.routing.deliver_lock_attempts = to_u32(v)
        }),
        "How often a mailbox lock is tried before the delivery is deferred",
    ),
    routing(
        "deliver_lock_delay",
        "1s",
        Time(1..=TIME_MAX, |s, v| s.routing.deliver_lock_delay = v),
        "Pause between two attempts to lock a mailbox",
    ),
    routing(
        "stale_lock_time",
        "500s",
        Time(1..=TIME_MAX, |s, v| s.routing.stale_lock_time = v),
        "Age after which a .lock file counts as stale",
    ),
    parameter(
        "lmtp",
        "listen",
        "unix:/run/mailstow/lmtp for root, otherwise empty",
        Listen(|s, v| s.lmtp.listen = v),
        "Where the LMTP server listens",
    )
    .computed(),
    parameter(
        "lmtp",
        "hostname",
        "$myhostname",
        Host(|s, v| s.lmtp.hostname = v),
        "The server's name in its greeting",
    ),
    parameter(
        "lmtp",
        "socket_mode",
        "0600; 0660 when socket_group is set, 0666 when socket_users is",
        Mode(|s, v| s.lmtp.socket_mode = v),
        "Permission bits of UNIX sockets",
    )
    .computed(),
    parameter(
        "lmtp",
        "socket_owner",
        "$mail_owner for root when no other socket_* is set, otherwise the user of the server",
        Text(|s, v| s.lmtp.socket_owner = v),
        "User name or id that owns UNIX sockets",
    )
    .computed(),
    parameter(
        "lmtp",
        "socket_group",
        "",
        Text(|s, v| s.lmtp.socket_group = v),
        "Group name or id of UNIX sockets; empty: that of the server",
    ),
    parameter(
        "lmtp",
        "socket_users",
        "$mail_owner for other users than root with a main.cf when no other socket_* is set, \
         otherwise empty",
        List(|s, v| s.lmtp.socket_users = v),
        "User names or ids whose processes may connect to UNIX sockets, in addition to root and \
         the user of the server; empty: the permission bits alone decide",
    )
    .computed(),
    parameter(
        "lmtp",
        "idle_timeout",
        "10m",
        Time(1..=TIME_MAX, |s, v| s.lmtp.idle_timeout = v),
        "How long a session may be silent",
    ),
    parameter(
        "lmtp",
        "delivery_deadline",
        "2m",
        Time(1..=TIME_MAX, |s, v| s.lmtp.delivery_deadline = v),
        "After this a recipient whose delivery has not finished is answered 451 4.2.1. It wins over \
         command_time_limit, NAME_time_limit of pipe services, connect_timeout and reply_timeout \
         that are not shorter: their mail is deferred then; keep it below Postfix's \
         lmtp_data_done_timeout",
    ),
    parameter(
        "lmtp",
        "connect_timeout",
        "20s",
        Time(1..=TIME_MAX, |s, v| s.lmtp.connect_timeout = v),
        "How long programs with the C library try to reach an unavailable server; then they \
         answer 451 4.4.1",
    ),
    parameter(
        "lmtp",
        "drain_timeout",
        "1m",
        Time(0..=TIME_MAX, |s, v| s.lmtp.drain_timeout = v),
        "How long a stopping server waits for running transactions",
    ),
    parameter(
        "lmtp",
        "bare_newline",
        "accept",
        Choice(&[
            ("accept", |s| s.lmtp.bare_newline = BareNewline::Accept),
            ("reject", |s| s.lmtp.bare_newline = BareNewline::Reject),
        ]),
        "What happens to a message with a line end without CR",
    ),
    parameter(
        "lmtp",
        "nul",
        "accept",
        Choice(&[
            ("accept", |s| s.lmtp.nul = NulPolicy::Accept),
            ("reject", |s| s.lmtp.nul = NulPolicy::Reject),
        ]),
        "What happens to a message with NUL bytes",
    ),
    parameter(
        "lmtp",
        "expand_aliases",
        "no",
        YesNo(|s, v| s.lmtp.expand_aliases = v),
        "Whether virtual_alias_maps are applied; Postfix has already applied them, and \
         autoreplies would be sent twice",
    ),
    parameter(
        "lmtp",
        "lenient_paths",
        "no",
        YesNo(|s, v| s.lmtp.lenient_paths = v),
        "Whether addresses without angle brackets are accepted",
    ),
    parameter(
        "lmtp",
        "success_notices",
        "auto",
        Choice(&[
            ("auto", |s| s.lmtp.success_notices = SuccessNotices::Auto),
            ("yes", |s| s.lmtp.success_notices = SuccessNotices::Yes),
            ("no", |s| s.lmtp.success_notices = SuccessNotices::No),
        ]),
        "Whether requested success notices are sent, through sendmail_path; otherwise DSN is not \
         offered: Postfix sends them, and X-Original-To is unknown",
    ),
    parameter(
        "socketmap",
        "listen",
        "",
        Listen(|s, v| s.socketmap.listen = v),
        "Sockets where Postfix may query the tables by the names of their parameters; empty: none",
    ),
    parameter(
        "tables",
        "hold_time",
        "60s",
        Time(0..=TIME_MAX, |s, v| s.routing.table_hold_time = v),
        "How long after its last change a table is held back that seems to be in the middle of being \
         written (empty, open for writing, cut, much smaller): until then its old contents answer, \
         and unknown recipients are deferred",
    ),
    parameter(
        "limits",
        "connections",
        "10000",
        Number("connections", 1..=1_000_000, |s, v| {
            s.limits.connections = to_usize(v)
        }),
        "Connections at once; fewer where not so many files may be open (LimitNOFILE=, ulimit -n)",
    ),
    parameter(
        "limits",
        "connections_per_peer",
        "0",
        Number("connections", 0..=1_000_000, |s, v| {
            s.limits.connections_per_peer = to_usize(v)
        }),
        "Connections of one peer at once: of one user by UNIX sockets, of one address by TCP (64 \
         bits of IPv6); 0 means all but an eighth of connections, at most 2000",
    ),
    parameter(
        "limits",
        "transactions_per_peer",
        "1000",
        Number("transactions", 1..=1_000_000, |s, v| {
            s.limits.transactions_per_peer = to_usize(v)
        }),
        "Unfinished transactions of one peer at once; MAIL is answered 451 4.3.2 beyond it",
    ),
    parameter(
        "limits",
        "envelope_bytes",
        "67108864",
        Bytes(65_536..=SIZE_MAX, |s, v| {
            s.limits.envelope_bytes = to_usize(v)
        }),
        "Bytes of all envelopes in memory, half of them for one peer; RCPT is answered 452 4.3.1 \
         beyond it",
    ),
    parameter(
        "limits",
        "recipients",
        "1000",
        Number("recipients", 100..=1_000_000, |s, v| {
            s.limits.recipients = to_usize(v)
        }),
        "Recipients of one transaction (RFC 5321 section 4.5.3.1.8 requires 100)",
    ),
    parameter(
        "limits",
        "command_line_bytes",
        "12288",
        Bytes(512..=1 << 20, |s, v| {
            s.limits.command_line_bytes = to_usize(v)
        }),
        "Longest command line, CRLF included",
    ),
    parameter(
        "limits",
        "message_line_bytes",
        "0",
        Bytes(0..=SIZE_MAX, |s, v| {
            s.limits.message_line_bytes = to_usize(v)
        }),
        "Longest line of a message, CRLF included; 0 means no limit",
    ),
    parameter(
        "limits",
        "command_errors",
        "10",
        Number("errors", 1..=1_000_000, |s, v| {
            s.limits.command_errors = to_u32(v)
        }),
        "Bad commands before a session is closed",
    ),
    parameter(
        "limits",
        "message_memory_bytes",
        "262144",
        Bytes(4096..=SIZE_MAX, |s, v| {
            s.limits.message_memory_bytes = to_usize(v)
        }),
        "Bytes of one message kept in memory; the rest goes to a file",
    ),
    parameter(
        "limits",
        "memory_bytes",
        "67108864",
        Bytes(4096..=SIZE_MAX, |s, v| s.limits.memory_bytes = to_usize(v)),
        "Bytes of all messages kept in memory",
    ),
    parameter(
        "limits",
        "queued_deliveries",
        "4096",
        Number("deliveries", 1..=1_000_000, |s, v| {
            s.limits.queued_deliveries = to_usize(v)
        }),
        "Deliveries accepted and not done before sessions are held back",
    ),
    parameter(
        "log",
        "format",
        "text",
        Choice(&[
            ("text", |s| s.log.format = LogFormat::Text),
            ("json", |s| s.log.format = LogFormat::Json),
        ]),
        "Form of the log lines",
    ),
    parameter(
        "log",
        "level",
        "info",
        Choice(&[
            ("error", |s| s.log.level = "error".into()),
            ("warn", |s| s.log.level = "warn".into()),
            ("info", |s| s.log.level = "info".into()),
            ("debug", |s| s.log.level = "debug".into()),
            ("trace", |s| s.log.level = "trace".into()),
        ]),
        "Least severe log lines that are written",
    ),
];
