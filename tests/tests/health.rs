//! `mailstow health` and systemd's status, beside a server that delivers, hangs, has a delivery
//! log that really fails, and is gone.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailstow_tests::client::Address;
use mailstow_tests::content::sized;
use mailstow_tests::daemon::{Daemon, tied};
use mailstow_tests::{Client, Scratch, eventually, mailstow};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The log is opened again more and more rarely.
const MEND_LIMIT: Duration = Duration::from_secs(120);

struct Site {
    scratch: Scratch,
    state: PathBuf,
    /// Takes the place of systemd.
    notified: UnixDatagram,
}

impl Site {
    fn new(name: &str, state: &str) -> Self {
        let scratch = Scratch::new(name);
        scratch.mkdir("run");
        let toml = "[delivery_log]\nbytes_max = 1048576\nsegment_bytes = 16384\n";
        scratch.write("mailstow.toml", toml);
        let notified = UnixDatagram::bind(scratch.join("run/notify")).expect("a socket");
        notified.set_nonblocking(true).expect("a socket");
        Self {
            state: scratch.join(state),
            scratch,
            notified,
        }
    }

    fn address(&self) -> Address {
        Address::Unix(self.scratch.join("run/lmtp"))
    }

    fn start(&self) -> Daemon {
        let mut command = tied(mailstow::binary());
        command
            .env_remove("RUST_LOG")
            .env("NOTIFY_SOCKET", self.scratch.join("run/notify"))
            .arg("serve")
            .args(self.arguments("run/lmtp"))
            .arg("--state-directory")
            .arg(&self.state);
        let daemon = Daemon::start(&mut command, &self.scratch.join("mailstow.log"));
        eventually("mailstow to greet", MEND_LIMIT, || {
            Client::try_lmtp(&self.address()).ok()
        });
        daemon
    }

    /// What serve is started with, but for the state directory.
    fn arguments(&self, listen: &str) -> Vec<OsString> {
        let mut arguments = vec!["--domain".into(), "example.com".into()];
        for (flag, path) in [
            ("--config", "mailstow.toml"),
            ("--base", "vhosts"),
            ("--listen", listen),
        ] {
            arguments.push(flag.into());
            arguments.push(self.scratch.join(path).into());
        }
        arguments
    }

    /// Exit status and findings of `mailstow check` on a state directory.
    fn check(&self, listen: &str, state: &Path) -> (i32, String) {
        let output = tied(mailstow::binary())
            .arg("check")
            .args(self.arguments(listen))
            .arg("--state-directory")
            .arg(state)
            .output()
            .expect("mailstow runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code().expect("it exits"), text)
    }

    /// Exit status, and the answer for people and for programs.
    fn health(&self) -> (i32, String, Value) {
        let ask = |more: &[&str]| {
            let state = self.state.to_str().expect("UTF-8");
            let arguments = [&["health", "--state-directory", state], more].concat();
            let output = mailstow::run(&arguments);
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            (output.status.code().expect("it exits"), text)
        };
        let (status, text) = ask(&[]);
        let (_, json) = ask(&["--json"]);
        (
            status,
            text,
            serde_json::from_str(&json).expect("JSON on one line"),
        )
    }

    fn deliver(&self) -> String {
        let mut client = Client::lmtp(&self.address());
        let replies = client.deliver("s@c.example", &["info@example.com"], &sized("x", 3000));
        client.command("QUIT");
        replies[0].to_string()
    }

    /// Waits until systemd got a status that contains `text`.
    fn wait_for_status(&self, text: &str) {
        eventually(&format!("STATUS= with {text:?}"), MEND_LIMIT, || {
            let mut datagram = [0; 4096];
            let length = self.notified.recv(&mut datagram).ok()?;
            let said = String::from_utf8_lossy(&datagram[..length]).into_owned();
            let mut lines = said.lines().filter_map(|line| line.strip_prefix("STATUS="));
            lines.any(|line| line.contains(text)).then_some(())
        });
    }
}

fn wait_until_healthy(site: &Site) {
    eventually("the server to be healthy", MEND_LIMIT, || {
        (site.health().0 == 0).then_some(())
    });
}

#[test]
fn health_is_told_of_a_server_that_delivers_hangs_or_is_gone() {
    let site = Site::new("health", "state");
    let (status, text, answer) = site.health();
    assert_eq!(status, 69, "{text}");
    assert_eq!(answer["state"], "not_running");
    let mut server = site.start();
    wait_until_healthy(&site);
    let (_, text, answer) = site.health();
    assert!(text.contains("delivering; listening on unix:"), "{text}");
    assert_eq!(answer["healthy"], true);
    assert_eq!(answer["pid"], server.pid());
    assert_eq!(answer["log"]["bytes_max"], 1 << 20);
    site.wait_for_status("delivering; listening on");
    server.signal(Signal::SIGSTOP);
    let (status, text, _) = site.health();
    server.signal(Signal::SIGCONT);
    assert_eq!(status, 75, "{text}");
    assert!(text.contains("does not answer"), "{text}");
    // Nothing of a server that was killed is taken for a living one.
    server.kill();
    let (status, text, _) = site.health();
    assert_eq!(status, 69, "{text}");
    assert!(text.contains("no server runs on"), "{text}");
    let mut server = site.start();
    wait_until_healthy(&site);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(site.health().0, 69);
    assert!(!site.state.join("health").exists());
}

#[test]
fn a_server_is_asked_when_whoever_had_its_socket_is_gone() {
    let site = Site::new("health-late", "state");
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&site.state)
        .expect("mkdir");
    // Acts as a server started at the same time, which finds the delivery log taken.
    let other = UnixListener::bind(site.state.join("health")).expect("a socket");
    let server = site.start();
    drop(other);
    wait_until_healthy(&site);
    assert_eq!(site.health().2["pid"], server.pid());
}

