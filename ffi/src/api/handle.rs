//! Handles: opened in one of three modes, maintained, closed.

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
/// recovers the mail that an earlier process left in it, and fails if another process has it.
/// MAILSTOW_MODE_DIRECT opens only the mailboxes. MAILSTOW_MODE_CLIENT opens only tables: it
/// connects when there is mail, to the first UNIX-domain socket of lmtp.listen, and looks
/// recipients up in the socketmap of socketmap.listen, or in the tables of its configuration. An
/// unavailable server is tried for lmtp.connect_timeout, 20 s; then recipients are answered 451
/// 4.4.1.
///
/// Drop privileges before this call. Mail is written as the owner of its mailbox, which requires
/// root unless all mailboxes belong to the user of the program. Only for root has lmtp.listen a
/// default: other users must set it for MAILSTOW_MODE_CLIENT.
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
/// Changed tables are also read automatically within two seconds. Mailboxes, delivery log and
/// socket stay open as they are. When the result is not MAILSTOW_OK, the old settings stay in
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

/// Returns the mode in which a handle was opened.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_mode(handle: *const mailstow, mode: *mut u32) -> mailstow_result {
    run(|call| {
        let out = call.out(mode)?;
        out.set(call.shared::<Handle>(handle)?.mode().number());
        Ok(())
    })
}

/// Makes every mailbox durable and frees the delivery log, which otherwise happens periodically.
/// For MAILSTOW_MODE_LOGGED only.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_checkpoint(
    handle: *mut mailstow,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| call.shared::<Handle>(handle)?.checkpoint())
}

/// Returns the counters of a handle and its current state.
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
/// when the result is MAILSTOW_TOO_SMALL; 4096 bytes are enough.
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

/// Finishes submitted messages, ends the threads of the handle, and frees it.
///
/// It may wait as long as deliveries take. Completions that were not drained are freed, which
/// leaves their messages in doubt. MAILSTOW_IN_USE means that another call is using the handle,
/// which stays open. A child process gets MAILSTOW_FORKED, and nothing is freed.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_close(handle: *mut mailstow) -> mailstow_result {
    run(|_| {
        take::<Handle>(handle)?.close();
        Ok(())
    })
}
