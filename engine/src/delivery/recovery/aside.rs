//! The part of a recovery whose file system does not answer is set aside.

use super::super::digest::{BaseDigest, digest_of};
use super::super::journal::Found;
use super::super::stuck::{Held, Waiting};
use super::survey::Survey;
use super::{Message, Part, Recovered, Run, is_due};
use crate::io::Disk;
use crate::log::{LogError, Plan};
use std::collections::HashSet;

impl<D: Disk> Run<'_, D> {
    /// Returns what the part has not done. Asks no file system.
    pub(super) fn set_aside(
        mut self,
        found: &dyn Found,
        part: &Part,
    ) -> Result<Recovered, LogError> {
        let done = part.set_aside();
        let survey = Survey::of(found)?;
        let base = BaseDigest::of(&self.with.settings.base);
        let mut in_doubt = Vec::new();
        let mut seen = HashSet::new();
        survey.for_each(found, &mut |at, envelope, content| {
            if !seen.insert(envelope.id) {
                return;
            }
            self.count_message(
                part,
                &envelope,
                || survey.doubts_of(base, &envelope, || digest_of(content)),
                &mut in_doubt,
            );
            let mut waits = Vec::new();
            for (index, recipient) in (0..).zip(&envelope.recipients) {
                if recipient.plan == Plan::Shared || !is_due(&survey, part, &envelope, index) {
                    continue;
                }
                self.report.deliveries += 1;
                if !done.contains(&(envelope.id, index)) {
                    waits.push(Waiting {
                        recipient: index,
                        places: survey.places(envelope.id, index).to_vec(),
                        held: Held::Undelivered,
                    });
                }
            }
            let message = Message {
                at,
                envelope: &envelope,
                content,
            };
            self.keep_stuck(message, waits, false, || survey.refused_of(&envelope));
        })?;
        Ok(Recovered {
            report: self.report,
            stuck: self.stuck,
            in_doubt,
        })
    }
}
