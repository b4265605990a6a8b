//! Autoreplies: the sender of a message gets one, once, and the mail is stored as usual.
//!
//! Method: mailstow alone, with Postfix's configuration files; a script in the place of
//! sendmail(1) keeps what it is given, and another mailstow takes what is sent over LMTP.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow::{self, Builder};
use mailstow_tests::{Client, Mailstow};

const MAIN_CF: &str = "\
virtual_mailbox_domains = domain.tld
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{user@domain.tld=user/, other@domain.tld=other/}
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_alias_maps = hash:@DIR@/virtual
transport_maps = hash:@DIR@/transport
sendmail_path = @ROOT@/sendmail
recipient_delimiter = +
myhostname = mx.origin.example
mydestination =
";

const TOML: &str = "\
[lmtp]
expand_aliases = true
[transport]
enabled = true
[autoreply]
directory = \"@ROOT@/texts\"
";

/// Keeps its arguments and the message, unless `broken` is there.
const SENDMAIL: &str = "#!/bin/sh\nroot=$(dirname $0)\n[ -e $root/broken ] && exit 75\n\
    (echo \"Arguments: $@\"; cat) >$root/noted/$$\n";

/// The aliases and transports of the VIRTUAL_README.
fn site(name: &str, toml: &str) -> Builder {
    let builder = Mailstow::build(name)
        .main_cf(MAIN_CF)
        .table(
            "virtual",
            "user@domain.tld user@domain.tld, user@domain.tld@autoreply.mydomain.tld\n\
             other@domain.tld other@domain.tld, other@domain.tld@autoreply.mydomain.tld\n",
        )
        .table("transport", "autoreply.mydomain.tld autoreply:\n")
        .toml(&format!("{TOML}{toml}"));
    let scratch = builder.scratch();
    scratch.mkdir_owned("vhosts", 5000, 5000);
    scratch.mkdir("texts");
    scratch.write(
        "texts/user@domain.tld",
        "Schöne Grüße,\nich bin im Urlaub.\n",
    );
    let script = scratch.write("sendmail", SENDMAIL);
    fs::set_permissions(script, PermissionsExt::from_mode(0o755)).expect("chmod");
    let noted = scratch.mkdir("noted");
    fs::set_permissions(noted, PermissionsExt::from_mode(0o1777)).expect("chmod");
    builder
}

fn message(number: usize, fields: &str) -> Vec<u8> {
    format!(
        "To: user@domain.tld, other@domain.tld\nSubject: Question {number}\n\
         Message-ID: <{number}@client.example>\n{fields}\nText.\n"
    )
    .into_bytes()
}

fn deliver(server: &Mailstow, sender: &str, to: &str, content: &[u8]) -> String {
    let mut client = Client::lmtp(&server.unix());
    let replies = client.deliver(sender, &[to], content);
    // Proves that the replies were read.
    assert_eq!(client.command("NOOP").code, 250);
    replies[0].to_string()
}

/// What left by sendmail.
fn sent(server: &Mailstow) -> Vec<Vec<u8>> {
    let noted = fs::read_dir(server.scratch().join("noted")).expect("readdir");
    let files = noted.map(|file| fs::read(file.expect("readdir").path()).expect("text"));
    files.collect()
}

fn stored(server: &Mailstow, mailbox: &str) -> usize {
    let path = server.vhosts().join(mailbox);
    match path.exists() {
        true => maildir(&path).len(),
        false => 0,
    }
}

