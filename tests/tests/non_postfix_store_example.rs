//! The "non-Postfix mailbox store" example of VIRTUAL_README works with mailstow as the store.
//!
//! Method: Postfix has only the lines printed there and hands over by LMTP; where the mailboxes
//! are is known to mailstow alone, from a `mailstow.toml`. Mail for an unknown user that reaches
//! the store by sendmail(1) is refused by the store, as the example demands of it.

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::site::{Handover, Site};
use mailstow_tests::{Mailstow, Postfix, example};

#[test]
fn the_example_works_with_the_store_configured_apart_from_postfix() {
    let postfix = Postfix::build("store-example")
        .main_cf(example::STORE_MAIN_CF)
        .table("vmailbox", example::STORE_VMAILBOX)
        .table("virtual", example::MAILBOX_VIRTUAL);
    let vhosts = postfix.scratch().join("vhosts").display().to_string();
    let store = Mailstow::build("apart").toml(&format!(
        "[routing]\n\
         virtual_mailbox_domains = \"example.com\"\n\
         virtual_mailbox_base = \"{vhosts}\"\n\
         virtual_mailbox_maps = \"inline:{{info@example.com=example.com/info/, \
         sales@example.com=example.com/sales/}}\"\n\
         virtual_uid_maps = \"static:5000\"\n\
         virtual_gid_maps = \"static:5000\"\n"
    ));
    let site = Site::start(postfix, Handover::LmtpUnix, Some(store));
    let postfix = &site.postfix;

    for name in ["info", "sales"] {
        let recipient = format!("{name}@example.com");
        let reply = postfix.submit("s@client.example", &[&recipient], &plain(name));
        assert_eq!(reply.code, 250, "{reply}");
    }
    postfix.drain();
    for name in ["info", "sales"] {
        let stored = maildir(&site.mailbox(&format!("example.com/{name}")));
        assert_eq!(stored.len(), 1);
        assert_eq!(header(&stored[0].bytes, "Subject"), [name]);
    }

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
}
