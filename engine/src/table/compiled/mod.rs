//! Compiled tables: indexes of Postfix, and recipient maps.

pub(super) mod index;
pub(super) mod map_table;
pub(super) mod maps;
