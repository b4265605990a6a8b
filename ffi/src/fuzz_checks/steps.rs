//! The calls of a sequence, as a fuzzer chooses them.

use super::site::GROWN_BYTES;
use crate::boundary::{mailstow_outcome, mailstow_reply, mailstow_route};
use arbitrary::Arbitrary;
use std::ptr;

/// One call. An object is named by its index among all objects; 0 is NULL.
#[derive(Arbitrary, Debug)]
pub(super) enum Step<'a> {
    Open,
    Close(u8),
    NewConfig,
    Set(u8, u8, &'a str),
    NewMessage(u8),
    Sender(u8, &'a [u8]),
    RetryKey(u8, &'a [u8]),
    Form(u8, u8),
    Add(u8, To<'a>, Size),
    Write(u8, Content<'a>),
    Deliver(u8, u8),
    Submit(u8, u8),
    Drain(u8, u8, Size),
    Outcome(u8, u8, Size),
    Confirm(u8),
    Check(u8, To<'a>, u16, Size),
    Resolve(u8, To<'a>),
    Route(u8, u8, Size),
    Figures(u8, Size),
    Metrics(u8, u16),
    Free(Kind, u8),
}

/// A recipient.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum To<'a> {
    Maildir,
    Other,
    Mbox,
    Unknown,
    Alias,
    Far,
    Any(&'a [u8]),
}

/// A piece of content.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Line,
    Crlf,
    Dot,
    End,
    LfEnd,
    Large,
    Any(&'a [u8]),
}

/// The size that a struct claims to have.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Size {
    Right,
    Grown,
    Zero,
    Small,
    Huge,
}

/// The kinds of objects.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Handle,
    Config,
    Message,
    Results,
    Resolution,
    Error,
}

impl To<'_> {
    pub(super) fn address(&self) -> &[u8] {
        match self {
            Self::Maildir => b"a@vm.example",
            Self::Other => b"<b@vm.example>",
            Self::Mbox => b"box@vm.example",
            Self::Unknown => b"nobody@vm.example",
            Self::Alias => b"all@vm.example",
            Self::Far => b"x@far.example",
            Self::Any(text) => text,
        }
    }

    /// Returns whether a message accepts it; `None` when the model does not know.
    pub(super) fn is_ours(&self) -> Option<bool> {
        match self {
            Self::Maildir | Self::Other | Self::Mbox => Some(true),
            Self::Unknown | Self::Far => Some(false),
            Self::Alias | Self::Any(_) => None,
        }
    }
}

impl Content<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Line => b"Subject: s\n\n",
            Self::Crlf => b"x\r\n",
            Self::Dot => b".",
            Self::End => b"\r\n.\r\n",
            Self::LfEnd => b"\n.\n",
            Self::Large => &[b'x'; 900],
            Self::Any(bytes) => bytes,
        }
    }
}

impl Size {
    /// Returns the number, and whether it is valid.
    pub(super) fn of<T>(self) -> (u32, bool) {
        let right = u32::try_from(size_of::<T>()).expect("a small struct");
        match self {
            Self::Right => (right, true),
            Self::Grown => (right + GROWN_BYTES, true),
            Self::Zero => (0, false),
            Self::Small => (right - 1, false),
            Self::Huge => (u32::MAX, false),
        }
    }
}

pub(super) const EMPTY_REPLY: mailstow_reply = mailstow_reply {
    struct_size: 0,
    code: 0,
    sysexits: 0,
    enhanced: [0; 16],
    text: [0; 512],
};

pub(super) const EMPTY_OUTCOME: mailstow_outcome = mailstow_outcome {
    struct_size: 0,
    state: 0,
    code: 0,
    sysexits: 0,
    enhanced: ptr::null(),
    text: ptr::null(),
    recipient: ptr::null(),
    mailbox: ptr::null(),
    queued_us: 0,
    stored_us: 0,
};

pub(super) const EMPTY_ROUTE: mailstow_route = mailstow_route {
    struct_size: 0,
    address_class: 0,
    destination: 0,
    format: 0,
    uid: 0,
    gid: 0,
    recipient: ptr::null(),
    transport: ptr::null(),
    nexthop: ptr::null(),
    mailbox: ptr::null(),
    command: ptr::null(),
    sender: ptr::null(),
};
