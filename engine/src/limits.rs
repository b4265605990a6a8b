//! Bounds that are not settings, with their units in their names.

use std::time::Duration;

/// Longest address we look up, in bytes (RFC 5321 section 4.5.3.1.3 asks for 256 at least; the
/// UTF-8 forms of RFC 6531 need more).
pub const ADDRESS_BYTES_MAX: usize = 4096;

/// Longest path of a mailbox below `virtual_mailbox_base`, in bytes.
pub const MAILBOX_PATH_BYTES_MAX: usize = 2048;

/// Largest file behind a lookup table, in bytes; it is read into memory as a whole.
pub const TABLE_BYTES_MAX: u64 = 1 << 30;

/// Largest configuration file that is read, in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Mailboxes a process remembers as used before, so that it need not flush the directories
/// above them again.
pub const KNOWN_MAILBOXES_MAX: usize = 100_000;

/// Files looked at in one search for leftovers in a Maildir's `tmp/`.
pub const SWEEP_FILES_MAX: usize = 1000;

/// Bytes of message content one writer takes at once.
pub const BATCH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Bytes collected before they are appended to an mbox.
pub const MBOX_APPEND_BYTES: usize = 256 * 1024;

/// Connections that one table keeps to one database server; more lookups than that wait.
pub const DATABASE_CONNECTIONS_MAX: usize = 16;

/// Values (rows times columns) that one lookup in a database may find.
pub const DATABASE_VALUES_MAX: usize = 100_000;

/// Bytes of all values that one lookup in a database may find.
pub const DATABASE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Deliveries remembered whose reply the client may not have read.
pub const IN_DOUBT_MAX: usize = 100_000;

/// Names of files in `cur/` directories that recovery holds in memory.
pub const LISTED_NAMES_MAX: usize = 1_000_000;

/// Steps of PCRE2 (`match_limit`) that one search may take at once; a millisecond or so.
pub const PATTERN_BRIEF_STEPS_MAX: u32 = 10_000;

/// Steps of PCRE2 that one search may take on a separate thread; PCRE2's own default.
pub const PATTERN_STEPS_MAX: u32 = 10_000_000;

/// Memory of one search by PCRE2, in KiB.
pub const PATTERN_HEAP_KIB_MAX: u32 = 16 * 1024;

/// How long the patterns of one table may be searched for a recipient at once.
pub const PATTERN_BRIEF_TIME: Duration = Duration::from_millis(5);

/// How long they may be searched aside; then the recipient is deferred.
pub const PATTERN_TIMEOUT: Duration = Duration::from_secs(2);

/// Threads of one table for searches that take long.
pub const PATTERN_THREADS_MAX: usize = 4;

/// How often a slow pattern is logged.
pub const PATTERN_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Threads of one table that wait for a server (`tcp:`, `socketmap:`) or the account database.
pub const SERVER_THREADS_MAX: usize = 16;

/// File systems that have separate threads for the files of accounts; all others share some.
pub const FILE_SYSTEMS_ASKED_MAX: usize = 64;

/// Threads that look at files of accounts on one file system.
pub const FILE_SYSTEM_THREADS_MAX: usize = 8;

/// Of these, how many look at files of one account at once.
pub const FILE_SYSTEM_THREADS_OF_USER: usize = 3;

/// How long a file system may take to show a file of an account; then the account's mail is
/// deferred.
pub const FILE_SYSTEM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one answer of a database or server is waited for at most, whatever its own timeouts
/// say.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(240);
