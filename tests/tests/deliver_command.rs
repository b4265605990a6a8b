//! `mailstow deliver`: the delivery agent for pipe(8) and scripts, one process a mail.
//!
//! pipe(8) takes only exit status 75 (and 71) as "try again"; everything else returns the mail to
//! its sender. So every failure of mailstow must end with 75.

use std::process::Output;
use std::time::Duration;

use mailstow_tests::content::{plain, sized};
use mailstow_tests::mailboxes::{header, list, maildir, mbox};
use mailstow_tests::mailstow::{Builder, command, run_with_input};
use mailstow_tests::site::{Handover, OWNER, Site};
use mailstow_tests::volume::Volume;
use mailstow_tests::{Mailstow, Postfix, eventually};

const NO_USER: Option<i32> = Some(67);
const TEMPORARY: Option<i32> = Some(75);

fn deliver(store: &Builder, recipients: &[&str], content: &[u8]) -> Output {
    deliver_with(&store.configuration(), recipients, content)
}

fn deliver_with(configuration: &[String], recipients: &[&str], content: &[u8]) -> Output {
    let mut arguments = vec!["deliver".to_owned()];
    arguments.extend_from_slice(configuration);
    arguments.extend(["-f".into(), "s@client.example".into(), "--".into()]);
    arguments.extend(recipients.iter().map(|r| (*r).to_owned()));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    run_with_input(command(&arguments), content)
}

/// The enhanced status code the first line of standard error starts with.
fn enhanced(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    first.split(' ').next().unwrap_or_default().to_owned()
}

fn mailbox(store: &Builder, name: &str) -> std::path::PathBuf {
    store.scratch().join("vhosts/example.com").join(name)
}

#[test]
fn a_delivered_mail_is_stored_and_the_exit_status_is_zero() {
    let store = Mailstow::example("deliver");
    let output = deliver(
        &store,
        &["info@example.com", "sales@example.com"],
        b"Subject: x\n\nno end",
    );
    assert!(output.status.success(), "{output:?}");
    let stored = maildir(&mailbox(&store, "sales"));
    assert_eq!(stored.len(), 1);
    assert!(stored[0].bytes.ends_with(b"Subject: x\n\nno end\n"));
    assert_eq!(
        header(&stored[0].bytes, "Delivered-To"),
        ["sales@example.com"]
    );
    assert_eq!(mbox(&mailbox(&store, "info")).len(), 1);
}

/// The command keeps its scratch files in a directory that all users share; what else is there
/// is not its own.
#[test]
fn what_another_user_leaves_in_the_directory_for_scratch_files_is_not_looked_at() {
    let store = Mailstow::example("deliver-shared");
    let shared = store.scratch().mkdir("shared");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(&shared, open).expect("chmod");
    store
        .scratch()
        .mkdir_owned("shared/delivery-log", 65534, 65534);
    store
        .scratch()
        .write("shared/delivery-log/lock", "not a log");
    let mut command = command(&["deliver"]);
    command
        .args(store.configuration())
        .args(["-f", "", "--", "sales@example.com"]);
    command.env("TMPDIR", &shared);
    let output = run_with_input(command, &sized("large", 3_000_000));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(maildir(&mailbox(&store, "sales")).len(), 1);
}

#[test]
fn many_processes_at_once_lose_nothing() {
    const PROCESSES: usize = 40;
    let store = Mailstow::example("deliver-many");
    // Written once, before the processes read it.
    let configuration = store.configuration();
    let content = |n: usize| sized(&format!("message{n}"), 20_000);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let configuration = &configuration;
            scope.spawn(move || {
                for n in (worker..PROCESSES).step_by(8) {
                    let recipients = ["info@example.com", "sales@example.com"];
                    let output = deliver_with(configuration, &recipients, &content(n));
                    assert!(output.status.success(), "{output:?}");
                }
            });
        }
    });
    let sales: Vec<_> = maildir(&mailbox(&store, "sales"))
        .into_iter()
        .map(|m| m.bytes)
        .collect();
    let info: Vec<_> = mbox(&mailbox(&store, "info"))
        .into_iter()
        .map(|part| part[..part.len() - 1].to_vec())
        .collect();
    for stored in [&sales, &info] {
        assert_eq!(stored.len(), PROCESSES);
        for n in 0..PROCESSES {
            let found = stored.iter().filter(|m| m.ends_with(&content(n))).count();
            assert_eq!(found, 1, "message {n}");
        }
    }
    assert!(
        list(&mailbox(&store, "sales/tmp")).is_empty(),
        "nothing is left in tmp"
    );
}

#[test]
fn an_unknown_user_is_exit_status_67() {
    let store = Mailstow::example("deliver-unknown");
    let output = deliver(&store, &["nobody@example.com"], &plain("x"));
    assert_eq!(output.status.code(), NO_USER, "{output:?}");
    assert_eq!(enhanced(&output), "5.1.1", "{output:?}");
}

