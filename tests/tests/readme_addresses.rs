//! `mailstow resolve --explain` on the addresses of Postfix's VIRTUAL_README.
//!
//! Method: every `main.cf` fragment and table of the document as printed there, only the paths
//! moved, and what stands there in words is looked for in the answer: class, keys tried, table
//! and line that decided, path, owner, reply. `joe`, `jane` and `jim`, the document's accounts,
//! are aliases of accounts that every Debian has.

use mailstow_tests::mailstow::{Builder, run};
use mailstow_tests::{Mailstow, example};

/// What the document takes for granted.
const MACHINE: &str = "\
compatibility_level = 3.6
myhostname = mx.origin.example
mydomain = origin.example
myorigin = $mydomain
alias_maps = hash:@DIR@/aliases
";
/// Where it says nothing else.
const ORIGIN_IS_LOCAL: &str = "mydestination = $myhostname localhost.$mydomain $mydomain\n";

const ALIASES: &str = "\
postmaster: daemon
joe: bin
jane: sys
jim: games
";

const ALIAS_MAIN_CF: &str = "\
virtual_alias_domains = example.com ...other hosted domains...
virtual_alias_maps = hash:@DIR@/virtual
";

const ALIAS_VIRTUAL: &str = "\
postmaster@example.com postmaster
info@example.com       joe
sales@example.com      jane
# Uncomment entry below to implement a catch-all address
# @example.com         jim
...virtual aliases for more domains...
";

const FORWARDING_VIRTUAL: &str = "\
postmaster@example.com postmaster
joe@example.com        joe@somewhere
jane@example.com       jane@somewhere-else
# Uncomment entry below to implement a catch-all address
# @example.com         jim@yet-another-site
...virtual aliases for more domains...
";

const LIST_VIRTUAL: &str = "\
listname-request@example.com listname-request
listname@example.com         listname
owner-listname@example.com   owner-listname
";

const LIST_ALIASES: &str = "\
listname: \"|/some/where/majordomo/wrapper ...\"
owner-listname: joe
listname-request: jane
joe: bin
jane: sys
";

const AUTOREPLY_VIRTUAL: &str =
    "user@domain.tld user@domain.tld, user@domain.tld@autoreply.mydomain.tld\n";

fn machine(name: &str) -> Builder {
    Mailstow::build(name)
        .main_cf(MACHINE)
        .table("aliases", ALIASES)
}

/// Runs `mailstow resolve --explain` and looks for `lines`, in this order; a line may go on
/// behind what is looked for. Paths are put back to where the document has them.
fn explains(site: &Builder, address: &str, lines: &[&str]) {
    let configuration = site.configuration();
    let mut arguments = vec!["resolve", "--explain"];
    arguments.extend(configuration.iter().map(String::as_str));
    arguments.push(address);
    let output = run(&arguments);
    let root = site.scratch().path().display().to_string();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let text = text
        .replace(&format!("{root}/conf"), "/etc/postfix")
        .replace(&format!("{root}/vhosts"), "/var/mail/vhosts");
    let mut rest = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ")
    });
    for wanted in lines {
        let found = rest.any(|line| line.starts_with(wanted));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(found, "{address}: no {wanted:?} in\n{text}{errors}");
    }
}

