//! Looking at the log of a server that is using it: never an error, never called damaged; and at
//! logs with things in them that are no segments.

use std::os::unix::fs::symlink;
use std::time::Duration;

use mailstow_tests::content::sized;
use mailstow_tests::{Mailstow, mailstow};

#[test]
fn the_log_of_a_busy_server_can_be_looked_at_and_is_never_called_damaged() {
    let server = Mailstow::domain("log-busy")
        .toml("[delivery_log]\nbytes_max = 1048576\nsegment_bytes = 16384\ncheckpoint_interval = \"1s\"")
        .start();
    let log = server.scratch().join("state/delivery-log");
    let log = log.to_str().expect("UTF-8");
    let looks = 30;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, server) = (&done, &server);
        for client in 0..4 {
            scope.spawn(move || {
                let mut session = server.client();
                let to = format!("u{client}@example.com");
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    session.deliver("s@client.example", &[&to], &sized("x", 2000));
                }
            });
        }
        let looked = (0..looks).map(|_| {
            let of = |command| mailstow::run(&["log", command, log]);
            [of("verify"), of("inspect")]
        });
        let looked: Vec<_> = looked.flatten().collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for output in looked {
            let said = String::from_utf8_lossy(&output.stdout);
            let damage: Vec<_> = said.lines().filter(|l| l.contains("DAMAGE")).collect();
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{damage:?} {complaints}");
        }
    });
}

#[test]
fn what_is_no_segment_is_named_and_never_waited_for_or_followed() {
    let scratch = mailstow_tests::Scratch::new("log-odd");
    let begun = std::time::Instant::now();
    for kind in ["fifo", "directory", "symlink"] {
        let directory = scratch.mkdir(kind);
        let name = directory.join("segment-0000000000000001.log");
        match kind {
            "fifo" => nix::unistd::mkfifo(&name, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo"),
            "directory" => std::fs::create_dir(&name).expect("mkdir"),
            _ => symlink("elsewhere", &name).expect("symlink"),
        }
        for command in ["verify", "inspect"] {
            let output = mailstow::run(&["log", command, directory.to_str().expect("UTF-8")]);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(output.status.code(), Some(1), "{kind}: {said}");
            assert!(
                said.contains("segment-0000000000000001.log"),
                "{kind}: {said}"
            );
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    let victim = scratch.write("victim", "precious");
    symlink(&victim, scratch.mkdir("linked").join("lock")).expect("symlink");
    let directory = scratch.join("linked");
    let arguments = ["log", "recover", "--domain", "example.com", "--base"];
    let base = scratch.mkdir("base");
    let paths = [
        base.to_str().expect("UTF-8"),
        directory.to_str().expect("UTF-8"),
    ];
    let output = mailstow::run(&[&arguments[..], &paths[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(std::fs::read_to_string(victim).expect("read"), "precious");
}

#[test]
fn a_directory_that_holds_no_log_is_not_called_whole() {
    let scratch = mailstow_tests::Scratch::new("log-elsewhere");
    let empty = scratch.mkdir("empty");
    let base = scratch.mkdir("base");
    let site = ["--domain", "example.com", "--base"];
    let site = [&site[..], &[base.to_str().expect("UTF-8")]].concat();
    // Logs of something else.
    let others = scratch.mkdir("var-log");
    for name in ["mail.log", "lock"] {
        std::fs::write(others.join(name), "").expect("a file");
    }
    for directory in [empty.clone(), empty.join("missing"), others.clone()] {
        for (command, site) in [("verify", &[][..]), ("inspect", &[]), ("recover", &site)] {
            let directory = [directory.to_str().expect("UTF-8")];
            let output = mailstow::run(&[&["log", command][..], site, &directory].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(output.stdout.is_empty());
            assert!(
                said.contains("delivery-log in the state directory"),
                "{said}"
            );
        }
    }
    let left = std::fs::read_dir(&empty).expect("the directory").count();
    assert_eq!(left, 0, "recovery made something");
    let left = std::fs::read_dir(&others).expect("the directory").count();
    assert_eq!(left, 2, "recovery made something");
}
