//! Senders who ask for success notices of mail that goes on to another server: the server sends
//! them where it offers DSN, mailstow where it does not.
//!
//! Method: a client of LMTP, mailstow, and a real Postfix behind it, which stores what comes and
//! delivers its own notices to the sender. A script in the place of sendmail(1) keeps
//! the notices of mailstow.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mailstow_tests::mailboxes::maildir;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Client, Mailstow, Postfix, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// The next server.
const NEXT: &str = "\
virtual_mailbox_domains = far.example sender.example
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{{s@sender.example = sender.example/s/},
    {a@far.example = far.example/a/}}
virtual_alias_maps = inline:{{gone@far.example = nobody@far.example}}
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
";

struct Site {
    next: Postfix,
    store: Mailstow,
}

impl Site {
    fn start(name: &str, next_cf: &str) -> Self {
        let next = Postfix::build(name).main_cf(NEXT).main_cf(next_cf);
        for directory in ["vhosts", "vhosts/far.example", "vhosts/sender.example"] {
            next.scratch().mkdir_owned(directory, OWNER, OWNER);
        }
        next.write();
        let next = next.start();
        let mailstow_tests::Address::Inet(host, port) = next.smtp() else {
            panic!("Postfix listens on a port");
        };
        let store = Mailstow::build(name)
            .main_cf(
                "mydestination =\nlocal_transport = error:none\n\
                 virtual_alias_domains = list.example\n\
                 virtual_alias_maps = inline:{{all@list.example = a@far.example}}\n\
                 relay_domains = far.example\nsendmail_path = @ROOT@/sendmail\n",
            )
            .main_cf(&format!("relay_transport = smtp:[{host}]:{port}\n"))
            .toml("[lmtp]\nexpand_aliases = true\n[transport]\nenabled = true\n");
        let scratch = store.scratch();
        let script = "#!/bin/sh\ncat >$(dirname $0)/noted/$$\n";
        let script = scratch.write("sendmail", script);
        fs::set_permissions(script, PermissionsExt::from_mode(0o755)).expect("chmod");
        let noted = scratch.mkdir("noted");
        fs::set_permissions(noted, PermissionsExt::from_mode(0o1777)).expect("chmod");
        let store = store.start();
        Self { next, store }
    }

    /// Sends a message; its recipient is answered with this code.
    fn send(&self, recipient: &str, code: u16) {
        let mut client = Client::lmtp(&self.store.unix());
        let mail = "MAIL FROM:<s@sender.example> RET=HDRS ENVID=id+2B1";
        assert_eq!(client.command(mail).code, 250);
        let reply = client.command(format!("RCPT TO:{recipient}"));
        assert_eq!(reply.code, 250, "{recipient}: {reply}");
        assert_eq!(client.command("DATA").code, 354);
        let reply = client.command("Subject: asked\r\n\r\nText.\r\n.");
        assert_eq!(
            reply.code,
            code,
            "{recipient}: {reply}\n{}",
            self.store.log()
        );
        assert_eq!(client.command("NOOP").code, 250);
    }

    /// The notices of mailstow.
    fn own(&self) -> Vec<String> {
        let noted = fs::read_dir(self.store.scratch().join("noted")).expect("readdir");
        let files = noted.map(|file| file.expect("readdir").path());
        files
            .map(|file| fs::read_to_string(file).expect("text"))
            .collect()
    }

    /// The notices of the next server, once its queue is empty.
    fn of_next(&self) -> Vec<String> {
        self.next.drain();
        let path = self.next.scratch().join("vhosts/sender.example/s");
        let messages = match path.exists() {
            true => maildir(&path),
            false => Vec::new(),
        };
        let texts = messages.into_iter().map(|message| message.bytes);
        texts
            .map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
            .collect()
    }
}

#[test]
fn a_server_that_offers_dsn_is_told_what_the_sender_asks_and_sends_the_notice() {
    let site = Site::start("notice-next", "");
    let asked = "<a@far.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;orig+2Bx@origin.example";
    site.send(asked, 250);
    let notice = eventually("a notice", LIMIT, || site.of_next().pop());
    for line in [
        "\nOriginal-Envelope-Id: id+1\n",
        "\nOriginal-Recipient: rfc822;orig+x@origin.example\n",
        "\nAction: delivered\n",
    ] {
        assert!(notice.contains(line), "{line:?} is missing in {notice}");
    }
    assert_eq!(site.own(), [""; 0]);
    // What is not wanted is not sent, and RET is the sender's choice.
    site.send("<gone@far.example> NOTIFY=NEVER", 250);
    site.send("<a@far.example> NOTIFY=FAILURE", 250);
    assert_eq!(site.of_next().len(), 1);
    site.send("<gone@far.example> NOTIFY=FAILURE", 250);
    let notices = eventually("a failure notice", LIMIT, || {
        Some(site.of_next()).filter(|notices| notices.len() > 1)
    });
    let failed = notices
        .iter()
        .find(|notice| notice.contains("\nAction: failed\n"));
    assert!(!failed.expect("a failure notice").contains("\nText.\n"));
    // The notice for an alias says that it was expanded; mailstow sends it.
    site.send("<all@list.example> NOTIFY=SUCCESS", 250);
    let own = site.own();
    assert_eq!(own.len(), 1);
    assert!(own[0].contains("\nAction: expanded\n"), "{}", own[0]);
    assert_eq!(site.of_next().len(), 2);
}

#[test]
fn mail_for_a_server_without_dsn_is_told_to_be_relayed() {
    let site = Site::start("notice-no-dsn", "smtpd_discard_ehlo_keywords = dsn\n");
    site.send(
        "<a@far.example> NOTIFY=SUCCESS ORCPT=rfc822;o@origin.example",
        250,
    );
    let own = site.own();
    assert_eq!(own.len(), 1);
    for line in [
        "\nOriginal-Envelope-Id: id+1\n",
        "\nOriginal-Recipient: rfc822; o@origin.example\nFinal-Recipient: rfc822; a@far.example\n\
         Action: relayed\n",
    ] {
        assert!(own[0].contains(line), "{line:?} is missing in {}", own[0]);
    }
    site.send("<a@far.example> NOTIFY=FAILURE", 250);
    assert_eq!((site.own().len(), site.of_next().len()), (1, 0));
}