#[test]
fn a_sender_is_answered_once_and_the_mail_is_stored() {
    let mut server = site("autoreply-once", "").start();
    let first = deliver(
        &server,
        "a@client.example",
        "user@domain.tld",
        &message(1, ""),
    );
    assert!(first.starts_with("250 2.0.0"), "{first} {}", server.log());
    let replies = sent(&server);
    assert_eq!(replies.len(), 1, "{}", server.log());
    for (name, value) in [
        ("Arguments", "-i -f <> -N never -- a@client.example"),
        ("From", "<user@domain.tld>"),
        ("To", "<a@client.example>"),
        ("Subject", "Auto: Question 1"),
        ("In-Reply-To", "<1@client.example>"),
        ("Auto-Submitted", "auto-replied"),
    ] {
        let found = header(&replies[0], name);
        // A sendmail that is not Postfix's has no option -N.
        let found: Vec<String> = found
            .iter()
            .map(|one| one.replace(" -N never", ""))
            .collect();
        assert_eq!(found, [value.replace(" -N never", "")], "{name}");
    }
    // Another message, then a server that starts anew.
    deliver(
        &server,
        "a@client.example",
        "user@domain.tld",
        &message(2, ""),
    );
    server.kill();
    server.restart();
    deliver(
        &server,
        "A@Client.Example",
        "user+x@domain.tld",
        &message(3, ""),
    );
    assert_eq!(sent(&server).len(), 1);
    deliver(
        &server,
        "b@client.example",
        "user@domain.tld",
        &message(4, ""),
    );
    assert_eq!(sent(&server).len(), 2);
    assert_eq!(stored(&server, "user"), 4);
}

#[test]
fn lists_programs_bounces_and_people_without_a_text_get_none() {
    let server = site("autoreply-none", "").start();
    for (sender, to, fields) in [
        ("", "user@domain.tld", ""),
        (
            "a@client.example",
            "user@domain.tld",
            "List-Id: <l.example>\n",
        ),
        ("a@client.example", "user@domain.tld", "Precedence: bulk\n"),
        (
            "a@client.example",
            "user@domain.tld",
            "Auto-Submitted: auto-replied\n",
        ),
        ("owner-l@client.example", "user@domain.tld", ""),
        ("user@domain.tld", "user@domain.tld", ""),
        ("a@client.example", "other@domain.tld", ""),
    ] {
        let reply = deliver(&server, sender, to, &message(1, fields));
        assert!(reply.starts_with("250 2.0.0"), "{sender} {fields}: {reply}");
    }
    let unnamed = b"To: somebody@else.example\n\nText.\n";
    let reply = deliver(&server, "a@client.example", "user@domain.tld", unnamed);
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert_eq!(sent(&server).len(), 0);
    assert_eq!((stored(&server, "user"), stored(&server, "other")), (7, 1));
}

#[test]
fn a_reply_that_cannot_be_sent_puts_its_destination_off_and_is_sent_once_later() {
    let server = site("autoreply-broken", "").start();
    let broken = server.scratch().write("broken", "");
    let send = || {
        deliver(
            &server,
            "a@client.example",
            "user@domain.tld",
            &message(1, ""),
        )
    };
    let first = send();
    assert!(first.starts_with("451 4.3.0"), "{first}");
    assert!(send().starts_with("451 4.3.0"));
    fs::remove_file(broken).expect("rm");
    let last = send();
    assert!(last.starts_with("250 2.0.0"), "{last}");
    assert_eq!((sent(&server).len(), stored(&server, "user")), (1, 1));
}

#[test]
fn a_nexthop_names_the_text_and_replies_leave_over_lmtp() {
    let store = Mailstow::domain("autoreply-store").start();
    let through = format!("send_through = \"lmtp:{}\"\n", store.unix().spelled());
    let builder = site("autoreply-lmtp", &through).table(
        "transport",
        "autoreply.mydomain.tld autoreply:away.txt\nother@domain.tld autoreply:missing\n",
    );
    builder.scratch().write("texts/away.txt", "Away.\n");
    let server = builder.start();
    let reply = deliver(&server, "s@example.com", "user@domain.tld", &message(1, ""));
    assert!(reply.starts_with("250 2.0.0"), "{reply} {}", server.log());
    let messages = maildir(&store.mailbox("example.com/s"));
    assert_eq!(messages.len(), 1);
    assert_eq!(header(&messages[0].bytes, "Return-Path"), ["<>"]);
    assert_eq!(header(&messages[0].bytes, "Subject"), ["Auto: Question 1"]);
    assert!(messages[0].bytes.ends_with(b"\nAway.\n"));
    // A text that the operator named and forgot.
    let forgotten = deliver(
        &server,
        "s@example.com",
        "other@domain.tld",
        &message(2, ""),
    );
    assert!(forgotten.starts_with("451 4.3.5"), "{forgotten}");
}

