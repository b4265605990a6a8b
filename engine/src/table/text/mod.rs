//! Tables that are text: lines of keys and values, from a file or from the configuration.

pub(super) mod aliases;
pub(super) mod import;
pub(super) mod inline;
pub(super) mod lines;
pub(super) mod problems;
pub(super) mod text_table;
