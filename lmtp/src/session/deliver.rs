//! From a complete message to one reply per accepted recipient.
//!
//! All deliveries run at once; the replies go
//! out in the order of the recipients, each as soon as it and those before it are known. A delivery
//! that is late is given up if the engine says that it will never become visible; else its true
//! outcome is waited for a little longer, because answering 451 for a message that then appears
//! would make a duplicate. So is one whose client is gone, which is going to send it again: what
//! has not begun is given up, what has is finished and remembered.

use super::Session;
use super::body::Body;
use super::notify::Notice;
use super::outcomes::Outcomes;
use super::summary::Summary;
use super::transaction::{Answer, Plan, Transaction, non_empty};
use super::wire::{Closed, Timer, Wire};
use crate::client_socket::ClientSocket;
use crate::envelope_memory::EnvelopeMemory;
use crate::log::DeliveryLine;
use crate::notices::Notices;
use crate::reply::write_status;
use mailstow_engine::transport::{Client, Disposition, Dsn};
use mailstow_engine::{EnhancedCode, Status};
use mailstow_engine::{Mail, Outcome, Receipt};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How often it is looked whether the client of a delivery that takes long is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a delivery that can no longer be given up may take past its deadline.
const GRACE: Duration = Duration::from_secs(60);

/// The deliveries in progress.
struct Deliveries {
    outcomes: Arc<Outcomes>,
    receipt: Receipt,
    /// Outcomes already answered, for further recipients of the same mailbox.
    done: Vec<Option<Outcome>>,
    /// Their deadline, and how long that was when they were begun.
    end: Instant,
    limit: Duration,
}

impl<S: ClientSocket> Session<S> {
    /// The message is complete: delivers it and answers for every accepted recipient.
    pub(super) async fn conclude(&mut self, body: Body) -> Result<(), Closed> {
        let Some(transaction) = self.state.end_transaction() else {
            return Ok(());
        };
        let mut transaction = *transaction;
        let summary = Summary {
            sender: transaction.sender(),
            size: body.size(),
            received: transaction.started.elapsed(),
            utf8: transaction.utf8(),
            id: std::mem::take(&mut transaction.id),
        };
        let mut plan = Transaction::plan(std::mem::take(&mut transaction.accepted));
        let result = match body.finish() {
            Ok(message) => {
                let dsn = Dsn {
                    envelope_id: transaction.mail.envelope_id,
                    returned: transaction.mail.returned.filter(|_| self.has_dsn),
                    recipients: Arc::new(std::mem::take(&mut plan.asked)),
                };
                let client = Client {
                    sasl_sender: transaction.mail.sasl_sender,
                    ..self.origin.client.clone()
                };
                let mail = Mail {
                    reverse_path: transaction.mail.reverse_path,
                    queue_id: non_empty(&self.origin.ident),
                    client,
                    dsn,
                    message,
                };
                let notice = Notice::wanted(
                    &plan.answers,
                    &mail,
                    &summary,
                    &transaction.settings,
                    transaction.started,
                );
                let limit = transaction.settings.lmtp.delivery_deadline;
                let memory = transaction.memory;
                let limits = (limit, memory);
                self.deliver(mail, plan, notice, &summary, limits).await
            }
            Err(status) => {
                for answer in &plan.answers {
                    let outcome = refused(status.clone());
                    let outcomes = answer.deliveries.iter().map(|_| &outcome);
                    self.answer(answer, outcomes, &summary);
                }
                Ok(())
            }
        };
        self.reset();
        self.wire.is_alive(self.settings.lmtp.idle_timeout);
        result
    }

    async fn deliver(
        &mut self,
        mail: Mail,
        plan: Plan,
        mut notice: Option<Notice>,
        summary: &Summary,
        (limit, memory): (Duration, EnvelopeMemory),
    ) -> Result<(), Closed> {
        let count = plan.deliveries.len();
        let outcomes = Arc::new(Outcomes::new(count));
        let report = Arc::clone(&outcomes);
        let receipt = self.shared.engine.submit(
            Arc::new(mail),
            plan.deliveries,
            Arc::new(move |index, outcome| report.put(index, outcome)),
        );
        let mut deliveries = Deliveries {
            outcomes,
            receipt,
            done: vec![None; count],
            end: Instant::now() + limit,
            limit,
        };
        // One timer for all messages of the session: setting one for each would wake the
        // runtime's driver each time.
        let first = limit.min(LOOK_INTERVAL);
        let mut timer = match self.timer.take() {
            Some(mut timer) => {
                timer.restart(first);
                timer
            }
            None => Timer::new(first),
        };
        // Also when the client is gone, the deliveries that have begun are finished and logged.
        let mut result = Ok(());
        for answer in &plan.answers {
            if let Some(notice) = notice.take_if(|notice| notice.decides(answer)) {
                if result.is_ok() {
                    result = self.wire.flush().await;
                }
                for delivery in notice.deliveries() {
                    if !deliveries.is_done(*delivery) {
                        deliveries.finish(*delivery, &mut timer, &self.wire).await;
                    }
                }
                deliveries
                    .tell(notice, &self.shared.notices, &plan.answers)
                    .await;
            }
            for (_, delivery) in &answer.deliveries {
                if !deliveries.is_done(*delivery) {
                    if result.is_ok() {
                        result = self.wire.flush().await;
                    }
                    deliveries.finish(*delivery, &mut timer, &self.wire).await;
                }
            }
            deliveries.doubt_what_comes_again(answer);
            let of = |(_, index): &(String, usize)| deliveries.done.get(*index)?.as_ref();
            self.answer(answer, answer.deliveries.iter().filter_map(of), summary);
        }
        self.timer = Some(timer);
        self.unread.push(deliveries.receipt, memory);
        // What the client has sent before it can have read the replies is no proof that it did.
        self.wire.look().await;
        result
    }

