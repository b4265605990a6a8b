//! What lint finds in small tables, and that it is silent about sound ones.

use super::*;
use crate::config::RoutingSettings;
use crate::route::table_context;
use crate::table::TableCache;

fn settings() -> RoutingSettings {
    RoutingSettings {
        myorigin: "origin.example".into(),
        mydestination: "origin.example".into(),
        virtual_mailbox_domains: "vm.example, two.example".into(),
        virtual_mailbox_base: "/base".into(),
        virtual_mailbox_maps:
            "inline:{info@vm.example=vm/info, sales@vm.example=vm/sales/, two@two.example=two}"
                .into(),
        virtual_uid_maps: "static:5000".into(),
        virtual_gid_maps: "static:5000".into(),
        virtual_alias_domains: "va.example".into(),
        recipient_delimiter: "+".into(),
        ..RoutingSettings::default()
    }
}

fn lint(change: impl FnOnce(&mut RoutingSettings)) -> Vec<String> {
    let mut settings = settings();
    change(&mut settings);
    let router = Router::open(&settings, &TableCache::new(table_context(&settings))).unwrap();
    let present = |target: &MailboxTarget| match target.path.as_str() {
        "vm/maildir" => Present::Maildir,
        "vm/file" => Present::File,
        _ => Present::Unknown,
    };
    router
        .lint(present)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn only(found: Vec<String>) -> String {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

#[test]
fn sound_tables_have_no_findings() {
    assert_eq!(lint(|_| {}), [""; 0]);
    let found = lint(|s| {
        s.virtual_alias_maps = "inline:{va.example=anything, {x@va.example = info@vm.example}, \
            {@va.example = @vm.example}, {out@va.example = u@far.example}, \
            {info@vm.example = info@vm.example}}"
            .into();
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_catch_all_alias_that_takes_existing_mailboxes_is_found_with_their_number() {
    let text = only(lint(|s| {
        s.virtual_alias_maps = "inline:{@vm.example=two@two.example}".into();
    }));
    assert!(
        text.contains("takes the mail of 2 existing mailboxes"),
        "{text}"
    );
    assert!(
        text.contains("info@vm.example") && text.contains("sales@vm.example"),
        "{text}"
    );
    let text = only(lint(|s| {
        s.virtual_alias_maps =
            "inline:{@vm.example=two@two.example, info@vm.example=info@vm.example}".into();
    }));
    assert!(
        text.contains("takes the mail of 1 existing mailbox: sales"),
        "{text}"
    );
}

#[test]
fn aliases_to_nowhere_and_identities_without_a_mailbox_are_found() {
    let text = only(lint(|s| {
        s.virtual_alias_maps = "inline:{x@va.example=gone@vm.example}".into();
    }));
    assert!(
        text.contains("x@va.example expands to gone@vm.example, which leads nowhere"),
        "{text}"
    );
    let text = only(lint(|s| {
        s.virtual_alias_maps = "inline:{gone@vm.example=gone@vm.example}".into();
    }));
    assert!(
        text.contains("gone@vm.example expands to itself, but has no mailbox"),
        "{text}"
    );
    let text = only(lint(|s| {
        s.virtual_alias_maps = "inline:{x@va.example=y@va.example}".into();
    }));
    assert!(text.contains("550 5.1.1"), "{text}");
}

#[test]
fn a_circle_is_found_once_and_shown() {
    let text = only(lint(|s| {
        s.virtual_alias_maps =
            "inline:{a@va.example=b@va.example, b@va.example=c@va.example, c@va.example=a@va.example}"
                .into();
    }));
    let (_, circle) = text.split_once(": aliases form a loop").unwrap();
    assert_eq!(circle.matches(" -> ").count(), 3, "{text}");
}

#[test]
fn wildcards_in_the_wrong_file_are_found_both_ways() {
    let text = only(lint(|s| {
        s.virtual_alias_maps = "inline:{@new.example=vm/catchall}".into();
    }));
    assert!(
        text.contains("move the line to virtual_mailbox_maps"),
        "{text}"
    );
    let text = only(lint(|s| {
        s.virtual_mailbox_maps = "inline:{@vm.example=info@two.example}".into();
    }));
    assert!(
        text.contains("move the line to virtual_alias_maps"),
        "{text}"
    );
}

#[test]
fn a_slash_that_contradicts_what_is_there_is_found() {
    let text = only(lint(|s| {
        s.virtual_mailbox_maps = "inline:{a@vm.example=vm/maildir}".into()
    }));
    assert!(text.contains("does not end in /"), "{text}");
    let text = only(lint(|s| {
        s.virtual_mailbox_maps = "inline:{a@vm.example=vm/file/}".into()
    }));
    assert!(text.contains("remove the /"), "{text}");
}

#[test]
fn owners_that_mail_is_not_written_as_are_found_once_for_all_mailboxes() {
    let text = only(lint(|s| s.virtual_uid_maps = "static:50".into()));
    assert!(text.contains("below virtual_minimum_uid = 100"), "{text}");
    assert!(text.contains("info@vm.example, sales@vm.example"), "{text}");
}

#[test]
fn a_domain_in_two_classes_and_a_duplicate_key_are_found() {
    let text = only(lint(|s| {
        s.mydestination = "origin.example, two.example".into()
    }));
    assert!(text.contains("two.example in BOTH mydestination and virtual_mailbox_domains"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a@vm.example a\nA@vm.example b\n").unwrap();
    let text = only(lint(|s| {
        s.virtual_mailbox_maps = format!("hash:{}", file.path().display());
    }));
    assert!(text.contains(":2: duplicate entry"), "{text}");
}

#[test]
fn local_aliases_to_nowhere_are_found() {
    let text = only(lint(|s| {
        s.alias_maps = "inline:{{ok = root, /file}, {bad = no-such-user}}".into();
        s.default_privs = "root".into();
    }));
    assert!(
        text.contains("the alias bad leads to no-such-user@origin.example: 550 5.1.1"),
        "{text}"
    );
}

#[test]
fn a_circle_of_local_aliases_is_found_once_and_shown() {
    let text = only(lint(|s| {
        s.alias_maps = "inline:{a=b, b=c, c=a}".into();
        s.default_privs = "root".into();
    }));
    assert!(
        text.contains("loop, and their mail is returned: a -> b -> c -> a; remove"),
        "{text}"
    );
}

#[test]
fn mail_that_virtual_and_local_aliases_send_round_in_a_circle_is_found() {
    let found = lint(|s| {
        s.virtual_alias_maps = "inline:{list@va.example=list}".into();
        s.alias_maps = "inline:{list=list@va.example}".into();
        s.default_privs = "root".into();
    });
    let told = |text: &&String| text.contains("form a loop");
    assert_eq!(found.iter().filter(told).count(), 2, "{found:#?}");
}
