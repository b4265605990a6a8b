//! Properties of any sequence of calls from C.
//!
//! Built for tests and with `--cfg fuzzing` only; see `engine/src/fuzz_checks.rs`. The calls are
//! chosen by a fuzzer, on handles that are NULL, open, closed or of another kind, with structs of
//! any size. A model knows which handles are open, which recipients a message has, where its
//! content ends, and how much is in flight; each answer is compared with it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check fails by panicking"
)]

mod content;
mod object;
mod site;
mod steps;

use crate::api::config::{mailstow_config_free, mailstow_config_new, mailstow_config_set};
use crate::api::deliver::{
    mailstow_confirm, mailstow_deliver, mailstow_drain, mailstow_event_fd, mailstow_results_count,
    mailstow_results_exit_status, mailstow_results_free, mailstow_results_outcome, mailstow_submit,
};
use crate::api::handle::{mailstow_close, mailstow_metrics, mailstow_statistics_get};
use crate::api::library::{mailstow_error_count, mailstow_error_free, mailstow_error_result};
use crate::api::message::{
    MAILSTOW_CONTENT_DOTS, mailstow_message_add_recipient, mailstow_message_free,
    mailstow_message_new, mailstow_message_set_form, mailstow_message_set_retry_key,
    mailstow_message_set_sender, mailstow_message_write,
};
use crate::api::resolve::{
    mailstow_check_recipient, mailstow_resolution_count, mailstow_resolution_free,
    mailstow_resolution_route, mailstow_resolve,
};
use crate::boundary::{
    borrow, mailstow, mailstow_completion, mailstow_outcome, mailstow_recipient, mailstow_reply,
    mailstow_route, mailstow_statistics,
};
use crate::outcome::{MAILSTOW_DURABLE, MAILSTOW_NOT_STORED};
use crate::result::{
    MAILSTOW_BAD_STRUCT, MAILSTOW_CLOSED, MAILSTOW_CONFIG, MAILSTOW_END, MAILSTOW_INVALID,
    MAILSTOW_NOT_FOUND, MAILSTOW_NULL, MAILSTOW_OK, MAILSTOW_REFUSED, MAILSTOW_TOO_SMALL,
    MAILSTOW_WRONG_HANDLE, mailstow_result,
};
use arbitrary::{Arbitrary, Unstructured};
use object::Object;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use site::{Grown, MESSAGE_BYTES_MAX, Site};
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::time::{Duration, Instant};
use steps::{EMPTY_OUTCOME, EMPTY_REPLY, EMPTY_ROUTE, Kind, Size, Step, To};

/// Most calls of one sequence; fewer than closed handles are remembered.
const CALLS_MAX: usize = 100;
/// Most handles, which have threads, that one sequence opens.
const HANDLES_MAX: usize = 2;
/// One in so many choices asks for separate handles, which the sequence may close.
const OWN_SITES: u8 = 64;

/// All objects of one sequence.
struct Model {
    site: Site,
    objects: Vec<Object>,
    tokens: u64,
}

/// Makes the calls that `bytes` encode.
///
/// # Panics
/// An answer is not that of the model.
pub fn check_calls(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    // Opening and closing a handle takes much longer than the calls between.
    let site = match source.arbitrary::<u8>() {
        Ok(choice) if choice.is_multiple_of(OWN_SITES) => Site::own(),
        _ => Site::take_kept(),
    };
    let mut model = Model::new(site);
    for _ in 0..CALLS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut source) else {
            break;
        };
        model.make(step);
    }
    model.end();
}

impl Model {
    /// Begins a sequence with NULL and one handle.
    fn new(site: Site) -> Self {
        let mut model = Self {
            site,
            objects: Vec::new(),
            tokens: 0,
        };
        model.push(ptr::null_mut::<c_void>(), Kind::Null, 0);
        model.open();
        model
    }

