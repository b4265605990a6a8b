//! `$1` in the results of pattern tables is skipped where Postfix skips it, and for no other
//! parameter.
//!
//! Method: every parameter that takes tables names pattern tables whose rules ask for
//! substitution, some of them inside other tables. One private Postfix, one mail for each daemon
//! that reads such parameters; what it skips is read from its log. Ours are the complaints of the
//! opened tables. A second Postfix shows what becomes of the recipients of skipped rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, chown};

use mailstow_engine::address::Address;
use mailstow_engine::config::{Configuration, Sources};
use mailstow_engine::route::{Router, table_context};
use mailstow_engine::table::TableCache;
use mailstow_tests::Postfix;
use mailstow_tests::oracle::router;

/// Every parameter of ours that takes tables.
const PARAMETERS: &[&str] = &[
    "virtual_mailbox_maps",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "virtual_alias_maps",
    "alias_maps",
    "transport_maps",
    "relocated_maps",
    "relay_recipient_maps",
    "local_recipient_maps",
    "virtual_mailbox_domains",
    "virtual_alias_domains",
    "relay_domains",
    "mydestination",
];

/// How a parameter names a table; `@` is replaced by its file.
const FORMS: &[(&str, &str)] = &[
    ("pcre", "pcre:@"),
    ("regexp", "regexp:@"),
    ("union", "unionmap:{static:x, pcre:@}"),
    ("pipe", "pipemap:{regexp:@, static:x}"),
    ("nested", "pipemap:{unionmap:{static:x, pcre:@}, static:x}"),
];

/// Mail to any user passes, and is stored, refused or dropped without leaving the machine.
const COMMON: &str = "\
smtpd_reject_unlisted_recipient = no
smtpd_recipient_restrictions = permit_mynetworks, reject
virtual_mailbox_base = @ROOT@/base
virtual_minimum_uid = 1
local_transport = local
mail_spool_directory = @ROOT@/spool/
in_flow_delay = 0
";

/// `file, line 1` out of `pcre map /a/file, line 1: regular expression substitution ...`.
fn skipped(log: &str) -> BTreeSet<String> {
    log.lines()
        .filter(|line| line.contains("regular expression substitution is not allowed"))
        .filter_map(|line| line.split(" map ").nth(1)?.split(": ").next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_parameter_skips_the_rules_with_substitution_that_postfix_skips() {
    let mut main_cf = String::new();
    let mut builder = Postfix::build("substitution").main_cf(COMMON);
    let conf = builder.directory();
    for parameter in PARAMETERS {
        let mut value = String::new();
        for (form, table) in FORMS {
            let name = format!("{form}-{parameter}");
            let rules = "/^no (one)$/ $1\n/^no (two)$/ $$1\n/^no (three)$/ x${1}\n";
            builder.scratch().write(&format!("conf/{name}"), rules);
            let path = conf.join(name).display().to_string();
            let _ = write!(value, " {}", table.replace('@', &path));
        }
        let own = match *parameter {
            "mydestination" => "origin.example,",
            "virtual_mailbox_domains" => "vm.example,",
            _ => "",
        };
        // A union or pipe with a static member answers everybody.
        let value = value.replace("static:x", "inline:{nobody@nowhere.example=x}");
        let _ = writeln!(main_cf, "{parameter} = {own}{value}");
    }
    builder = builder.main_cf(&main_cf);
    let postfix = builder.start();
    for recipient in ["u@vm.example", "root@origin.example", "u@far.example"] {
        postfix.sendmail("s@far.example", &[recipient], b"Subject: x\n\nx\n");
        postfix.outcome(recipient);
    }

    let sources = Sources {
        postfix: Some(postfix.directory()),
        ..Sources::default()
    };
    let (configuration, _) = Configuration::inspect(&sources).expect("a configuration");
    let routing = &configuration.settings.routing;
    let cache = TableCache::new(table_context(routing));
    Router::open(routing, &cache).expect("the tables open");
    let ours: BTreeSet<String> = cache
        .warnings()
        .iter()
        .filter(|warning| warning.contains("substitution"))
        .map(|warning| {
            let mut parts = warning.split(':');
            let (file, line) = (parts.next().unwrap(), parts.next().unwrap());
            format!("{file}, line {line}")
        })
        .collect();
    let theirs = skipped(&postfix.log());
    assert!(theirs.len() >= FORMS.len() * 2, "{theirs:#?}");
    assert_eq!(ours, theirs);
}

/// The rule that would be steered, in each form, with a later rule and a later table.
const STEERED: &str = "\
/^(evil.*)@vm/ steered/$1/
/^evil-caught@/ caught/
/^plain@/ plain/
";

#[test]
fn recipients_of_skipped_rules_end_where_virtual_takes_them() {
    let builder = Postfix::build("steered").main_cf(COMMON).main_cf(
        "virtual_mailbox_domains = vm.example\n\
         virtual_mailbox_maps = pcre:@DIR@/a, unionmap:{regexp:@DIR@/b}, \
         inline:{evil-listed@vm.example=listed/}\n\
         virtual_uid_maps = pcre:{{/^uid([0-9]+)@/ $$1}, {/./ 5000}}\n\
         virtual_gid_maps = pipemap:{regexp:{{/^gid([0-9]+)@/ $$1}, {/^[^g]/ 5000}}}",
    );
    for name in ["a", "b"] {
        builder.scratch().write(&format!("conf/{name}"), STEERED);
    }
    let base = builder.scratch().mkdir("base");
    chown(&base, Some(5000), Some(5000)).expect("chown needs root");
    let more = "/^(uid|gid)/ numbered/\n";
    builder
        .scratch()
        .write("conf/a", format!("{STEERED}{more}"));
    let postfix = builder.start();
    let router = router(&postfix);
    for local_part in [
        "evil-x",
        "evil-caught",
        "evil-listed",
        "plain",
        "uid5001",
        "gid5001",
    ] {
        let recipient = format!("{local_part}@vm.example");
        postfix.sendmail("s@far.example", &[&recipient], b"Subject: x\n\nx\n");
        let theirs = postfix.outcome(&recipient);
        let ours = match router.mailbox(&Address::new(local_part, Some("vm.example"))) {
            Ok(target) => {
                let new = target.below(&base).join("new");
                let found = std::fs::read_dir(&new)
                    .expect("virtual(8) stored it there")
                    .flatten();
                for file in found {
                    let metadata = file.metadata().expect("stat");
                    assert_eq!((metadata.uid(), metadata.gid()), (target.uid, target.gid));
                    std::fs::remove_file(file.path()).expect("remove");
                }
                "2.0.0".to_owned()
            }
            Err(error) => error.status().enhanced.to_string(),
        };
        assert_eq!(ours, theirs.dsn, "{recipient}: {theirs:?}");
    }
    assert!(!base.join("steered").exists());
}
