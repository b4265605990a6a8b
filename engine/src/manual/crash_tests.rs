//! How the guarantees of [`super::durability`] are tested, and how a failure is replayed.
//!
//! # The simulated disk
//!
//! `cargo test -p mailstow-engine --features sim sim_tests` runs a store, its log and its clients
//! on a machine in memory that loses data that was not flushed: at a power failure every unflushed
//! change of a file, sector by sector, and of a name is independently kept, lost or torn. It is
//! crashed at operation 0, 1, 2 ... of the mailboxes and of the log until a run ends without
//! reaching the crash: in deliveries to Maildirs, mboxes and several recipients, checkpoints and
//! the recycling of the log; after a checkpoint in the middle of a delivery; and in recovery. Then
//! come 2,000 random runs from seeds, each crashed in its work and again in its recovery, and runs
//! in which an operation fails. Each test prints how many points it tried.
//!
//! After each crash a reader checks the mailboxes: acknowledged messages are there, complete and
//! once; no partial message is visible; every mbox parses; refused messages are not there or, where
//! the refusal itself may have been lost, are there only once after the client repeats them.
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
//! Further tests plant mistakes, which these tests must find: a missing flush of the log, an answer
//! before the flush, a checkpoint that flushes nothing or covers deliveries in progress, a refusal
//! or a place that is not logged.
//!
//! # File systems that hang or fail
//!
//! Other random runs have a disk for each of three file systems. One of them hangs, is dead, full
//! or over quota for a while, and readers remove and move mail meanwhile. Mail for the other file
//! systems must never be refused, and a removed message must not come back unless there was a
//! crash. `SIM_SEEDS` and `SIM_FROM` also apply to these runs.
//!
//! # Interleavings of threads
//!
//! `tests/loom` runs models of shared state over every interleaving: group commit, mboxes that
//! writers hold, the low-water mark of the log, tables swapped while they are read.
//!
//! # Real machines
//!
//! `tests/run` kills the server under load and cuts its power on real file systems; see `tests/`.
