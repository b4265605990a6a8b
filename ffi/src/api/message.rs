//! Messages: an envelope, then content.

use super::{free, run};
use crate::boundary::{
    borrow, insert, mailstow, mailstow_message, mailstow_recipient, mailstow_reply,
};
use crate::dots::Dots;
use crate::handle::Handle;
use crate::message::Message;
use crate::outcome::reply as reply_of;
use crate::result::{MAILSTOW_INVALID, MAILSTOW_REFUSED, mailstow_result};
use mailstow_engine::octets;
use std::ffi::{c_char, c_void};
use std::time::Duration;

/// The content is stored as it is; its lines end with LF or CRLF.
pub const MAILSTOW_CONTENT_PLAIN: u32 = 0;
/// The content has the form that follows DATA on the wire: lines end with CRLF, dots are stuffed,
/// and CRLF "." CRLF ends it. Content without that end is incomplete, and is not delivered.
pub const MAILSTOW_CONTENT_WIRE: u32 = 1;
/// Dots are stuffed and a line with a single dot ends the content, but lines end with LF. The
/// content may end without that line.
pub const MAILSTOW_CONTENT_DOTS: u32 = 2;

/// Begins a message.
///
/// It uses the tables as they are now, even if they change before it is delivered. MAILSTOW_BUSY
/// means that too many messages were begun and not delivered or freed.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_new(
    handle: *mut mailstow,
    message: *mut *mut mailstow_message,
) -> mailstow_result {
    run(|call| {
        let out = call.out(message)?;
        let new = call.shared::<Handle>(handle)?.new_message()?;
        out.set(insert(new));
        Ok(())
    })
}

/// Sets the sender of the envelope, which becomes Return-Path.
///
/// An empty text, "<>" and MAILER-DAEMON are the null reverse-path, which is also the default.
/// MAILSTOW_INVALID means that the sender is longer than 4096 bytes, that it contains CR, LF or
/// NUL, or in MAILSTOW_MODE_CLIENT that its domain contains a blank, a control character, < or >,
/// which LMTP cannot carry. Any other text is accepted, as Postfix does.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_set_sender(
    message: *mut mailstow_message,
    sender: *const c_char,
    length: usize,
) -> mailstow_result {
    run(|call| {
        let sender = call.text(sender, length)?;
        let mut message = call.exclusive::<Message>(message)?;
        message.set_sender(sender).map_err(|_| MAILSTOW_INVALID)?;
        Ok(())
    })
}

/// Sets the retry key of the message: its id in the queue of the caller.
///
/// The delivery log stores it, and it appears in the log of the server. Set the same key when the
/// same message is delivered again. Until the results of a message with a key are confirmed or
/// freed, another delivery of it to the same recipient is not made, but in doubt, with 451 4.4.2.
/// In MAILSTOW_MODE_CLIENT the server is asked again for it until the deadline. Without keys, equal
/// messages that are delivered at once are all stored.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_set_retry_key(
    message: *mut mailstow_message,
    key: *const c_char,
    length: usize,
) -> mailstow_result {
    run(|call| {
        let key = octets::text(call.text(key, length)?).into_owned();
        if key.len() > RETRY_KEY_BYTES_MAX || key.contains(char::is_control) {
            return Err(MAILSTOW_INVALID.into());
        }
        let mut message = call.exclusive::<Message>(message)?;
        message.envelope.retry_key = (!key.is_empty()).then_some(key);
        Ok(())
    })
}

/// Longest retry key, in bytes: the limit of XFORWARD.
const RETRY_KEY_BYTES_MAX: usize = 255;

/// Sets the form of the content: MAILSTOW_CONTENT_PLAIN, the default, MAILSTOW_CONTENT_WIRE or
/// MAILSTOW_CONTENT_DOTS. Call it before the first bytes of the content.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_set_form(
    message: *mut mailstow_message,
    form: u32,
) -> mailstow_result {
    run(|call| {
        let dots = match form {
            MAILSTOW_CONTENT_PLAIN => None,
            MAILSTOW_CONTENT_WIRE => Some(Dots::new(true)),
            MAILSTOW_CONTENT_DOTS => Some(Dots::new(false)),
            _ => return Err(MAILSTOW_INVALID.into()),
        };
        call.exclusive::<Message>(message)?.content.set_dots(dots)
    })
}