#[test]
fn an_address_that_looks_like_an_option_is_an_address() {
    let store = Mailstow::example("deliver-option").main_cf(
        "virtual_mailbox_maps = inline:{{--help@example.com=example.com/sales/}, \
         {-f@example.com=example.com/sales/}}",
    );
    for (number, option) in ["--help@example.com", "-f@example.com"].iter().enumerate() {
        let mut arguments = vec!["deliver"];
        let configuration = store.configuration();
        arguments.extend(configuration.iter().map(String::as_str));
        arguments.extend(["-f", option, "-o", option, "--", option]);
        let output = run_with_input(command(&arguments), &plain("x"));
        assert!(output.status.success(), "{output:?}");
        let stored = maildir(&mailbox(&store, "sales"));
        assert_eq!(stored.len(), number + 1);
        let is_there = |message: &[u8]| header(message, "Delivered-To") == [*option];
        assert!(
            stored.iter().any(|message| is_there(&message.bytes)),
            "{option}"
        );
    }
}

#[test]
fn a_full_mailbox_is_a_permanent_failure_and_stays_as_it_was() {
    let store = Mailstow::example("deliver-limit")
        .main_cf("message_size_limit = 2000\nvirtual_mailbox_limit = 3000");
    assert!(
        deliver(&store, &["info@example.com"], &sized("first", 1800))
            .status
            .success()
    );
    let before = std::fs::read(mailbox(&store, "info")).expect("the first message");
    let output = deliver(&store, &["info@example.com"], &sized("second", 1800));
    assert_eq!(enhanced(&output), "5.2.2", "{output:?}");
    assert!(
        ![None, Some(0), Some(71), TEMPORARY].contains(&output.status.code()),
        "{output:?}"
    );
    let after = std::fs::read(mailbox(&store, "info")).expect("still there");
    assert_eq!(before, after);

    let output = deliver(&store, &["sales@example.com"], &sized("large", 5000));
    assert!(
        ["5.3.4", "5.2.3"].contains(&enhanced(&output).as_str()),
        "{output:?}"
    );
    assert!(maildir(&mailbox(&store, "sales")).is_empty());
}

#[test]
fn a_full_disk_is_temporary_and_shows_nothing_partial() {
    let store = Mailstow::build("deliver-full").main_cf(
        "virtual_mailbox_domains = example.com\n\
         virtual_mailbox_base = @ROOT@/volume/vhosts\n\
         virtual_mailbox_maps = inline:{info@example.com=info, sales@example.com=sales/}\n\
         virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n",
    );
    // Declared after the scratch directory it lies in, so that it is unmounted first.
    let volume = Volume::mount(store.scratch(), 8);
    let base = store.scratch().mkdir_owned("volume/vhosts", 5000, 5000);
    for recipient in ["info@example.com", "sales@example.com"] {
        let output = deliver(&store, &[recipient], &plain("first"));
        assert!(output.status.success(), "{output:?}");
    }
    let before = std::fs::read(base.join("info")).expect("the first message");

    let filling = volume.fill();
    for recipient in ["info@example.com", "sales@example.com"] {
        let output = deliver(&store, &[recipient], &sized("second", 500_000));
        assert_eq!(output.status.code(), TEMPORARY, "{output:?}");
        assert_eq!(enhanced(&output), "4.3.1", "{output:?}");
    }
    assert_eq!(
        std::fs::read(base.join("info")).expect("still there"),
        before
    );
    assert_eq!(maildir(&base.join("sales")).len(), 1);

    std::fs::remove_file(filling).expect("unlink");
    for recipient in ["info@example.com", "sales@example.com"] {
        let output = deliver(&store, &[recipient], &sized("second", 500_000));
        assert!(output.status.success(), "with room again: {output:?}");
    }
    assert_eq!(mbox(&base.join("info")).len(), 2);
    assert_eq!(maildir(&base.join("sales")).len(), 2);
}

#[test]
fn trouble_of_our_own_is_always_exit_status_75() {
    let good = Mailstow::example("deliver-own");
    let table =
        Mailstow::example("deliver-table").main_cf("virtual_mailbox_maps = hash:@DIR@/none");
    let uid = Mailstow::example("deliver-uid").main_cf("virtual_uid_maps = static:nobody");
    let base =
        Mailstow::example("deliver-base").main_cf("virtual_mailbox_base = @ROOT@/conf/main.cf");
    for store in [&table, &uid, &base] {
        let output = deliver(store, &["sales@example.com"], &plain("x"));
        assert_eq!(output.status.code(), TEMPORARY, "{output:?}");
        assert!(enhanced(&output).starts_with("4."), "{output:?}");
    }
    let nowhere = good.scratch().join("nowhere").display().to_string();
    for arguments in [
        &["deliver", "--no-such-option", "--", "sales@example.com"][..],
        &[
            "deliver",
            "--postfix",
            &nowhere,
            "-f",
            "s@client.example",
            "--",
            "sales@example.com",
        ],
    ] {
        let output = run_with_input(command(arguments), &plain("x"));
        assert_eq!(output.status.code(), TEMPORARY, "{arguments:?}: {output:?}");
        assert!(enhanced(&output).starts_with("4."), "{output:?}");
    }
}

