//! Clients that close, end or lose their connection without QUIT: what they read is settled, so
//! that an equal message sent on purpose is stored, and what they did not read is stored once.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::daemon::tied;
use mailstow_tests::mailboxes::{header, maildir, mbox};
use mailstow_tests::site::{Handover, OWNER, Site};
use mailstow_tests::{Address, Mailstow, Postfix, python};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Connects to the address given and sends the same message again and again.
const PROGRAM: &str = r#"
import smtplib, socket, sys
how, times, address = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
for _ in range(times):
    client = smtplib.LMTP(address[0], int(address[1]) if len(address) > 1 else 0)
    client.sendmail("s@client.example", ["sales@example.com"], "Subject: equal\r\n\r\nbody\r\n")
    if how == "close":
        client.close()
    elif how == "end":
        # As the stream libraries of event loops do: end our side, then wait for the other.
        client.sock.shutdown(socket.SHUT_WR)
        while client.sock.recv(100):
            pass
        client.sock.close()
    elif how == "quit and close":
        client.putcmd("quit")
        client.close()
    else:
        sys.exit(how)
"#;

/// Sends a message, waits until the reply is there without reading it, then to be killed.
const KILLED: &str = r#"
import smtplib, socket, sys, time
client = smtplib.LMTP(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
client.ehlo_or_helo_if_needed()
client.mail("s@client.example")
client.rcpt("sales@example.com")
client.docmd("data")
client.send(b"Subject: killed\r\n\r\nbody\r\n.\r\n")
while b"250 2.0.0" not in client.sock.recv(1000, socket.MSG_PEEK):
    pass
print("there", flush=True)
time.sleep(600)
"#;

fn arguments(address: &Address) -> Vec<String> {
    match address {
        Address::Unix(path) => vec![path.display().to_string()],
        Address::Inet(host, port) => vec![host.clone(), port.to_string()],
    }
}

#[test]
fn equal_messages_of_clients_that_close_without_quit_are_all_stored() {
    const TIMES: usize = 20;
    let server = Mailstow::example("close-without-quit").start();
    let mut sent = 0;
    for address in [server.unix(), server.inet()] {
        for how in ["close", "end", "quit and close"] {
            let times = TIMES.to_string();
            let address = arguments(&address);
            let mut all = vec![how, &times];
            all.extend(address.iter().map(String::as_str));
            let status = python::program(PROGRAM, &all).status().expect("python3");
            assert!(status.success(), "{how}: {status}");
            sent += TIMES;
            let stored = maildir(&server.mailbox("example.com/sales"));
            assert_eq!(stored.len(), sent, "{how} over {address:?}");
        }
    }
    assert!(!server.log().contains("delivered before"));
}

#[test]
fn a_client_killed_before_it_reads_its_reply_sends_its_message_again_without_a_second_copy() {
    let server = Mailstow::example("killed-before-reading").start();
    for (number, address) in [server.unix(), server.inet()].into_iter().enumerate() {
        let arguments = arguments(&address);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let program = python::program(KILLED, &arguments);
        let mut command = tied(program.get_program());
        command.args(program.get_args()).stdout(Stdio::piped());
        let mut client = command.spawn().expect("python3");
        let mut said = [0; 5];
        let mut stdout = client.stdout.take().expect("piped");
        stdout.read_exact(&mut said).expect("the reply is there");
        client.kill().expect("our own child");
        client.wait().expect("our own child");
        let replies = server.client().deliver(
            "s@client.example",
            &["sales@example.com"],
            b"Subject: killed\n\nbody\n",
        );
        assert_eq!(replies[0].code, 250);
        let stored = maildir(&server.mailbox("example.com/sales"));
        assert_eq!(stored.len(), number + 1, "over {address:?}");
    }
}

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{archive@example.com=example.com/archive/, info@example.com=example.com/info, sales@example.com=example.com/sales/}
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
transport_retry_time = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
service_throttle_time = 1s
";

/// The delivery agents lmtp(8) of this Postfix.
fn agents(postfix: &Postfix) -> Vec<Pid> {
    let parent = postfix.pid().to_string();
    let is_agent = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let ppid = rest.split_whitespace().nth(1)?;
        (name.ends_with("(lmtp") && ppid == parent).then_some(())
    };
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|process| is_agent(&process.path()).is_some())
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

#[test]
fn a_message_of_a_postfix_killed_before_it_reads_the_reply_is_stored_once() {
    for handover in [Handover::LmtpUnix, Handover::LmtpInet] {
        let postfix = Postfix::build("killed-agent").main_cf(MAIN_CF);
        let site = Site::start(postfix, handover, None);
        let store = site.store.as_ref().expect("a server");
        let mailbox = site.mailbox("example.com/info");
        let lock = mailbox.with_extension("lock");
        std::fs::write(&lock, "").expect("a lock");
        std::os::unix::fs::chown(&lock, Some(OWNER), Some(OWNER)).expect("chown needs root");
        let recipients = ["archive@example.com", "info@example.com"];
        let reply = site
            .postfix
            .submit("s@client.example", &recipients, &plain("x"));
        assert_eq!(reply.code, 250, "{reply}");
        // The message was handed over when its first copy is stored; the other waits for the lock.
        store.log_line("to=<archive@example.com>");
        let agent = agents(&site.postfix).pop().expect("it waits for its reply");
        kill(agent, Signal::SIGSTOP).expect("our own Postfix");
        std::fs::remove_file(&lock).expect("a lock");
        store.log_line("to=<info@example.com>");
        kill(agent, Signal::SIGKILL).expect("our own Postfix");
        site.postfix.drain();
        store.log_line("delivered before");
        assert_eq!(mbox(&mailbox).len(), 1, "over {handover:?}");
        assert_eq!(maildir(&site.mailbox("example.com/archive")).len(), 1);
    }
}

#[test]
fn nothing_is_lost_when_postfix_is_killed_in_the_middle_of_many_messages() {
    const MESSAGES: usize = 60;
    let postfix = Postfix::build("killed-agents").main_cf(MAIN_CF);
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let mut kills = 0;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for number in 0..MESSAGES {
                let content = plain(&format!("number {number}"));
                let recipients = ["sales@example.com"];
                let reply = site
                    .postfix
                    .submit("s@client.example", &recipients, &content);
                assert_eq!(reply.code, 250, "{reply}");
            }
        });
        while !sender.is_finished() {
            for agent in agents(&site.postfix) {
                // It may have ended by itself.
                kills += usize::from(kill(agent, Signal::SIGKILL).is_ok());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    site.postfix.drain();
    let stored = maildir(&site.mailbox("example.com/sales"));
    let subjects: Vec<_> = stored.iter().map(|m| header(&m.bytes, "Subject")).collect();
    for number in 0..MESSAGES {
        let wanted = [format!("number {number}")];
        let copies = subjects.iter().filter(|s| **s == wanted).count();
        assert!(copies >= 1, "message {number} of {MESSAGES}, {kills} kills");
    }
    // An agent that was killed between reading its reply and noting it down sends again.
    println!("{kills} kills, {} second copies", stored.len() - MESSAGES);
    assert!(stored.len() - MESSAGES <= kills, "{kills} kills");
}
