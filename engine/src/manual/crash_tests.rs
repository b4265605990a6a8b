//! How the promises of [`super::durability`] are proven, and how a failure is replayed.
//!
//! # The simulated disk
//!
//! `cargo test -p mailstow-engine --features sim sim_tests` runs a store, its log and its clients
//! on a machine in memory that forgets what was not flushed: at a power failure every unflushed
//! change of a file, sector by sector, and of a name is kept, lost or torn by itself. It is
//! crashed at operation 0, 1, 2 ... of the mailboxes and of the log until a run ends without
//! reaching the crash: in deliveries to Maildirs, mboxes and several recipients, checkpoints and
//! the recycling of the log; behind a checkpoint in the middle of a delivery; and in recovery.
//! Then come 2,000 random runs from seeds, each crashed in its work and again in its recovery,
//! and runs in which an operation fails. Each test tells how many points it tried.
//!
//! After each crash a reader looks: what was acknowledged is there, whole and once; nothing is
//! seen in part; every mbox parses; what was refused is not there, or, where the refusal itself
//! may have been lost, no second time when its client sends it again.
//!
//! A failure prints one line that replays it:
//!
//! ```text
//! SIM_SEED=78 SIM_OP=96 SIM_WHERE=disk SIM_AGAIN=log:12 \
//!     cargo test -p mailstow-engine sim_tests::replay
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SEED`, `SIM_OP`, `SIM_WHERE` | the run, and the operation of the `disk` or the `log` at which it is interrupted |
//! | `SIM_AGAIN` | where the recovery that follows is interrupted |
//! | `SIM_ERRNO` | the operation fails with this code, and nothing crashes |
//! | `SIM_MEANWHILE` | a checkpoint is made before this operation of the disk |
//! | `SIM_SEEDS`, `SIM_FROM` | how many random runs are made, and the first seed |
//!
//! That these tests would notice a mistake is tested as well: a flush of the log left out, an
//! answer before the flush, a checkpoint that flushes nothing or covers what is under way, a
//! refusal or a place that the log is not told of. Each is built in on purpose, and must be found.
//!
//! # File systems that hang or fail
//!
//! Other random runs have a disk for each of three file systems. One of them hangs, is dead, full
//! or over quota for a while, and readers remove and move mail meanwhile. Mail for the other file
//! systems must never be refused, and what was removed must not come back unless there was a
//! crash. `SIM_SEEDS` and `SIM_FROM` are for these runs, too.
//!
//! # Interleavings of threads
//!
//! `tests/loom` runs models of what threads share over every interleaving: group commit, mboxes in
//! the hands of writers, how far back the log is needed, tables swapped while they are read.
//!
//! # Real machines
//!
//! `tests/run` kills the server under load and cuts its power on real file systems; see `tests/`.
