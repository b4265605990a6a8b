//! Deliveries: blocking, or submitted and drained.

use super::{free, look, run};
use crate::boundary::{
    CompletionCallback, Userdata, insert, mailstow, mailstow_completion, mailstow_message,
    mailstow_outcome, mailstow_results, take,
};
use crate::handle::Handle;
use crate::message::Message;
use crate::result::{MAILSTOW_NOT_FOUND, mailstow_result};
use crate::results::Results;
use std::ffi::c_void;

/// Takes the results of a finished message, with its token. Any thread of the library may call it,
/// and it must return quickly. It may call the library only to read, confirm and free the results,
/// and must not unwind.
pub type mailstow_completion_callback =
    Option<extern "C" fn(userdata: *mut c_void, token: u64, results: *mut mailstow_results)>;

/// Delivers a message and waits for its outcomes.
///
/// MAILSTOW_OK means only that there are results with an outcome for each recipient; the message is
/// freed then. With any other result the message is unchanged; after MAILSTOW_BUSY, try again.
/// MAILSTOW_INVALID means that no recipient was accepted, that the message belongs to another
/// handle, or that content in the form MAILSTOW_CONTENT_WIRE is incomplete because its sender
/// disconnected. Confirm the results when the replies have been passed on, then free them.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_deliver(
    handle: *mut mailstow,
    message: *mut mailstow_message,
    results: *mut *mut mailstow_results,
) -> mailstow_result {
    run(|call| {
        let out = call.out(results)?;
        let handle = call.shared::<Handle>(handle)?;
        let permit = handle.admit(&*call.exclusive::<Message>(message)?)?;
        let message = take::<Message>(message)?;
        out.set(insert(handle.deliver(message, permit)));
        Ok(())
    })
}

/// Submits a message for delivery and returns at once.
///
/// When every recipient has its outcome, mailstow_drain(3) returns the results with `token`, or the
/// function of mailstow_on_completion(3) gets them, perhaps before this call returns. The message
/// is freed when the result is MAILSTOW_OK, and unchanged otherwise. MAILSTOW_INVALID has the same
/// causes as in mailstow_deliver(3). MAILSTOW_BUSY means that the results of
/// limits.queued_deliveries recipients are in progress or not freed yet.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_submit(
    handle: *mut mailstow,
    message: *mut mailstow_message,
    token: u64,
) -> mailstow_result {
    run(|call| {
        let handle = call.shared::<Handle>(handle)?;
        let permit = handle.admit(&*call.exclusive::<Message>(message)?)?;
        // Steps that can fail come before the message is taken.
        handle.start_threads()?;
        let message = take::<Message>(message)?;
        handle.submit(message, permit, token);
        Ok(())
    })
}

/// Returns the eventfd that is readable while finished messages wait to be drained.
///
/// Poll it with any event loop, level-triggered; do not read it. The library owns it and closes it
/// with the handle.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_event_fd(handle: *const mailstow, fd: *mut i32) -> mailstow_result {
    run(|call| {
        let out = call.out(fd)?;
        let handle = call.shared::<Handle>(handle)?;
        out.set(handle.completions().descriptor());
        Ok(())
    })
}

/// Takes up to `capacity` finished messages; never waits.
///
/// `count` gets their number. Free the results of each. struct_size of the first element of the
/// array is the size of the elements.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_drain(
    handle: *mut mailstow,
    completions: *mut mailstow_completion,
    capacity: usize,
    count: *mut usize,
) -> mailstow_result {
    run(|call| {
        let out = call.out(count)?;
        let handle = call.shared::<Handle>(handle)?;
        if capacity == 0 {
            out.set(0);
            return Ok(());
        }
        let places = call.sized_array(completions, capacity)?;
        let drained = handle.completions().drain(places.len());
        out.set(drained.len());
        for (at, (token, results)) in drained.into_iter().enumerate() {
            let completion = mailstow_completion {
                struct_size: 0,
                reserved: 0,
                token,
                results: insert(results),
            };
            places.set(at, completion);
        }
        Ok(())
    })
}

/// Sends finished messages to a function from now on, instead of to mailstow_drain(3).
///
/// NULL restores mailstow_drain(3). Messages that finished before remain to be drained. A replaced
/// function may still be running on another thread.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_on_completion(
    handle: *mut mailstow,
    callback: mailstow_completion_callback,
    userdata: *mut c_void,
) -> mailstow_result {
    run(|call| {
        let userdata = Userdata(userdata);
        let function = callback.map(|function| CompletionCallback { function, userdata });
        call.shared::<Handle>(handle)?.set_function(function);
        Ok(())
    })
}

/// Returns how many recipients have outcomes; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_count(results: *const mailstow_results) -> usize {
    look(0, |call| Ok(call.shared::<Results>(results)?.count()))
}

/// Returns the outcome of one recipient. Its texts live as long as the results.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_outcome(
    results: *const mailstow_results,
    index: usize,
    outcome: *mut mailstow_outcome,
) -> mailstow_result {
    run(|call| {
        let out = call.sized_out(outcome)?;
        let results = call.shared::<Results>(results)?;
        out.set(results.outcome(index).ok_or(MAILSTOW_NOT_FOUND)?);
        Ok(())
    })
}

/// Returns one exit status for all recipients (sysexits.h): 0 when all are durable, EX_TEMPFAIL
/// when one is to be tried again or is in doubt, otherwise that of the first refused one. 70
/// (EX_SOFTWARE) when there are no results.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_exit_status(results: *const mailstow_results) -> i32 {
    look(70, |call| {
        Ok(call.shared::<Results>(results)?.exit_status())
    })
}

/// Confirms that the replies were passed on: the sender of the message knows its outcome.
///
/// After that an equal message is a new message. Without confirmation, stored deliveries are in
/// doubt, and an equal message is answered with success and not stored twice. MAILSTOW_MODE_DIRECT
/// has no delivery log that remembers deliveries in doubt: there this call has no effect, and a
/// repeated message is stored again. The results must still be freed.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_confirm(results: *mut mailstow_results) -> mailstow_result {
    run(|call| {
        call.shared::<Results>(results)?.confirm();
        Ok(())
    })
}

/// Frees results; if they were not confirmed, stored deliveries are in doubt (mailstow_confirm(3)).
/// Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_free(results: *mut mailstow_results) {
    free::<Results>(results);
}
