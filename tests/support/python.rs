//! Python's `mailbox` module as a reader and as a second writer.

use std::path::Path;
use std::process::{Command, Stdio};

/// Debian's own interpreter first; others may lack modules.
fn interpreter() -> Command {
    let debian = Path::new("/usr/bin/python3");
    Command::new(if debian.exists() {
        debian
    } else {
        Path::new("python3")
    })
}

const READ: &str = r#"
import mailbox, os, sys
path = sys.argv[1]
box = mailbox.Maildir(path, create=False) if os.path.isdir(path) else mailbox.mbox(path, create=False)
for key in sorted(box.keys()):
    print(box.get_bytes(key).hex())
"#;

/// Every message, in the order of the keys. For an mbox without its `From ` line.
pub fn messages(mailbox: &Path) -> Vec<Vec<u8>> {
    let output = interpreter()
        .args(["-c", READ])
        .arg(mailbox)
        .stderr(Stdio::inherit())
        .output()
        .expect("python3: install the package python3");
    assert!(
        output.status.success(),
        "Python's mailbox module cannot read {}",
        mailbox.display()
    );
    String::from_utf8(output.stdout)
        .expect("hexadecimal digits")
        .lines()
        .map(from_hex)
        .collect()
}

/// A program of the test's own, with arguments.
pub fn program(source: &str, arguments: &[&str]) -> Command {
    let mut command = interpreter();
    command.args(["-c", source]).args(arguments);
    command
}

fn from_hex(line: &str) -> Vec<u8> {
    line.as_bytes()
        .chunks(2)
        .map(|pair| {
            let digits = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
        })
        .collect()
}
