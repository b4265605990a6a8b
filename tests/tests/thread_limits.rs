//! A system that gives no threads: the server starts or says why not, and one that runs goes on
//! without a panic, does what it can, and does the rest when there are threads again.

use std::time::Duration;

use mailstow_tests::content::{plain, sized};
use mailstow_tests::daemon::Daemon;
use mailstow_tests::mailstow::Builder;
use mailstow_tests::{Client, Mailstow, eventually};

/// How long the server may take to be well again.
const MEND_LIMIT: Duration = Duration::from_secs(120);

/// A server that runs as a user who has no other process, so that the limit is its own.
fn alone(name: &str, uid: u32) -> Builder {
    let builder = Mailstow::build(name)
        .arguments(&["--domain", "example.com", "--base", "@ROOT@/vhosts"])
        .toml(
            "[delivery_log]\ncheckpoint_interval = \"1s\"\nbytes_max = 8388608\n\
             segment_bytes = 16384\n",
        );
    builder.scratch().mkdir_owned("vhosts", uid, uid);
    builder.as_user(uid)
}

fn is_without_panic(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_server_starts_with_the_threads_it_gets_or_says_why_not() {
    let mut refused = 0;
    for threads in 1.. {
        let builder = alone("nproc-start", 64_321).limit(&format!("--nproc={threads}"));
        builder.make_directories();
        let log = builder.scratch().join("start.log");
        let mut daemon = Daemon::start(&mut builder.serve(), &log);
        let address = builder.unix();
        let end = eventually("the server to greet or to end", MEND_LIMIT, || {
            let greets = Client::try_lmtp(&address).is_ok();
            daemon.status().map(Some).or(greets.then_some(None))
        });
        is_without_panic(&daemon.log());
        let Some(status) = end else {
            assert_eq!(daemon.stop().code(), Some(0), "{}", daemon.log());
            break;
        };
        assert_eq!(status.code(), Some(69), "{threads}: {}", daemon.log());
        assert!(daemon.log().contains("limit"), "{}", daemon.log());
        refused += 1;
    }
    assert!(refused > 3, "{refused}");
}

/// The reply for one message.
fn deliver(server: &Mailstow, content: &[u8]) -> String {
    let mut client = server.client();
    let replies = client.deliver("s@client.example", &["info@example.com"], content);
    replies[0].to_string()
}

fn waiting(server: &Mailstow) -> u64 {
    server.health().1["waiting"].as_u64().expect("a number")
}

#[test]
fn a_server_that_gets_no_more_threads_stores_mail_and_stays_healthy() {
    let mut server = alone("nproc-run", 64_322).start();
    server.daemon.limit("--nproc=1:");
    for size in [100, 300_000, 3_000_000] {
        let reply = deliver(&server, &sized("x", size));
        assert!(reply.starts_with("250"), "{reply}\n{}", server.log());
    }
    server.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    server.log_line("reloaded");
    assert_eq!(server.health().0, 0, "{}", server.log());
    assert_eq!(server.daemon.stop().code(), Some(0));
    is_without_panic(&server.log());
}

#[test]
fn recovery_without_a_thread_is_tried_again_until_there_is_one() {
    let mut server = alone("nproc-recover", 64_323).start();
    let vhosts = server.vhosts();
    let hidden = server.scratch().join("hidden");
    // Mail that only the log holds waits for mailboxes that cannot be made.
    eventually("mail to wait", MEND_LIMIT, || {
        assert!(deliver(&server, &plain("first")).starts_with("250"));
        server.kill();
        std::fs::rename(&vhosts, &hidden).expect("rename");
        std::fs::create_dir(&vhosts).expect("mkdir");
        server.restart();
        if waiting(&server) > 0 {
            return Some(());
        }
        std::fs::remove_dir(&vhosts).expect("rmdir");
        std::fs::rename(&hidden, &vhosts).expect("rename");
        None
    });
    server.daemon.limit("--nproc=1:");
    std::fs::remove_dir(&vhosts).expect("rmdir");
    std::fs::rename(&hidden, &vhosts).expect("rename");
    server.log_line("was not tried again");
    assert_eq!(server.health().0, 0, "{}", server.log());
    assert!(deliver(&server, &plain("second")).starts_with("250"));
    // A log that fails is opened again with new threads.
    let log = server.scratch().join("state/delivery-log");
    std::fs::remove_dir_all(&log).expect("the log is there");
    std::fs::write(&log, "in the way").expect("a file");
    eventually("the log to be out of service", MEND_LIMIT, || {
        deliver(&server, &sized("third", 10_000))
            .starts_with("451")
            .then_some(())
    });
    std::fs::remove_file(&log).expect("unlink");
    server.log_line("cannot start");
    let (status, health) = server.health();
    assert_eq!(
        (status, &health["state"]),
        (75, &"log_failed".into()),
        "{health}"
    );
    assert!(server.daemon.status().is_none(), "it lives");
    server.daemon.limit("--nproc=1000:");
    eventually("the server to be healthy", MEND_LIMIT, || {
        (server.health().0 == 0).then_some(())
    });
    assert!(deliver(&server, &plain("last")).starts_with("250"));
    assert_eq!(server.daemon.stop().code(), Some(0));
    is_without_panic(&server.log());
}
