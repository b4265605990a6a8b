//! Idle connections cost little, and the server delivers beside them: the short form of
//! `tests/idle-connections`.

use std::process::Command;

use mailstow_tests::mailstow;

#[test]
fn idle_connections_cost_little_and_mail_is_delivered_beside_them() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/idle-connections");
    let output = Command::new(script)
        // What an idle server of this profile takes, and 20 KiB for each.
        .args(["--connections", "500", "--mebibytes", "42"])
        .env("MAILSTOW", mailstow::binary())
        .output()
        .expect("bash and python3");
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{complaints}");
    assert!(said.contains("500 idle connections"), "{said}");
}
