//! Where mail for local recipients goes.

use super::super::{Destination, Expansion, Format, Resolution, Router, table_context};
use crate::address::parse_mailbox;
use crate::config::{LocalSettings, RoutingSettings};
use crate::table::TableCache;
use crate::target::{LocalEnd, Target};
use std::os::unix::fs::PermissionsExt;

fn settings(aliases: &str) -> RoutingSettings {
    RoutingSettings {
        mydestination: "origin.example".into(),
        myorigin: "origin.example".into(),
        local_transport: "local:origin.example".into(),
        recipient_delimiter: "+".into(),
        alias_maps: aliases.into(),
        virtual_alias_maps: "inline:{virt@far.example=end@far.example}".into(),
        default_privs: "root".into(),
        ..RoutingSettings::default()
    }
}

fn resolve(settings: &RoutingSettings, address: &str) -> Resolution {
    let router = Router::open(settings, &TableCache::new(table_context(settings))).unwrap();
    router.resolve(&parse_mailbox(address).unwrap())
}

/// The destinations in a few words.
fn ends(settings: &RoutingSettings, address: &str) -> Vec<String> {
    let resolution = resolve(settings, address);
    let route = resolution.results.iter().map(|route| {
        let sender = route.sender.iter().map(|s| format!(" from {s}"));
        let sender: String = sender.collect();
        let end = match &route.destination {
            Destination::Transport => format!("{} to {}", route.transport, route.recipient),
            Destination::Mailbox => format!("mailbox of {}", route.recipient),
            Destination::User { path, .. } => format!("user {}", path.display()),
            Destination::File { path, format, .. } => format!("{format} {}", path.display()),
            Destination::Command { command, rights } => format!("{} runs {command}", rights.user),
            Destination::Discarded => "discarded".to_owned(),
            Destination::Refused(status) => status.enhanced.to_string(),
        };
        end + &sender
    });
    route.collect()
}

fn of(aliases: &str, address: &str) -> Vec<String> {
    ends(&settings(aliases), address)
}

#[test]
fn a_user_without_an_alias_has_the_mailbox_of_the_account() {
    assert_eq!(of("", "ROOT+x@origin.example"), ["user /var/mail/root"]);
    assert_eq!(of("", "no-such-user@origin.example"), ["5.1.1"]);
    assert_eq!(of("", "postmaster@origin.example"), ["discarded"]);
}

#[test]
fn members_are_commands_files_users_and_addresses() {
    let aliases =
        "inline:{{all = \"|/bin/cmd -x\", /var/a, /var/b/, root, x@far.example, virt@far.example}}";
    assert_eq!(
        of(aliases, "all@origin.example"),
        [
            "root runs /bin/cmd -x",
            "mbox /var/a",
            "maildir /var/b/",
            "user /var/mail/root",
            "smtp to x@far.example",
            "smtp to end@far.example",
        ]
    );
}

#[test]
fn what_a_recipient_is_expanded_by_is_told_for_its_notices() {
    let aliases = "inline:{{alias = daemon}, {away = x@far.example}, {both = daemon, |/bin/true}, \
                   {command = |/bin/true}, {list = daemon, x@far.example}, {owner-list = root}, \
                   {nested = list}, {of-lists = nested}, {owner-of-lists = root}}";
    let settings = RoutingSettings {
        default_privs: "daemon".into(),
        local: LocalSettings {
            luser_relay: "x@far.example".into(),
            ..LocalSettings::default()
        },
        ..settings(aliases)
    };
    let router = Router::open(&settings, &TableCache::new(table_context(&settings))).unwrap();
    for (address, expansion) in [
        ("daemon@origin.example", Expansion::None),
        ("daemon+x@origin.example", Expansion::None),
        ("daemon%origin.example@origin.example", Expansion::None),
        ("no-such-user@origin.example", Expansion::None),
        ("alias@origin.example", Expansion::Alias),
        ("away@origin.example", Expansion::Alias),
        ("both@origin.example", Expansion::Alias),
        ("command@origin.example", Expansion::Alias),
        ("virt@far.example", Expansion::Alias),
        ("list@origin.example", Expansion::List),
        ("nested@origin.example", Expansion::Alias),
        ("of-lists@origin.example", Expansion::List),
    ] {
        let given = parse_mailbox(address).unwrap();
        let found = router.find_targets(given, true, &|_, _| false);
        assert_eq!(
            (address, found.expansion),
            (address, expansion),
            "{found:?}"
        );
        assert!(found.targets.is_ok(), "{found:?}");
    }
}

