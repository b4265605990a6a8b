//! Looks recipients up.

use super::{free, look, run};
use crate::boundary::{insert, mailstow, mailstow_reply, mailstow_resolution, mailstow_route};
use crate::handle::Handle;
use crate::outcome::reply as reply_of;
use crate::resolution::Resolution;
use crate::result::{MAILSTOW_NOT_FOUND, mailstow_result};
use std::ffi::c_char;

/// Returns the reply to RCPT for an address and a message of `size` bytes.
///
/// Writes nothing, and opens no mailbox. `size` is the size that the client announced with SIZE, or
/// 0. The reply is 250 for domains of the default class, because another server decides about them.
/// mailstow_message_add_recipient(3) accepts fewer recipients: in the modes that store mail
/// themselves it refuses every recipient without a mailbox here, also one for another server, and
/// an alias that lmtp.expand_aliases does not expand. The result is MAILSTOW_OK whatever the reply.
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

/// Resolves an address: returns every final recipient, and the reply.
///
/// Aliases are expanded and transports chosen as Postfix does. The result is MAILSTOW_OK whatever
/// the reply; free the resolution with mailstow_resolution_free(3).
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

/// Returns the number of final recipients; 0 for NULL.
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

/// Returns the reply for a client: 250, or why the mail is refused or deferred.
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
