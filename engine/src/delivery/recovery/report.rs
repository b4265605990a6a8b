//! What recovery did, for operators and for the store.

use super::super::ledger::deferred_mail::Unfinished;
use crate::log::InDoubt;
use std::fmt;

/// What recovery did.
///
/// ```
/// # mod site { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/site.inc")); }
/// # let site = site::site()?;
/// # let engine = site.engine()?;
/// let report = engine.recovered().ok_or("there is a delivery log")?;
/// assert_eq!((report.messages, report.waiting), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Messages in the log that the last checkpoint did not cover.
    pub messages: u64,
    /// Their deliveries that were not refused.
    pub deliveries: u64,
    /// Copies that were missing, short or wrong, and were written again.
    pub rewritten: u64,
    /// Copies that could not be written yet and are tried again.
    pub waiting: u64,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            messages,
            rewritten,
            waiting,
            ..
        } = self;
        write!(
            f,
            "recovered {messages} messages, rewrote {rewritten}, 0 lost"
        )?;
        if *waiting > 0 {
            write!(f, "; {waiting} copies wait for their mailboxes")?;
        }
        Ok(())
    }
}

/// The result of a part of a recovery.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Recovered {
    pub(in crate::delivery) report: RecoveryReport,
    /// The deliveries that could not be made.
    pub(in crate::delivery) unfinished: Unfinished,
    pub(in crate::delivery) in_doubt: Vec<InDoubt>,
}

impl Recovered {
    /// Adds another part.
    pub(in crate::delivery) fn add(&mut self, part: Self) {
        let Self {
            report,
            unfinished: Unfinished { mails, extents },
            in_doubt,
        } = part;
        let all = &mut self.unfinished;
        all.extents.extend(extents);
        self.report.messages += report.messages;
        self.report.deliveries += report.deliveries;
        self.report.rewritten += report.rewritten;
        self.report.waiting += report.waiting;
        for mail in mails {
            let id = mail.envelope.id;
            match all.mails.iter_mut().find(|kept| kept.envelope.id == id) {
                Some(kept) => {
                    kept.recipients.extend(mail.recipients);
                    kept.wants_room |= mail.wants_room;
                }
                None => all.mails.push(mail),
            }
        }
        self.in_doubt.extend(in_doubt);
    }
}
