//! Users with an active Sieve script go to Dovecot, all others straight into their Maildirs.
//!
//! Method: the commands of mailstow-routes(1) make the table from the scripts that there are; then
//! one message is for a user of each kind. Dovecot and mailstow deliver into the same directories.

use std::process::Command;
use std::time::Duration;

use mailstow_tests::dovecot_store::DovecotStore;
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow::{self, NOBODY};
use mailstow_tests::{Mailstow, Reply, eventually};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What the manual prints, for these homes, this socket and this table.
fn recipe(homes: &str, socket: &str, table: &str) -> String {
    let help = include_str!("../../lmtp/src/cli/help/routes.txt");
    let (_, recipe) = help
        .split_once("into their Maildirs:\n")
        .expect("the recipe");
    recipe
        .replace("/home/", &format!("{homes}/"))
        .replace("/run/dovecot/lmtp", socket)
        .replace("/etc/mailstow/transport", table)
        .replace(
            "mailstow table",
            &format!("{} table", mailstow::binary().display()),
        )
}

#[test]
fn each_user_of_one_message_is_served_by_the_store_of_its_kind() {
    let builder = Mailstow::build("sieve");
    let base = builder.scratch().mkdir_owned("vhosts", NOBODY, NOBODY);
    let dovecot = DovecotStore::start(&format!(
        "ssl = no\nmail_location = maildir:{}/example.com/%n\n\
         protocol lmtp {{\n  mail_plugins = sieve\n}}\n\
         plugin {{\n  sieve = file:~/sieve;active=~/.dovecot.sieve\n}}",
        base.display()
    ));
    let socket = dovecot.scratch().join("lmtp");
    let homes = dovecot.scratch().join("home");
    for user in ["scripted", "plain"] {
        dovecot
            .scratch()
            .mkdir_owned(&format!("home/{user}"), NOBODY, NOBODY);
    }
    let router = builder
        .main_cf(&format!(
            "virtual_mailbox_domains = example.com\nvirtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = inline:{{scripted@example.com=example.com/scripted/, \
             plain@example.com=example.com/plain/}}\n\
             virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
             transport_maps = texthash:@DIR@/transport"
        ))
        .table("transport", "# nobody has a script yet\n")
        .toml("[transport]\nenabled = true")
        .start();
    let to = ["scripted@example.com", "plain@example.com"];
    let deliver = |subject: &str| -> Vec<Reply> {
        let content = format!("Subject: {subject}\n\nHello.\n");
        let replies = router
            .client()
            .deliver("s@client.example", &to, content.as_bytes());
        assert_eq!(replies.len(), 2, "one reply each: {replies:?}");
        assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
        replies
    };
    let replies = deliver("before");
    assert!(
        replies
            .iter()
            .all(|reply| reply.text.contains("delivered to maildir"))
    );

    std::fs::write(
        homes.join("scripted/.dovecot.sieve"),
        "require [\"fileinto\", \"mailbox\"];\nfileinto :create \"lists\";\n",
    )
    .expect("a script");
    let table = router.scratch().join("conf/transport");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let recipe = recipe(&text(&homes), &text(&socket), &text(&table));
    let output = Command::new("sh")
        .args(["-euc", &recipe])
        .output()
        .expect("sh");
    assert!(output.status.success(), "{recipe}\n{output:?}");
    eventually("the table to be read", LIMIT, || {
        let replies = deliver("after");
        replies[0].text.contains("lmtp:unix:").then_some(())
    });

    let lists = maildir(&router.mailbox("example.com/scripted/.lists"));
    assert_eq!(lists.len(), 1, "the script was run for the one message");
    assert_eq!(header(&lists[0].bytes, "Subject"), ["after"]);
    let plain = maildir(&router.mailbox("example.com/plain"));
    assert!(plain.len() >= 2, "before and after");
    assert!(
        plain
            .iter()
            .all(|message| !message.path.display().to_string().contains(".lists"))
    );
}
