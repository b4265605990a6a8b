//! A changed lookup table is taken up whole, by itself and on SIGHUP; a broken one is not.

use std::time::{Duration, Instant};

use mailstow_tests::Mailstow;
use mailstow_tests::mailstow::Builder;
use nix::sys::signal::Signal;

/// A changed file is picked up within 2 s; the rest is allowance for a busy machine.
const PICK_UP_LIMIT: Duration = Duration::from_secs(30);
/// Longer than a change takes to be picked up.
const LONG_ENOUGH: Duration = Duration::from_secs(3);

const VMAILBOX: &str = "old@example.com example.com/old/\n";

fn store(name: &str) -> Builder {
    Mailstow::example(name).table("vmailbox", VMAILBOX)
}

fn change(server: &Mailstow, content: &str) {
    server.scratch().write("conf/vmailbox", content);
}

#[test]
fn a_changed_table_is_used_by_itself() {
    let server = store("changed").start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code("old@example.com"), 250);
    assert_eq!(client.rcpt_code("new@example.com"), 550);
    change(&server, "new@example.com example.com/new/\n");
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
    assert_eq!(
        client.rcpt_code("old@example.com"),
        550,
        "the old entry is gone"
    );
}

#[test]
fn a_table_replaced_by_rename_is_used_as_well() {
    let server = store("renamed").start();
    let fresh = server
        .scratch()
        .write("conf/vmailbox.new", "new@example.com example.com/new/\n");
    std::fs::rename(fresh, server.scratch().join("conf/vmailbox")).expect("rename");
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
}

#[test]
fn sighup_takes_up_a_changed_table_without_dropping_a_session() {
    let server = store("sighup").start();
    let mut open = server.client();
    assert_eq!(open.rcpt_code("old@example.com"), 250);
    change(&server, "new@example.com example.com/new/\n");
    server.daemon.signal(Signal::SIGHUP);
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
    assert_eq!(open.command("NOOP").code, 250, "the session lives on");
    assert_eq!(
        open.command("DATA").code,
        354,
        "with the recipient it was given"
    );
    open.send(b"Subject: x\r\n\r\ntext\r\n.\r\n")
        .expect("the server reads");
    assert_eq!(open.reply().code, 250);
}

#[test]
fn a_transaction_sees_one_state_of_the_tables() {
    let server = store("snapshot").start();
    let mut early = server.client();
    assert_eq!(early.rcpt_code("old@example.com"), 250);
    change(&server, "new@example.com example.com/new/\n");
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
    let mut ask = |recipient: &str| early.command(format!("RCPT TO:<{recipient}>")).code;
    // Deferred where the change was seen while the table seemed to be written.
    assert_ne!(
        ask("new@example.com"),
        250,
        "not known when the transaction began"
    );
    assert_eq!(
        ask("old+again@example.com"),
        250,
        "known when the transaction began"
    );
}

/// The old contents stay in use for longer than a change would need.
fn old_contents_stay(server: &Mailstow) {
    let until = Instant::now() + LONG_ENOUGH;
    let mut client = server.client();
    while Instant::now() < until {
        assert_eq!(client.rcpt_code("old@example.com"), 250);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_deleted_table_keeps_its_old_contents_and_is_reported() {
    let server = store("deleted").start();
    let before = server.log().len();
    std::fs::remove_file(server.scratch().join("conf/vmailbox")).expect("unlink");
    server.log_line_after(before, "vmailbox");
    old_contents_stay(&server);
    change(&server, "new@example.com example.com/new/\n");
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
}

#[test]
fn a_table_that_is_not_a_file_any_more_keeps_its_old_contents_and_is_reported() {
    let server = store("directory").start();
    let before = server.log().len();
    let path = server.scratch().join("conf/vmailbox");
    std::fs::remove_file(&path).expect("unlink");
    std::fs::create_dir(&path).expect("mkdir");
    server.log_line_after(before, "vmailbox");
    old_contents_stay(&server);
}

#[test]
fn a_pattern_table_that_no_longer_parses_defers_nobody_it_knew_and_is_reported() {
    let server = store("pattern")
        .main_cf("virtual_mailbox_maps = pcre:@DIR@/patterns")
        .table("patterns", "/^old@example\\.com$/ example.com/old/\n")
        .start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code("old@example.com"), 250);
    let broken = "/^old@example\\.com$/ example.com/old/\n/^new(@example\\.com$/ new/\n";
    let before = server.log().len();
    let fresh = server.scratch().write("conf/fresh", broken);
    std::fs::rename(fresh, server.scratch().join("conf/patterns")).expect("rename");
    let line = server.log_line_after(before, "the changed file is not taken");
    assert!(
        line.contains("line 2") || line.contains("patterns:2"),
        "{line}"
    );
    old_contents_stay(&server);
    assert_eq!(client.rcpt_code("new@example.com"), 451);
}

#[test]
fn health_names_a_changed_table_that_is_not_used_until_it_is_corrected() {
    let server = store("named-by-health").start();
    assert_eq!(server.health().1["held_tables"], serde_json::json!([]));
    let before = server.log().len();
    change(
        &server,
        "old@example.com example.com/old/\nnew@example.com\n",
    );
    server.log_line_after(before, "vmailbox");
    let (status, health) = server.health();
    assert_eq!(status, 0, "mail for old@example.com is delivered: {health}");
    let held = health["held_tables"].as_array().expect("a list");
    assert_eq!(held.len(), 1, "{health}");
    let cause = held[0].as_str().expect("text");
    assert!(cause.contains("conf/vmailbox"), "{cause}");
    let text = health["text"].as_str().expect("text");
    assert!(text.contains(cause) && text.contains("451"), "{text}");
    change(&server, "new@example.com example.com/new/\n");
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
    assert_eq!(server.health().1["held_tables"], serde_json::json!([]));
}