/// `mailstow lint`'s findings.
fn lint(site: &Builder) -> String {
    let configuration = site.configuration();
    let mut arguments = vec!["lint"];
    arguments.extend(configuration.iter().map(String::as_str));
    let output = run(&arguments);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn shared_domains_with_unix_accounts() {
    let site = machine("shared")
        .main_cf("mydestination = $myhostname localhost.$mydomain ... example.com")
        .table("aliases", "# none\n");
    explains(
        &site,
        "daemon+x@example.com",
        &[
            "class example.com is local: it is in mydestination",
            "transport local:mx.origin.example by local_transport",
            "lookup local_recipient_maps: \"daemon+x\" not in unix:passwd.byname, \
             hash:/etc/postfix/aliases",
            "reply 550 5.1.1",
        ],
    );
    explains(
        &site,
        "daemon@example.com",
        &[
            "lookup alias_maps: \"daemon\" not in hash:/etc/postfix/aliases",
            "reply 250 2.1.5",
            "class local",
            "mailbox /var/mail/daemon",
            "format mbox",
            "uid, gid 1, 1",
        ],
    );
    // The document's first limitation: the same account in every domain.
    explains(
        &site,
        "daemon@mx.origin.example",
        &["reply 250", "mailbox /var/mail/daemon"],
    );
}

#[test]
fn the_virtual_alias_example() {
    let site = machine("alias")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf(ALIAS_MAIN_CF)
        .table("virtual", ALIAS_VIRTUAL);
    for (address, line, user, mailbox) in [
        ("postmaster@example.com", 1, "postmaster", "daemon"),
        ("info@example.com", 2, "joe", "bin"),
        ("sales@example.com", 3, "jane", "sys"),
    ] {
        explains(
            &site,
            address,
            &[
                &format!(
                    "lookup virtual_alias_maps: \"{address}\" is \"{user}\" in \
                     hash:/etc/postfix/virtual, line {line}"
                ),
                &format!("alias {address} -> {user}@origin.example"),
                &format!("recipient {user}@origin.example"),
                "class origin.example is local: it is in mydestination",
                &format!("lookup alias_maps: \"{user}\" is \"{mailbox}\""),
                "reply 250 2.1.5",
                &format!("mailbox /var/mail/{mailbox}"),
            ],
        );
    }
    explains(
        &site,
        "nobody@example.com",
        &[
            "lookup virtual_alias_maps: \"nobody@example.com\" not in",
            "lookup virtual_alias_maps: \"@example.com\" not in hash:/etc/postfix/virtual",
            "class example.com is virtual_alias: it is in virtual_alias_domains",
            "transport error:5.1.1 User unknown in virtual alias table",
            "reply 550 5.1.1 <nobody@example.com> User unknown in virtual alias table",
        ],
    );
    let site = site.table("virtual", &example::with_catch_all(ALIAS_VIRTUAL));
    explains(
        &site,
        "nobody@example.com",
        &[
            "lookup virtual_alias_maps: \"@example.com\" is \"jim\" in \
             hash:/etc/postfix/virtual, line 5",
            "reply 250",
            "mailbox /var/mail/games",
        ],
    );
}

fn mailbox_site() -> Builder {
    machine("mailbox")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf(example::MAILBOX_MAIN_CF)
        .table("vmailbox", example::MAILBOX_VMAILBOX)
        .table("virtual", example::MAILBOX_VIRTUAL)
}

#[test]
fn the_virtual_mailbox_example() {
    let site = mailbox_site();
    for (name, line, path, format) in [
        ("info", 1, "example.com/info", "mbox"),
        ("sales", 2, "example.com/sales/", "maildir"),
    ] {
        explains(
            &site,
            &format!("{name}@Example.com"),
            &[
                "lookup virtual_alias_maps:",
                "class Example.com is virtual_mailbox: it is in virtual_mailbox_domains",
                "transport virtual:Example.com by virtual_transport",
                &format!(
                    "lookup virtual_mailbox_maps: \"{name}@example.com\" is \"{path}\" in \
                     hash:/etc/postfix/vmailbox, line {line}"
                ),
                &format!(
                    "lookup virtual_uid_maps: \"{name}@example.com\" is \"5000\" in static:5000"
                ),
                &format!(
                    "lookup virtual_gid_maps: \"{name}@example.com\" is \"5000\" in static:5000"
                ),
                "reply 250 2.1.5",
                &format!("mailbox /var/mail/vhosts/{path}"),
                &format!("format {format}"),
                "uid, gid 5000, 5000",
            ],
        );
    }
    explains(
        &site,
        "postmaster@example.com",
        &[
            "lookup virtual_alias_maps: \"postmaster@example.com\" is \"postmaster\" in \
             hash:/etc/postfix/virtual, line 1",
            "recipient postmaster@origin.example",
            "reply 250",
            "mailbox /var/mail/daemon",
        ],
    );
    explains(
        &site,
        "nobody@example.com",
        &[
            "lookup virtual_mailbox_maps: \"nobody@example.com\" not in",
            "lookup virtual_mailbox_maps: \"@example.com\" not in",
            "reply 550 5.1.1 <nobody@example.com>",
        ],
    );
    let site = site.table(
        "vmailbox",
        &example::with_catch_all(example::MAILBOX_VMAILBOX),
    );
    explains(
        &site,
        "nobody@example.com",
        &[
            "lookup virtual_mailbox_maps: \"@example.com\" is \"example.com/catchall\" in \
             hash:/etc/postfix/vmailbox, line 4",
            "reply 250",
            "mailbox /var/mail/vhosts/example.com/catchall",
        ],
    );
}

#[test]
fn what_the_document_says_never_to_do_is_found_by_lint() {
    let quiet = |text: &str| !text.contains("BOTH") && !text.contains("wildcard");
    let site = mailbox_site();
    assert!(quiet(&lint(&site)), "{}", lint(&site));
    let site = site.table(
        "virtual",
        "postmaster@example.com postmaster\n@example.com example.com/catchall\n",
    );
    assert!(
        lint(&site).contains("move the line to virtual_mailbox_maps"),
        "{}",
        lint(&site)
    );
    let site = mailbox_site().main_cf("virtual_alias_domains = example.com");
    assert!(
        lint(&site).contains("do not list domain example.com in BOTH"),
        "{}",
        lint(&site)
    );
    let site = mailbox_site().main_cf("mydestination = origin.example example.com");
    assert!(
        lint(&site).contains("do not list domain example.com in BOTH"),
        "{}",
        lint(&site)
    );
}

#[test]
fn the_non_postfix_store_example() {
    let site = machine("store")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf(example::STORE_MAIN_CF)
        .main_cf("virtual_transport = lmtp:unix:/path/name")
        .toml(
            "[routing]\nvirtual_mailbox_base = \"@ROOT@/vhosts\"\n\
             virtual_uid_maps = \"static:5000\"\nvirtual_gid_maps = \"static:5000\"\n\
             [store]\nmailbox_path = \"%d/%u/\"\n",
        )
        .table("vmailbox", example::STORE_VMAILBOX)
        .table("virtual", example::MAILBOX_VIRTUAL);
    explains(
        &site,
        "info@example.com",
        &[
            "transport lmtp:unix:/path/name by virtual_transport",
            "lookup virtual_mailbox_maps: \"info@example.com\" is \"whatever\" in \
             hash:/etc/postfix/vmailbox, line 1",
            "reply 250",
            "mailbox /var/mail/vhosts/example.com/info/",
        ],
    );
    explains(&site, "nobody@example.com", &["reply 550 5.1.1"]);
}

#[test]
fn the_forwarding_example() {
    let site = machine("forwarding")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf(ALIAS_MAIN_CF)
        .table("virtual", FORWARDING_VIRTUAL);
    for (name, line, remote) in [("joe", 2, "somewhere"), ("jane", 3, "somewhere-else")] {
        explains(
            &site,
            &format!("{name}@example.com"),
            &[
                &format!(
                    "lookup virtual_alias_maps: \"{name}@example.com\" is \"{name}@{remote}\" in \
                     hash:/etc/postfix/virtual, line {line}"
                ),
                &format!("class {remote} is default: no list has it"),
                &format!("transport smtp:{remote} by default_transport"),
                "reply 250",
                &format!("recipient {name}@{remote}"),
            ],
        );
    }
    let output = run(&[
        "table",
        "diff",
        &format!("texthash:{}", site.scratch().join("conf/virtual").display()),
        &format!(
            "texthash:{}",
            site.scratch()
                .write(
                    "conf/new",
                    example::with_catch_all(FORWARDING_VIRTUAL)
                        .replace("joe@somewhere", "joe@here")
                )
                .display()
        ),
    ]);
    assert_eq!(output.status.code(), Some(1), "there are differences");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "@example.com: nothing -> jim@yet-another-site\n\
         joe@example.com: joe@somewhere -> joe@here\n\
         1 changed, 1 new, 0 removed\n"
    );
}