    fn push<T>(&mut self, pointer: *mut T, kind: Kind, owner: usize) -> usize {
        self.objects.push(Object::new(pointer.cast(), kind, owner));
        self.objects.len() - 1
    }

    fn at(&self, name: u8) -> usize {
        usize::from(name) % self.objects.len()
    }

    fn pointer<T>(&self, at: usize) -> *mut T {
        self.objects[at].pointer.cast()
    }

    /// Returns the result of a call that needs an object of this kind; `None` when it gets one.
    fn problem(&self, at: usize, kind: Kind) -> Option<mailstow_result> {
        let object = &self.objects[at];
        match object.kind {
            Kind::Null => Some(MAILSTOW_NULL),
            other if other != kind => Some(MAILSTOW_WRONG_HANDLE),
            _ if !object.is_open => Some(MAILSTOW_CLOSED),
            _ => None,
        }
    }

    fn open(&mut self) {
        let handles = self.objects.iter().filter(|o| o.kind == Kind::Handle);
        let count = handles.count();
        if count < HANDLES_MAX {
            let handle = self.site.open(count);
            self.push(handle, Kind::Handle, 0);
        }
    }

    fn make(&mut self, step: Step<'_>) {
        match step {
            Step::Open => self.open(),
            Step::Close(name) => self.close(self.at(name)),
            Step::NewConfig => {
                let mut config = ptr::null_mut();
                assert_eq!(mailstow_config_new(&raw mut config), MAILSTOW_OK);
                self.push(config, Kind::Config, 0);
            }
            Step::Set(name, setting, value) => self.set(self.at(name), setting, value),
            Step::NewMessage(name) => self.new_message(self.at(name)),
            Step::Sender(name, text) => {
                let at = self.at(name);
                let message = self.pointer(at);
                let answer = mailstow_message_set_sender(message, text.as_ptr().cast(), text.len());
                self.expect(at, Kind::Message, answer, &[MAILSTOW_OK, MAILSTOW_INVALID]);
            }
            Step::RetryKey(name, key) => {
                let at = self.at(name);
                let message = self.pointer(at);
                let answer =
                    mailstow_message_set_retry_key(message, key.as_ptr().cast(), key.len());
                let is_odd = key.len() > 255 || key.iter().any(u8::is_ascii_control);
                // Key that is too long comes before the handle.
                if answer != MAILSTOW_INVALID {
                    self.expect(at, Kind::Message, answer, &[MAILSTOW_OK]);
                    assert!(answer != MAILSTOW_OK || !is_odd, "{key:?} is no key");
                }
            }
            Step::Form(name, form) => self.set_form(self.at(name), u32::from(form % 4)),
            Step::Add(name, to, size) => self.add(self.at(name), to, size),
            Step::Write(name, content) => self.write(self.at(name), content.bytes()),
            Step::Deliver(handle, message) => self.deliver(self.at(handle), self.at(message)),
            Step::Submit(handle, message) => self.submit(self.at(handle), self.at(message)),
            Step::Drain(name, capacity, size) => {
                self.drain(self.at(name), usize::from(capacity % 5), size);
            }
            Step::Outcome(name, index, size) => {
                let at = self.at(name);
                let (bytes, is_right) = size.of::<mailstow_outcome>();
                let mut outcome = Grown::new(mailstow_outcome {
                    struct_size: bytes,
                    ..EMPTY_OUTCOME
                });
                let (results, index) = (self.pointer(at), usize::from(index));
                let place = (&raw mut outcome).cast();
                let answer = mailstow_results_outcome(results, index, place);
                self.expect_indexed(at, Kind::Results, index, is_right, answer);
                outcome.check();
            }
            Step::Confirm(name) => {
                let at = self.at(name);
                let answer = mailstow_confirm(self.pointer(at));
                self.expect(at, Kind::Results, answer, &[MAILSTOW_OK]);
            }
            Step::Check(name, to, announced, size) => {
                let at = self.at(name);
                self.check(at, to.address(), announced.into(), size);
            }
            Step::Resolve(name, to) => self.resolve(self.at(name), to.address()),
            Step::Route(name, index, size) => {
                let at = self.at(name);
                let (bytes, is_right) = size.of::<mailstow_route>();
                let mut route = Grown::new(mailstow_route {
                    struct_size: bytes,
                    ..EMPTY_ROUTE
                });
                let (found, index) = (self.pointer(at), usize::from(index));
                let place = (&raw mut route).cast();
                let answer = mailstow_resolution_route(found, index, place);
                self.expect_indexed(at, Kind::Resolution, index, is_right, answer);
                route.check();
            }
            Step::Figures(name, size) => self.figures(self.at(name), size),
            Step::Metrics(name, size) => {
                let at = self.at(name);
                let mut buffer = vec![0; usize::from(size % 5000)];
                let mut length = usize::MAX;
                let (handle, place) = (self.pointer(at), buffer.as_mut_ptr());
                let answer = mailstow_metrics(handle, place, buffer.len(), &raw mut length);
                self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK, MAILSTOW_TOO_SMALL]);
                if self.problem(at, Kind::Handle).is_none() {
                    assert_eq!(answer == MAILSTOW_OK, length < buffer.len());
                }
            }
            Step::Free(kind, name) => self.free(self.at(name), kind),
        }
    }

    /// # Panics
    /// The answer is neither that for what is wrong with the object nor one of these.
    fn expect(&self, at: usize, kind: Kind, answer: mailstow_result, good: &[mailstow_result]) {
        match self.problem(at, kind) {
            Some(problem) => assert_eq!(answer, problem, "{:?}", self.objects[at]),
            None => assert!(good.contains(&answer), "{answer}: {:?}", self.objects[at]),
        }
    }

    /// The same for a call that takes an index and a struct.
    fn expect_indexed(
        &self,
        at: usize,
        kind: Kind,
        index: usize,
        is_right: bool,
        answer: mailstow_result,
    ) {
        let good = match index < self.objects[at].count {
            true => MAILSTOW_OK,
            false => MAILSTOW_NOT_FOUND,
        };
        match is_right {
            true => self.expect(at, kind, answer, &[good]),
            false => assert_eq!(answer, MAILSTOW_BAD_STRUCT),
        }
    }

    fn close(&mut self, at: usize) {
        if self.site.is_kept && self.problem(at, Kind::Handle).is_none() {
            return;
        }
        let answer = mailstow_close(self.pointer(at));
        self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]);
        if answer == MAILSTOW_OK {
            self.objects[at].is_open = false;
            self.objects[at].flying.clear();
        }
    }

    fn set(&mut self, at: usize, setting: u8, value: &str) {
        const NAMES: [&CStr; 6] = [
            c"virtual_mailbox_maps",
            c"limits.queued_deliveries",
            c"store.writers",
            c"message_size_limit",
            c"lmtp.listen",
            c"no.such",
        ];
        let Ok(value) = CString::new(value) else {
            return;
        };
        let name = NAMES[usize::from(setting) % NAMES.len()];
        let mut error = ptr::null_mut();
        let config = self.pointer(at);
        let (name, value) = (name.as_ptr(), value.as_ptr());
        let answer = mailstow_config_set(config, name, value, &raw mut error);
        self.expect(at, Kind::Config, answer, &[MAILSTOW_OK, MAILSTOW_CONFIG]);
        assert_eq!(answer == MAILSTOW_OK, error.is_null());
        if !error.is_null() {
            assert_eq!(mailstow_error_result(error), answer);
            assert!(
                mailstow_error_count(error) > 0,
                "an error says what is wrong"
            );
            self.push(error, Kind::Error, 0);
        }
    }

    fn new_message(&mut self, at: usize) {
        let mut message = ptr::null_mut();
        let answer = mailstow_message_new(self.pointer(at), &raw mut message);
        self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]);
        assert_eq!(answer == MAILSTOW_OK, !message.is_null());
        if answer == MAILSTOW_OK {
            self.push(message, Kind::Message, at);
        }
    }

    fn set_form(&mut self, at: usize, form: u32) {
        let answer = mailstow_message_set_form(self.pointer(at), form);
        if form > MAILSTOW_CONTENT_DOTS {
            return assert_eq!(answer, MAILSTOW_INVALID);
        }
        let good = match self.objects[at].content.has_begun {
            true => MAILSTOW_INVALID,
            false => MAILSTOW_OK,
        };
        self.expect(at, Kind::Message, answer, &[good]);
        if answer == MAILSTOW_OK {
            self.objects[at].content.form = form;
        }
    }

    fn add(&mut self, at: usize, to: To<'_>, size: Size) {
        let (bytes, is_right) = size.of::<mailstow_reply>();
        let mut reply = Grown::new(mailstow_reply {
            struct_size: bytes,
            ..EMPTY_REPLY
        });
        let address = to.address();
        let recipient = mailstow_recipient {
            struct_size: Size::Right.of::<mailstow_recipient>().0,
            deadline_ms: 0,
            address: address.as_ptr().cast(),
            address_length: address.len(),
            original: ptr::null(),
            original_length: 0,
        };
        let (message, place) = (self.pointer(at), (&raw mut reply).cast());
        let answer = mailstow_message_add_recipient(message, &raw const recipient, place);
        reply.check();
        if !is_right {
            return assert_eq!(answer, MAILSTOW_BAD_STRUCT);
        }
        let good: &[mailstow_result] = match to.is_ours() {
            Some(true) => &[MAILSTOW_OK],
            Some(false) => &[MAILSTOW_REFUSED],
            None => &[MAILSTOW_OK, MAILSTOW_REFUSED],
        };
        self.expect(at, Kind::Message, answer, good);
        match answer {
            MAILSTOW_OK => {
                assert_eq!(reply.known.code, 250);
                self.objects[at].count += 1;
            }
            MAILSTOW_REFUSED => assert!((400..600).contains(&reply.known.code)),
            _ => assert_eq!(reply.known.code, 0),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let mut taken = usize::MAX;
        let (message, data) = (self.pointer(at), bytes.as_ptr().cast());
        let answer = mailstow_message_write(message, data, bytes.len(), &raw mut taken);
        let good = [MAILSTOW_OK, MAILSTOW_REFUSED, MAILSTOW_END];
        self.expect(at, Kind::Message, answer, &good);
        if self.problem(at, Kind::Message).is_some() {
            return assert_eq!(taken, usize::MAX, "an output was written");
        }
        let content = &mut self.objects[at].content;
        let before = content.bytes.len();
        content.has_begun = true;
        content.bytes.extend_from_slice(bytes);
        let end = content.end();
        content.bytes.truncate(end.unwrap_or(usize::MAX));
        assert_eq!(taken, content.bytes.len() - before, "{content:?}");
        assert_eq!(answer == MAILSTOW_END, end.is_some(), "{content:?}");
        if answer == MAILSTOW_REFUSED {
            content.is_refused = true;
            assert!(content.bytes.len() > MESSAGE_BYTES_MAX, "{content:?}");
        }
    }

    /// Returns the result of delivering a message, if that fails.
    fn unwanted(&self, handle: usize, message: usize) -> Option<mailstow_result> {
        let of_objects = self.problem(handle, Kind::Handle);
        let of_objects = of_objects.or_else(|| self.problem(message, Kind::Message));
        let object = &self.objects[message];
        let is_good = object.owner == handle && object.count > 0 && !object.content.is_cut_short();
        of_objects.or((!is_good).then_some(MAILSTOW_INVALID))
    }

    /// Notes that a message was submitted.
    fn hand_over(&mut self, handle: usize, message: usize) -> (usize, Option<bool>) {
        let object = &mut self.objects[message];
        object.is_open = false;
        let sent = (object.count, object.content.is_stored());
        self.objects[handle].in_flight += sent.0;
        sent
    }

    fn deliver(&mut self, handle: usize, message: usize) {
        let mut results = ptr::null_mut();
        let (library, mail) = (self.pointer(handle), self.pointer(message));
        let answer = mailstow_deliver(library, mail, &raw mut results);
        let expected = self.unwanted(handle, message).unwrap_or(MAILSTOW_OK);
        assert_eq!(answer, expected);
        if answer == MAILSTOW_OK {
            let sent = self.hand_over(handle, message);
            let at = self.push(results, Kind::Results, handle);
            self.read_results(at, sent);
        }
    }

    fn submit(&mut self, handle: usize, message: usize) {
        let token = self.tokens;
        self.tokens += 1;
        let answer = mailstow_submit(self.pointer(handle), self.pointer(message), token);
        let expected = self.unwanted(handle, message).unwrap_or(MAILSTOW_OK);
        assert_eq!(answer, expected);
        if answer == MAILSTOW_OK {
            let sent = self.hand_over(handle, message);
            self.objects[handle].flying.insert(token, sent);
        }
    }

    /// # Panics
    /// Recipients are missing, or have a wrong outcome.
    fn read_results(&mut self, at: usize, (count, is_stored): (usize, Option<bool>)) {
        let results = self.pointer(at);
        assert_eq!(mailstow_results_count(results), count);
        let states = (0..count).map(|index| {
            let mut outcome = mailstow_outcome {
                struct_size: Size::Right.of::<mailstow_outcome>().0,
                ..EMPTY_OUTCOME
            };
            let answer = mailstow_results_outcome(results, index, &raw mut outcome);
            assert_eq!(answer, MAILSTOW_OK);
            assert_eq!(outcome.state == MAILSTOW_DURABLE, outcome.code == 250);
            outcome.state
        });
        let states: Vec<u32> = states.collect();
        let all = |state: u32| states.iter().all(|other| *other == state);
        assert!(
            all(MAILSTOW_DURABLE) || all(MAILSTOW_NOT_STORED),
            "{states:?}"
        );
        if let Some(is_stored) = is_stored {
            assert_eq!(all(MAILSTOW_DURABLE), is_stored, "{states:?}");
        }
        assert_eq!(
            mailstow_results_exit_status(results) == 0,
            all(MAILSTOW_DURABLE)
        );
        self.objects[at].count = count;
    }

    fn drain(&mut self, at: usize, capacity: usize, size: Size) {
        let (bytes, is_right) = size.of::<mailstow_completion>();
        // Elements are as far apart as the first one says, in words of eight bytes.
        let words = usize::try_from(bytes).map_or(0, |bytes| bytes / 8);
        let room = if is_right { words * capacity } else { 64 };
        let mut array = vec![0_u64; room.max(1)];
        array[0] = u64::from(bytes);
        let mut count = usize::MAX;
        let (handle, place) = (self.pointer(at), array.as_mut_ptr().cast());
        let answer = mailstow_drain(handle, place, capacity, &raw mut count);
        if !is_right && capacity > 0 && self.problem(at, Kind::Handle).is_none() {
            return assert_eq!(answer, MAILSTOW_BAD_STRUCT);
        }
        self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]);
        if answer != MAILSTOW_OK {
            return assert_eq!(count, usize::MAX, "an output was written");
        }
        assert!(count <= capacity, "{count} of {capacity}");
        for element in array.chunks(words.max(1)).take(count) {
            let (token, results) = (element[1], element[2]);
            let sent = self.objects[at].flying.remove(&token);
            let sent = sent.expect("a token that was submitted, once");
            let address = usize::try_from(results).expect("an address");
            let results = ptr::with_exposed_provenance_mut::<c_void>(address);
            let results = self.push(results, Kind::Results, at);
            self.read_results(results, sent);
        }
    }

    fn check(&self, at: usize, address: &[u8], announced: u64, size: Size) {
        let (bytes, is_right) = size.of::<mailstow_reply>();
        let mut reply = Grown::new(mailstow_reply {
            struct_size: bytes,
            ..EMPTY_REPLY
        });
        let (handle, text) = (self.pointer::<mailstow>(at), address.as_ptr().cast());
        let place = (&raw mut reply).cast();
        let answer = mailstow_check_recipient(handle, text, address.len(), announced, place);
        reply.check();
        match is_right {
            true => self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]),
            false => assert_eq!(answer, MAILSTOW_BAD_STRUCT),
        }
        if answer == MAILSTOW_OK {
            assert!((200..600).contains(&reply.known.code));
            let is_large = announced > MESSAGE_BYTES_MAX as u64;
            assert!(!is_large || reply.known.code >= 500, "{address:?}");
        }
    }

    fn resolve(&mut self, at: usize, address: &[u8]) {
        let mut found = ptr::null_mut();
        let (handle, text) = (self.pointer::<mailstow>(at), address.as_ptr().cast());
        let answer = mailstow_resolve(handle, text, address.len(), &raw mut found);
        self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]);
        if answer == MAILSTOW_OK {
            let count = mailstow_resolution_count(found);
            let at = self.push(found, Kind::Resolution, at);
            self.objects[at].count = count;
        }
    }

    fn figures(&self, at: usize, size: Size) {
        let (bytes, is_right) = size.of::<mailstow_statistics>();
        let mut figures = Grown::new(mailstow_statistics {
            struct_size: bytes,
            ..mailstow_statistics::default()
        });
        let handle = self.pointer::<mailstow>(at);
        let answer = mailstow_statistics_get(handle, (&raw mut figures).cast());
        figures.check();
        match is_right {
            true => self.expect(at, Kind::Handle, answer, &[MAILSTOW_OK]),
            false => return assert_eq!(answer, MAILSTOW_BAD_STRUCT),
        }
        if answer == MAILSTOW_OK {
            let in_flight = self.objects[at].in_flight as u64;
            assert_eq!(figures.known.in_flight, in_flight, "recipients in flight");
        }
    }

    fn free(&mut self, at: usize, kind: Kind) {
        match kind {
            Kind::Null | Kind::Handle => return,
            Kind::Config => mailstow_config_free(self.pointer(at)),
            Kind::Message => mailstow_message_free(self.pointer(at)),
            Kind::Results => mailstow_results_free(self.pointer(at)),
            Kind::Resolution => mailstow_resolution_free(self.pointer(at)),
            Kind::Error => mailstow_error_free(self.pointer(at)),
        }
        if self.problem(at, kind).is_some() {
            return;
        }
        self.objects[at].is_open = false;
        if kind == Kind::Results {
            let (owner, count) = (self.objects[at].owner, self.objects[at].count);
            self.objects[owner].in_flight -= count;
        }
    }

    /// Checks that all submitted messages finish, and that all objects can be freed.
    fn end(mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        let handles: Vec<usize> = (0..self.objects.len())
            .filter(|at| self.problem(*at, Kind::Handle).is_none())
            .collect();
        for at in &handles {
            let mut descriptor = -1;
            let answer = mailstow_event_fd(self.pointer::<mailstow>(*at), &raw mut descriptor);
            assert_eq!(answer, MAILSTOW_OK);
            let descriptor = borrow(descriptor).expect("a descriptor");
            while !self.objects[*at].flying.is_empty() {
                assert!(Instant::now() < until, "a submitted message does not end");
                let second = Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                };
                let mut wanted = [PollFd::new(&descriptor, PollFlags::IN)];
                let _ = poll(&mut wanted, Some(&second));
                self.drain(*at, 4, Size::Right);
            }
        }
        for at in 0..self.objects.len() {
            let kind = self.objects[at].kind;
            self.free(at, kind);
        }
        for at in handles {
            self.figures(at, Size::Right);
            self.close(at);
        }
        self.site.put_back();
    }
}

#[cfg(test)]
mod tests;
