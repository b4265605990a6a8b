//! Files that tables and lists are read from, and how their changes get in.

pub(super) mod examine;
pub(super) mod facts;
pub(super) mod file;
pub(super) mod guard;
pub(super) mod published;
pub(super) mod source;
pub(super) mod text_files;
pub(super) mod text_watch;
pub(super) mod watched;
pub(super) mod writers;
