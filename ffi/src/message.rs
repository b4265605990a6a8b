//! A message under construction: its envelope, then its content.
//!
//! A message uses the tables of the time when it was begun. Recipients that share a mailbox get one
//! copy, and an outcome each.

use crate::boundary::{Kind, Pool, mailstow_message};
use crate::config::Bounds;
use crate::content::Content;
use crate::counters::Permit;
use mailstow_engine::address::parse_original_recipient;
use mailstow_engine::{
    Address, EnhancedCode, MailboxTarget, Recipient, ReversePath, Router, Status, octets,
    parse_address, parse_mailbox,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A message under construction.
#[derive(Debug)]
pub(crate) struct Message {
    /// The handle it was made for.
    pub(crate) owner: u64,
    pub(crate) bounds: Arc<Bounds>,
    pub(crate) envelope: Envelope,
    pub(crate) content: Content,
    /// Tables to find mailboxes by; `None` where a server decides.
    router: Option<Arc<Router>>,
    is_local: bool,
    permit: Permit,
}

/// All but the content.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) reverse_path: ReversePath,
    pub(crate) retry_key: Option<String>,
    pub(crate) recipients: Vec<Accepted>,
    /// One for each mailbox; for the engine.
    pub(crate) deliveries: Vec<(Recipient, MailboxTarget)>,
}

/// A recipient that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) address: Address,
    pub(crate) original: Option<String>,
    pub(crate) deadline: Duration,
    /// Its deliveries.
    pub(crate) deliveries: Vec<usize>,
}

impl Kind for Message {
    type Handle = mailstow_message;
    const NUMBER: u64 = 3;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Message> = Pool::new();
        &POOL
    }
}

