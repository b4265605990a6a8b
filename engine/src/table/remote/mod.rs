//! `tcp:`, `socketmap:` and `unix:`: tables that another program answers for.

pub(super) mod aside;
pub(super) mod places;
pub(super) mod pool;
pub(super) mod socketmap;
pub(super) mod stream;
pub(super) mod tcp;
pub(super) mod unix;
