//! Sets a part of a recovery aside because its file system does not answer.

use super::super::ledger::deferred_mail::{DeferredDelivery, Held, Unfinished};
use super::super::ledger::journal::Found;
use super::part::Part;
use super::report::Recovered;
use super::survey::Survey;
use super::worker::{Recovery, Worker, on_own_thread};
use crate::io::Disk;
use crate::log::{CopyLocation, LogError};
use std::time::Duration;

impl<D: Disk> Recovery<'_, D> {
    /// Sets a part aside and defers the deliveries that it has not made. Does not access any file
    /// system.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(in crate::delivery) fn set_aside(
        &self,
        found: &dyn Found,
        part: &Part,
    ) -> Result<Recovered, LogError> {
        on_own_thread(|| Worker::new(self, Duration::ZERO).set_aside(found, part))?
    }
}

impl<D: Disk> Worker<'_, D> {
    fn set_aside(mut self, found: &dyn Found, part: &Part) -> Result<Recovered, LogError> {
        let done = part.set_aside();
        let survey = Survey::of(found)?;
        let mut in_doubt = Vec::new();
        self.for_each_message(found, (&survey, part), &mut in_doubt, |worker, message| {
            let envelope = message.envelope;
            let mut waits = Vec::new();
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if recipient.location == CopyLocation::Shared
                    || !survey.is_due(part, envelope, index)
                {
                    continue;
                }
                worker.report.deliveries += 1;
                if !done.contains(&(envelope.id, index)) {
                    waits.push(DeferredDelivery {
                        recipient: index,
                        places: survey.places(envelope.id, index).to_vec(),
                        held: Held::Undelivered,
                    });
                }
            }
            worker.defer(message, waits, false, || survey.refused_of(envelope));
        })?;
        let extents = survey.extents().iter();
        let extents = extents.filter(|waiting| part.has(&waiting.extent.mailbox));
        Ok(Recovered {
            report: self.report,
            unfinished: Unfinished {
                mails: self.deferred,
                extents: extents.cloned().collect(),
            },
            in_doubt,
        })
    }
}
