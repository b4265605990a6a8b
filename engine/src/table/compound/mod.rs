//! Tables made of other tables, and tables that hold one answer or a few.

pub(super) mod compound_table;
pub(super) mod constant;
pub(super) mod random;
pub(super) mod restricted;
pub(super) mod template;