impl Message {
    /// An empty message of the handle `owner`. With `is_local`, recipients must have mailboxes
    /// here.
    pub(crate) fn new(
        owner: u64,
        bounds: Arc<Bounds>,
        router: Option<Arc<Router>>,
        is_local: bool,
        content: Content,
        permit: Permit,
    ) -> Self {
        Self {
            owner,
            bounds,
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                retry_key: None,
                recipients: Vec::new(),
                deliveries: Vec::new(),
            },
            content,
            router,
            is_local,
            permit,
        }
    }

    /// Sets the sender; an empty text, `<>` and MAILER-DAEMON are the null reverse-path.
    pub(crate) fn set_sender(&mut self, sender: &[u8]) -> Result<(), Status> {
        let text = octets::text(sender);
        let bad = |why: &dyn fmt::Display| {
            let text = format!("<{}>: bad sender: {why}", octets::shown(&text));
            Status::new(501, EnhancedCode::new(5, 1, 7), text)
        };
        let reverse_path = match &*text {
            "" | "<>" => ReversePath::Null,
            text if text.eq_ignore_ascii_case("MAILER-DAEMON") => ReversePath::Null,
            text => parse_address(text).map_err(|error| bad(&error))?,
        };
        if let ReversePath::Address(address) = &reverse_path {
            let unfit =
                unwritable(address).or_else(|| unsendable(address).filter(|_| !self.is_local));
            if let Some(why) = unfit {
                return Err(bad(&why));
            }
        }
        self.envelope.reverse_path = reverse_path;
        Ok(())
    }

    /// Adds a recipient, if it is accepted; returns its index. A refused one uses no memory.
    pub(crate) fn add(
        &mut self,
        address: &[u8],
        original: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<usize, Status> {
        let before = self.permit.bytes();
        let added = self.try_add(address, original, deadline);
        if added.is_err() {
            self.permit.shrink_to(before);
        }
        added
    }

    fn try_add(
        &mut self,
        address: &[u8],
        original: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<usize, Status> {
        if self.envelope.recipients.len() >= self.bounds.recipients_max {
            let code = EnhancedCode::new(4, 5, 3);
            return Err(Status::new(452, code, "Too many recipients"));
        }
        let given = match self.is_local {
            true => parse(address)?,
            false => parse_to_send(address)?,
        };
        let original = original.map(|text| parse_original_recipient(&octets::text(text)));
        let original = original.filter(|original| !original.is_empty());
        let texts = address.len() + original.as_ref().map_or(0, String::len);
        if !self.count(texts) {
            return Err(no_memory());
        }
        let deliveries = match &self.router {
            Some(router) if self.is_local => {
                let found = router.find(given.clone(), self.bounds.expand_aliases);
                let mailboxes = found.mailboxes.map_err(|error| {
                    let status = error.status();
                    match status.is_permanent() {
                        true => tracing::debug!("{error}"),
                        // An operator can fix it.
                        false => tracing::warn!("{error}"),
                    }
                    status
                })?;
                let members = mailboxes.members(found.address);
                let known = original.as_ref().map_or(0, String::len);
                for (address, target) in &members {
                    let texts = address.external().len() + target.path.len() + known;
                    if !self.count(texts) {
                        return Err(no_memory());
                    }
                }
                self.envelope.plan(members, &original)
            }
            // The server decides where it is stored; this only checks that it exists.
            Some(router) => {
                if let Some(error) = router.resolve(&given).error {
                    return Err(error);
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        let deadline = match deadline.is_zero() {
            true => self.bounds.deadline,
            false => deadline,
        };
        self.envelope.recipients.push(Accepted {
            address: given,
            original,
            deadline,
            deliveries,
        });
        Ok(self.envelope.recipients.len() - 1)
    }

    /// Counts the memory of a recipient, or of a mailbox of one, with so many bytes of text.
    fn count(&mut self, texts: usize) -> bool {
        let bytes = RECIPIENT_BYTES + COPIES * texts;
        self.permit.add_bytes(bytes, self.bounds.envelope_bytes_max)
    }
}

/// A recipient, or a mailbox of one, without its texts.
const RECIPIENT_BYTES: usize = 256;
/// Copies of a text: in the envelope, in the delivery, and in the results.
const COPIES: usize = 3;

fn no_memory() -> Status {
    let code = EnhancedCode::new(4, 3, 1);
    Status::new(452, code, "Too much mail is being received")
}

impl Envelope {
    /// Returns the deliveries for a recipient with these `members`. Recipients with the same
    /// mailbox share a delivery.
    fn plan(
        &mut self,
        members: Vec<(Address, MailboxTarget)>,
        original: &Option<String>,
    ) -> Vec<usize> {
        let deliveries = &mut self.deliveries;
        let plan = |(address, target): (Address, MailboxTarget)| {
            let known = deliveries.iter().position(|(_, other)| *other == target);
            known.unwrap_or_else(|| {
                let original = original.clone();
                deliveries.push((Recipient { address, original }, target));
                deliveries.len() - 1
            })
        };
        members.into_iter().map(plan).collect()
    }
}

/// An address from outside.
pub(crate) fn parse(address: &[u8]) -> Result<Address, Status> {
    let parsed = parse_mailbox(&octets::text(address));
    let parsed = parsed.map_err(|error| bad_recipient(address, &error))?;
    match unwritable(&parsed) {
        Some(why) => Err(bad_recipient(address, &why)),
        None => Ok(parsed),
    }
}

/// An address from outside for a command.
pub(crate) fn parse_to_send(address: &[u8]) -> Result<Address, Status> {
    let parsed = parse(address)?;
    match unsendable(&parsed) {
        Some(why) => Err(bad_recipient(address, &why)),
        None => Ok(parsed),
    }
}

fn bad_recipient(address: &[u8], why: &dyn fmt::Display) -> Status {
    let address = octets::text(address);
    let text = format!("<{}>: bad address: {why}", octets::shown(&address));
    Status::new(501, EnhancedCode::new(5, 1, 3), text)
}

/// Returns why an address must not be part of a line of text: of a command, which would become two,
/// of a reply of the host, or of its log. Programs differ in the line ends that they recognise, and
/// no quoting prevents that (RFC 5321 section 4.1.2).
fn unwritable(address: &Address) -> Option<&'static str> {
    let address = address.external();
    let ends_a_line = address.contains(['\r', '\n', '\0']);
    ends_a_line.then_some("it holds CR, LF or NUL")
}

/// Returns why an address must not be part of a command: its domain would end the path, and the
/// rest would be read as parameters. Local parts are quoted.
fn unsendable(address: &Address) -> Option<&'static str> {
    let domain = address.domain.as_deref().unwrap_or_default();
    let is_odd = |c: char| c.is_ascii_control() || matches!(c, ' ' | '<' | '>');
    let text = "LMTP cannot carry a blank, a control character, < or > in a domain";
    domain.contains(is_odd).then_some(text)
}
