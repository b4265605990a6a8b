//! What a database table is described by.

/// Where the parameters of a table are.
#[derive(Clone, Copy)]
pub(in super::super) enum Description<'a> {
    /// In a separate file.
    File { path: &'a str, bytes: &'a [u8] },
    /// In `main.cf`, where their names begin with `prefix`: name, value, line.
    MainCf {
        path: &'a str,
        prefix: &'a str,
        values: &'a [(String, String, usize)],
    },
}
