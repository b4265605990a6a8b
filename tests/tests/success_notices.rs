//! A sender who asks Postfix for a success notice (`NOTIFY=SUCCESS`) gets one, whichever server has
//! to send it: mailstow, when it offers DSN, or Postfix.
//!
//! Method: a private Postfix takes mail by SMTP and hands it to mailstow; the senders' mailboxes
//! are delivered by virtual(8), where the notices are looked for.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use mailstow_tests::mailboxes::{self, header, maildir};
use mailstow_tests::mailstow::{NOBODY, command, run_with_input};
use mailstow_tests::postfix::Builder;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Client, Mailstow, Postfix, eventually, python};

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com sender.example
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{{s@sender.example = sender.example/s/},
    {a@example.com = example.com/a/}, {b@example.com = example.com/b/},
    {shares-a@example.com = example.com/a/}}
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
transport_maps = inline:{{sender.example = virtual:}}
";

struct Site {
    postfix: Postfix,
    store: Mailstow,
}

impl Site {
    fn start(name: &str, main_cf: &str, toml: &str) -> Self {
        let store = |postfix: &Builder| {
            let store = Mailstow::build(name).postfix(&postfix.directory());
            match toml {
                "" => store,
                toml => store.toml(toml),
            }
        };
        Self::with(name, main_cf, store)
    }

    fn with(
        name: &str,
        main_cf: &str,
        store: impl FnOnce(&Builder) -> mailstow_tests::mailstow::Builder,
    ) -> Self {
        let postfix = Postfix::build(name).main_cf(MAIN_CF).main_cf(main_cf);
        for directory in ["vhosts", "vhosts/example.com", "vhosts/sender.example"] {
            postfix.scratch().mkdir_owned(directory, OWNER, OWNER);
        }
        let store = store(&postfix);
        let transport = format!("virtual_transport = lmtp:{}", store.unix().spelled());
        let postfix = postfix.main_cf(&transport);
        postfix.write();
        Self {
            store: store.start(),
            postfix: postfix.start(),
        }
    }

    /// Submits a message of this subject by SMTP.
    fn submit(&self, mail: &str, recipients: &[&str], subject: &str) {
        let mut client = Client::smtp(&self.postfix.smtp());
        let reply = client.command(format!("MAIL FROM:{mail}"));
        assert_eq!(reply.code, 250, "{mail}: {reply}");
        for recipient in recipients {
            let reply = client.command(format!("RCPT TO:{recipient}"));
            assert_eq!(reply.code, 250, "{recipient}: {reply}");
        }
        assert_eq!(client.command("DATA").code, 354);
        let content = format!("Subject: {subject}\r\nX-Mark: {subject}\r\n\r\nThe body.\r\n.");
        let reply = client.command(content);
        assert_eq!(reply.code, 250, "{reply}");
    }

    fn mailbox(&self, name: &str) -> Vec<Vec<u8>> {
        let path = self.postfix.scratch().join("vhosts").join(name);
        maildir(&path).into_iter().map(|m| m.bytes).collect()
    }

    /// The notices that the sender has got.
    fn notices(&self) -> Vec<String> {
        let notices = self.mailbox("sender.example/s").into_iter();
        notices
            .map(|n| String::from_utf8(n).expect("UTF-8"))
            .collect()
    }

    /// The only notice there is, once the queue is empty.
    fn notice(&self) -> String {
        self.postfix.drain();
        let what = "a notice";
        let mut notices = eventually(what, Duration::from_secs(30), || {
            Some(self.notices()).filter(|n| !n.is_empty())
        });
        self.postfix.drain();
        assert_eq!(self.notices().len(), 1, "{notices:?}");
        notices.remove(0)
    }
}

const SENDER: &str = "<s@sender.example>";

#[test]
fn a_notice_that_was_asked_for_is_sent_as_rfc_3464_has_it() {
    let site = Site::start("notice", "", "");
    site.submit(
        &format!("{SENDER} ENVID=id+2B1 RET=FULL"),
        &["<a@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;orig+2Bx@origin.example"],
        "mark-1",
    );
    let notice = site.notice();
    let stored = site.mailbox("example.com/a");
    assert_eq!(
        header(&stored[0], "X-Original-To"),
        ["orig+x@origin.example"]
    );
    assert_eq!(header(notice.as_bytes(), "Return-Path"), ["<>"]);
    assert_eq!(
        header(notice.as_bytes(), "Delivered-To"),
        ["s@sender.example"]
    );
    for line in [
        "\nReporting-MTA: dns; mx.origin.example\n",
        "\nOriginal-Envelope-Id: id+1\n",
        "\nOriginal-Recipient: rfc822; orig+x@origin.example\nFinal-Recipient: rfc822; a@example.com\n\
         Action: delivered\nStatus: 2.0.0\n",
        "\nX-Mark: mark-1\n",
    ] {
        assert!(notice.contains(line), "{line:?} is missing in {notice}");
    }
    assert!(
        !notice.contains("The body."),
        "only the header is returned: {notice}"
    );
    // As a mail program reads it.
    let script = "import email, sys\n\
        m = email.message_from_binary_file(sys.stdin.buffer)\n\
        print(m.get_content_type(), m.get_param('report-type'))\n\
        parts = m.get_payload()\n\
        print([p.get_content_type() for p in parts], len(m.defects))\n\
        fields = parts[1].get_payload()\n\
        print(fields[0]['Reporting-MTA'], '|', fields[1]['Action'], '|', fields[1]['Final-Recipient'])";
    let output = run_with_input(python::program(script, &[]), notice.as_bytes());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "multipart/report delivery-status\n\
         ['text/plain', 'message/delivery-status', 'text/rfc822-headers'] 0\n\
         dns; mx.origin.example | delivered | rfc822; a@example.com\n"
    );
}