    /// Writes the reply of one accepted recipient and a log line for each of its deliveries. A
    /// delivery that may succeed later decides the reply, then one that never will.
    fn answer<'a>(
        &mut self,
        answer: &Answer,
        outcomes: impl Iterator<Item = &'a Outcome> + Clone,
        summary: &Summary,
    ) {
        let rank = |outcome: &&Outcome| {
            let status = &outcome.status;
            (status.is_temporary(), status.is_permanent())
        };
        // Of equally good ones the first, which is the only one unless aliases are expanded.
        let worst = outcomes.clone().reduce(|worst, next| {
            if rank(&next) > rank(&worst) {
                next
            } else {
                worst
            }
        });
        let Some(worst) = worst else { return };
        let address = ["<", &answer.shown, ">"].concat();
        let words = [address.as_str(), summary.id.as_str()];
        write_status(&mut self.wire.out, &worst.status, &words, summary.utf8);
        for ((to, _), outcome) in answer.deliveries.iter().zip(outcomes) {
            DeliveryLine {
                queue_id: self.queue_id(&summary.id),
                id: &summary.id,
                to,
                orig_to: &answer.original,
                from: &summary.sender,
                mailbox: outcome.mailbox.as_deref().unwrap_or_default(),
                size: summary.size,
                received: summary.received,
                queued: outcome.queued,
                stored: outcome.stored,
                status: &outcome.status,
                reason: "",
                client: &self.client(),
                session: &self.id,
            }
            .emit();
        }
    }
}

impl Deliveries {
    /// Whether the outcome is known by now.
    fn is_done(&mut self, index: usize) -> bool {
        let Some(done) = self.done.get_mut(index) else {
            return true;
        };
        if done.is_none() {
            *done = self.outcomes.take(index);
        }
        done.is_some()
    }

    /// Waits for the outcome, or gives the delivery up.
    async fn finish<S: ClientSocket>(&mut self, index: usize, timer: &mut Timer, wire: &Wire<S>) {
        let outcome = loop {
            let in_time = poll_fn(|context| match self.outcomes.poll(index, context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => timer.poll(context).map(|()| None),
            });
            if let Some(outcome) = in_time.await {
                break outcome;
            }
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break self.late(index).await;
            }
            if wire.is_gone() && self.receipt.abandon(index) {
                let text = "Client has disconnected, and the mailbox was not available yet";
                let status = Status::new(451, EnhancedCode::new(4, 4, 2), text);
                break refused(status);
            }
            timer.restart(left.min(LOOK_INTERVAL));
        };
        if let Some(done) = self.done.get_mut(index) {
            *done = Some(outcome);
        }
    }

    /// Sends a notice. When that fails, the recipients that want it are answered so, and their
    /// deliveries stay in doubt.
    async fn tell(&mut self, notice: Notice, notices: &Notices, answers: &[Answer]) {
        let indices = notice.deliveries().to_vec();
        let done = &self.done;
        let outcome = |index: usize| done.get(index).and_then(Option::as_ref);
        let Some(status) = notice.send(notices, answers, outcome).await else {
            return;
        };
        for index in indices {
            if let Some(Some(outcome)) = self.done.get_mut(index)
                && outcome.status.is_success()
            {
                outcome.status = status.clone();
                self.receipt.doubt(index);
            }
        }
    }

    /// A recipient with several destinations is sent again to all of them when one is deferred: the
    /// stored deliveries of the others stay in doubt, and is not stored a second time then.
    fn doubt_what_comes_again(&mut self, answer: &Answer) {
        let done = |index: usize| self.done.get(index).and_then(Option::as_ref);
        let indices = || answer.deliveries.iter().map(|(_, index)| *index);
        let is_put_off =
            indices().any(|index| done(index).is_some_and(|one| one.status.is_temporary()));
        if !is_put_off {
            return;
        }
        let stored = |index: &usize| done(*index).is_some_and(|one| one.status.is_success());
        let stored: Vec<usize> = indices().filter(stored).collect();
        stored
            .into_iter()
            .for_each(|index| self.receipt.doubt(index));
    }

    async fn late(&mut self, index: usize) -> Outcome {
        let given_up = self.receipt.abandon(index);
        if !given_up {
            if let Ok(outcome) = timeout(GRACE, self.outcomes.wait(index)).await {
                return outcome;
            }
            // It may succeed yet.
            self.receipt.doubt(index);
            tracing::error!(
                "a delivery is stuck in a system call: its client is answered 4xx, and its next \
                 attempt may cause a second copy; check whether the disk answers"
            );
        }
        let seconds = self.limit.as_secs_f64();
        let text = format!("Mailbox was not available within {seconds} s");
        let status = Status::new(451, EnhancedCode::new(4, 2, 1), text);
        Outcome {
            queued: self.limit,
            ..refused(status)
        }
    }
}

/// The outcome of a delivery that never began.
fn refused(status: Status) -> Outcome {
    Outcome {
        status,
        may_appear: false,
        mailbox: None,
        queued: Duration::ZERO,
        stored: Duration::ZERO,
        disposition: Disposition::default(),
    }
}
