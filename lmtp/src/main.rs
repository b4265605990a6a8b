//! The command `mailstow`.
fn main() {}
