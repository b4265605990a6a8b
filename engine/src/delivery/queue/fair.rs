//! Deliveries in the order of arrival, and mailbox by mailbox once many wait.
//!
//! While few wait, all have their turn soon, and the order costs nothing. Deliveries after the
//! first [`IN_ORDER_MAX`] wait with the rest of their mailbox, and mailboxes take turns: a flood of
//! mail to one delays the others by one delivery each round. Invariant: the deliveries of a mailbox
//! keep their order.

use super::taken::Queued;
use crate::sync::Arc;
use std::collections::{HashMap, VecDeque};

/// How many deliveries wait in the order of arrival.
const IN_ORDER_MAX: usize = 128;

/// The queue.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    in_order: VecDeque<J>,
    /// The later deliveries. Used only while `in_order` is full, or this is not empty.
    by_mailbox: HashMap<Arc<str>, VecDeque<J>>,
    /// The mailboxes, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    count: usize,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self {
            in_order: VecDeque::new(),
            by_mailbox: HashMap::new(),
            turns: VecDeque::new(),
            count: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<J: Queued> FairQueue<J> {
    pub(super) fn push(&mut self, job: J) {
        self.count += 1;
        if self.turns.is_empty() && self.in_order.len() < IN_ORDER_MAX {
            self.in_order.push_back(job);
            return;
        }
        if let Some(waiting) = self.by_mailbox.get_mut(job.mailbox()) {
            waiting.push_back(job);
            return;
        }
        let mailbox: Arc<str> = job.mailbox().into();
        self.turns.push_back(Arc::clone(&mailbox));
        self.by_mailbox.insert(mailbox, VecDeque::from([job]));
    }

    pub(super) fn pop(&mut self) -> Option<J> {
        let job = match self.in_order.pop_front() {
            Some(job) => job,
            None => self.pop_in_turn()?,
        };
        self.count -= 1;
        Some(job)
    }

    fn pop_in_turn(&mut self) -> Option<J> {
        let mailbox = self.turns.pop_front()?;
        let waiting = self.by_mailbox.get_mut(&mailbox)?;
        let job = waiting.pop_front();
        match waiting.is_empty() {
            true => {
                self.by_mailbox.remove(&mailbox);
            }
            false => self.turns.push_back(mailbox),
        }
        job
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[derive(Debug, PartialEq, Eq)]
    struct Item(&'static str, usize);

    impl Queued for Item {
        fn is_abandoned(&self) -> bool {
            false
        }

        fn mailbox(&self) -> &str {
            self.0
        }

        fn mbox(&self) -> Option<&str> {
            None
        }

        fn take(&mut self) {}

        fn bytes(&self) -> u64 {
            1
        }

        fn submitted(&self) -> Instant {
            Instant::now()
        }

        fn refuse(self, _: &'static str) {}
    }

    fn drain(queue: &mut FairQueue<Item>) -> Vec<Item> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn few_deliveries_keep_the_order_they_came_in() {
        let mut queue = FairQueue::new();
        let items = || (0..IN_ORDER_MAX).map(|at| Item(["a", "b", "b"][at % 3], at));
        items().for_each(|item| queue.push(item));
        assert_eq!(queue.len(), IN_ORDER_MAX);
        assert_eq!(drain(&mut queue), items().collect::<Vec<_>>());
        assert!(queue.is_empty());
    }

    #[test]
    fn a_mailbox_that_gets_a_flood_lets_others_have_their_turn() {
        let mut queue = FairQueue::new();
        (0..10_000).for_each(|at| queue.push(Item("flooded", at)));
        queue.push(Item("one", 0));
        queue.push(Item("two", 0));
        let order = drain(&mut queue);
        let place = |mailbox| order.iter().position(|item| item.0 == mailbox);
        assert!(place("one") <= Some(IN_ORDER_MAX + 1), "{:?}", place("one"));
        assert!(place("two") <= Some(IN_ORDER_MAX + 2), "{:?}", place("two"));
        assert_eq!(order.len(), 10_002);
    }

    #[test]
    fn the_deliveries_of_a_mailbox_keep_their_order_while_more_come() {
        let mut queue = FairQueue::new();
        let mut seen = Vec::new();
        for at in 0..2000 {
            queue.push(Item("a", at));
            queue.push(Item("b", at));
            if at % 3 == 0 {
                seen.extend(queue.pop());
            }
        }
        seen.extend(drain(&mut queue));
        for mailbox in ["a", "b"] {
            let of = seen.iter().filter(|item| item.0 == mailbox);
            assert!(of.map(|item| item.1).eq(0..2000), "{mailbox}");
        }
    }
}
