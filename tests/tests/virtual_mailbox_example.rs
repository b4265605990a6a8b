//! The VIRTUAL MAILBOX example of Postfix's VIRTUAL_README works with mailstow behind Postfix.
//!
//! Method: `main.cf` and the tables as printed there, only the paths moved, handed over by
//! `lmtp:unix:`, by `lmtp:inet:` and to a pipe(8) service. An unknown user is refused by Postfix's
//! smtpd, and by mailstow itself when the mail came in by sendmail(1), where smtpd is not asked.

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{header, maildir, mbox, owner_and_mode};
use mailstow_tests::site::{Handover, Site};
use mailstow_tests::{Postfix, eventually, example};

fn site(handover: Handover) -> Site {
    let postfix = Postfix::build("example")
        .main_cf(example::MAILBOX_MAIN_CF)
        .main_cf(example::POSTMASTER_MAIN_CF)
        .table("vmailbox", example::MAILBOX_VMAILBOX)
        .table("virtual", example::MAILBOX_VIRTUAL)
        .aliases(example::POSTMASTER_ALIASES);
    let local = postfix.scratch().mkdir("local");
    std::fs::set_permissions(&local, std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .expect("chmod");
    Site::start(postfix, handover, None)
}

fn the_example_works(handover: Handover) {
    let site = site(handover);
    let postfix = &site.postfix;
    for recipient in [
        "info@example.com",
        "sales@example.com",
        "postmaster@example.com",
    ] {
        let reply = postfix.submit("s@client.example", &[recipient], &plain(recipient));
        assert_eq!(reply.code, 250, "{recipient}: {reply}");
    }
    postfix.drain();

    let info = mbox(&site.mailbox("example.com/info"));
    assert_eq!(info.len(), 1);
    assert!(info[0].starts_with(b"From s@client.example  "));
    assert_eq!(header(&info[0], "Return-Path"), ["<s@client.example>"]);
    assert_eq!(header(&info[0], "X-Original-To"), ["info@example.com"]);
    assert_eq!(header(&info[0], "Delivered-To"), ["info@example.com"]);
    assert_eq!(
        owner_and_mode(&site.mailbox("example.com/info")),
        "5000:5000 0600"
    );

    let sales = maildir(&site.mailbox("example.com/sales"));
    assert_eq!(sales.len(), 1);
    assert_eq!(header(&sales[0].bytes, "Subject"), ["sales@example.com"]);
    assert_eq!(owner_and_mode(&sales[0].path), "5000:5000 0600");
    assert_eq!(
        owner_and_mode(&site.mailbox("example.com/sales/new")),
        "5000:5000 0700"
    );

    let local = postfix.outcome("postmaster@origin.example");
    assert_eq!(
        (local.relay.as_str(), local.status.as_str()),
        ("local", "sent")
    );

    an_unknown_user_is_refused(&site);
    the_catch_all_takes_the_rest(&site);
}

fn an_unknown_user_is_refused(site: &Site) {
    let postfix = &site.postfix;
    let reply = postfix.submit(
        "s@client.example",
        &["nobody@example.com"],
        &plain("unknown"),
    );
    assert_eq!(reply.codes(), "550 5.1.1", "{reply}");

    postfix.sendmail(
        "s@client.example",
        &["nobody@example.com"],
        &plain("unknown"),
    );
    let outcome = postfix.outcome("nobody@example.com");
    assert_eq!(
        (outcome.status.as_str(), outcome.dsn.as_str()),
        ("bounced", "5.1.1"),
        "{outcome:?}"
    );
    assert!(
        outcome.relay != "virtual" && outcome.relay != "local",
        "{outcome:?}"
    );
}

/// The commented line of the example made active, while both servers run.
fn the_catch_all_takes_the_rest(site: &Site) {
    let table = example::with_catch_all(example::MAILBOX_VMAILBOX);
    site.postfix.change_table("vmailbox", &table);
    site.wait_for_recipient("any.body@example.com", 250);
    eventually(
        "smtpd to see the catch-all",
        std::time::Duration::from_secs(20),
        || {
            let recipients = ["any.body@example.com"];
            let reply = site
                .postfix
                .submit("s@client.example", &recipients, &plain("caught"));
            (reply.code == 250).then_some(())
        },
    );
    site.postfix.drain();
    let caught = mbox(&site.mailbox("example.com/catchall"));
    assert_eq!(caught.len(), 1);
    assert_eq!(header(&caught[0], "Delivered-To"), ["any.body@example.com"]);
    assert_eq!(
        mbox(&site.mailbox("example.com/info")).len(),
        1,
        "info@ keeps its own"
    );
}

fn show(way: &str) {
    example::show(
        "virtual MAILBOX example",
        &format!(
            "{way}: info@example.com -> mbox example.com/info, sales@example.com -> Maildir \
             example.com/sales, nobody@example.com -> 550 5.1.1, then the catch-all -> mbox \
             example.com/catchall"
        ),
    );
}

#[test]
fn the_example_works_over_lmtp_on_a_unix_socket() {
    the_example_works(Handover::LmtpUnix);
    show("LMTP on a UNIX socket");
}

#[test]
fn the_example_works_over_lmtp_on_a_tcp_port() {
    the_example_works(Handover::LmtpInet);
    show("LMTP on a TCP port");
}

#[test]
fn the_example_works_as_a_pipe_command() {
    the_example_works(Handover::Pipe);
    show("pipe(8) and mailstow deliver");
}
