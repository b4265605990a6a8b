//! Opens the tables of one parameter.

use mailstow_engine::table::{OpenError, TableCache, TableList, TableSet};

/// Opens the tables of `list`, the value of the parameter `name`. `default` is the type of those
/// that are named without one.
pub(super) fn open(
    cache: &TableCache,
    name: &str,
    list: &str,
    default: &str,
) -> Result<TableSet, OpenError> {
    let list = TableList::parse(list, default)?.for_parameter(name);
    cache.open_all(&list)
}