#[test]
fn a_member_of_a_virtual_alias_that_is_refused_leaves_the_mail_to_the_others() {
    let aliases = "inline:{{some@far.example = x@far.example, no-such-user@origin.example}, \
                   {none@far.example = no-such-user@origin.example}}";
    let settings = RoutingSettings {
        virtual_alias_maps: aliases.into(),
        ..settings("")
    };
    let router = Router::open(&settings, &TableCache::new(table_context(&settings))).unwrap();
    let find = |address: &str| {
        let address = parse_mailbox(address).unwrap();
        router.find_targets(address, true, &|_, _| false).targets
    };
    let ends = find("some@far.example").unwrap();
    assert!(matches!(ends[0].1, Target::Transport(_)), "{ends:?}");
    let Target::Local(refused) = &ends[1].1 else {
        panic!("{ends:?}");
    };
    assert!(
        matches!(&refused.end, LocalEnd::Failed(status) if status.code == 550),
        "{ends:?}"
    );
    let error = find("none@far.example").unwrap_err();
    assert_eq!(error.status().code, 451, "{error}");
}

#[test]
fn the_whole_local_part_is_asked_before_the_user() {
    let aliases = "inline:{a+x=/full, a=/user}";
    assert_eq!(of(aliases, "a+x@origin.example"), ["mbox /full"]);
    assert_eq!(of(aliases, "A+y@origin.example"), ["mbox /user"]);
    assert_eq!(of(aliases, "a+y/z@origin.example"), ["mbox /user"]);
}

#[test]
fn an_extension_goes_on_to_members_only_when_asked() {
    let aliases = "inline:{a=b@far.example}";
    assert_eq!(of(aliases, "a+x@origin.example"), ["smtp to b@far.example"]);
    let passing = RoutingSettings {
        propagate_unmatched_extensions: "alias".into(),
        ..settings(aliases)
    };
    assert_eq!(
        ends(&passing, "a+x@origin.example"),
        ["smtp to b+x@far.example"]
    );
}

#[test]
fn an_alias_that_lists_itself_is_its_user() {
    assert_eq!(
        of("inline:{{root = root, /copy}}", "root@origin.example"),
        ["user /var/mail/root", "mbox /copy"]
    );
    assert_eq!(of("inline:{a=b, b=a}", "a@origin.example"), ["5.4.6"]);
}

#[test]
fn commands_and_files_need_permission() {
    let strict = RoutingSettings {
        allow_mail_to_commands: String::new(),
        allow_mail_to_files: "include".into(),
        ..settings("inline:{{a = \"|cmd\"}, b=/file}")
    };
    assert_eq!(ends(&strict, "a@origin.example"), ["5.7.1"]);
    assert_eq!(ends(&strict, "b@origin.example"), ["5.7.1"]);
    assert_eq!(of("inline:{b=~/file}", "b@origin.example"), ["4.3.5"]);
}

#[test]
fn an_owner_alias_makes_the_alias_a_mailing_list() {
    let aliases = "inline:{{list = root, x@far.example}, {owner-list = boss@far.example}}";
    assert_eq!(
        of(aliases, "list@origin.example"),
        [
            "user /var/mail/root from owner-list@origin.example",
            "smtp to x@far.example from owner-list@origin.example",
        ]
    );
    let expanded = RoutingSettings {
        expand_owner_alias: true,
        ..settings(aliases)
    };
    assert_eq!(
        ends(&expanded, "list@origin.example")[1],
        "smtp to x@far.example from boss@far.example"
    );
    let plain = RoutingSettings {
        owner_request_special: false,
        ..settings(aliases)
    };
    assert_eq!(
        ends(&plain, "list@origin.example")[1],
        "smtp to x@far.example"
    );
}

#[test]
fn an_include_file_lists_further_members() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    std::fs::write(
        &file,
        "# members\nx@far.example, y@far.example\nroot\n/no/file\n",
    )
    .unwrap();
    let aliases = format!("inline:{{list=:include:{}}}", file.display());
    assert_eq!(
        of(&aliases, "list@origin.example"),
        [
            "smtp to x@far.example",
            "smtp to y@far.example",
            "user /var/mail/root",
            "5.7.1"
        ]
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(of(&aliases, "list@origin.example"), ["4.3.5"]);
    assert_eq!(
        of("inline:{l=:include:/no/such/file}", "l@origin.example"),
        ["4.3.5"]
    );
    assert_eq!(
        of("inline:{l=:include:relative}", "l@origin.example"),
        ["4.3.5"]
    );
}

/// A file that an alias includes.
fn include(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    std::fs::write(&file, text).unwrap();
    let member = format!(":include:{}", file.display());
    (directory, member)
}

