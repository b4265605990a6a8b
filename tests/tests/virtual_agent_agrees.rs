//! The same mail through Postfix's virtual(8) and through mailstow leaves the same files.
//!
//! Method: two private Postfix instances with the same tables, one with `virtual_transport =
//! virtual`, one that hands over by LMTP. Every sample is sent to both; then all mailboxes are
//! compared byte by byte. File names, queue ids and times differ by nature and are made equal.

use std::collections::BTreeMap;
use std::path::Path;

use mailstow_tests::content::samples;
use mailstow_tests::mailboxes::{self, maildir, normalised};
use mailstow_tests::postfix::Builder;
use mailstow_tests::{Mailstow, Postfix};

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = hash:@DIR@/vmailbox
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_mailbox_limit = 0
recipient_delimiter = +
smtputf8_enable = yes
";

const VMAILBOX: &str = "\
info@example.com              example.com/info
sales@example.com             example.com/sales/
\"quoted part\"@example.com   example.com/quoted/
@example.com                  example.com/catchall/deep/
";

fn postfix(name: &str) -> Builder {
    let postfix = Postfix::build(name)
        .main_cf(MAIN_CF)
        .table("vmailbox", VMAILBOX);
    let scratch = postfix.scratch();
    scratch.mkdir_owned("vhosts", 5000, 5000);
    scratch.mkdir_owned("vhosts/example.com", 5000, 5000);
    postfix
}

/// Sends every sample, one after the other, so that the order in the mailboxes is known.
fn send_all(postfix: &Postfix) {
    for sample in samples() {
        let reply = postfix.submit(sample.sender, &[sample.recipient], &sample.content);
        assert_eq!(reply.code, 250, "{}: {reply}", sample.name);
        postfix.drain();
    }
}

/// Mailbox name to its messages, normalised; modes are part of it.
fn contents(vhosts: &Path) -> BTreeMap<String, Vec<String>> {
    let base = vhosts.join("example.com");
    let mut found = BTreeMap::new();
    let text = |bytes: &[u8]| {
        normalised(bytes)
            .escape_ascii()
            .to_string()
            .replace("\\n", "\n")
    };
    found.insert(
        format!("info {}", mailboxes::owner_and_mode(&base.join("info"))),
        mailboxes::mbox(&base.join("info"))
            .iter()
            .map(|m| text(m))
            .collect(),
    );
    for name in ["sales", "quoted", "catchall/deep"] {
        let path = base.join(name);
        let mut messages: Vec<_> = maildir(&path)
            .iter()
            .map(|m| format!("{}\n{}", mailboxes::owner_and_mode(&m.path), text(&m.bytes)))
            .collect();
        messages.sort();
        let modes: Vec<_> = ["", "new", "cur", "tmp"]
            .map(|part| mailboxes::owner_and_mode(&path.join(part)))
            .to_vec();
        found.insert(format!("{name} {modes:?}"), messages);
    }
    found
}

#[test]
fn mail_stored_by_mailstow_equals_mail_stored_by_virtual() {
    let virtual_agent = postfix("virtual")
        .main_cf("virtual_transport = virtual")
        .start();
    send_all(&virtual_agent);

    let lmtp = postfix("lmtp");
    let store = Mailstow::build("agrees").postfix(&lmtp.directory());
    // Postfix's LMTP client would fold lines of more than 998 bytes (RFC 5321 section 4.5.3.1.6).
    let address = store.unix().spelled();
    let transport = format!("virtual_transport = lmtp:{address}\nlmtp_line_length_limit = 0");
    let lmtp = lmtp.main_cf(&transport);
    lmtp.write();
    let _store = store.start();
    let lmtp = lmtp.start();
    send_all(&lmtp);

    let theirs = contents(&virtual_agent.scratch().join("vhosts"));
    let ours = contents(&lmtp.scratch().join("vhosts"));
    let counted: usize = theirs.values().map(Vec::len).sum();
    assert_eq!(counted, samples().len(), "virtual(8) stored every sample");
    for ((their_box, theirs), (our_box, ours)) in theirs.iter().zip(&ours) {
        assert_eq!(their_box, our_box);
        for (theirs, ours) in theirs.iter().zip(ours) {
            assert_eq!(theirs, ours, "in {our_box}");
        }
        assert_eq!(theirs.len(), ours.len(), "in {our_box}");
    }
    assert_eq!(theirs.len(), ours.len());
}
