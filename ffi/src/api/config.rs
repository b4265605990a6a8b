//! Settings from Postfix's main.cf, from mailstow.toml and from the program.

use super::{free, run, run_explained};
use crate::boundary::{insert, mailstow_config, mailstow_error};
use crate::check;
use crate::config::Config;
use crate::mode::Mode;
use crate::result::mailstow_result;
use std::ffi::c_char;

/// Creates an empty configuration.
///
/// Without any source, mailstow_open(3) reads /etc/mailstow/mailstow.toml. Later sources win: the
/// built-in defaults, main.cf, mailstow.toml, settings of the program. Files are read when a
/// handle is opened.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_new(config: *mut *mut mailstow_config) -> mailstow_result {
    run(|call| {
        let out = call.out(config)?;
        out.set(insert(Config::default()));
        Ok(())
    })
}

/// Reads main.cf and master.cf in this directory, as Postfix does.
///
/// They are read when a handle is opened, or by mailstow_config_check(3) and
/// mailstow_config_get(3), which report a missing main.cf. The last call counts.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_set_postfix(
    config: *mut mailstow_config,
    directory: *const c_char,
) -> mailstow_result {
    run(|call| {
        let directory = call.string(directory)?;
        call.exclusive::<Config>(config)?.postfix(directory);
        Ok(())
    })
}

/// Reads this mailstow.toml.
///
/// It is read when a handle is opened, or by mailstow_config_check(3) and mailstow_config_get(3),
/// which report a missing file. The last call counts.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_set_file(
    config: *mut mailstow_config,
    path: *const c_char,
) -> mailstow_result {
    run(|call| {
        let path = call.string(path)?;
        call.exclusive::<Config>(config)?.file(path);
        Ok(())
    })
}

/// Sets one setting, which overrides the files.
///
/// `name` is a Postfix parameter, for example "virtual_mailbox_base", or a setting of mailstow.toml
/// with its table, for example "store.writers" or "limits.queued_deliveries"; `mailstow config
/// --defaults` lists all. `value` is the value in the file, without quotes; $name is replaced by
/// the Postfix parameter of that name. Unknown names and invalid values are refused at once.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_set(
    config: *mut mailstow_config,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let (name, value) = (call.string(name)?, call.string(value)?);
        call.exclusive::<Config>(config)?.set(name, value)
    })
}

/// Copies the effective value of a setting to a buffer.
///
/// The text ends with a NUL. `length`, which may be NULL, gets its length without the NUL, also
/// when the result is MAILSTOW_TOO_SMALL. Reads the files. Returns MAILSTOW_NOT_FOUND for a name
/// that is no setting, and for a setting whose value depends on the machine.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_get(
    config: *mut mailstow_config,
    name: *const c_char,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let name = call.string(name)?;
        let value = call.exclusive::<Config>(config)?.get(name)?;
        call.copy(value.as_bytes(), buffer, size, length)
    })
}

/// Reads the configuration and reports all problems in it.
///
/// Finds the problems for which mailstow_open(3) would fail in that mode, and those that would keep
/// every recipient from getting mail: tables that cannot be opened, no virtual_mailbox_base, no
/// usable virtual_uid_maps or virtual_gid_maps, no socket of the server. Opens tables briefly;
/// creates, locks and writes nothing. Only mailstow_open(3) finds out that another process has the
/// delivery log, or that the state directory cannot be created.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_check(
    config: *mut mailstow_config,
    mode: u32,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let mode = Mode::new(mode)?;
        check::check(&*call.exclusive::<Config>(config)?, mode)
    })
}

/// Frees a configuration; handles that were opened with it are not affected. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_config_free(config: *mut mailstow_config) {
    free::<Config>(config);
}
