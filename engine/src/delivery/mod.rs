//! Delivery: from resolved recipients and a message to one outcome per recipient.
//!
//! A [`Store`] has a queue and a few writer threads for each file system. A writer takes all
//! waiting deliveries as one batch and moves it through all phases together, so that many
//! deliveries share few flushes. Each file imports only files below it:
//!
//! ```text
//! spread                     splits messages between stores, for local recipients
//! dispatch                   splits messages between mailboxes and transports
//! store                      opens, and takes messages
//! log_supervisor             opens and recovers the log, makes checkpoints
//! watchdog, writer           the threads of a file system
//! recovery, batch            replay what the log has; write what waits
//! writer_pools, writer_pool  queues and writers, one set for each file system
//! active_batch               a batch that a writer works on
//! delivery, reply            one copy for one mailbox, answered exactly once
//! handed_over                what transports took
//! ledger                     what must be remembered until it is settled
//! context, queue             leaves
//! ```
//!
//! A message goes from the socket to its mailbox file through these functions, each of which calls
//! only downwards:
//!
//! ```text
//! lmtp session: receive_data, Body::write   MessageBuilder::write, MessageSink::append
//! lmtp session: conclude, deliver           Engine::submit
//! Store::submit                             copies, LoggedMessage::new, Delivery::new, Queue::push
//! write_mail, Writer::write                 Queue::take
//! Writer::begin                             Commit::through_log, LogHandle::lease
//! Batch::begin                              Mboxes::lock, Mbox::open
//!                                           Commit::record, LoggedMessage::append_to,
//!                                           Journal::append
//!                                           Maildirs::write, Maildir::write, Disk::write_all
//! Batch::finish                             Commit::wait, Journal::wait
//!                                           Maildirs::publish, Maildir::publish_as
//!                                           Mboxes::append, Mbox::append_rendered, Disk::write_all
//!                                           Work::end, Delivery::finish, Reply::report
//! ```
//!
//! A flush goes from the batch to the reply through these, where no log makes mail durable:
//!
//! ```text
//! Batch::finish                             Maildirs::flush_written
//!                                           Work::flush, Flusher::flush, Disk::sync
//!                                           Maildirs::publish, Mboxes::append
//! Batch::flush_visible                      Work::flush, Flusher::flush, Disk::sync
//!                                           Maildirs::withdraw_unless, Mboxes::take_back_unless
//! Batch::finish                             Maildirs::answer, Mboxes::answer
//! Work::end                                 Delivery::finish, Reply::report
//! ```

mod account_store;
mod active_batch;
mod base;
mod batch;
mod bounds;
mod capacity;
mod context;
mod copies;
mod delivery;
#[cfg(test)]
#[cfg(loom)]
mod delivery_loom;
mod dispatch;
mod error;
mod flush;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod handed_over;
mod health;
mod in_flight;
mod in_place;
mod in_place_file;
mod jobs;
mod ledger;
mod log_supervisor;
mod queue;
mod receipt;
mod recovery;
mod repetition;
mod reply;
mod shared;
#[cfg(test)]
#[cfg(not(loom))]
mod sim_tests;
mod spread;
mod step_limit;
mod store;
mod types;
mod watchdog;
mod writer;
mod writer_pool;
mod writer_pools;

pub(crate) use account_store::of_mailboxes;
pub use bounds::LogBounds;
pub use error::StoreError;
pub use health::{FileSystemFailure, Health, LogFailure, LogState};
pub use receipt::Receipt;
pub use recovery::RecoveryReport;
pub use reply::{OnOutcome, Ticket};
pub(crate) use spread::Stores;
pub use store::Store;
pub use types::{Mail, Outcome};
