//! The command `mailstow`.

use mailstow_lmtp::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