#[test]
fn a_notice_is_sent_to_those_who_asked_and_for_the_recipients_they_asked_for() {
    let site = Site::start("asked", "", "");
    site.submit("<>", &["<a@example.com> NOTIFY=SUCCESS"], "null-sender");
    site.submit(
        SENDER,
        &["<a@example.com>", "<b@example.com> NOTIFY=NEVER"],
        "not-asked",
    );
    site.submit(
        SENDER,
        &["<a@example.com> NOTIFY=FAILURE,DELAY"],
        "failures-only",
    );
    site.submit(
        SENDER,
        &["<b@example.com>", "<a@example.com> NOTIFY=SUCCESS"],
        "asked",
    );
    let notice = site.notice();
    assert!(notice.contains("\nX-Mark: asked\n"), "{notice}");
    assert!(notice.contains("Final-Recipient: rfc822; a@example.com\n"));
    assert!(!notice.contains("b@example.com"), "{notice}");
    assert_eq!(site.mailbox("example.com/a").len(), 4);
    assert_eq!(site.mailbox("example.com/b").len(), 2);
}

#[test]
fn one_notice_tells_of_all_recipients_of_a_message() {
    let site = Site::start("both", "", "");
    let recipients = [
        "<a@example.com> NOTIFY=SUCCESS",
        "<b@example.com> NOTIFY=SUCCESS",
    ];
    site.submit(SENDER, &recipients, "both");
    let notice = site.notice();
    for recipient in ["a@example.com", "b@example.com"] {
        assert!(
            notice.contains(&format!("Final-Recipient: rfc822; {recipient}\n")),
            "{notice}"
        );
    }
}

/// A sendmail(1) that refuses until the file `works` is there, in the scratch directory of Postfix.
fn moody_sendmail(postfix: &Builder) -> String {
    let path = postfix.scratch().join("sendmail");
    let works = postfix.scratch().join("works");
    let script = format!(
        "#!/bin/sh\ntest -e {} || {{ echo no queue >&2; exit 75; }}\nexec /usr/sbin/sendmail \"$@\"\n",
        works.display()
    );
    postfix.scratch().write("sendmail", script);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    format!("[routing]\nsendmail_path = \"{}\"\n", path.display())
}

#[test]
fn a_notice_that_cannot_be_sent_is_tried_again_and_nothing_is_stored_twice() {
    let site = Site::with("again", "", |postfix| {
        let toml = moody_sendmail(postfix);
        Mailstow::build("again")
            .postfix(&postfix.directory())
            .toml(&toml)
    });
    let recipients = [
        "<a@example.com> NOTIFY=SUCCESS",
        "<b@example.com>",
        "<shares-a@example.com>",
    ];
    site.submit(SENDER, &recipients, "again");
    let outcome = site.postfix.outcome("a@example.com");
    assert_eq!(
        (outcome.status.as_str(), outcome.dsn.as_str()),
        ("deferred", "4.3.0"),
        "{outcome:?}"
    );
    for other in ["b@example.com", "shares-a@example.com"] {
        assert_eq!(site.postfix.outcome(other).status, "sent");
    }
    assert!(site.notices().is_empty());
    // A second time in vain. A message that is not in the deferred queue yet is not flushed.
    eventually("a second attempt", Duration::from_secs(60), || {
        site.postfix.flush();
        (site.postfix.outcomes("a@example.com").len() >= 2).then_some(())
    });
    site.postfix.scratch().write("works", "");
    eventually("another attempt", Duration::from_secs(60), || {
        site.postfix.flush();
        let outcomes = site.postfix.outcomes("a@example.com");
        outcomes.iter().any(|o| o.status == "sent").then_some(())
    });
    let notice = site.notice();
    assert!(
        notice.contains("Final-Recipient: rfc822; a@example.com\n"),
        "{notice}"
    );
    assert!(!notice.contains("b@example.com"), "{notice}");
    let outcomes = site.postfix.outcomes("a@example.com");
    assert_eq!(
        outcomes.last().map(|o| o.status.as_str()),
        Some("sent"),
        "{outcomes:?}"
    );
    assert_eq!(site.mailbox("example.com/a").len(), 1);
    assert_eq!(site.mailbox("example.com/b").len(), 1);
}

