//! File systems of mailboxes that fail or never answer: the outcomes of their mail, and that other
//! mail is not affected.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::hung::HungMount;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow::{Builder, owner};
use mailstow_tests::scratch::machine_alone;
use mailstow_tests::volume::Volume;
use mailstow_tests::{Client, Mailstow, eventually};
use nix::sys::signal::Signal;

/// How long anything may take here; the pause between attempts grows to a minute.
const LIMIT: Duration = Duration::from_secs(90);
/// How long the server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const MEBIBYTES: u64 = 64;

fn site(name: &str, checkpoint_interval: &str) -> Builder {
    let owner = owner();
    Mailstow::build(name)
        .main_cf(&format!(
            "virtual_mailbox_domains = example.com\n\
             virtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = texthash:@DIR@/vmailbox\n\
             virtual_uid_maps = static:{owner}\n\
             virtual_gid_maps = static:{owner}"
        ))
        .table(
            "vmailbox",
            "near@example.com near/\nfar@example.com far/mail/\nfarbox@example.com far/box\n",
        )
        .toml(&format!(
            "[delivery_log]\ncheckpoint_interval = \"{checkpoint_interval}\""
        ))
}

fn far(builder: &Builder) -> PathBuf {
    let base = builder.scratch().mkdir("vhosts");
    let far = base.join("far");
    std::fs::create_dir_all(&far).expect("mkdir");
    for directory in [&base, &far] {
        let owner = Some(owner());
        std::os::unix::fs::chown(directory, owner, owner).expect("chown");
    }
    far
}

/// A site whose file systems have two seconds to answer.
fn impatient_site(name: &str, checkpoint_interval: &str) -> Builder {
    site(name, checkpoint_interval).toml("[store]\nmailbox_timeout = \"2s\"")
}

fn run(command: &mut Command) -> bool {
    command.status().expect("the program is there").success()
}

fn deliver(server: &Mailstow, subject: &str, to: &[&str]) -> Vec<u16> {
    let to: Vec<String> = to
        .iter()
        .map(|name| format!("{name}@example.com"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = Client::lmtp(&server.unix());
    let replies = client.deliver("s@client.example", &to, &plain(subject));
    client.command("QUIT");
    for reply in &replies {
        // Shown when the test fails.
        eprintln!("{subject}: {reply}");
    }
    replies.iter().map(|reply| reply.code).collect()
}

fn subjects(mailbox: &Path) -> Vec<String> {
    let mails = maildir(mailbox);
    let mut subjects: Vec<String> = mails
        .iter()
        .flat_map(|mail| header(&mail.bytes, "Subject"))
        .collect();
    subjects.sort();
    subjects
}

#[test]
fn a_file_system_that_takes_no_more_writes_loses_nothing_and_concerns_no_other() {
    let _machine = machine_alone();
    let builder = site("dead-file-system", "1s");
    let far = far(&builder);
    let image = builder.scratch().join("image");
    let volume = Volume::mount_at(&far, &["mkfs.ext4", "-q", "-m", "0"], &image, MEBIBYTES);
    std::os::unix::fs::chown(&far, Some(owner()), Some(owner())).expect("chown");
    let server = builder.start();
    let mut kept = Vec::new();
    let mut near = 0;
    let mut deliver_near = || {
        near += 1;
        let codes = deliver(&server, &format!("near {near}"), &["near"]);
        assert_eq!(codes, [250], "others' mail is accepted");
    };
    for number in 0..20 {
        let subject = format!("far {number:02}");
        assert_eq!(deliver(&server, &subject, &["far", "farbox"]), [250, 250]);
        kept.push(subject);
    }
    assert!(
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(&far)),
        "the file system is shut down"
    );
    let failing = |wanted: usize| {
        let (_, health) = server.health();
        let failing = health["failed_file_systems"].as_array().cloned();
        failing.filter(|failing| failing.len() == wanted)
    };
    let failed = eventually("health names the file system", LIMIT, || {
        deliver_near();
        // What is acknowledged is kept, whatever becomes of the file system.
        let subject = format!("far {:02}", kept.len());
        match deliver(&server, &subject, &["far"]).as_slice() {
            [250] => kept.push(subject),
            codes => assert_eq!(codes, [451]),
        }
        failing(1)
    });
    assert_eq!(failed[0]["mount_point"], far.to_str().expect("UTF-8"));
    eventually("its mail is put off", LIMIT, || {
        deliver_near();
        (deliver(&server, "not now", &["far"]) == [451]).then_some(())
    });
    eventually("the server is not well", LIMIT, || {
        deliver_near();
        let (_, health) = server.health();
        (health["state"] == "file_system_failed").then_some(())
    });
    // No file is kept open there.
    eventually("it can be unmounted", LIMIT, || {
        deliver_near();
        run(Command::new("umount").arg(&far)).then_some(())
    });
    assert!(run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(&far)));
    // Nothing had been made durable there, not even whom it belongs to.
    std::os::unix::fs::chown(&far, Some(owner()), Some(owner())).expect("chown");
    eventually("its mail is durable", LIMIT, || {
        deliver_near();
        failing(0)
    });
    eventually("no mail waits for it", LIMIT, || {
        let (_, health) = server.health();
        (health["waiting"] == 0).then_some(())
    });
    assert_eq!(deliver(&server, "again", &["far", "farbox"]), [250, 250]);
    kept.push("again".to_owned());
    kept.sort();
    assert_eq!(subjects(&server.mailbox("far/mail")), kept);
    assert_eq!(subjects(&server.mailbox("near")).len(), near);
    let mbox = std::fs::read_to_string(server.mailbox("far/box")).expect("an mbox");
    let in_mbox = mbox.lines().filter(|line| line.starts_with("Subject: "));
    assert_eq!(in_mbox.count(), 21);
    drop(volume);
}

