//! `mailstow serve` as the system runs it: flags, signals, systemd, exit statuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Client, TIMEOUT, eventually};

/// `mailstow serve` for `example.com` below `directory`, to be completed and started.
fn serve(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailstow"));
    arguments(&mut command, directory);
    command
}

/// A shell that runs `script` and then becomes the server: the way systemd names a process in
/// its own environment.
fn through_shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{script}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_mailstow")]);
    command
}

fn arguments(command: &mut Command, directory: &Path) {
    command
        .args(["serve", "--domain", "example.com", "--base"])
        .arg(directory.join("vhosts"))
        .arg("--state-directory")
        .arg(directory.join("state"))
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The mailboxes' owner must be able to reach them.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, mode).unwrap();
}

/// A running command, killed when a test fails.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits for the end: exit status, standard output, standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut status = None;
        eventually("the end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let (mut out, mut err) = (String::new(), String::new());
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (status.unwrap().code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is gone already when the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A greeted client of a server that may still be starting.
fn client(socket: &Path) -> Client {
    let mut connected = None;
    eventually("listening", || {
        connected = UnixStream::connect(socket).ok();
        connected.is_some()
    });
    let mut client = Client::new(connected.unwrap());
    client.expect("220 ");
    client.ask("LHLO client", "250");
    client
}

fn send(client: &mut Client) {
    client.envelope(&["info"]);
    client.ask("DATA", "354");
    client.send("Subject: hello\r\n\r\nIt works.\r\n.\r\n");
    client.expect("250 2.0.0");
}

#[test]
fn it_says_where_it_listens_and_where_mail_goes_and_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mailstow.sock");
    let mut command = serve(directory.path());
    command.arg("--listen").arg(&socket);
    let running = Running(command.spawn().unwrap());
    let mut client = client(&socket);
    send(&mut client);
    running.signal(Signal::SIGTERM);
    client.expect("421 4.3.2");
    let (status, out, err) = running.end();
    assert_eq!(status, Some(0), "{err}");
    assert!(
        out.contains(&format!("listening on unix:{}", socket.display())),
        "{out}"
    );
    assert!(out.contains("mail for example.com goes below"), "{out}");
    assert!(
        err.contains("to=<info@example.com>, from=<sender@example.org>"),
        "{err}"
    );
    assert!(err.contains("status=sent"), "{err}");
    assert!(!socket.exists());
    let new = directory.path().join("vhosts/example.com/info/new");
    assert_eq!(std::fs::read_dir(new).unwrap().count(), 1);
}

#[test]
fn systemd_is_told_of_every_change() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mailstow.sock");
    let notify = directory.path().join("notify");
    let system = UnixDatagram::bind(&notify).unwrap();
    system.set_read_timeout(Some(TIMEOUT)).unwrap();
    let heard = || {
        let mut message = [0; 1000];
        let count = system.recv(&mut message).unwrap();
        String::from_utf8_lossy(message.get(..count).unwrap()).into_owned()
    };
    let next = |wanted: &str| {
        loop {
            let text = heard();
            if text.contains(wanted) {
                return text;
            }
        }
    };
    let mut command = through_shell("export WATCHDOG_PID=$$ WATCHDOG_USEC=200000");
    arguments(&mut command, directory.path());
    command
        .arg("--listen")
        .arg(&socket)
        .env("NOTIFY_SOCKET", &notify);
    let running = Running(command.spawn().unwrap());
    // In whichever order.
    let mut awaited = vec!["READY=1", "STATUS=delivering; listening on unix:"];
    while !awaited.is_empty() {
        let text = heard();
        awaited.retain(|wanted| !text.contains(wanted));
    }
    next("WATCHDOG=1");
    let mut client = client(&socket);
    running.signal(Signal::SIGHUP);
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    send(&mut client);
    running.signal(Signal::SIGINT);
    next("STOPPING=1");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_socket_from_systemd_is_served_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("activated");
    let listener = UnixListener::bind(&socket).unwrap();
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1";
    let mut command = through_shell(script);
    arguments(&mut command, directory.path());
    command.stdin(OwnedFd::from(listener));
    let running = Running(command.spawn().unwrap());
    drop(command);
    send(&mut client(&socket));
    running.signal(Signal::SIGTERM);
    let (status, out, err) = running.end();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(out.matches("unix:").count(), 1, "{out}");
    assert!(socket.exists(), "it belongs to systemd");
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_delivery() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mailstow.sock");
    let mut command = serve(directory.path());
    command.arg("--listen").arg(&socket);
    let running = Running(command.spawn().unwrap());
    let mut client = client(&socket);
    // More lines than a pipe takes.
    for _ in 0..400 {
        client.envelope(&[]);
        client.ask(&format!("RCPT TO:<{}@example.org>", "x".repeat(300)), "550");
        client.ask("RSET", "250");
    }
    send(&mut client);
    running.signal(Signal::SIGKILL);
    running.end();
}

#[test]
fn what_is_wrong_decides_the_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("mailstow.sock");
    let mut command = serve(directory.path());
    command.args(["--listen", "nonsense:here"]);
    let (status, _, err) = Running(command.spawn().unwrap()).end();
    assert_eq!(status, Some(78), "{err}");
    let _alive = UnixListener::bind(&socket).unwrap();
    let mut command = serve(directory.path());
    command.arg("--listen").arg(&socket);
    let (status, _, err) = Running(command.spawn().unwrap()).end();
    assert_eq!(status, Some(69), "{err}");
    assert!(err.contains("another server is listening"), "{err}");
}
