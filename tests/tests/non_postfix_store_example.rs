//! The "non-Postfix mailbox store" example of VIRTUAL_README works with mailstow as the store.
//!
//! Method: Postfix has only the lines printed there and hands over by LMTP; where the mailboxes are
//! is known to mailstow alone, from a `mailstow.toml`: either named after the recipient while
//! Postfix's tables list the recipients, or by separate tables. Mail for an unknown user that
//! reaches the store by sendmail(1) is refused by the store, as the example demands of it.

use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow;
use mailstow_tests::postfix;
use mailstow_tests::site::{Handover, Site};
use mailstow_tests::{Mailstow, Postfix, example};

fn postfix() -> postfix::Builder {
    Postfix::build("store-example")
        .main_cf(example::STORE_MAIN_CF)
        .table("vmailbox", example::STORE_VMAILBOX)
        .table("virtual", example::MAILBOX_VIRTUAL)
}

/// Base and owner of the mailboxes, which Postfix does not know.
fn store(postfix: &postfix::Builder, routing: &str) -> mailstow::Builder {
    let vhosts = postfix.scratch().join("vhosts");
    Mailstow::build("apart").toml(&format!(
        "[routing]\n\
         virtual_mailbox_base = \"{}\"\n\
         virtual_uid_maps = \"static:5000\"\n\
         virtual_gid_maps = \"static:5000\"\n\
         {routing}",
        vhosts.display()
    ))
}

fn the_example_works(site: &Site) {
    let postfix = &site.postfix;
    for name in ["info", "sales"] {
        let recipient = format!("{name}@example.com");
        let reply = postfix.submit("s@client.example", &[&recipient], &plain(name));
        assert_eq!(reply.code, 250, "{reply}");
    }
    postfix.drain();
    for name in ["info", "sales"] {
        let stored = maildir(&site.mailbox(&format!("example.com/{name}")));
        assert_eq!(stored.len(), 1, "{name}");
        assert_eq!(header(&stored[0].bytes, "Subject"), [name]);
    }

    let unknown = ["nobody@example.com"];
    let reply = postfix.submit("s@client.example", &unknown, &plain("unknown"));
    assert_eq!(reply.codes(), "550 5.1.1", "{reply}");
    postfix.sendmail("s@client.example", &unknown, &plain("unknown"));
    let outcome = postfix.outcome(unknown[0]);
    let told = (outcome.status.as_str(), outcome.dsn.as_str());
    assert_eq!(told, ("bounced", "5.1.1"), "{outcome:?}");
    example::show(
        "non-Postfix mailbox store",
        "info@ and sales@example.com -> Postfix -> LMTP -> Maildirs example.com/info and \
         example.com/sales, nobody@example.com -> 550 5.1.1",
    );
}

#[test]
fn the_example_works_with_mailboxes_named_after_the_recipient() {
    let postfix = postfix();
    let store = store(&postfix, "[store]\nmailbox_path = \"%d/%u/\"\n");
    let store = store.postfix(&postfix.directory());
    the_example_works(&Site::start(postfix, Handover::LmtpUnix, Some(store)));
}

#[test]
fn the_example_works_with_a_store_that_has_tables_of_its_own() {
    let postfix = postfix();
    let store = store(
        &postfix,
        "virtual_mailbox_domains = \"example.com\"\n\
         virtual_mailbox_maps = \"inline:{info@example.com=example.com/info/, \
         sales@example.com=example.com/sales/}\"\n",
    );
    the_example_works(&Site::start(postfix, Handover::LmtpInet, Some(store)));
}
