//! Recipient maps, without a handle.

use super::{free, run, run_explained};
use crate::boundary::{
    insert, mailstow_error, mailstow_map, mailstow_map_builder, mailstow_map_edit, take,
};
use crate::map::{Builder, Map, edit, edit_of};
use crate::result::mailstow_result;
use std::ffi::c_char;

/// Opens a recipient map that `mailstow map build` or mailstow_map_builder_new(3) made.
///
/// A new map in its place, and changed keys, take effect within a second. A child process must open
/// the map again.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_open(
    path: *const c_char,
    map: *mut *mut mailstow_map,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let out = call.out(map)?;
        out.set(insert(Map::open(call.string(path)?)?));
        Ok(())
    })
}

/// Copies the value of a key in a table of the map to a buffer.
///
/// `table` is the name of a parameter, as "virtual_mailbox_maps". Letters of the key are folded to
/// lower case; no other key is searched for. MAILSTOW_NOT_FOUND means that the table has no such
/// key, MAILSTOW_MAP that the map is damaged and the value is unknown. The text ends with a NUL;
/// `length`, which may be NULL, gets its length without the NUL, also when the result is
/// MAILSTOW_TOO_SMALL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_lookup(
    map: *const mailstow_map,
    table: *const c_char,
    key: *const c_char,
    key_length: usize,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
) -> mailstow_result {
    run(|call| {
        let (table, key) = (call.string(table)?, call.text(key, key_length)?);
        let map = call.shared::<Map>(map)?;
        map.look_up(table, key, |value| call.copy(value, buffer, size, length))
    })
}

/// Closes a map. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_close(map: *mut mailstow_map) {
    free::<Map>(map);
}

/// Changes keys of a map durably: all of them or none.
///
/// Elements whose value is NULL are removed. Letters of keys are folded to lower case. Any number
/// of programs may do this at the same time, also while the map is in use.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_change(
    path: *const c_char,
    edits: *const mailstow_map_edit,
    count: usize,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let path = call.string(path)?;
        let mut changes = Vec::new();
        for element in call.sized_elements(edits, count)? {
            let table = call.string(element.table)?;
            let key = call.text(element.key, element.key_length)?;
            let value = call.optional_text(element.value, element.value_length)?;
            changes.push(edit_of(table, key, value));
        }
        edit(path, &changes)
    })
}

/// Begins to build a recipient map, which will replace the one at `path`, if any.
///
/// Waits while another builder for the same map exists, in any process or thread: finish or free it
/// before you begin another in the same thread.
///
/// `changes` decides about keys that were changed in the old map since it was built:
/// MAILSTOW_CHANGES_REFUSE, MAILSTOW_CHANGES_KEEP or MAILSTOW_CHANGES_DISCARD.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_builder_new(
    path: *const c_char,
    changes: u32,
    builder: *mut *mut mailstow_map_builder,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let out = call.out(builder)?;
        out.set(insert(Builder::new(call.string(path)?, changes)?));
        Ok(())
    })
}

/// Adds a key to a table of the map.
///
/// `table` is the name of a parameter, as "virtual_mailbox_maps". Letters of the key are folded to
/// lower case. Of equal keys in a table the first counts.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_builder_add(
    builder: *mut mailstow_map_builder,
    table: *const c_char,
    key: *const c_char,
    key_length: usize,
    value: *const c_char,
    value_length: usize,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let table = call.string(table)?;
        let key = call.text(key, key_length)?;
        let value = call.text(value, value_length)?;
        call.exclusive::<Builder>(builder)?.add(table, key, value)
    })
}

/// Installs the map durably, and frees the builder.
///
/// `keys`, which may be NULL, gets the number of its keys. The builder is freed in any case; when
/// the result is not MAILSTOW_OK, the old map stays.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_builder_finish(
    builder: *mut mailstow_map_builder,
    keys: *mut u64,
    error: *mut *mut mailstow_error,
) -> mailstow_result {
    run_explained(error, |call| {
        let count = take::<Builder>(builder)?.finish()?;
        if let Some(out) = call.optional_out(keys) {
            out.set(count);
        }
        Ok(())
    })
}

/// Discards a map that is being built; the old map stays. Does nothing for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mailstow_map_builder_free(builder: *mut mailstow_map_builder) {
    free::<Builder>(builder);
}
