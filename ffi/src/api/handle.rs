//! Handles: opened in one of three modes, looked after, closed.

use super::{run, run_explained};
use crate::boundary::{
    insert, mailstow, mailstow_config, mailstow_error, mailstow_statistics, take,
};
use crate::config::Config;
use crate::handle::Handle;
use crate::metrics;
use crate::mode::Mode;
use crate::result::mailstow_result;
use std::ffi::c_char;

/// Opens the library in one of its modes.
///
/// MAILSTOW_MODE_LOGGED opens the delivery log in state_directory (without that setting
/// /var/lib/mailstow for root, for others $XDG_STATE_HOME/mailstow or ~/.local/state/mailstow),
/// recovers what an earlier process left in it, and fails if another process has it.
/// MAILSTOW_MODE_DIRECT opens only the mailboxes. MAILSTOW_MODE_CLIENT opens nothing but tables: it
/// connects when there is mail, to the first UNIX-domain socket of lmtp.listen, and looks
/// recipients up in the socketmap of socketmap.listen, or in the tables of its configuration. A
/// server that is away is tried for lmtp.connect_timeout, 20 s; then recipients are answered 451
/// 4.4.1.
///
/// Drop privileges before: mail is written as its owner, which takes root, unless all mailboxes
/// belong to the user that runs the program. For others than root lmtp.listen has no default:
/// MAILSTOW_MODE_CLIENT needs it then.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_open(
    config: *mut mailstow_config,
    mode: u32,
    handle: *mut *mut mailstow,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let out = call.out(handle)?;
        let mode = Mode::new(mode)?;
        let opened = Handle::open(&*call.exclusive::<Config>(config)?, mode)?;
        out.set(insert(opened));
        Ok(())
    })
}

/// Takes the routing parameters of a configuration into use, and reads changed tables at once.
///
/// Changed tables are also read by themselves within two seconds. What was opened stays open:
/// mailboxes, delivery log, socket. When the answer is not MAILSTOW_OK, the old settings stay in
/// force.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_reload(
    handle: *mut mailstow,
    config: *mut mailstow_config,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let handle = call.shared::<Handle>(handle)?;
        let config = call.exclusive::<Config>(config)?;
        handle.reload(&config)
    })
}

/// Says in which mode a handle was opened.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_mode(handle: *const mailstow, mode: *mut u32) -> mailstow_result {
    run(|call| {
        let out = call.out(mode)?;
        out.set(call.shared::<Handle>(handle)?.mode().number());
        Ok(())
    })
}

/// Makes every mailbox durable and frees the delivery log, which otherwise happens from time to
/// time. For MAILSTOW_MODE_LOGGED alone.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_checkpoint(
    handle: *mut mailstow,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| call.shared::<Handle>(handle)?.checkpoint())
}

/// Says what a handle has done and what it is doing.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_statistics_get(
    handle: *const mailstow,
    statistics: *mut mailstow_statistics,
) -> mailstow_result {
    run(|call| {
        let out = call.sized_out(statistics)?;
        out.set(call.shared::<Handle>(handle)?.statistics());
        Ok(())
    })
}

/// Copies the figures of mailstow_statistics_get(3) to a buffer, as OpenMetrics text.
///
/// The text ends with a NUL. `length`, which may be NULL, gets its length without the NUL, also
/// when the answer is MAILSTOW_TOO_SMALL; 4096 bytes are enough.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_metrics(
    handle: *const mailstow,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
) -> mailstow_result {
    run(|call| {
        let figures = call.shared::<Handle>(handle)?.statistics();
        call.copy(metrics::text(&figures).as_bytes(), buffer, size, length)
    })
}

/// Finishes what was submitted, ends the threads of the handle, and frees it.
///
/// It may wait as long as deliveries take. Completions that were not drained are freed, which
/// leaves their messages in doubt. MAILSTOW_IN_USE says that another call is using the handle; it
/// stays open then. A child process gets MAILSTOW_FORKED, and nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_close(handle: *mut mailstow) -> mailstow_result {
    run(|_| {
        take::<Handle>(handle)?.close();
        Ok(())
    })
}
