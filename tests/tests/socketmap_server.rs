//! Postfix asks `mailstow serve` who exists: one truth for the front door and the mailboxes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes;
use mailstow_tests::scratch::write_whole;
use mailstow_tests::{Client, Mailstow, Postfix, eventually};

const TABLE: &str = "info@example.com example.com/info/\n";

fn start(name: &str) -> (Mailstow, PathBuf) {
    let server = Mailstow::build(name)
        .main_cf(
            "virtual_mailbox_domains = example.com\nvirtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = texthash:@DIR@/vmailbox\nvirtual_uid_maps = static:5000\n\
             virtual_gid_maps = static:5000\nrecipient_delimiter = +\n\
             virtual_alias_maps = inline:{{all@example.com = info@example.com x@y.example}}\n",
        )
        .table("vmailbox", TABLE);
    server.scratch().mkdir_owned("vhosts", 5000, 5000);
    let socket = server.scratch().join("map");
    let toml = format!("[socketmap]\nlisten = \"unix:{}\"\n", socket.display());
    (server.toml(&toml).start(), socket)
}

fn ask(socket: &Path, requests: &[&str]) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    // All at once: replies come in order.
    let all: String = requests
        .iter()
        .map(|r| format!("{}:{r},", r.len()))
        .collect();
    stream.write_all(all.as_bytes()).expect("it reads");
    requests
        .iter()
        .map(|_| read_netstring(&mut stream))
        .collect()
}

fn read_netstring(stream: &mut UnixStream) -> String {
    let mut length = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a reply");
        match byte[0] {
            b':' => break,
            digit => length.push(char::from(digit)),
        }
    }
    let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 1];
    stream.read_exact(&mut bytes).expect("a reply");
    assert_eq!(bytes.pop(), Some(b','));
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn requests_are_answered_by_the_names_of_parameters() {
    let (_server, socket) = start("maps");
    let replies = ask(
        &socket,
        &[
            "virtual_mailbox_maps Info+x@example.com",
            "virtual_mailbox_maps nobody@example.com",
            "virtual_uid_maps info@example.com",
            "virtual_mailbox_domains example.com",
            "virtual_mailbox_domains example.org",
            "virtual_alias_maps all@example.com",
            "virtual_alias_maps info@example.com",
            "canonical_maps info@example.com",
            "nothing",
        ],
    );
    let expected = [
        "OK example.com/info/",
        "NOTFOUND ",
        "OK 5000",
        "OK example.com",
        "NOTFOUND ",
        "OK info@example.com, x@y.example",
        "NOTFOUND ",
    ];
    assert_eq!(replies[..7], expected);
    assert!(replies[7].starts_with("PERM no map"), "{}", replies[7]);
    assert!(replies[8].starts_with("PERM "), "{}", replies[8]);
}

#[test]
fn clients_that_speak_something_else_are_cut_and_many_are_served() {
    let (_server, socket) = start("clients");
    for bad in ["GET / HTTP/1.0\r\n\r\n", "99999999:x", "3:abcd", ":,"] {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(bad.as_bytes()).expect("it reads");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let mut rest = String::new();
        // An end or a reset, as it comes; an empty request is answered first.
        let _ = stream.read_to_string(&mut rest);
        assert!(rest.is_empty() || rest.contains("PERM"), "{bad}: {rest}");
    }
    let idle: Vec<_> = (0..200).map(|_| UnixStream::connect(&socket)).collect();
    assert!(idle.iter().all(Result::is_ok));
    let reply = ask(&socket, &["virtual_mailbox_maps info@example.com"]);
    assert_eq!(reply, ["OK example.com/info/"]);
}

#[test]
fn postfix_rejects_at_the_front_door_whom_we_do_not_know() {
    let (mut server, socket) = start("front-door");
    let map = |name: &str| format!("socketmap:unix:{}:{name}", socket.display());
    let postfix = Postfix::build("front-door")
        .main_cf(&format!(
            "virtual_mailbox_domains = {}\nvirtual_mailbox_maps = {}\nrecipient_delimiter = +\n\
             virtual_transport = lmtp:{}\n",
            map("virtual_mailbox_domains"),
            map("virtual_mailbox_maps"),
            server.unix().spelled()
        ))
        .start();
    let rcpt = |recipient: &str| {
        let mut client = Client::smtp(&postfix.smtp());
        assert_eq!(client.command("MAIL FROM:<s@client.example>").code, 250);
        client.command(format!("RCPT TO:<{recipient}>"))
    };
    for known in ["info@example.com", "INFO+list@Example.Com"] {
        let reply = rcpt(known);
        assert_eq!(reply.code, 250, "{known}: {reply}");
    }
    let reply = rcpt("nobody@example.com");
    assert_eq!((reply.code, reply.enhanced()), (550, "5.1.1"), "{reply}");

    let reply = postfix.submit("s@client.example", &["info+x@example.com"], &plain("in"));
    assert_eq!(reply.code, 250, "{reply}");
    postfix.drain();
    mailboxes::only(&server.mailbox("example.com/info"));

    let table = server.scratch().join("conf/vmailbox");
    let table = if table.exists() {
        table
    } else {
        server.scratch().join("vmailbox")
    };
    write_whole(&table, format!("{TABLE}new@example.com example.com/new/\n"));
    eventually(
        "the new user to be known to smtpd",
        Duration::from_secs(20),
        || (rcpt("new@example.com").code == 250).then_some(()),
    );

    // Without us Postfix cannot tell: it puts the sender off.
    server.kill();
    let reply = rcpt("info@example.com");
    assert_eq!(reply.code / 100, 4, "{reply}");
    server.restart();
    eventually("answers after a restart", Duration::from_secs(20), || {
        (rcpt("info@example.com").code == 250).then_some(())
    });
}