#[test]
fn mail_that_comes_back_to_a_list_is_a_forwarding_loop() {
    // The owner- alias has local members sent on, and what is sent on says where it has been.
    let aliases = "inline:{{list = other@far.example}, {owner-list = root}}";
    let back = RoutingSettings {
        virtual_alias_maps: "inline:{other@far.example=list@origin.example}".into(),
        ..settings(aliases)
    };
    assert_eq!(
        ends(&back, "list@origin.example"),
        ["5.4.6 from owner-list@origin.example"]
    );
    let (_kept, member) = include("list\n");
    let aliases = format!("inline:{{list={member}}}");
    assert_eq!(of(&aliases, "List@origin.example"), ["5.4.6"]);
}

#[test]
fn lists_that_forward_to_each_other_come_to_an_end() {
    let (_kept, member) = include("a1\na2\na3\nroot\nroot@far.example\n");
    let aliases = format!("inline:{{a1={member}, a2={member}, a3={member}}}");
    let ends = of(&aliases, "a1@origin.example");
    assert!(
        ends.iter().filter(|end| *end == "5.4.6").count() >= 1,
        "{ends:?}"
    );
}

#[test]
fn circles_with_many_ways_round_come_to_an_end() {
    // Extensions make every member a new one.
    let aliases = "inline:{{a = a+1, a+2, b, b+3}, {b = a+3, b+4, a, a+5}}";
    let passing = RoutingSettings {
        propagate_unmatched_extensions: "alias, include".into(),
        ..settings(aliases)
    };
    let ends = ends(&passing, "a+x@origin.example");
    assert!(ends.contains(&"5.4.6".to_owned()));
    // Each list sends on to two addresses that expand to the other one and more.
    let (_kept, member) = include("x@far.example\ny@far.example\n");
    let aliases = format!("inline:{{l={member}}}");
    let back = RoutingSettings {
        virtual_alias_maps:
            "pcre:{{/^(.*)@far.example$/ l+${1}x@origin.example, l+${1}y@origin.example}}".into(),
        propagate_unmatched_extensions: "alias, include".into(),
        ..settings(&aliases)
    };
    let router = Router::open(&back, &TableCache::new(table_context(&back))).unwrap();
    let (resolution, trace) = router.explain(&parse_mailbox("l@origin.example").unwrap());
    let reply = resolution.error.unwrap();
    assert_eq!(reply.enhanced.to_string(), "4.4.6", "{reply}");
    // One path is followed until it has 50 hops. There are 2 to the power of 50 such paths.
    let steps = trace.steps().len();
    assert!(steps < 1000, "{steps} steps");
}

#[test]
fn the_same_place_gets_one_copy_as_local_delivery_counts_places() {
    let strict = |aliases: &str| RoutingSettings {
        allow_mail_to_files: "alias".into(),
        ..settings(aliases)
    };
    let (_kept, member) = include("/file\n");
    // Refused in the include file first, and not looked at again.
    let refused = format!("inline:{{{{x = {member}, /file}}}}");
    assert_eq!(ends(&strict(&refused), "x@origin.example"), ["5.7.1"]);
    let aliases = "inline:{{x = y, z, \"|cmd\", \"|cmd\"}, {y = \"|cmd\", /file}, z=/file}";
    assert_eq!(
        of(aliases, "x@origin.example"),
        ["root runs cmd", "mbox /file", "root runs cmd"]
    );
    let aliases = "inline:{{x = root, ROOT, root+a, root@origin.example, root+A}}";
    assert_eq!(
        of(aliases, "x@origin.example"),
        ["user /var/mail/root", "user /var/mail/root"]
    );
}

#[test]
fn trouble_with_the_tables_defers() {
    assert_eq!(of("fail:down", "root@origin.example"), ["4.3.0"]);
    let resolution = resolve(&settings("hash:/no/such/file"), "root@origin.example");
    assert!(resolution.error.unwrap().is_temporary());
    assert_eq!(of("inline:{{e = (nobody)}}", "e@origin.example"), ["4.3.5"]);
}

#[test]
fn mailboxes_of_accounts_have_the_rights_of_the_account() {
    let resolution = resolve(&settings(""), "root@origin.example");
    match &resolution.results[0].destination {
        Destination::User { format, rights, .. } => {
            assert_eq!((*format, rights.uid), (Format::Mbox, 0));
        }
        other => panic!("{other:?}"),
    }
}

fn steps(settings: &RoutingSettings, address: &str) -> Vec<String> {
    let router = Router::open(settings, &TableCache::new(table_context(settings))).unwrap();
    let (_, trace) = router.explain(&parse_mailbox(address).unwrap());
    trace.steps().iter().map(ToString::to_string).collect()
}