#[test]
fn a_server_that_cannot_be_asked_is_not_taken_for_none() {
    let site = Site::new("health-mute", "state");
    let server = site.start();
    wait_until_healthy(&site);
    std::fs::remove_file(site.state.join("health")).expect("the socket");
    let (status, text, _) = site.health();
    assert_eq!(status, 75, "{text}");
    assert!(text.contains("does not answer"), "{text}");
    drop(server);
    assert_eq!(site.health().0, 69);
}

#[test]
fn a_check_beside_the_running_server_does_not_complain_of_its_sockets() {
    let site = Site::new("health-check", "state");
    let server = site.start();
    wait_until_healthy(&site);
    let (status, findings) = site.check("run/lmtp", &site.state);
    assert_eq!(status, 0, "{findings}");
    let known = format!("process {}", server.pid());
    assert!(findings.contains(&known), "{findings}");
    // A second server on the same socket would not start.
    let (status, findings) = site.check("run/lmtp", &site.scratch.join("other"));
    assert_eq!(status, 1, "{findings}");
    assert!(findings.contains("another server"), "{findings}");
    // With the same state directory it is this server, to be started anew.
    let (status, findings) = site.check("run/other", &site.state);
    assert_eq!(status, 0, "{findings}");
    assert!(findings.contains(&known), "{findings}");
    assert!(findings.contains("restart it"), "{findings}");
}

#[test]
fn health_says_why_the_delivery_log_is_out_of_service_and_when_it_is_back() {
    let site = Site::new("health-log", "state");
    let server = site.start();
    wait_until_healthy(&site);
    assert!(site.deliver().starts_with("250"));
    break_log(&site.state.join("delivery-log"));
    eventually("the log to fail", MEND_LIMIT, || {
        site.deliver().starts_with("451 4.3.0").then_some(())
    });
    site.wait_for_status("not delivering");
    let (status, text, answer) = site.health();
    assert_eq!(status, 75, "{text}");
    assert!(text.contains("451 4.3.0"), "{text}");
    assert_eq!(answer["state"], "log_failed");
    assert_eq!(answer["healthy"], false);
    let cause = answer["log"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("delivery-log"), "object: {cause}");
    std::fs::remove_file(site.state.join("delivery-log")).expect("unlink");
    wait_until_healthy(&site);
    site.wait_for_status("delivering; listening on");
    assert!(site.deliver().starts_with("250"), "{}", server.log());
}

#[test]
fn health_is_told_however_long_the_path_of_the_state_directory_is() {
    let site = Site::new("health-long", &"long-name/".repeat(20));
    let mut server = site.start();
    wait_until_healthy(&site);
    server.kill();
    assert_eq!(site.health().0, 69);
}

/// The directory goes, and no new one can be made in its place.
fn break_log(directory: &Path) {
    std::fs::remove_dir_all(directory).expect("the log is there");
    std::fs::write(directory, "in the way").expect("a file");
}
