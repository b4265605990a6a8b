//! Writes the header file and the manual pages of the C library.

use mailstow_tests::{c_interface, c_manual};
use std::fs;

fn main() -> std::io::Result<()> {
    let ffi = c_interface::directory();
    let header = c_interface::header();
    fs::create_dir_all(ffi.join("include"))?;
    fs::write(ffi.join("include/mailstow.h"), &header)?;
    let directory = ffi.join("man3");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    for (name, page) in c_manual::pages(&header) {
        fs::write(directory.join(name), page)?;
    }
    Ok(())
}