#[test]
fn postfix_sends_the_notice_where_mailstow_has_no_way_out_for_it() {
    let no_program = "[routing]\nsendmail_path = \"/nonexistent/sendmail\"\n";
    for (name, toml) in [
        ("no-program", no_program),
        ("switched-off", "[lmtp]\nsuccess_notices = \"no\"\n"),
        ("direct", "[store]\ndurability = \"direct\"\n"),
    ] {
        let site = Site::start(name, "", toml);
        site.submit(SENDER, &["<a@example.com> NOTIFY=SUCCESS"], name);
        let notice = site.notice();
        assert!(notice.contains("\nAction: relayed\n"), "{name}: {notice}");
        let mut check = command(&["check"]);
        check.args(site.store.configuration());
        check.arg("--postfix").arg(site.postfix.directory());
        let said = String::from_utf8(run_with_input(check, b"").stdout).expect("UTF-8");
        let is_said = said.contains("note: DSN is not offered: ");
        assert_eq!(is_said, name != "switched-off", "{name}: {said}");
        let stored = site.mailbox("example.com/a");
        assert!(header(&stored[0], "X-Original-To").is_empty(), "{name}");
    }
}

#[test]
fn a_server_without_root_that_may_not_use_the_queue_leaves_the_notice_to_postfix() {
    let nobody = format!(
        "virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
         virtual_mailbox_maps = inline:{{{{a@example.com = example.com/a/}}}}\n\
         virtual_mailbox_domains = example.com\n"
    );
    let site = Site::with("nobody", &nobody, |postfix| {
        for directory in ["vhosts", "vhosts/example.com"] {
            postfix.scratch().mkdir_owned(directory, NOBODY, NOBODY);
        }
        Mailstow::build("nobody")
            .postfix(&postfix.directory())
            .as_user(NOBODY)
    });
    let offered = site.store.client().command("LHLO client.example");
    assert!(!offered.text.contains("DSN"), "{offered}");
    assert!(
        site.store.log().contains("alternate_config_directories"),
        "{}",
        site.store.log()
    );
    site.submit(
        "<x@far.example>",
        &["<a@example.com> NOTIFY=SUCCESS"],
        "nobody",
    );
    // It is discarded by default_transport.
    let outcome = site.postfix.outcome("x@far.example");
    assert_eq!(outcome.status, "sent", "{outcome:?}");
    assert_eq!(site.mailbox("example.com/a").len(), 1);
}

#[test]
fn an_alias_that_is_expanded_here_is_told_as_expanded() {
    let toml = "[lmtp]\nexpand_aliases = true\n[routing]\n\
                virtual_alias_maps = \"inline:{{all@example.com = a@example.com b@example.com}}\"\n";
    let site = Site::start("expanded", "virtual_alias_domains =\n", toml);
    let mut client = site.store.client();
    assert_eq!(client.command(format!("MAIL FROM:{SENDER}")).code, 250);
    let recipient = "RCPT TO:<all@example.com> NOTIFY=SUCCESS";
    assert_eq!(client.command(recipient).code, 250);
    assert_eq!(client.command("DATA").code, 354);
    let reply = client.command("Subject: x\r\n\r\nx\r\n.");
    assert_eq!(reply.code, 250, "{reply}");
    let notice = site.notice();
    assert!(
        notice.contains(
            "Final-Recipient: rfc822; all@example.com\nAction: expanded\nStatus: 2.0.0\n"
        ),
        "{notice}"
    );
    assert!(
        !notice.contains("a@example.com\n") && !notice.contains("<a@"),
        "{notice}"
    );
    assert_eq!(
        mailboxes::list(&site.postfix.scratch().join("vhosts/example.com/b/new")).len(),
        1
    );
}

#[test]
fn a_hostile_sender_gets_no_more_than_one_notice_and_cannot_forge_it() {
    let site = Site::start("hostile", "", "");
    let mut client = site.store.client();
    for sender in [
        "s@sender.example,x@sender.example",
        "s@sender.example x",
        "-oQ/tmp@sender.example",
    ] {
        assert_eq!(client.command(format!("MAIL FROM:<{sender}>")).code, 250);
        let recipient = "RCPT TO:<a@example.com> NOTIFY=SUCCESS ORCPT=x+0AAction:;+0A+0A--x";
        assert_eq!(client.command(recipient).code, 250);
        assert_eq!(client.command("DATA").code, 354);
        let reply = client.command("Subject: x\r\n\r\nx\r\n.");
        assert_eq!(reply.code, 250, "{sender}: {reply}");
    }
    site.postfix.drain();
    assert!(site.notices().is_empty(), "{:?}", site.notices());
    assert_eq!(site.mailbox("example.com/a").len(), 3);
}
