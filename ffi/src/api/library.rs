//! Functions of the library as a whole: versions, results, errors, the log.

use super::{ErrorObject, free, look, run};
use crate::boundary::{LogCallback, Userdata, mailstow_error};
use crate::failure::{Failure, Problem};
use crate::log::{self, MAILSTOW_LOG_DEBUG, MAILSTOW_LOG_OFF, Sink};
use crate::result::{MAILSTOW_INVALID, MAILSTOW_NULL, MAILSTOW_OK, find, mailstow_result};
use std::ffi::{CString, c_char, c_void};
use std::ptr;

/// The version of the binary interface (ABI). It changes together with the SONAME.
pub const MAILSTOW_ABI_VERSION: u32 = 1;

/// Takes a line of the log: its level, its text, which ends with a NUL, and its length. Any thread
/// of the library may call it; it must not call the library and must not unwind.
pub type mailstow_log_callback =
    Option<extern "C" fn(userdata: *mut c_void, level: u32, line: *const c_char, length: usize)>;

/// Returns the version of the binary interface of the library that is running.
///
/// A program compares it with MAILSTOW_ABI_VERSION of the header it was built with. The dynamic
/// linker does the same with the SONAME, so only programs that load the library with dlopen(3) need
/// this.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_abi_version() -> u32 {
    MAILSTOW_ABI_VERSION
}

/// Returns the version of the library that is running, for example "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_version() -> *const c_char {
    VERSION.as_ptr()
}

const VERSION: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes(),
) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Returns the name of a result, for example "MAILSTOW_BUSY".
///
/// Returns "MAILSTOW_?" for a number that this version does not know.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_result_name(result: mailstow_result) -> *const c_char {
    find(result)
        .map_or(c"MAILSTOW_?", |(name, _)| name)
        .as_ptr()
}

/// Returns the meaning of a result, in one sentence.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_result_text(result: mailstow_result) -> *const c_char {
    let unknown = c"this version does not know the result";
    find(result).map_or(unknown, |(_, text)| text).as_ptr()
}

/// Sends the lines of the log up to `level` to a function.
///
/// There is one log for all handles of the process; without it nothing is logged, not even to
/// standard error. MAILSTOW_LOG_OFF ends it, and `callback` may be NULL then. Other threads may
/// still pass lines to it for a moment, so the object behind `userdata` must stay valid.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_log_to_callback(
    callback: mailstow_log_callback,
    userdata: *mut c_void,
    level: u32,
) -> mailstow_result {
    run(|_| {
        if level == MAILSTOW_LOG_OFF {
            log::off();
            return Ok(());
        }
        check_level(level)?;
        let function = callback.ok_or(MAILSTOW_NULL)?;
        let userdata = Userdata(userdata);
        log::set(level, Sink::Function(LogCallback { function, userdata }));
        Ok(())
    })
}

/// Sends the lines of the log up to `level` to a file descriptor.
///
/// Each line is one write(2) of 4096 bytes at most. The caller owns the descriptor and keeps it
/// open until the log goes elsewhere. A line is lost when it cannot be written, or when a pipe or
/// socket is full; a pipe without a reader causes no SIGPIPE. MAILSTOW_LOG_OFF ends the log.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_log_to_fd(fd: i32, level: u32) -> mailstow_result {
    run(|_| {
        if level == MAILSTOW_LOG_OFF {
            log::off();
            return Ok(());
        }
        check_level(level)?;
        if fd < 0 {
            return Err(MAILSTOW_INVALID.into());
        }
        log::set(level, Sink::Descriptor(fd));
        Ok(())
    })
}

fn check_level(level: u32) -> Result<(), Failure> {
    match level <= MAILSTOW_LOG_DEBUG {
        true => Ok(()),
        false => Err(MAILSTOW_INVALID.into()),
    }
}

/// Returns the result of the call that returned this error; MAILSTOW_OK for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_result(error: *const mailstow_error) -> mailstow_result {
    look(MAILSTOW_OK, |call| {
        Ok(call.shared::<ErrorObject>(error)?.result)
    })
}

/// Returns the number of problems in an error; 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_count(error: *const mailstow_error) -> usize {
    look(0, |call| {
        Ok(call.shared::<ErrorObject>(error)?.problems.len())
    })
}

/// Returns the description and remedy of a problem, without the file and the line.
///
/// The text lives as long as the error. Returns NULL when `index` is not below
/// mailstow_error_count(3).
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_text(error: *const mailstow_error, index: usize) -> *const c_char {
    of_problem(error, index, ptr::null(), |problem| problem.text.as_ptr())
}

/// Returns the file of a problem; NULL when it is in no file.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_file(error: *const mailstow_error, index: usize) -> *const c_char {
    of_problem(error, index, ptr::null(), |problem| {
        let file: Option<&CString> = problem.file.as_ref();
        file.map_or(ptr::null(), |file| file.as_ptr())
    })
}

/// Returns the line of a problem, counted from 1; 0 when it is in no file.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_line(error: *const mailstow_error, index: usize) -> u32 {
    of_problem(error, index, 0, |problem| problem.line)
}

fn of_problem<T>(
    error: *const mailstow_error,
    index: usize,
    otherwise: T,
    of: impl FnOnce(&Problem) -> T,
) -> T {
    let found = look(None, |call| {
        let error = call.shared::<ErrorObject>(error)?;
        Ok(error.problems.get(index).map(of))
    });
    found.unwrap_or(otherwise)
}

/// Frees an error. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_error_free(error: *mut mailstow_error) {
    free::<ErrorObject>(error);
}
