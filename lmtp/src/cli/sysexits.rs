//! Exit statuses that programs around mail know, as sysexits(3) numbers them.

/// `EX_UNAVAILABLE`: what is asked for is not there, or the system refuses it.
pub(super) const UNAVAILABLE: u8 = 69;
/// `EX_SOFTWARE`: the program failed.
pub(super) const SOFTWARE: u8 = 70;
/// `EX_TEMPFAIL`: try again later. pipe(8) keeps the mail.
pub(super) const TEMPORARY_FAILURE: u8 = 75;
/// `EX_CONFIG`: the configuration cannot be used.
pub(super) const CONFIGURATION: u8 = 78;