#[test]
fn a_circle_of_aliases_is_shown_once_and_named_as_the_cause() {
    let settings = settings("inline:{start=a, a=b, b=c, c=a}");
    let steps = steps(&settings, "start@origin.example");
    let told = |kind: &str| steps.iter().filter(|s| s.starts_with(kind)).count();
    assert!(
        steps.contains(&"cycle      a -> b -> c -> a".to_owned()),
        "{steps:#?}"
    );
    assert_eq!((told("cycle"), told("alias")), (1, 5), "{steps:#?}");
    let reason = resolve(&settings, "start@origin.example").reason.unwrap();
    assert!(reason.contains("form a loop: "), "{reason}");
}

#[test]
fn members_of_an_include_file_and_the_circle_they_make_are_shown() {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&file, "# the list\nlist, root\n").unwrap();
    let include = format!(":include:{}", file.display());
    let settings = settings(&format!("inline:{{{{list = {include}}}}}"));
    let steps = steps(&settings, "list@origin.example");
    let wanted = format!("alias      {include} -> list, root");
    assert!(steps.contains(&wanted), "{steps:#?}");
    let circle = "cycle      list@origin.example -> list@origin.example";
    assert!(steps.contains(&circle.to_owned()), "{steps:#?}");
}

#[test]
fn include_files_may_be_nested_below_the_deepest_alias() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!(":include:{}", path.display())
    };
    let last = file("last", "end@far.example\n");
    let first = file("first", &last);
    // The deepest alias that local(8) expands is the 25th.
    let aliases: Vec<String> = (0..24).map(|n| format!("a{n}=a{}", n + 1)).collect();
    let maps = format!("inline:{{{}, {{a24 = {first}}}}}", aliases.join(", "));
    assert_eq!(of(&maps, "a0@origin.example"), ["smtp to end@far.example"]);
    let deeper = maps.replace("a0=a1,", "a=a0, a0=a1,");
    assert_eq!(of(&deeper, "a@origin.example"), ["5.4.6"]);
}

#[test]
fn a_list_too_long_to_be_followed_deep_down_is_deferred_and_never_cut() {
    let members: Vec<String> = (0..10_001).map(|n| format!("u{n}")).collect();
    let mut aliases: Vec<String> = (0..6).map(|n| format!("a{n}=a{}", n + 1)).collect();
    aliases.push(format!("{{a6 = {}}}", members.join(" ")));
    let settings = settings(&format!("inline:{{{}}}", aliases.join(", ")));
    let resolution = resolve(&settings, "a0@origin.example");
    let reply = resolution.error.unwrap();
    assert_eq!(reply.to_string(), "451 4.4.6 too many aliases of aliases");
    // The same list is fine where it is not so deep.
    let reply = resolve(&settings, "a5@origin.example").error;
    assert!(reply.is_none(), "{reply:?}");
}

#[test]
fn mail_sent_on_by_a_list_of_the_mailer_daemon_has_no_sender() {
    let owned = |owner: &str| {
        let aliases = format!("inline:{{{{list = /copy, x@far.example}}, owner-list={owner}}}");
        let expanding = RoutingSettings {
            expand_owner_alias: true,
            ..settings(&aliases)
        };
        ends(&expanding, "list@origin.example")
    };
    assert_eq!(
        owned("Mailer-Daemon"),
        [
            "mbox /copy from Mailer-Daemon@origin.example",
            "smtp to x@far.example from "
        ]
    );
    assert_eq!(
        owned("boss"),
        [
            "mbox /copy from boss@origin.example",
            "smtp to x@far.example from boss@origin.example"
        ]
    );
}

#[test]
fn a_member_whose_address_is_no_address_is_an_answer_too() {
    // The local part of the member holds an address with a blank in its domain.
    let mut settings = settings(r#"inline:{{ab = "a@b c"@origin.example}}"#);
    settings.virtual_alias_maps = r#"inline:{{cd@origin.example = "a@b c"@origin.example}}"#.into();
    for address in ["ab@origin.example", "cd@origin.example"] {
        let resolution = resolve(&settings, address);
        let shown = format!("{resolution:?}");
        assert_eq!(resolution.results.len(), 1, "{shown}");
        let route = &resolution.results[0];
        assert!(
            matches!(&route.destination, Destination::Refused(s) if s.code == 501),
            "{shown}"
        );
    }
}

#[test]
fn a_list_without_members_discards_its_mail() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    std::fs::write(&path, "# nobody yet\n").unwrap();
    let aliases = format!("inline:{{list=:include:{}}}", path.display());
    let resolution = resolve(&settings(&aliases), "list@origin.example");
    let ends: Vec<_> = resolution.results.iter().map(|r| &r.destination).collect();
    assert_eq!(ends, [&Destination::Discarded], "{resolution:?}");
    assert_eq!(resolution.error, None);
}
