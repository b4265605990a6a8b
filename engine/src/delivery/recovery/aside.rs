//! The part of a recovery whose file system does not answer is set aside.

use super::super::journal::Found;
use super::super::stuck::{Held, Waiting};
use super::survey::Survey;
use super::{Part, Recovered, Run, is_due};
use crate::io::Disk;
use crate::log::{LogError, Plan};

impl<D: Disk> Run<'_, D> {
    /// Returns what the part has not done. Asks no file system.
    pub(super) fn set_aside(
        mut self,
        found: &dyn Found,
        part: &Part,
    ) -> Result<Recovered, LogError> {
        let done = part.set_aside();
        let survey = Survey::of(found)?;
        let mut in_doubt = Vec::new();
        self.for_each_message(found, (&survey, part), &mut in_doubt, |run, message| {
            let envelope = message.envelope;
            let mut waits = Vec::new();
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if recipient.plan == Plan::Shared || !is_due(&survey, part, envelope, index) {
                    continue;
                }
                run.report.deliveries += 1;
                if !done.contains(&(envelope.id, index)) {
                    waits.push(Waiting {
                        recipient: index,
                        places: survey.places(envelope.id, index).to_vec(),
                        held: Held::Undelivered,
                    });
                }
            }
            run.keep_stuck(message, waits, false, || survey.refused_of(envelope));
        })?;
        Ok(Recovered {
            report: self.report,
            stuck: self.stuck,
            in_doubt,
        })
    }
}