#[test]
fn sigterm_ends_a_server_whose_recovery_waits_for_a_file_system_that_never_answers() {
    let _machine = machine_alone();
    let builder = site("hung-recovery", "1h");
    let far = far(&builder);
    let mut server = builder.start();
    assert_eq!(deliver(&server, "one", &["far", "near"]), [250, 250]);
    server.kill();
    let hung = HungMount::on(&far);
    server.restart_only();
    eventually("the recovery waits", LIMIT, || {
        hung.is_waited_for(server.daemon.pid()).then_some(())
    });
    server.daemon.signal(Signal::SIGTERM);
    let status = eventually("the server ends", STOP_LIMIT, || server.daemon.status());
    assert!(status.success(), "{status}: {}", server.log());
    drop(hung);
    server.restart();
    assert_eq!(subjects(&server.mailbox("far/mail")), ["one"]);
}

#[test]
fn a_file_system_that_never_answers_puts_off_its_own_mail_and_nothing_else() {
    let _machine = machine_alone();
    let builder = impatient_site("hung-mailbox", "1s");
    let far = far(&builder);
    let mut server = builder.start();
    assert_eq!(deliver(&server, "before", &["far", "near"]), [250, 250]);
    let hung = HungMount::on(&far);
    let mut near = vec!["before".to_owned()];
    let mut deliver_near = |server: &Mailstow| {
        let subject = format!("near {:03}", near.len());
        assert_eq!(deliver(server, &subject, &["near"]), [250], "{subject}");
        near.push(subject);
    };
    std::thread::scope(|scope| {
        // More than there are writers.
        let waiting: Vec<_> = (0..6)
            .map(|number| {
                let server = &server;
                let subject = format!("far {number}");
                scope.spawn(move || deliver(server, &subject, &["far"]))
            })
            .collect();
        eventually("health names the file system", LIMIT, || {
            deliver_near(&server);
            let (_, health) = server.health();
            let failing = health["failed_file_systems"].as_array()?;
            let far = far.to_str().expect("UTF-8");
            let is_far = |one: &&serde_json::Value| one["mount_point"] == far;
            failing.iter().find(is_far).map(drop)
        });
        for waiting in waiting {
            deliver_near(&server);
            assert_eq!(waiting.join().expect("no panic"), [451]);
        }
    });
    eventually("it is refused", LIMIT, || {
        let codes = deliver(&server, "both", &["near", "far"]);
        assert_eq!(codes[0], 250);
        near.push("both".to_owned());
        (codes[1] == 451).then_some(())
    });
    // A client waits for that file system when the server is to end.
    let writer = std::thread::scope(|scope| {
        let server = &server;
        let late = scope.spawn(move || deliver(server, "late", &["far"]));
        server.daemon.signal(Signal::SIGTERM);
        late.join().is_ok()
    });
    eprintln!("the client was answered: {writer}");
    let status = eventually("the server ends", STOP_LIMIT, || server.daemon.status());
    assert!(status.success(), "{status}: {}", server.log());
    drop(hung);
    server.restart();
    assert_eq!(deliver(&server, "after", &["far", "near"]), [250, 250]);
    near.push("after".to_owned());
    near.sort();
    assert_eq!(subjects(&server.mailbox("near")), near);
    assert_eq!(subjects(&server.mailbox("far/mail")), ["after", "before"]);
}

#[test]
fn a_server_starts_although_mail_waits_for_a_file_system_that_never_answers() {
    let _machine = machine_alone();
    let builder = impatient_site("hung-start", "1h");
    let far = far(&builder);
    let mut server = builder.start();
    let to = ["far", "farbox", "near"];
    assert_eq!(deliver(&server, "one", &to), [250, 250, 250]);
    server.kill();
    let hung = HungMount::on(&far);
    server.restart();
    assert_eq!(deliver(&server, "two", &["near"]), [250]);
    let (_, health) = server.health();
    assert_eq!(health["waiting"], 1, "{health}");
    // Once more, with the mail where it was put aside.
    server.kill();
    server.restart();
    let (_, health) = server.health();
    assert_eq!(health["waiting"], 1, "{health}");
    drop(hung);
    eventually("nothing waits", LIMIT, || {
        deliver(&server, "more", &["far"]);
        let (_, health) = server.health();
        (health["waiting"] == 0).then_some(())
    });
    assert_eq!(subjects(&server.mailbox("near")), ["one", "two"]);
    let far = subjects(&server.mailbox("far/mail"));
    assert_eq!(far.iter().filter(|subject| *subject == "one").count(), 1);
    let mbox = std::fs::read_to_string(server.mailbox("far/box")).expect("an mbox");
    assert_eq!(mbox.matches("Subject: one").count(), 1);
}