#[test]
fn a_standard_error_that_takes_nothing_changes_no_exit_status() {
    let store = Mailstow::example("deliver-mute");
    let configuration = store.configuration();
    for (last, status) in [("nobody@example.com", NO_USER), ("--nonsense", TEMPORARY)] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = command(&["deliver"]);
        command
            .args(&configuration)
            .args(["-f", "s@client.example"]);
        command.arg(last);
        command.stdin(std::process::Stdio::null());
        command.stderr(full.expect("/dev/full"));
        let ended = command.status().expect("it starts");
        assert_eq!(ended.code(), status, "{last}");
    }
}

#[test]
fn a_file_size_limit_is_a_full_mailbox_and_leaves_it_as_it_was() {
    let store = Mailstow::example("deliver-fsize");
    let output = deliver(&store, &["info@example.com"], &sized("first", 500_000));
    assert!(output.status.success(), "{output:?}");
    let before = std::fs::read(mailbox(&store, "info")).expect("the first message");
    // local(8) sets this limit, to mailbox_size_limit, for the commands it runs.
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", "ulimit -f 1200; exec \"$@\"", "sh"])
        .arg(mailstow_tests::mailstow::binary())
        .arg("deliver")
        .args(store.configuration())
        .args(["-f", "s@client.example", "--", "info@example.com"]);
    let output = run_with_input(limited, &sized("second", 200_000));
    assert_eq!(output.status.code(), Some(73), "{output:?}");
    assert_eq!(enhanced(&output), "5.2.2", "{output:?}");
    let after = std::fs::read(mailbox(&store, "info")).expect("still there");
    assert!(
        before == after,
        "{} bytes became {}",
        before.len(),
        after.len()
    );
    assert!(!mailbox(&store, "info.lock").exists());
}

#[test]
fn a_recipient_that_looks_like_an_option_is_no_success() {
    let store = Mailstow::example("deliver-option");
    for recipient in ["-h@example.com", "--help", "-V@example.com"] {
        let mut command = command(&["deliver"]);
        command.args(store.configuration());
        command.args(["-f", "s@client.example", recipient]);
        let output = run_with_input(command, &plain("x"));
        assert_eq!(output.status.code(), TEMPORARY, "{recipient}: {output:?}");
    }
    let output = run_with_input(command(&["deliver", "--help"]), b"");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_directory_for_temporary_files_matters_only_to_large_messages() {
    let store = Mailstow::example("deliver-tmpdir");
    let missing = store.scratch().join("missing").display().to_string();
    for directory in ["", missing.as_str(), "/proc"] {
        let mut command = command(&["deliver"]);
        command.args(store.configuration());
        command.args(["-f", "s@client.example", "--", "sales@example.com"]);
        command.env("TMPDIR", directory);
        let output = run_with_input(command, &plain("small"));
        assert!(output.status.success(), "{directory:?}: {output:?}");
    }
    assert!(!std::path::Path::new(&missing).exists(), "it was created");
}

#[test]
fn postfix_keeps_the_mail_while_the_store_is_in_trouble_and_delivers_it_later() {
    let postfix = Postfix::build("deliver-defers").main_cf(
        "virtual_mailbox_domains = example.com\n\
         virtual_mailbox_base = @ROOT@/vhosts\n\
         virtual_mailbox_maps = inline:{sales@example.com=example.com/sales/}\n\
         virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n",
    );
    let site = Site::start(postfix, Handover::Pipe, None);
    let directory = site.mailbox("example.com");
    std::os::unix::fs::chown(&directory, Some(0), Some(0)).expect("chown");
    let reply = site
        .postfix
        .submit("s@client.example", &["sales@example.com"], &plain("kept"));
    assert_eq!(reply.code, 250, "{reply}");
    let outcome = site.postfix.outcome("sales@example.com");
    assert_eq!(outcome.status, "deferred", "{outcome:?}");
    assert!(outcome.dsn.starts_with("4."), "{outcome:?}");

    std::os::unix::fs::chown(&directory, Some(OWNER), Some(OWNER)).expect("chown");
    // A message that is not in the deferred queue yet is not flushed.
    eventually(
        "the message to be delivered",
        Duration::from_secs(60),
        || {
            site.postfix.flush();
            let outcomes = site.postfix.outcomes("sales@example.com");
            outcomes.iter().any(|o| o.status == "sent").then_some(())
        },
    );
    site.postfix.drain();
    let stored = maildir(&site.mailbox("example.com/sales"));
    assert_eq!(stored.len(), 1);
    assert_eq!(header(&stored[0].bytes, "Subject"), ["kept"]);
}