#[test]
fn the_mailing_list_example() {
    let site = machine("list")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf("virtual_alias_domains = example.com")
        .main_cf("virtual_alias_maps = hash:@DIR@/virtual")
        .table("virtual", LIST_VIRTUAL)
        .table("aliases", LIST_ALIASES);
    explains(
        &site,
        "listname@example.com",
        &[
            "lookup virtual_alias_maps: \"listname@example.com\" is \"listname\" in \
             hash:/etc/postfix/virtual, line 2",
            "lookup alias_maps: \"listname\" is",
            "reply 250",
            "recipient listname@origin.example",
            "command /some/where/majordomo/wrapper ...",
            "run as nobody",
            "sender owner-listname@origin.example",
        ],
    );
    for (address, mailbox) in [
        ("owner-listname@example.com", "/var/mail/bin"),
        ("listname-request@example.com", "/var/mail/sys"),
    ] {
        explains(
            &site,
            address,
            &["reply 250", &format!("mailbox {mailbox}")],
        );
    }
}

#[test]
fn the_autoreply_example() {
    let site = machine("autoreply")
        .main_cf(ORIGIN_IS_LOCAL)
        .main_cf("virtual_mailbox_domains = domain.tld")
        .main_cf("virtual_mailbox_base = @ROOT@/vhosts")
        .main_cf("virtual_mailbox_maps = inline:{user@domain.tld=user/}")
        .main_cf("virtual_uid_maps = static:5000\nvirtual_gid_maps = static:5000")
        .main_cf("virtual_alias_maps = hash:@DIR@/virtual")
        .main_cf("transport_maps = hash:@DIR@/transport")
        .table("virtual", AUTOREPLY_VIRTUAL)
        .table("transport", "autoreply.mydomain.tld  autoreply:\n");
    explains(
        &site,
        "user@domain.tld",
        &[
            "lookup virtual_alias_maps: \"user@domain.tld\" is \"user@domain.tld, \
             user@domain.tld@autoreply.mydomain.tld\" in hash:/etc/postfix/virtual, line 1",
            "alias user@domain.tld is a member of itself and stays",
            "recipient user@domain.tld",
            "lookup virtual_mailbox_maps: \"user@domain.tld\" is \"user/\"",
            "recipient \"user@domain.tld\"@autoreply.mydomain.tld",
            "lookup transport_maps: \"autoreply.mydomain.tld\" is \"autoreply:\" in \
             hash:/etc/postfix/transport, line 1",
            "transport autoreply:autoreply.mydomain.tld by transport_maps",
            "reply 250",
            "recipient user@domain.tld",
            "mailbox /var/mail/vhosts/user/",
            "recipient \"user@domain.tld\"@autoreply.mydomain.tld",
            "transport autoreply:autoreply.mydomain.tld",
        ],
    );
}
