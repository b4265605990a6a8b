//! The only door to the kernel's files.