#[test]
fn a_text_named_by_a_nexthop_answers_for_those_that_are_named_or_configured() {
    let everyone = "only_named = false\nanswers_for = \"known@domain.tld, @any.tld\"\n";
    let builder = site("autoreply-for", everyone)
        .main_cf("virtual_mailbox_domains = domain.tld, any.tld\n")
        .table(
            "transport",
            "domain.tld autoreply:away\nany.tld autoreply:away\n",
        )
        .table("virtual", "");
    builder.scratch().write("texts/away", "Away.\n");
    let main_cf = "virtual_mailbox_maps = static:x/\n";
    let server = builder.main_cf(main_cf).start();
    let unnamed = b"To: somebody@else.example\n\nText.\n";
    let named = b"Cc: named@domain.tld\n\nText.\n";
    let mut expected = 0;
    for (to, content, is_answered) in [
        ("unknown@domain.tld", unnamed.as_slice(), false),
        ("named@domain.tld", named, true),
        ("unknown@domain.tld", named, false),
        ("known@domain.tld", unnamed, true),
        ("somebody@any.tld", unnamed, true),
    ] {
        let reply = deliver(&server, "a@client.example", to, content);
        assert!(reply.starts_with("250 2.0.0"), "{to}: {reply}");
        expected += usize::from(is_answered);
        assert_eq!(sent(&server).len(), expected, "{to}: {}", server.log());
    }
}

#[test]
fn one_sender_gets_so_many_replies_and_no_more() {
    let few = "only_named = false\nanswers_for = \"@domain.tld\"\nreplies_per_sender = 2\n";
    let builder = site("autoreply-many", few)
        .main_cf("virtual_mailbox_maps = static:x/\n")
        .table("transport", "domain.tld autoreply:away\n")
        .table("virtual", "");
    builder.scratch().write("texts/away", "Away.\n");
    let mut server = builder.start();
    let to: Vec<String> = (0..5).map(|n| format!("n{n}@domain.tld")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = Client::lmtp(&server.unix());
    for reply in client.deliver("a@client.example", &to, &message(1, "")) {
        assert_eq!(reply.code, 250, "{reply}");
    }
    drop(client);
    assert_eq!(sent(&server).len(), 2, "{}", server.log());
    server.kill();
    server.restart();
    deliver(
        &server,
        "A@client.example",
        "last@domain.tld",
        &message(2, ""),
    );
    assert_eq!(sent(&server).len(), 2);
    deliver(
        &server,
        "b@client.example",
        "last@domain.tld",
        &message(3, ""),
    );
    assert_eq!(sent(&server).len(), 3);
}

#[test]
fn check_reports_what_keeps_autoreplies_from_being_sent() {
    let told = |builder: &Builder| {
        let mut command = mailstow::command(&["check"]);
        command.args(builder.configuration());
        let output = mailstow::run_with_input(command, b"");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let good = site("autoreply-check", "");
    assert!(!told(&good).contains("autorepl"), "{}", told(&good));
    let bad = site(
        "autoreply-check",
        "text = \"../%s\"\nsend_through = \"smtp:\"\n",
    );
    bad.scratch().write("texts/latin", b"Gr\xfc\xdfe\n");
    let told = told(&bad);
    for cause in [
        "text = ../%s in [autoreply]: it is no relative path",
        "texts/latin: it is not UTF-8 at byte 2",
        "send_through = smtp:: relayhost is empty",
    ] {
        assert!(told.contains(cause), "{cause}\n{told}");
    }
}
