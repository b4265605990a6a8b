//! Finds writers that are blocked in a mailbox, and answers their deliveries.
//!
//! A delivery is refused if its writer has not begun to publish the message. A message that its
//! writer is publishing is accepted, if the log durably has it, and deferred until the writer
//! reports its outcome. Invariant: the watchdog never accesses a file system with mailboxes.

use super::active_batch::ActiveBatch;
use super::ledger::deferred_mail::{DeferredDelivery, DeferredMail, Held, Unfinished};
use super::ledger::logged_message::HeldMessage;
use super::reply::Reply;
use super::shared::Shared;
use super::writer::write_mail;
use super::writer_pool::{Look, WriterPool};
use crate::clock;
use crate::io::Disk;
use crate::log::DeliveryId;
use crate::supervisor::Supervisor;
use crate::sync::Arc;
use std::collections::HashSet;
use std::io;
use std::time::Duration;

/// The interval between two checks.
const PAUSE: Duration = Duration::from_secs(1);
/// The interval while the store closes.
const CLOSING_PAUSE: Duration = Duration::from_millis(20);

/// Checks periodically until the store closes: the work of a supervised thread.
pub(super) fn run<D: Disk>(shared: &Arc<Shared<D>>, supervisor: &Supervisor) {
    let pause = || PAUSE.min(shared.step_limit.limit() / 4);
    while !shared.step_limit.is_over_after(pause()) {
        shared.pools.note_changes(&shared.context.disk);
        look(shared, |pool| start_writer(shared, supervisor, pool));
        if let Some(ledger) = &shared.ledger
            && !ledger.late_ends.is_empty()
        {
            // A checkpoint handles their outcomes.
            ledger.log.ask_checkpoint();
        }
    }
}

/// Starts a writer of a file system.
pub(super) fn start_writer<D: Disk>(
    shared: &Arc<Shared<D>>,
    supervisor: &Supervisor,
    pool: &Arc<WriterPool>,
) -> io::Result<()> {
    let number = pool.writer_begins();
    let (for_writer, of_writer) = (Arc::clone(shared), Arc::clone(pool));
    let work = move || write_mail(&for_writer, &of_writer, number);
    match supervisor.spawn(&format!("mailstow-wr{number}"), 0, work) {
        Ok(thread) => pool.keep(thread),
        Err(error) => {
            pool.writer_ends(number);
            return Err(error);
        }
    }
    Ok(())
}

/// Checks every file system once.
pub(super) fn look<D: Disk>(
    shared: &Arc<Shared<D>>,
    start: impl Fn(&Arc<WriterPool>) -> io::Result<()>,
) {
    for pool in shared.pools.all() {
        let Look {
            given_up,
            refused,
            writers,
        } = pool.look(shared.step_limit.limit());
        for active in given_up {
            give_up(shared, &pool, &active);
        }
        for delivery in refused {
            let error = pool.error(delivery.mailbox());
            delivery.finish(Err(error.into()));
        }
        for _ in 0..writers {
            // The next check tries again.
            if start(&pool).is_err() {
                break;
            }
        }
    }
}

/// Answers for a batch whose writer does not come back.
fn give_up<D: Disk>(shared: &Arc<Shared<D>>, pool: &WriterPool, active: &ActiveBatch) {
    let waited = clock::now().saturating_duration_since(active.begun());
    let (mut refused, mut held) = (0, 0);
    let mut is_answered = true;
    for reply in &active.replies {
        let status = pool.error(reply.mailbox.display()).status();
        if reply.give_up(&status, waited) {
            refused += 1;
        } else if reply.is_over() {
            // The writer was past the point where it can be given up.
        } else if let Some(held_as) = hold(shared, active, reply) {
            match reply.answer_early(waited) {
                true => held += 1,
                // The writer came back meanwhile, and reports no late end.
                false => let_go(shared, held_as),
            }
        } else {
            is_answered &= reply.is_over();
        }
    }
    if is_answered {
        active.let_go_of_log();
    }
    if let Some(ledger) = &shared.ledger {
        let (extents, marks) = active.take_extents();
        // Deferred before the log may free the records.
        ledger.deferred.add(Unfinished {
            extents,
            ..Unfinished::default()
        });
        marks.iter().for_each(|mark| mark.give_back());
        // A failed log is opened again although the writer still uses it.
        for term in active.take_terms() {
            ledger.log.end_lease(&term);
        }
    }
    tracing::error!(
        mount_point = %pool.mount_point().display(),
        refused,
        held,
        "a writer does not come back from a mailbox; its deliveries are answered without it"
    );
}

/// Defers a message that a writer publishes, if the log durably has it.
fn hold<D: Disk>(
    shared: &Arc<Shared<D>>,
    active: &ActiveBatch,
    reply: &Reply,
) -> Option<(DeliveryId, u32)> {
    let (Some(ledger), Some(part)) = (&shared.ledger, &reply.part) else {
        return None;
    };
    let message = part.through_log.then(|| part.message.held()).flatten()?;
    let held_as = (part.message.id(), u32::try_from(part.recipient).ok()?);
    let HeldMessage {
        at,
        envelope,
        content,
        refused,
    } = message;
    let waiting = DeferredDelivery {
        recipient: held_as.1,
        places: reply.places(),
        held: Held::ActiveBatch {
            failures: active.failures(),
        },
    };
    ledger.deferred.hold(vec![DeferredMail {
        at,
        envelope,
        content: content.into(),
        recipients: vec![waiting],
        refused,
        wants_room: false,
    }]);
    Some(held_as)
}

/// Stops deferring a delivery that its writer has answered.
fn let_go<D: Disk>(shared: &Arc<Shared<D>>, held_as: (DeliveryId, u32)) {
    if let Some(ledger) = &shared.ledger {
        ledger.deferred.forget(&HashSet::from([held_as]));
    }
}

/// Waits for the writers, whose queues are closed, unless they are stuck.
pub(super) fn wait_for_writers<D: Disk>(shared: &Arc<Shared<D>>) {
    let pools = shared.pools.all();
    while !pools.iter().all(|pool| pool.is_left()) {
        look(shared, |_| Ok(()));
        std::thread::sleep(CLOSING_PAUSE);
    }
    for pool in &pools {
        pool.join();
    }
}
