//! Where the answer of a table goes that does not answer at once.

use super::TableError;

/// What a table answers.
pub(super) type Answer = Result<Option<String>, TableError>;

/// Where an answer goes. Dropped, it says that the answer was lost.
pub(super) struct Reply(Option<Box<dyn FnOnce(Answer) + Send>>);

impl Reply {
    /// `then` is called once.
    pub(super) fn new(then: impl FnOnce(Answer) + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }

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
