//! Lookups that do not wait: what has to be waited for is a question, to be asked elsewhere.
//!
//! A lookup may ask tables whose answer takes a while: a database, a server, a pattern that
//! backtracks. Within [`Attempt::run`] such a table does not wait; the lookup is given up with the
//! [`Question`]. When the answer is there, the lookup is done again, and the table gives that
//! answer at once. A table that hangs holds up nothing but the lookups that ask it. A list of many
//! members has many questions, and to do all of its lookup again for each would take a time that
//! grows with the square of their number: after the first answers the thread waits for others, in
//! each run about as long as the lookup itself takes. Invariants: a result comes from answers
//! alone, never from one that was still missing; each question is asked once for each attempt.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::TableError;
use super::awaited::Awaited;
pub(super) use super::reply::{Answer, Reply};
use crate::clock;
use crate::limits::ANSWER_TIMEOUT;
use crate::sync::Arc;

/// So often a lookup is given up before its thread waits for answers.
const GIVEN_UP_MAX: u32 = 8;
/// How long all the answers of one run are waited for then: as long as its own work took the last
/// time, within these bounds.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
const PATIENCE_MAX: Duration = Duration::from_millis(200);

/// Answers by table and key.
type Answers = HashMap<u64, HashMap<String, Answer>>;

/// A lookup and the answers that it has so far.
#[derive(Debug, Default)]
pub struct Attempt {
    known: Answers,
    /// How often the lookup was given up.
    given_up: u32,
    /// How long its own work took the last time.
    work: Duration,
    /// Nothing is asked any more.
    is_expired: bool,
}

/// What has to be asked before a lookup can go on.
pub struct Question {
    asked: Asked,
    timeout: Duration,
    start: Box<dyn FnOnce(Reply) + Send>,
    late: Box<dyn FnOnce() -> TableError + Send>,
}

/// A question that was asked, for the case that no answer comes in time.
pub struct Late {
    asked: Asked,
    late: Box<dyn FnOnce() -> TableError + Send>,
}

/// A question with its answer.
#[derive(Debug)]
pub struct Answered {
    asked: Asked,
    answer: Answer,
}

#[derive(Clone, Debug)]
struct Asked {
    table: u64,
    key: String,
}

impl Attempt {
    /// Runs `look_up`, which may ask any tables.
    ///
    /// # Errors
    /// A table has to be waited for: ask the question, hand the answer to [`Attempt::learn`] and
    /// run the same again.
    pub fn run<T>(&mut self, look_up: impl FnOnce() -> T) -> Result<T, Question> {
        let patience = match self.given_up < GIVEN_UP_MAX {
            true => Duration::ZERO,
            false => self.work.clamp(PATIENCE_MIN, PATIENCE_MAX),
        };
        let begin = clock::now();
        let inside = Inside::enter(State {
            known: std::mem::take(&mut self.known),
            question: None,
            patience,
            is_expired: self.is_expired,
        });
        let result = look_up();
        let left = inside.leave();
        self.known = left.known;
        self.given_up = self.given_up.saturating_add(1);
        self.work = begin
            .elapsed()
            .saturating_sub(patience.saturating_sub(left.patience));
        left.question.map_or(Ok(result), Err)
    }

    /// The time for the lookup is over: what is not known is not asked for, and is an error.
    pub fn expire(&mut self) {
        self.is_expired = true;
    }

    /// Takes the answer to a question of [`Attempt::run`].
    pub fn learn(&mut self, answered: Answered) {
        let Asked { table, key } = answered.asked;
        self.known
            .entry(table)
            .or_default()
            .insert(key, answered.answer);
    }
}

impl Question {
    /// How long the answer is to be waited for.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks; returns at once. `then` is called once, from any thread.
    pub fn ask(self, then: impl FnOnce(Answered) + Send + 'static) -> Late {
        let asked = self.asked.clone();
        (self.start)(Reply::new(move |answer| then(Answered { asked, answer })));
        Late {
            asked: self.asked,
            late: self.late,
        }
    }
}

