//! Keeps spare segments ready.
//!
//! A full disk only keeps the log from growing; any other failure poisons the log.

use super::error::LogError;
use super::medium::LogMedium;
use super::segments::{Prepared, SPARES_MIN, Segments};
use super::shared::Shared;

/// The thread waits a while before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    DiskFull,
    Shortage,
}

impl Obstacle {
    /// Says once, and not at every attempt, what stands in the way.
    fn tell(self) {
        match self {
            Self::DiskFull => tracing::warn!(
                "the disk of the delivery log is full: the log cannot grow, and mail is deferred \
                 once its present space is used up; free disk space"
            ),
            Self::Shortage => tracing::warn!(
                "too many files are open, or memory is short: no segment of the delivery log can \
                 be made ready now; raise LimitNOFILE= (ulimit -n) or the limit on memory"
            ),
        }
    }
}

/// The preallocator of a log: run by a thread, or by the callers of the log.
pub(super) struct Preallocator<M: LogMedium> {
    shared: Shared<M>,
    /// Bytes for frames in one segment.
    usable_bytes: u64,
    obstacle: Option<Obstacle>,
}

impl<M: LogMedium> Preallocator<M> {
    pub(super) fn new(shared: Shared<M>, usable_bytes: u64) -> Self {
        Self {
            shared,
            usable_bytes,
            obstacle: None,
        }
    }

    /// Carries out orders until the log is closed or fails.
    pub(super) fn run(mut self) {
        while self.carry_out_next(true) {}
    }

    /// Carries out the orders there are; with `awaits_orders`, waits for some, or until a passing
    /// obstacle is to be tried again. False when there were none, or the log failed.
    pub(super) fn carry_out_next(&mut self, awaits_orders: bool) -> bool {
        let is_hindered = self.obstacle.is_some();
        if !self.shared.orders.take(is_hindered, awaits_orders) {
            return false;
        }
        let before = self.obstacle.take();
        if let Err(error) = self.carry_out() {
            self.shared.fail(error, &mut Vec::new());
            return false;
        }
        if let Some(now) = self.obstacle.filter(|now| before != Some(*now)) {
            now.tell();
        }
        true
    }

    /// Names the next segment, and makes spares while fewer than wanted are ready, or while appends
    /// are held back and the limit allows. On a full disk it gives them back instead.
    fn carry_out(&mut self) -> Result<(), LogError> {
        let Self {
            shared, obstacle, ..
        } = self;
        let Shared {
            commit,
            segments,
            orders,
        } = &*shared;
        let held_back = || commit.is_held_back();
        while let Some((wanted, force)) = orders.order(held_back) {
            give_back(shared, self.usable_bytes)?;
            let is_short = || segments.has_fewer_than(SPARES_MIN);
            if is_short() {
                // First of all: the log thread goes on to it soon.
                *obstacle = reserve(segments)?;
            }
            let pacing = || orders.pacing(|| force || is_short() || held_back());
            match segments.prepare(wanted, force, &pacing)? {
                Prepared::Made => {
                    orders.carried_out(force);
                    commit.add_room(self.usable_bytes);
                }
                Prepared::Enough => {
                    *obstacle = reserve(segments)?;
                    orders.are_enough();
                    break;
                }
                prepared @ (Prepared::DiskFull | Prepared::NotNow) => {
                    *obstacle = Some(match prepared {
                        Prepared::DiskFull => Obstacle::DiskFull,
                        _ => Obstacle::Shortage,
                    });
                    reserve(segments)?;
                    orders.cannot_be_carried_out();
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Gives spares back, if the disk is nearly full or was found full. Each takes its room with it,
/// unless that is promised to a caller.
fn give_back<M: LogMedium>(shared: &Shared<M>, usable_bytes: u64) -> Result<(), LogError> {
    let Shared {
        commit,
        segments,
        orders,
    } = shared;
    let order = orders.take_give_order();
    let is_ordered = order.is_some();
    let gives_all = is_ordered && segments.give();
    let kept = order.filter(|_| gives_all).unwrap_or(SPARES_MIN);
    let mut gained = 0;
    while (gives_all || segments.is_low()) && commit.take_room(usable_bytes) {
        match segments.remove_spare(kept) {
            Ok(Some(bytes)) => gained += bytes,
            other => {
                commit.add_room(usable_bytes);
                other?;
                break;
            }
        }
    }
    if gained > 0 {
        tracing::info!(
            "the disk of the delivery log is nearly full: {gained} bytes of spare segments \
             were given back"
        );
    }
    if is_ordered {
        orders.gave_back(gained);
    }
    Ok(())
}

/// Names the next segment ahead; what is in the way, if that passes.
fn reserve<M: LogMedium>(segments: &Segments<M>) -> Result<Option<Obstacle>, LogError> {
    match segments.reserve() {
        Ok(()) => Ok(None),
        Err(error) if error.is_shortage() => Ok(Some(Obstacle::Shortage)),
        Err(error) => Err(error),
    }
}
