//! What Postfix hands over in everyday and extreme form arrives: internationalised mail, 50
//! recipients at once, 25 MiB.

use mailstow_tests::Postfix;
use mailstow_tests::content::{plain, samples, sized};
use mailstow_tests::mailboxes::{self, header, maildir};
use mailstow_tests::postfix::Builder;
use mailstow_tests::scratch::write_whole;
use mailstow_tests::site::{Handover, Site};

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = texthash:@DIR@/vmailbox
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_mailbox_limit = 100000000
message_size_limit = 50000000
recipient_delimiter = +
";

fn postfix(name: &str, vmailbox: &str) -> Builder {
    let builder = Postfix::build(name).main_cf(MAIN_CF);
    std::fs::create_dir_all(builder.directory()).expect("mkdir");
    write_whole(&builder.directory().join("vmailbox"), vmailbox);
    builder
}

#[test]
fn an_smtputf8_message_with_a_utf8_recipient_is_stored() {
    let postfix = postfix("utf8", "j\u{f6}rg@example.com example.com/joerg/\n");
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let sample = samples().into_iter().find(|s| s.name == "smtputf8");
    let sample = sample.expect("there is such a sample");
    let recipients = ["j\u{f6}rg@example.com"];
    let reply = site
        .postfix
        .submit(sample.sender, &recipients, &sample.content);
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    let stored = mailboxes::only(&site.mailbox("example.com/joerg"));
    assert_eq!(header(&stored, "Delivered-To"), recipients);
    assert_eq!(
        header(&stored, "Return-Path"),
        [format!("<{}>", sample.sender)]
    );
    assert_eq!(mailboxes::body(&stored), "Gr\u{fc}\u{df}e\n".as_bytes());
}

