//! The resolution of an address, in the form for C.
//!
//! All texts of a resolution share one allocation, since a host makes a resolution for every
//! recipient.

use crate::boundary::{Kind, Pool, mailstow_resolution, mailstow_route};
use mailstow_engine::{
    AddressClass, Destination, EnhancedCode, Format, Resolution as Found, Route, Status, octets,
};
use std::ffi::c_char;
use std::path::Path;
use std::ptr;

/// `mydestination` and the addresses of this machine.
pub const MAILSTOW_CLASS_LOCAL: u32 = 1;
/// `virtual_alias_domains`
pub const MAILSTOW_CLASS_VIRTUAL_ALIAS: u32 = 2;
/// `virtual_mailbox_domains`
pub const MAILSTOW_CLASS_VIRTUAL_MAILBOX: u32 = 3;
/// `relay_domains`
pub const MAILSTOW_CLASS_RELAY: u32 = 4;
/// All other domains.
pub const MAILSTOW_CLASS_DEFAULT: u32 = 5;

/// The transport gets the mail.
pub const MAILSTOW_DESTINATION_TRANSPORT: u32 = 1;
/// The mail is stored in a virtual mailbox.
pub const MAILSTOW_DESTINATION_MAILBOX: u32 = 2;
/// The mail is stored in the mailbox of an account of this machine.
pub const MAILSTOW_DESTINATION_USER: u32 = 3;
/// An alias names a file.
pub const MAILSTOW_DESTINATION_FILE: u32 = 4;
/// An alias names a command.
pub const MAILSTOW_DESTINATION_COMMAND: u32 = 5;
/// The mail is accepted and discarded.
pub const MAILSTOW_DESTINATION_DISCARDED: u32 = 6;
/// The mail is returned to its sender, or deferred.
pub const MAILSTOW_DESTINATION_REFUSED: u32 = 7;

/// There is no mailbox.
pub const MAILSTOW_FORMAT_NONE: u32 = 0;
/// A directory with a file for each message.
pub const MAILSTOW_FORMAT_MAILDIR: u32 = 1;
/// One file with all messages.
pub const MAILSTOW_FORMAT_MBOX: u32 = 2;

/// The resolution of one address.
#[derive(Debug)]
pub(crate) struct Resolution {
    routes: Vec<Entry>,
    texts: Texts,
    status: Status,
}

/// Consecutive texts in C's form: octets, each cut at a NUL and ended by one.
#[derive(Debug, Default)]
struct Texts(Vec<u8>);

/// The offset of a text in [`Texts`].
#[derive(Clone, Copy, Debug)]
struct Text(usize);

impl Texts {
    /// Appends the parts as one text.
    fn add(&mut self, parts: &[&str]) -> Text {
        let begin = self.0.len();
        for part in parts {
            let part = octets::octets(part);
            let end = memchr::memchr(0, &part).unwrap_or(part.len());
            self.0
                .extend_from_slice(part.get(..end).unwrap_or_default());
            if end < part.len() {
                break;
            }
        }
        self.0.push(0);
        Text(begin)
    }

    /// Returns the address of a text, which stays valid until the resolution is freed.
    fn pointer(&self, text: Text) -> *const c_char {
        let bytes = self.0.get(text.0..).unwrap_or(b"\0");
        bytes.as_ptr().cast()
    }

    fn optional(&self, text: Option<Text>) -> *const c_char {
        text.map_or(ptr::null(), |text| self.pointer(text))
    }
}

/// One final recipient.
#[derive(Debug)]
struct Entry {
    class: u32,
    destination: u32,
    format: u32,
    uid: u32,
    gid: u32,
    recipient: Text,
    transport: Text,
    nexthop: Text,
    mailbox: Option<Text>,
    command: Option<Text>,
    sender: Option<Text>,
}

impl Kind for Resolution {
    type Handle = mailstow_resolution;
    const NUMBER: u64 = 7;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Resolution> = Pool::new();
        &POOL
    }
}

