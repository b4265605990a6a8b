//! The "virtual ALIAS" example and the "mail forwarding domains" of VIRTUAL_README work with
//! mailstow alone.
//!
//! Method: mailstow expands the aliases itself and has no Postfix in front. The accounts are known
//! to the server and to nothing else on the machine; forwarded mail goes to a real Postfix, which
//! stores it with virtual(8).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{header, maildir, mbox};
use mailstow_tests::mailstow::Builder;
use mailstow_tests::{Address, Client, Mailstow, Postfix, Reply, example};

const SENDER: &str = "s@client.example";

/// Line 2 and 3 of both examples.
const MAIN_CF: &str = "\
virtual_alias_domains = example.com ...other hosted domains...
virtual_alias_maps = hash:@DIR@/virtual
";

/// A site with the accounts joe, jane and jim, where mail for the postmaster goes to joe.
fn site(name: &str, main_cf: &str, aliases: &str) -> Builder {
    let builder = Mailstow::build(name)
        .main_cf(MAIN_CF)
        .main_cf(
            "compatibility_level = 3.6\nmyhostname = my.host.example\n\
             mydestination = $myhostname\n\
             mail_spool_directory = @ROOT@/spool\nalias_maps = hash:@DIR@/aliases\n",
        )
        .main_cf(main_cf)
        .table("virtual", aliases)
        .table("aliases", "postmaster: joe\n")
        .toml("[lmtp]\nexpand_aliases = true\n[transport]\nenabled = true\n")
        .user("joe", 6001, "/nonexistent")
        .user("jane", 6002, "/nonexistent")
        .user("jim", 6004, "/nonexistent");
    // As on Debian.
    let spool = builder.scratch().mkdir_owned("spool", 0, 8);
    fs::set_permissions(spool, PermissionsExt::from_mode(0o2775)).expect("chmod");
    builder
}

fn deliver(server: &Mailstow, to: &str) -> String {
    let mut client = Client::lmtp(&server.unix());
    let replies = client.deliver(SENDER, &[to], &plain(to));
    let replies: Vec<String> = replies.iter().map(Reply::to_string).collect();
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.concat()
}

fn delivered(server: &Mailstow, to: &str) {
    let reply = deliver(server, to);
    assert!(
        reply.starts_with("250 2.0.0"),
        "{to}: {reply}\n{}",
        server.log()
    );
}

fn is_refused(server: &Mailstow, to: &str) {
    let mut client = Client::lmtp(&server.unix());
    client.command("MAIL FROM:<>");
    let reply = client.command(format!("RCPT TO:<{to}>")).to_string();
    assert!(reply.starts_with("550 5.1.1"), "{to}: {reply}");
}

/// The subjects in the mailbox of an account.
fn subjects(server: &Mailstow, user: &str) -> Vec<String> {
    let path = server.scratch().join("spool").join(user);
    let messages = match path.exists() {
        true => mbox(&path),
        false => Vec::new(),
    };
    let subjects = messages
        .iter()
        .flat_map(|message| header(message, "Subject"));
    subjects.collect()
}

/// Line 6 to 8 of the example.
const VIRTUAL: &str = "\
postmaster@example.com postmaster
info@example.com       joe
sales@example.com      jane
# @example.com         jim
";

#[test]
fn the_virtual_alias_example_delivers_to_unix_accounts() {
    let server = site("alias-example", "", VIRTUAL).start();
    for to in [
        "postmaster@example.com",
        "info@example.com",
        "sales@example.com",
    ] {
        delivered(&server, to);
    }
    is_refused(&server, "nobody@example.com");
    let joe = ["postmaster@example.com", "info@example.com"];
    assert_eq!(subjects(&server, "joe"), joe);
    assert_eq!(subjects(&server, "jane"), ["sales@example.com"]);
    example::show(
        "virtual ALIAS example",
        "postmaster@ and info@example.com -> mbox of joe, sales@example.com -> mbox of jane, \
         nobody@example.com -> 550 5.1.1",
    );
}

#[test]
fn the_catch_all_of_the_virtual_alias_example_takes_the_rest() {
    let server = site("alias-catch-all", "", &example::with_catch_all(VIRTUAL)).start();
    delivered(&server, "info@example.com");
    delivered(&server, "anything@example.com");
    assert_eq!(subjects(&server, "joe"), ["info@example.com"]);
    assert_eq!(subjects(&server, "jim"), ["anything@example.com"]);
    example::show(
        "virtual ALIAS example, catch-all",
        "anything@example.com -> mbox of jim",
    );
}

#[test]
fn a_mail_forwarding_domain_sends_mail_on_to_another_postfix() {
    let other = Postfix::build("forwarded-to")
        .main_cf(
            "virtual_mailbox_domains = somewhere, somewhere-else\n\
             virtual_mailbox_base = @ROOT@/vhosts\nvirtual_mailbox_maps = hash:@DIR@/vmailbox\n\
             virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000\n",
        )
        .table(
            "vmailbox",
            "joe@somewhere joe/\njane@somewhere-else jane/\n",
        );
    other.scratch().mkdir_owned("vhosts", 5000, 5000);
    let other = other.start();
    let Address::Inet(host, port) = other.smtp() else {
        panic!("Postfix listens on a port");
    };
    let aliases = "\
postmaster@example.com postmaster
joe@example.com        joe@somewhere
jane@example.com       jane@somewhere-else
";
    let relayhost = format!("relayhost = [{host}]:{port}\n");
    let server = site("forwarding", &relayhost, aliases).start();
    for to in [
        "postmaster@example.com",
        "joe@example.com",
        "jane@example.com",
    ] {
        delivered(&server, to);
    }
    is_refused(&server, "nobody@example.com");
    other.drain();
    for (mailbox, original) in [("joe", "joe@example.com"), ("jane", "jane@example.com")] {
        let stored = maildir(&other.scratch().join("vhosts").join(mailbox));
        assert_eq!(stored.len(), 1, "{mailbox}\n{}", other.log());
        assert_eq!(header(&stored[0].bytes, "Subject"), [original]);
        assert_eq!(
            header(&stored[0].bytes, "Return-Path"),
            [format!("<{SENDER}>")]
        );
    }
    assert_eq!(subjects(&server, "joe"), ["postmaster@example.com"]);
    example::show(
        "mail forwarding domains",
        "joe@example.com -> joe@somewhere and jane@example.com -> jane@somewhere-else by way of \
         another Postfix, postmaster@example.com -> mbox of joe",
    );
}
