//! What became of a mail in Postfix, read from its log: every delivery of it, and of the mails
//! that local(8) made of it.
//!
//! Needs `enable_long_queue_ids = yes`, so that a queue id is never reused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::eventually;
use crate::postfix::Postfix;

/// How long a whole test's mail may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(180);

/// One delivery attempt as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Envelope sender of the mail.
    pub sender: String,
    /// Final recipient.
    pub recipient: String,
    /// `local`, `virtual`, `none`, ...
    pub relay: String,
    /// Enhanced status code.
    pub dsn: String,
    /// `sent`, `deferred` or `bounced`.
    pub status: String,
    /// The text in parentheses.
    pub text: String,
}

/// The log, by queue id.
#[derive(Debug, Default)]
pub struct Log {
    senders: BTreeMap<String, String>,
    deliveries: BTreeMap<String, Vec<Delivery>>,
    removed: BTreeSet<String>,
    /// Mails that wait for another try.
    deferred: BTreeSet<String>,
}

impl Log {
    /// Waits until every mail in `ids` has been tried, and reads what was logged about them.
    pub fn of(postfix: &Postfix, ids: &[String]) -> Self {
        let deferred = eventually("all mail to be tried", TIMEOUT, || {
            let log = Self::parse(&postfix.log());
            let mut deferred = BTreeSet::new();
            let queue = postfix.scratch().join("queue/deferred");
            names_below(&queue, &mut deferred);
            let mut open: Vec<&str> = ids.iter().map(String::as_str).collect();
            while let Some(id) = open.pop() {
                if !log.removed.contains(id) && !deferred.contains(id) {
                    return None;
                }
                open.extend(log.forwarded(id));
            }
            Some(deferred)
        });
        written_out(postfix);
        Self {
            deferred,
            ..Self::parse(&postfix.log())
        }
    }

    /// Whether the mail, or one that it was forwarded as, waits for another try. Of a mail that
    /// local(8) could not forward nothing else is logged.
    pub fn is_deferred(&self, id: &str) -> bool {
        self.deferred.contains(id) || self.forwarded(id).any(|new| self.is_deferred(new))
    }

    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once("]: ") else {
                continue;
            };
            let rest = rest.strip_prefix("warning: ").unwrap_or(rest);
            let Some((id, rest)) = rest.split_once(": ") else {
                continue;
            };
            // Mail with too many hops never comes into the queue.
            if rest == "removed" || rest.starts_with("message rejected: ") {
                log.removed.insert(id.to_owned());
            } else if let Some(sender) = rest.strip_prefix("from=<") {
                let sender = sender.split(">, size=").next().unwrap_or_default();
                log.senders.insert(id.to_owned(), sender.to_owned());
            } else if let Some(delivery) = delivery(rest) {
                log.deliveries
                    .entry(id.to_owned())
                    .or_default()
                    .push(delivery);
            }
        }
        for (id, deliveries) in &mut log.deliveries {
            let sender = log.senders.get(id).cloned().unwrap_or_default();
            for delivery in deliveries {
                delivery.sender.clone_from(&sender);
            }
        }
        log
    }

    /// The mails that this one was sent on as; of a new one nothing may be in the log yet.
    fn forwarded(&self, id: &str) -> impl Iterator<Item = &str> {
        let deliveries = self.deliveries.get(id).into_iter().flatten();
        deliveries.filter_map(|delivery| delivery.text.strip_prefix("forwarded as "))
    }

    /// Every delivery of the mail and of those it was forwarded as; the forwarding itself is
    /// left out.
    pub fn deliveries(&self, id: &str) -> Vec<Delivery> {
        let mut found = Vec::new();
        let own = self.deliveries.get(id).into_iter().flatten();
        found.extend(
            own.filter(|delivery| !delivery.text.starts_with("forwarded as "))
                .cloned(),
        );
        for new in self.forwarded(id) {
            found.extend(self.deliveries(new));
        }
        found
    }
}

/// Waits for all that was logged until now to be in the file, because postlogd(8) is a separate
/// process: a line of ours comes after it. It is like no other line, those of earlier marks and
/// sessions included, for any of them might be written late.
fn written_out(postfix: &Postfix) {
    let mark = format!("mark-{:x}", fastrand::u64(..));
    let status = Command::new("/usr/sbin/postlog")
        .arg("-c")
        .arg(postfix.directory())
        .arg(&mark)
        .stderr(Stdio::null())
        .status()
        .expect("postlog(1): install the package postfix");
    assert!(status.success(), "postlog: {status}");
    eventually("the log to be written out", TIMEOUT, || {
        postfix.log().contains(&mark).then_some(())
    });
}

/// `to=<a>, orig_to=<b>, relay=local, ..., dsn=2.0.0, status=sent (text)`
fn delivery(line: &str) -> Option<Delivery> {
    let rest = line.strip_prefix("to=<")?;
    let end = [">, orig_to=<", ">, relay="]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min()?;
    let (recipient, rest) = rest.split_at(end);
    let (_, rest) = rest.split_once(", relay=")?;
    let (relay, rest) = rest.split_once(", ")?;
    let (_, rest) = rest.split_once("dsn=")?;
    let (dsn, rest) = rest.split_once(", status=")?;
    let (status, text) = rest.split_once(" (")?;
    Some(Delivery {
        sender: String::new(),
        recipient: recipient.to_owned(),
        relay: relay.to_owned(),
        dsn: dsn.to_owned(),
        status: status.to_owned(),
        text: text.strip_suffix(')').unwrap_or(text).to_owned(),
    })
}

fn names_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            names_below(&path, found);
        } else {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_that_was_sent_on_is_known_before_it_is_logged_itself() {
        let log = Log::parse(
            "Nov 22 15:00:00 mx postfix/local[7]: 4A: to=<a@o.example>, relay=local, delay=0.1, \
             delays=0/0/0/0, dsn=2.0.0, status=sent (forwarded as 4B)\n\
             Nov 22 15:00:00 mx postfix/qmgr[8]: 4A: removed\n",
        );
        assert_eq!(log.forwarded("4A").collect::<Vec<_>>(), ["4B"]);
        assert!(log.removed.contains("4A") && !log.removed.contains("4B"));
    }

    #[test]
    fn mail_with_too_many_hops_is_over_when_it_is_returned() {
        let log = Log::parse(
            "Nov 22 15:00:00 mx postfix/cleanup[7]: warning: 4B: message rejected: hopcount \
             exceeded\n",
        );
        assert!(log.removed.contains("4B"));
    }
}
