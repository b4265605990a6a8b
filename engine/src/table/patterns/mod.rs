//! `regexp:` and `pcre:`: tables of patterns.

pub(super) mod effort;
pub(super) mod perl;
pub(super) mod pieces;
pub(super) mod posix;
pub(super) mod posix_size;
pub(super) mod replacement;
pub(super) mod rule_parser;
pub(super) mod rule_table;
pub(super) mod rules;
