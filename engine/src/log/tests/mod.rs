//! Tests of the log as a whole.
//!
//! Goal: what is reported durable is read back, in order, whatever the disk does.

mod beside;
mod crash;
mod damage;
mod full_disk;
mod golden;
mod odd_fields;
mod records;
mod support;
mod threads;
mod unreadable;
