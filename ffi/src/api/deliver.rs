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

/// Takes the results of a message that has finished, with its token. It is called on any thread
/// of the library, and must be quick; it must not call the library but to read, confirm and free
/// the results, and must not unwind.
pub type mailstow_completion_callback =
    Option<extern "C" fn(userdata: *mut c_void, token: u64, results: *mut mailstow_results)>;

/// Delivers a message and waits for what becomes of it.
///
/// The message is freed when the answer is MAILSTOW_OK, which says only that there are results:
/// each recipient has its outcome. With any other answer the message is as before, and
/// MAILSTOW_BUSY says to try again. MAILSTOW_INVALID says that no recipient was accepted, that the
/// message is another handle's, or that content in the form of MAILSTOW_CONTENT_WIRE has not come
/// to its end: its sender hung up. The results are to be confirmed when the replies have been
/// passed on, and then freed.
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

/// Hands a message over for delivery and returns at once.
///
/// When every recipient has its outcome, the results come with `token`: out of
/// mailstow_drain(3), or to the function of mailstow_on_completion(3), perhaps before this
/// returns. The message is freed when the answer is MAILSTOW_OK; with any other it is as before.
/// MAILSTOW_INVALID is that of mailstow_deliver(3). MAILSTOW_BUSY says that
/// limits.queued_deliveries recipients have results that were not freed: nothing grows without
/// bound.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_submit(
    handle: *mut mailstow,
    message: *mut mailstow_message,
    token: u64,
) -> mailstow_result {
    run(|call| {
        let handle = call.shared::<Handle>(handle)?;
        let permit = handle.admit(&*call.exclusive::<Message>(message)?)?;
        // What can fail comes before the message is taken.
        handle.start_threads()?;
        let message = take::<Message>(message)?;
        handle.submit(message, permit, token);
        Ok(())
    })
}

/// Gives the eventfd that is readable while finished messages wait to be drained.
///
/// Poll it with any event loop, level-triggered; do not read it. It stays the library's, and is
/// closed with the handle.
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
/// `count` gets how many. Each has results to be freed. The first element of the array says in
/// struct_size how large the elements are.
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
/// NULL ends that. What finished before stays to be drained. A function that was replaced may
/// still be running on another thread.
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

/// Says what became of one recipient. Its texts live as long as the results.
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
/// when one is to be tried again or is in doubt, else that of the first that was refused. 70
/// (EX_SOFTWARE) when there are no results.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_exit_status(results: *const mailstow_results) -> i32 {
    look(70, |call| {
        Ok(call.shared::<Results>(results)?.exit_status())
    })
}

/// Says that the replies were passed on: the sender of the message knows what became of it.
///
/// Then the same message sent again is another message. Without this, what was stored is in doubt,
/// and the same message is answered with success and not stored twice. MAILSTOW_MODE_DIRECT has no
/// delivery log that remembers what is in doubt: there this changes nothing, and a message that is
/// sent again is stored again. The results are still to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_confirm(results: *mut mailstow_results) -> mailstow_result {
    run(|call| {
        call.shared::<Results>(results)?.confirm();
        Ok(())
    })
}

/// Frees results; if they were not confirmed, what was stored is in doubt
/// (mailstow_confirm(3)). Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_results_free(results: *mut mailstow_results) {
    free::<Results>(results);
}
