//! Who is this recipient?

use super::{free, look, run};
use crate::boundary::{insert, mailstow, mailstow_reply, mailstow_resolution, mailstow_route};
use crate::handle::Handle;
use crate::outcome::reply as reply_of;
use crate::resolution::Resolution;
use crate::result::{MAILSTOW_NOT_FOUND, mailstow_result};
use std::ffi::c_char;

/// Says what RCPT would be answered for an address and a message of `size` bytes.
///
/// Nothing is written, and no mailbox is opened. `size` is what the client announced with SIZE; 0
/// when it did not. The reply is 250 for what is not ours to judge: domains of the default class
/// are for another server. mailstow_message_add_recipient(3) takes fewer: in the modes that store
/// mail themselves it refuses every recipient without a mailbox here, also one for another server,
/// and an alias that lmtp.expand_aliases does not expand. The answer is MAILSTOW_OK whatever the
/// reply.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_check_recipient(
    handle: *const mailstow,
    address: *const c_char,
    length: usize,
    size: u64,
    reply: *mut mailstow_reply,
) -> mailstow_result {
    run(|call| {
        let out = call.sized_out(reply)?;
        let address = call.text(address, length)?;
        let status = call.shared::<Handle>(handle)?.check(address, size)?;
        out.set(reply_of(&status));
        Ok(())
    })
}

/// Says what becomes of mail for an address: every final recipient, and the reply.
///
/// Aliases are expanded and transports chosen as Postfix does it. The answer is MAILSTOW_OK
/// whatever the reply; free the resolution with mailstow_resolution_free(3).
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_resolve(
    handle: *const mailstow,
    address: *const c_char,
    length: usize,
    resolution: *mut *mut mailstow_resolution,
) -> mailstow_result {
    run(|call| {
        let out = call.out(resolution)?;
        let address = call.text(address, length)?;
        let (found, bounds) = call.shared::<Handle>(handle)?.resolve(address)?;
        out.set(insert(Resolution::new(found, &bounds.base)));
        Ok(())
    })
}

/// Returns how many final recipients there are; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_resolution_count(resolution: *const mailstow_resolution) -> usize {
    look(0, |call| Ok(call.shared::<Resolution>(resolution)?.count()))
}

/// Describes one final recipient. Its texts live as long as the resolution.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_resolution_route(
    resolution: *const mailstow_resolution,
    index: usize,
    route: *mut mailstow_route,
) -> mailstow_result {
    run(|call| {
        let out = call.sized_out(route)?;
        let resolution = call.shared::<Resolution>(resolution)?;
        out.set(resolution.route(index).ok_or(MAILSTOW_NOT_FOUND)?);
        Ok(())
    })
}

/// Says what a client would be told: 250, or why the mail is refused or kept for later.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_resolution_reply(
    resolution: *const mailstow_resolution,
    reply: *mut mailstow_reply,
) -> mailstow_result {
    run(|call| {
        let out = call.sized_out(reply)?;
        let resolution = call.shared::<Resolution>(resolution)?;
        out.set(reply_of(resolution.status()));
        Ok(())
    })
}

/// Frees a resolution. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_resolution_free(resolution: *mut mailstow_resolution) {
    free::<Resolution>(resolution);
}
