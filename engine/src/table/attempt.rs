//! Lookups that do not wait: what has to be waited for is a question, to be asked elsewhere.
//!
//! A lookup may ask tables whose answer takes a while: a database, a server, a pattern that
//! backtracks. Within [`Attempt::run`] such a table does not wait; the lookup is given up with the
//! [`Question`]. When the answer is there, the lookup is done again, and the table gives that
//! answer at once. No thread waits, and a table that hangs holds up nothing but the lookups that
//! ask it. Invariants: a result comes from answers alone, never from one that was still missing;
//! each question is asked once for each attempt.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::TableError;
use crate::limits::ANSWER_TIMEOUT;
use crate::sync::Arc;

/// What a table answers.
pub(super) type Answer = Result<Option<String>, TableError>;

/// Answers by table and key.
type Answers = HashMap<u64, HashMap<String, Answer>>;

/// A lookup and the answers that it has so far.
#[derive(Debug, Default)]
pub struct Attempt {
    known: Answers,
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
        let inside = Inside::enter(std::mem::take(&mut self.known));
        let result = look_up();
        let (known, question) = inside.leave();
        self.known = known;
        question.map_or(Ok(result), Err)
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
        (self.start)(Reply(Some(Box::new(move |answer| {
            then(Answered { asked, answer });
        }))));
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

/// Where an answer goes. Dropped, it says that the answer was lost.
pub(super) struct Reply(Option<Box<dyn FnOnce(Answer) + Send>>);

impl Reply {
    /// Gives the answer.
    pub(super) fn give(mut self, answer: Answer) {
        if let Some(then) = self.0.take() {
            then(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(TableError::Unavailable {
                name: "that was asked".to_owned(),
                cause: "the answer was lost; see the log".to_owned(),
            }));
        }
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
            Some(of_table.and_then(|known| known.get(key)).cloned())
        });
        match inside {
            Some(Some(answer)) => answer,
            Some(None) => {
                self.put(key, asking);
                Err(TableError::Unavailable {
                    name: self.name.to_string(),
                    cause: "the answer is not there yet".to_owned(),
                })
            }
            None => {
                let (tell, told) = mpsc::sync_channel(1);
                (asking.start)(Reply(Some(Box::new(move |answer| {
                    // Who asked may have given up.
                    let _ = tell.send(answer);
                }))));
                told.recv_timeout(asking.timeout)
                    .unwrap_or_else(|_| Err((asking.late)()))
            }
        }
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
struct State {
    known: Answers,
    question: Option<Question>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// The thread is in an attempt until this is dropped.
struct Inside {
    outer: Option<State>,
}

impl Inside {
    fn enter(known: Answers) -> Self {
        let state = State {
            known,
            question: None,
        };
        Self {
            outer: STATE.replace(Some(state)),
        }
    }

    fn leave(self) -> (Answers, Option<Question>) {
        let state = STATE.take();
        state.map_or_else(Default::default, |state| (state.known, state.question))
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
    (Reply(Some(Box::new(then))), told)
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