/// Adds a recipient, if it is accepted.
///
/// MAILSTOW_REFUSED means that it was not accepted and not added; `reply`, which may be NULL, gets
/// the reply for the client. An address that contains CR, LF or NUL is refused, and in
/// MAILSTOW_MODE_CLIENT one whose domain contains characters that LMTP cannot carry
/// (mailstow_message_set_sender(3)). The accepted recipients have their outcomes in the order in
/// which they were added. The envelopes of all messages together use at most limits.envelope_bytes
/// of memory; further recipients are refused with 452 4.3.1.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_add_recipient(
    message: *mut mailstow_message,
    recipient: *const mailstow_recipient,
    reply: *mut mailstow_reply,
) -> mailstow_result {
    run(|call| {
        let out = match reply.is_null() {
            true => None,
            false => Some(call.sized_out(reply)?),
        };
        let recipient = call.sized(recipient)?;
        let address = call.text(recipient.address, recipient.address_length)?;
        let original = call.optional_text(recipient.original, recipient.original_length)?;
        let deadline = Duration::from_millis(recipient.deadline_ms.into());
        let mut message = call.exclusive::<Message>(message)?;
        let Err(status) = message.add(address, original, deadline) else {
            if let Some(out) = out {
                out.set(reply_of(&accepted()));
            }
            return Ok(());
        };
        if let Some(out) = out {
            out.set(reply_of(&status));
        }
        Err(MAILSTOW_REFUSED.into())
    })
}

fn accepted() -> mailstow_engine::Status {
    mailstow_engine::Status::new(250, mailstow_engine::EnhancedCode::new(2, 1, 5), "Ok")
}

/// Takes the next bytes of the content.
///
/// `taken`, which may be NULL, gets how many of them were taken: all, unless a line with a single
/// dot ended the content; then the result is MAILSTOW_END, and the rest is the sender's next
/// command. MAILSTOW_REFUSED means that the content cannot be delivered, because it is too large or
/// cannot be stored: more may be written, and the outcome of the delivery has the reason. Content
/// that does not fit into memory is kept in an unnamed file.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_write(
    message: *mut mailstow_message,
    data: *const c_void,
    length: usize,
    taken: *mut usize,
) -> mailstow_result {
    run(|call| {
        let data = call.bytes(data, length)?;
        let (count, answer) = call.exclusive::<Message>(message)?.content.write(data);
        if let Some(out) = call.optional_out(taken) {
            out.set(count);
        }
        answer
    })
}

/// Takes the next bytes of the content from several buffers, as writev(2) does.
///
/// `taken` and the result are those of mailstow_message_write(3). At most 1024 buffers.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_writev(
    message: *mut mailstow_message,
    iov: *const libc::iovec,
    count: usize,
    taken: *mut usize,
) -> mailstow_result {
    run(|call| {
        let pieces = call.pieces(iov, count)?;
        let mut message = call.exclusive::<Message>(message)?;
        let mut all = 0;
        let mut answer = Ok(());
        for piece in pieces {
            let (count, written) = message.content.write(piece);
            all += count;
            answer = written;
            if count < piece.len() {
                break;
            }
        }
        if let Some(out) = call.optional_out(taken) {
            out.set(all);
        }
        answer
    })
}

/// Takes the content from a file descriptor, up to the end of the file or stream.
///
/// The caller keeps the descriptor. The result is that of mailstow_message_write(3). With
/// MAILSTOW_END, the bytes after the line with a single dot were not taken, and can be read from
/// the descriptor next; pipes are slow in these forms, because they are read a few bytes at a time.
/// The call waits for the content also if the descriptor is non-blocking (O_NONBLOCK): programs
/// with an event loop should read it themselves. MAILSTOW_SYSTEM means that the descriptor cannot
/// be read; the message is then refused with 451 4.3.0.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_read_fd(
    message: *mut mailstow_message,
    fd: i32,
) -> mailstow_result {
    run(|call| {
        let descriptor = borrow(fd).ok_or(MAILSTOW_INVALID)?;
        call.exclusive::<Message>(message)?.content.read(descriptor)
    })
}

/// Frees a message that was not delivered; none of it is stored. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_message_free(message: *mut mailstow_message) {
    free::<Message>(message);
}