impl Resolution {
    pub(crate) fn new(found: Found, base: &Path) -> Self {
        let accepted = || Status::new(250, EnhancedCode::new(2, 1, 5), "Ok");
        let mut texts = Texts(Vec::with_capacity(128 * found.results.len()));
        let routes = found.results.iter();
        Self {
            routes: routes.map(|route| entry(route, base, &mut texts)).collect(),
            texts,
            status: found.error.unwrap_or_else(accepted),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn route(&self, index: usize) -> Option<mailstow_route> {
        let route = self.routes.get(index)?;
        let texts = &self.texts;
        Some(mailstow_route {
            struct_size: 0,
            address_class: route.class,
            destination: route.destination,
            format: route.format,
            uid: route.uid,
            gid: route.gid,
            recipient: texts.pointer(route.recipient),
            transport: texts.pointer(route.transport),
            nexthop: texts.pointer(route.nexthop),
            mailbox: texts.optional(route.mailbox),
            command: texts.optional(route.command),
            sender: texts.optional(route.sender),
        })
    }
}

fn entry(route: &Route, base: &Path, texts: &mut Texts) -> Entry {
    let mut entry = Entry {
        class: match route.class {
            AddressClass::Local => MAILSTOW_CLASS_LOCAL,
            AddressClass::VirtualAlias => MAILSTOW_CLASS_VIRTUAL_ALIAS,
            AddressClass::VirtualMailbox => MAILSTOW_CLASS_VIRTUAL_MAILBOX,
            AddressClass::Relay => MAILSTOW_CLASS_RELAY,
            AddressClass::Default => MAILSTOW_CLASS_DEFAULT,
        },
        destination: MAILSTOW_DESTINATION_TRANSPORT,
        format: MAILSTOW_FORMAT_NONE,
        uid: 0,
        gid: 0,
        recipient: texts.add(&[&route.recipient]),
        transport: texts.add(&[&route.transport]),
        nexthop: texts.add(&[&route.nexthop]),
        mailbox: None,
        command: None,
        sender: route.sender.as_deref().map(|sender| texts.add(&[sender])),
    };
    let mut stored = |base: &str, path: &str, format: Format, uid: u32, gid: u32| {
        let (number, slash) = match format {
            Format::Maildir => (MAILSTOW_FORMAT_MAILDIR, "/"),
            Format::Mbox => (MAILSTOW_FORMAT_MBOX, ""),
        };
        let between = if base.is_empty() { "" } else { "/" };
        let path = [base, between, path.trim_end_matches('/'), slash];
        entry.mailbox = Some(texts.add(&path));
        (entry.format, entry.uid, entry.gid) = (number, uid, gid);
    };
    if let Some(mailbox) = &route.mailbox {
        let base = base.to_str().unwrap_or_default().trim_end_matches('/');
        stored(
            base,
            &mailbox.path,
            mailbox.format,
            mailbox.uid,
            mailbox.gid,
        );
    }
    entry.destination = match &route.destination {
        Destination::Mailbox => MAILSTOW_DESTINATION_MAILBOX,
        Destination::User {
            path,
            format,
            rights,
        } => {
            stored("", &path.to_string_lossy(), *format, rights.uid, rights.gid);
            MAILSTOW_DESTINATION_USER
        }
        Destination::File {
            path,
            format,
            rights,
        } => {
            stored("", &path.to_string_lossy(), *format, rights.uid, rights.gid);
            MAILSTOW_DESTINATION_FILE
        }
        Destination::Command { command, rights } => {
            entry.command = Some(texts.add(&[command]));
            (entry.uid, entry.gid) = (rights.uid, rights.gid);
            MAILSTOW_DESTINATION_COMMAND
        }
        Destination::Discarded => MAILSTOW_DESTINATION_DISCARDED,
        Destination::Refused(_) => MAILSTOW_DESTINATION_REFUSED,
        _ => MAILSTOW_DESTINATION_TRANSPORT,
    };
    entry
}