#[test]
fn fifty_recipients_in_one_transaction_each_get_one_copy() {
    let names: Vec<_> = (0..50).map(|n| format!("user{n:02}")).collect();
    let vmailbox: String = names
        .iter()
        .map(|name| format!("{name}@example.com example.com/{name}/\n"))
        .collect();
    let site = Site::start(postfix("fifty", &vmailbox), Handover::LmtpUnix, None);
    let recipients: Vec<_> = names.iter().map(|n| format!("{n}@example.com")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let reply = site
        .postfix
        .submit("s@client.example", &recipients, &plain("fifty"));
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    for name in &names {
        let stored = mailboxes::only(&site.mailbox(&format!("example.com/{name}")));
        assert_eq!(
            header(&stored, "Delivered-To"),
            [format!("{name}@example.com")]
        );
        assert_eq!(header(&stored, "Subject"), ["fifty"]);
    }
    let outcomes: Vec<_> = recipients.iter().map(|r| site.postfix.outcome(r)).collect();
    assert!(outcomes.iter().all(|o| o.dsn == "2.0.0"), "{outcomes:?}");
}

#[test]
fn a_message_of_25_mebibytes_arrives_whole() {
    let site = Site::start(
        postfix("large", "big@example.com example.com/big/\n"),
        Handover::LmtpInet,
        None,
    );
    let content = sized("large", 25 << 20);
    let reply = site
        .postfix
        .submit("s@client.example", &["big@example.com"], &content);
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    let stored = mailboxes::only(&site.mailbox("example.com/big"));
    assert!(
        mailboxes::body(&stored) == mailboxes::body(&content),
        "content differs"
    );
}

/// Postfix measures its queue file; when it hands the message over it breaks lines after 998 bytes
/// with a line end and a blank, which must not make the store bounce what Postfix took.
#[test]
fn the_largest_message_that_postfix_takes_is_not_too_large_for_the_store() {
    const LIMIT: usize = 4_000_000;
    let postfix = postfix("limit", "big@example.com example.com/big/\n")
        .main_cf(&format!("message_size_limit = {LIMIT}"));
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let taken = (0..100).any(|step| {
        let content = format!("Subject: x\n\n{}\n", "x".repeat(LIMIT - step * 400));
        let recipients = ["big@example.com"];
        let reply = site
            .postfix
            .submit("s@client.example", &recipients, content.as_bytes());
        reply.code == 250
    });
    assert!(taken, "Postfix takes no size");
    site.postfix.drain();
    let outcome = site.postfix.outcome("big@example.com");
    assert_eq!(outcome.dsn, "2.0.0", "{outcome:?}");
    assert_eq!(maildir(&site.mailbox("example.com/big")).len(), 1);
}

#[test]
fn an_address_extension_reaches_the_mailbox_of_the_user() {
    let site = Site::start(
        postfix("extension", "sales@example.com example.com/sales/\n"),
        Handover::LmtpUnix,
        None,
    );
    let recipients = ["Sales+Spring@example.com"];
    let reply = site
        .postfix
        .submit("s@client.example", &recipients, &plain("x"));
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    let stored = maildir(&site.mailbox("example.com/sales"));
    assert_eq!(header(&stored[0].bytes, "Delivered-To"), recipients);
}

#[test]
fn the_original_recipient_before_an_alias_is_written_down() {
    let postfix = postfix("original", "sales@example.com example.com/sales/\n")
        .main_cf("virtual_alias_maps = inline:{shop@example.com=sales@example.com}");
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let reply = site
        .postfix
        .submit("s@client.example", &["shop@example.com"], &plain("x"));
    assert_eq!(reply.code, 250, "{reply}");
    site.postfix.drain();
    let stored = mailboxes::only(&site.mailbox("example.com/sales"));
    assert_eq!(header(&stored, "X-Original-To"), ["shop@example.com"]);
    assert_eq!(header(&stored, "Delivered-To"), ["sales@example.com"]);
}

/// The line that a signature covers, as the mailbox has it.
fn long_line_of(main_cf: &str) -> bool {
    let postfix = postfix("long-lines", "sales@example.com example.com/sales/\n").main_cf(main_cf);
    let site = Site::start(postfix, Handover::LmtpUnix, None);
    let line = "x".repeat(1900);
    let content = format!("Subject: signed\n\n{line}\nend\n");
    let recipients = ["sales@example.com"];
    site.postfix
        .sendmail("s@client.example", &recipients, content.as_bytes());
    site.postfix.drain();
    let stored = mailboxes::only(&site.mailbox("example.com/sales"));
    mailboxes::body(&stored) == format!("{line}\nend\n").as_bytes()
}

#[test]
fn long_lines_stay_whole_only_without_the_limit_of_lmtp() {
    assert!(!long_line_of(""), "lmtp(8) breaks them");
    assert!(long_line_of("lmtp_line_length_limit = 0"));
}

#[test]
fn a_strangers_orcpt_is_kept_out_by_not_offering_dsn() {
    for (main_cf, expected) in [
        ("", "stranger@elsewhere.example"),
        (
            "smtpd_discard_ehlo_keywords = dsn, silent-discard",
            "sales@example.com",
        ),
    ] {
        let postfix = postfix("orcpt", "sales@example.com example.com/sales/\n").main_cf(main_cf);
        let site = Site::start(postfix, Handover::LmtpUnix, None);
        let recipient = "<sales@example.com>".to_owned();
        let forged = format!("{recipient} ORCPT=rfc822;stranger@elsewhere.example");
        let submit = |recipient: &str| {
            let mut client = mailstow_tests::Client::smtp(&site.postfix.smtp());
            let recipients = [recipient.to_owned()];
            client.submit("<s@client.example>", &recipients, &plain("x"))
        };
        let reply = submit(&forged);
        if main_cf.is_empty() {
            assert_eq!(reply.code, 250, "{reply}");
        } else {
            assert_eq!(reply.code, 501, "{reply}");
            assert_eq!(submit(&recipient).code, 250);
        }
        site.postfix.drain();
        let stored = mailboxes::only(&site.mailbox("example.com/sales"));
        assert_eq!(header(&stored, "X-Original-To"), [expected]);
    }
}