impl Late {
    /// The answer in place of one that did not come in time: an error, which defers.
    pub fn answer(self) -> Answered {
        Answered {
            answer: Err((self.late)()),
            asked: self.asked,
        }
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// What a table has that does not answer at once.
#[derive(Debug)]
pub(super) struct Asker {
    id: u64,
    name: Arc<str>,
}

/// How a question is asked, and what an answer that does not come means.
pub(super) struct Asking<S, L> {
    /// Asks; must return at once.
    pub(super) start: S,
    /// How long the answer is waited for.
    pub(super) timeout: Duration,
    /// The answer after that.
    pub(super) late: L,
}

impl<S> Asking<S, Box<dyn FnOnce() -> TableError + Send>> {
    /// A question to a database or server of the table that `asker` is of. These have their own
    /// timeouts; this one is for failures of those.
    pub(super) fn of_server(asker: &Asker, start: S) -> Self {
        let name = Arc::clone(&asker.name);
        let seconds = ANSWER_TIMEOUT.as_secs();
        Self {
            start,
            timeout: ANSWER_TIMEOUT,
            late: Box::new(move || TableError::Unavailable {
                name: name.to_string(),
                cause: format!("no answer within {seconds} s"),
            }),
        }
    }
}

impl Asker {
    /// For the table called `name`.
    pub(super) fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
        }
    }

    /// The table's name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Answers `key`: within an attempt, with what is known or a question; else when the answer is
    /// there.
    ///
    /// # Errors
    /// Those of the table; within an attempt, that the answer is not there yet.
    pub(super) fn answer<S, L>(&self, key: &str, asking: Asking<S, L>) -> Answer
    where
        S: FnOnce(Reply) + Send + 'static,
        L: FnOnce() -> TableError + Send + 'static,
    {
        let inside = STATE.with_borrow_mut(|state| {
            let state = state.as_mut()?;
            let of_table = state.known.get(&self.id);
            let known = of_table.and_then(|known| known.get(key)).cloned();
            // A lookup that goes on after an error asks for what may not be needed.
            let is_given_up = state.question.is_some();
            let patience = match is_given_up {
                true => Duration::ZERO,
                false => state.patience,
            };
            Some((known, patience, state.is_expired))
        });
        match inside {
            Some((Some(answer), ..)) => answer,
            Some((None, _, true)) => Err((asking.late)()),
            Some((None, patience, false)) if !patience.is_zero() => {
                self.wait_for(key, asking, patience)
            }
            Some((None, ..)) => {
                self.put(key, asking);
                self.not_there_yet()
            }
            None => {
                let (tell, told) = mpsc::sync_channel(1);
                (asking.start)(Reply::new(move |answer| {
                    // Who asked may have given up.
                    let _ = tell.send(answer);
                }));
                told.recv_timeout(asking.timeout)
                    .unwrap_or_else(|_| Err((asking.late)()))
            }
        }
    }

    /// Asks, and waits for the answer for so long. Then the attempt is given up with the question,
    /// which is asked already.
    fn wait_for<S, L>(&self, key: &str, asking: Asking<S, L>, patience: Duration) -> Answer
    where
        S: FnOnce(Reply) + Send + 'static,
        L: FnOnce() -> TableError + Send + 'static,
    {
        let begin = clock::now();
        let awaited = Arc::new(Awaited::new());
        let tell = Arc::clone(&awaited);
        (asking.start)(Reply::new(move |answer| tell.tell(answer)));
        let answer = awaited.wait(patience);
        let waited = begin.elapsed();
        STATE.with_borrow_mut(|state| {
            if let Some(state) = state {
                state.patience = state.patience.saturating_sub(waited);
                if let Some(answer) = &answer {
                    let known = state.known.entry(self.id).or_default();
                    known.insert(key.to_owned(), answer.clone());
                }
            }
        });
        answer.unwrap_or_else(|| {
            let asking = Asking {
                start: move |reply: Reply| awaited.then(reply),
                timeout: asking.timeout,
                late: asking.late,
            };
            self.put(key, asking);
            self.not_there_yet()
        })
    }

    fn not_there_yet(&self) -> Answer {
        Err(TableError::Unavailable {
            name: self.name.to_string(),
            cause: "the answer is not there yet".to_owned(),
        })
    }

