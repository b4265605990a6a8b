//! Files belong to the mapped user and are made with that user's rights, never with root's.

use std::os::unix::fs::PermissionsExt;

use mailstow_tests::Mailstow;
use mailstow_tests::content::plain;
use mailstow_tests::mailboxes::{list, maildir, owner_and_mode};
use mailstow_tests::mailstow::{Builder, NOBODY};
use mailstow_tests::scratch::needs_root;

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = texthash:@DIR@/vmailbox
virtual_uid_maps = texthash:@DIR@/uids
virtual_gid_maps = texthash:@DIR@/gids
";

const VMAILBOX: &str = "\
ann@example.com    ann/Maildir/
bob@example.com    bob/mbox
low@example.com    ann/low/
nouid@example.com  ann/nouid/
nogid@example.com  ann/nogid/
rootgid@example.com ann/rootgid/
me@example.com     me/
";

const UIDS: &str = "\
ann@example.com 5001
bob@example.com 5002
low@example.com 50
nogid@example.com 5001
rootgid@example.com 5001
me@example.com 65534
";

const GIDS: &str = "\
ann@example.com 6001
bob@example.com 6002
low@example.com 6001
nouid@example.com 6001
rootgid@example.com 0
me@example.com 65534
";

/// A store with a separate home for each user.
fn store(name: &str) -> Builder {
    needs_root("mailboxes of several users are made");
    let builder = Mailstow::build(name)
        .main_cf(MAIN_CF)
        .table("vmailbox", VMAILBOX)
        .table("uids", UIDS)
        .table("gids", GIDS);
    let scratch = builder.scratch();
    scratch.mkdir("vhosts");
    scratch.mkdir_owned("vhosts/ann", 5001, 6001);
    scratch.mkdir_owned("vhosts/bob", 5002, 6002);
    scratch.mkdir_owned("vhosts/me", NOBODY, NOBODY);
    builder
}

fn codes(server: &Mailstow, recipient: &str) -> String {
    let mut client = server.client();
    let replies = client.deliver("s@client.example", &[recipient], &plain("x"));
    replies[0].codes()
}

#[test]
fn files_belong_to_the_mapped_user_and_group_and_are_closed_to_others() {
    let server = store("owners").start();
    assert_eq!(codes(&server, "ann@example.com"), "250 2.0.0");
    assert_eq!(codes(&server, "bob@example.com"), "250 2.0.0");
    for part in ["", "new", "cur", "tmp"] {
        let path = server.mailbox("ann/Maildir").join(part);
        assert_eq!(
            owner_and_mode(&path),
            "5001:6001 0700",
            "{}",
            path.display()
        );
    }
    let message = &maildir(&server.mailbox("ann/Maildir"))[0];
    assert_eq!(owner_and_mode(&message.path), "5001:6001 0600");
    assert_eq!(
        owner_and_mode(&server.mailbox("bob/mbox")),
        "5002:6002 0600"
    );
    let left: Vec<_> = list(&server.mailbox("bob"));
    assert_eq!(left, [server.mailbox("bob/mbox")], "no lock file is left");
}

#[test]
fn a_directory_closed_to_the_recipient_is_not_opened_with_the_rights_of_root() {
    let builder = store("closed");
    let closed = builder.scratch().mkdir_owned("vhosts/ann", 0, 0);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).expect("chmod");
    let server = builder.start();
    assert_eq!(codes(&server, "ann@example.com"), "451 4.2.0");
    assert_eq!(list(&closed), [] as [std::path::PathBuf; 0]);
    assert_eq!(codes(&server, "bob@example.com"), "250 2.0.0");
}

#[test]
fn an_unusable_uid_or_gid_defers_as_our_own_configuration_error() {
    let server = store("unusable").start();
    for name in ["low", "nouid", "nogid", "rootgid"] {
        let recipient = format!("{name}@example.com");
        assert_eq!(codes(&server, &recipient), "451 4.3.5", "{recipient}");
        assert!(!server.mailbox(&format!("ann/{name}")).exists());
    }
}

#[test]
fn without_root_a_recipient_of_another_uid_is_deferred_and_the_log_says_why() {
    let builder = store("unprivileged").as_user(NOBODY);
    let server = builder.start();
    assert_eq!(codes(&server, "me@example.com"), "250 2.0.0");
    let message = &maildir(&server.mailbox("me"))[0];
    assert_eq!(
        owner_and_mode(&message.path),
        format!("{NOBODY}:{NOBODY} 0600")
    );

    assert_eq!(codes(&server, "ann@example.com"), "451 4.3.5");
    let line = server.log_line("ann@example.com");
    assert!(line.contains("5001"), "the log names the uid: {line}");
    assert!(line.contains("root"), "the log names the remedy: {line}");
}
