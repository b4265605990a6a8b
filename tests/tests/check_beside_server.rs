//! `mailstow check` as an operator runs it before a reload: with the server running, and without
//! the flags that the server was started with.

use std::process::Output;

use mailstow_tests::{Mailstow, mailstow};

fn check(arguments: &[String]) -> (Output, String) {
    let mut all = vec!["check"];
    all.extend(arguments.iter().map(String::as_str));
    let output = mailstow::run(&all);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

#[test]
fn a_check_takes_over_what_the_running_server_was_started_with() {
    let server = Mailstow::example("check-beside").start();
    let socket = server.unix().spelled();
    server.scratch().write(
        "conf/master.cf",
        "lmtp unix - - n - - lmtp\nvirtual unix - n n - - virtual\n",
    );
    let main_cf = server.scratch().join("conf/main.cf");
    let mut text = std::fs::read_to_string(&main_cf).expect("main.cf");
    text += &format!("virtual_transport = lmtp:{socket}\n");
    std::fs::write(&main_cf, text).expect("main.cf");
    let directory = server.scratch().join("conf").display().to_string();

    let (output, said) = check(&["--postfix".to_owned(), directory.clone()]);
    assert!(output.status.success(), "{said}");
    for expected in [
        "was started with".to_owned(),
        format!("--listen {socket}"),
        "--state-directory".to_owned(),
        format!("listen {socket}: not tried"),
        "lmtp_line_length_limit = 998".to_owned(),
        "everything is in order".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected}: {said}");
    }
    // A mistake that a reload would stumble over is an error all the same.
    let mut text = std::fs::read_to_string(&main_cf).expect("main.cf");
    text += "virtual_mailbox_maps = texthash:@DIR@/missing\nlmtp_line_length_limit = 0\n";
    std::fs::write(&main_cf, text).expect("main.cf");
    let (output, said) = check(&["--postfix".to_owned(), directory]);
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("in use by the server"), "{said}");
    assert!(!said.contains("lmtp_line_length_limit"), "{said}");
}

#[test]
fn the_state_directory_of_another_site_is_still_an_error() {
    let server = Mailstow::example("check-other").start();
    let other = Mailstow::example("check-another");
    let mut arguments = other.configuration();
    let state = server.scratch().join("state").display().to_string();
    let socket = other
        .scratch()
        .mkdir("run")
        .join("other")
        .display()
        .to_string();
    arguments.extend(["--state-directory".into(), state]);
    arguments.extend(["--listen".into(), socket]);
    let (output, said) = check(&arguments);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("is in use by the server"), "{said}");
}