    /// Makes the question that this thread's attempt is given up with, unless there is one.
    fn put<S, L>(&self, key: &str, asking: Asking<S, L>)
    where
        S: FnOnce(Reply) + Send + 'static,
        L: FnOnce() -> TableError + Send + 'static,
    {
        STATE.with_borrow_mut(|state| {
            if let Some(state) = state {
                state.question.get_or_insert_with(|| Question {
                    asked: Asked {
                        table: self.id,
                        key: key.to_owned(),
                    },
                    timeout: asking.timeout,
                    start: Box::new(asking.start),
                    late: Box::new(asking.late),
                });
            }
        });
    }
}

/// The attempt that a thread is in.
#[derive(Default)]
struct State {
    known: Answers,
    question: Option<Question>,
    /// How long answers may still be waited for.
    patience: Duration,
    /// Nothing is asked any more.
    is_expired: bool,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// The thread is in an attempt until this is dropped.
struct Inside {
    outer: Option<State>,
}

impl Inside {
    fn enter(state: State) -> Self {
        Self {
            outer: STATE.replace(Some(state)),
        }
    }

    fn leave(self) -> State {
        STATE.take().unwrap_or_default()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        STATE.set(self.outer.take());
    }
}

/// A reply, and where its answer comes out.
#[cfg(test)]
pub(super) fn test_reply() -> (Reply, mpsc::Receiver<Answer>) {
    let (tell, told) = mpsc::channel();
    let then = move |answer| tell.send(answer).unwrap_or_default();
    (Reply::new(then), told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    /// A table that answers on request.
    struct Slow {
        asker: Asker,
        replies: Arc<Mutex<Vec<Reply>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Slow {
        fn new() -> Self {
            Self {
                asker: Asker::new("slow:"),
                replies: Arc::default(),
                asked: Arc::default(),
            }
        }

        fn lookup(&self, key: &str) -> Answer {
            let (replies, asked) = (Arc::clone(&self.replies), Arc::clone(&self.asked));
            let asking = Asking {
                start: move |reply| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    replies.lock().unwrap().push(reply);
                },
                timeout: Duration::from_millis(20),
                late: || TableError::Unavailable {
                    name: "slow:".to_owned(),
                    cause: "late".to_owned(),
                },
            };
            self.asker.answer(key, asking)
        }

        fn reply(&self, answer: Answer) {
            let reply = self.replies.lock().unwrap().pop().unwrap();
            reply.give(answer);
        }
    }

    fn value(text: &str) -> Answer {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn a_lookup_is_done_again_with_each_answer_and_never_without_one() {
        let (first, second) = (Slow::new(), Slow::new());
        // It goes on after an error, as code that takes "not known" for "no" does.
        let look_up = || {
            let one = first.lookup("k").unwrap_or_default().unwrap_or_default();
            let two = second.lookup(&one).unwrap_or_default().unwrap_or_default();
            one + &two
        };
        let mut attempt = Attempt::default();
        for (table, text) in [(&first, "a"), (&second, "b")] {
            let question = attempt.run(look_up).unwrap_err();
            let (tell, told) = mpsc::channel();
            question.ask(move |answered| tell.send(answered).unwrap());
            table.reply(value(text));
            attempt.learn(told.recv().unwrap());
        }
        assert_eq!(attempt.run(look_up).unwrap(), "ab");
        for table in [&first, &second] {
            assert_eq!(table.asked.load(Ordering::SeqCst), 1);
        }
    }

    /// Looks up until all is known, with `answer` for each question; returns how often that took.
    fn runs(look_up: impl Fn(), mut answer: impl FnMut(Question) -> Answered) -> u32 {
        let mut attempt = Attempt::default();
        for count in 1.. {
            match attempt.run(&look_up) {
                Ok(()) => return count,
                Err(question) => attempt.learn(answer(question)),
            }
        }
        unreachable!("the loop has no other end")
    }

    fn answered(question: Question) -> Answered {
        let (tell, told) = mpsc::channel();
        let _late = question.ask(move |answered| tell.send(answered).unwrap());
        told.recv().unwrap()
    }

    #[test]
    fn a_lookup_with_many_questions_is_not_done_again_for_each() {
        const QUESTIONS: u32 = 2000;
        let asker = Asker::new("quick:");
        let asked = Arc::new(AtomicUsize::new(0));
        let look_up = || {
            for key in 0..QUESTIONS {
                let asked = Arc::clone(&asked);
                let asking = Asking {
                    start: move |reply: Reply| {
                        asked.fetch_add(1, Ordering::SeqCst);
                        reply.give(value("v"));
                    },
                    timeout: Duration::from_secs(60),
                    late: || unreachable!("the answer is there"),
                };
                let _ = asker.answer(&key.to_string(), asking);
            }
        };
        let runs = runs(look_up, answered);
        assert!(runs < QUESTIONS / 4, "{runs}");
        assert_eq!(asked.load(Ordering::SeqCst), QUESTIONS as usize);
    }

    #[test]
    fn a_lookup_whose_time_is_over_asks_nothing_more() {
        let slow = Slow::new();
        let look_up = || [slow.lookup("a"), slow.lookup("b")].map(|answer| answer.is_err());
        let mut attempt = Attempt::default();
        let late = attempt.run(look_up).unwrap_err().ask(|_| {});
        attempt.learn(late.answer());
        attempt.expire();
        assert_eq!(attempt.run(look_up).unwrap(), [true, true]);
        assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_answer_that_takes_longer_than_the_thread_waits_is_asked_for_once() {
        let (slow, quick) = (Slow::new(), Asker::new("quick:"));
        let look_up = || {
            for key in 0..2 * GIVEN_UP_MAX {
                let asking = Asking {
                    start: move |reply: Reply| reply.give(value("v")),
                    timeout: Duration::from_secs(60),
                    late: || unreachable!("the answer is there"),
                };
                let _ = quick.answer(&key.to_string(), asking);
            }
            assert!(slow.lookup("k").is_err() || slow.lookup("k") == value("late"));
        };
        let mut replies = 0;
        runs(look_up, |question| {
            if question.asked.table == quick.id {
                return answered(question);
            }
            let (tell, told) = mpsc::channel();
            question.ask(move |answered| tell.send(answered).unwrap());
            slow.reply(value("late"));
            replies += 1;
            told.recv().unwrap()
        });
        assert_eq!((replies, slow.asked.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn an_answer_that_does_not_come_is_an_error_and_one_that_is_lost_too() {
        let slow = Slow::new();
        let look_up = || slow.lookup("k");
        let mut attempt = Attempt::default();
        let late = attempt.run(look_up).unwrap_err().ask(|_| {});
        attempt.learn(late.answer());
        assert!(attempt.run(look_up).unwrap().is_err());

        let mut attempt = Attempt::default();
        let (tell, told) = mpsc::channel();
        let question = attempt.run(look_up).unwrap_err();
        question.ask(move |answered| tell.send(answered).unwrap());
        slow.replies.lock().unwrap().clear();
        attempt.learn(told.recv().unwrap());
        assert!(attempt.run(look_up).unwrap().is_err());
    }

    #[test]
    fn without_an_attempt_the_caller_waits_until_the_timeout() {
        let slow = Slow::new();
        let said = slow.lookup("k").unwrap_err().to_string();
        assert!(said.contains("late"), "{said}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while slow.asked.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                slow.reply(value("v"));
            });
            let patient = Asking {
                timeout: Duration::from_secs(60),
                start: {
                    let (replies, asked) = (Arc::clone(&slow.replies), Arc::clone(&slow.asked));
                    move |reply| {
                        replies.lock().unwrap().push(reply);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                },
                late: || TableError::Unavailable {
                    name: String::new(),
                    cause: String::new(),
                },
            };
            assert_eq!(slow.asker.answer("k", patient), value("v"));
        });
    }

    #[test]
    fn a_panic_leaves_no_attempt_behind() {
        let slow = Slow::new();
        let ended = std::panic::catch_unwind(|| Attempt::default().run(|| panic!("lost")));
        assert!(ended.is_err());
        // Outside of an attempt it waits, and says so.
        let said = slow.lookup("k").unwrap_err().to_string();
        assert!(said.contains("late"), "{said}");
    }
}
