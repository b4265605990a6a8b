//! The subcommands an operator and his scripts use: check, config, resolve, table query.

use std::process::{Command, Output, Stdio};

use mailstow_tests::mailstow::{self, Builder, command, run_with_input};
use mailstow_tests::{Mailstow, Scratch};

/// Runs a subcommand with the configuration of `builder`.
fn run(builder: &Builder, arguments: &[&str]) -> Output {
    let (subcommand, rest) = arguments.split_first().expect("a subcommand");
    let configuration = builder.configuration();
    let mut all = vec![*subcommand];
    all.extend(configuration.iter().map(String::as_str));
    let state = builder.scratch().mkdir("state").display().to_string();
    if *subcommand == "check" {
        all.extend(["--state-directory", &state]);
    }
    all.extend(rest);
    mailstow::run(&all)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn check_is_content_with_a_configuration_that_serves() {
    let builder = Mailstow::example("check-good");
    let output = run(&builder, &["check"]);
    assert!(output.status.success(), "{}", said(&output));
    drop(builder.start());
}

#[test]
fn check_names_three_planted_mistakes_and_fails() {
    let builder = Mailstow::example("check-bad").main_cf(
        "virtual_mailbox_maps = hash:@DIR@/no-such-table\n\
         virtual_uid_maps = static:50\n\
         virtual_mailbox_base = @ROOT@/no-such-base",
    );
    let output = run(&builder, &["check"]);
    assert!(!output.status.success(), "{}", said(&output));
    let said = said(&output);
    for mistake in ["no-such-table", "virtual_uid_maps", "no-such-base"] {
        assert!(said.contains(mistake), "{mistake} is missing in: {said}");
    }
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_known_key() {
    let builder = Mailstow::example("unknown-key").toml("[limits]\nconections = 5\n");
    let output = run(&builder, &["check"]);
    assert!(!output.status.success());
    let said = said(&output);
    for word in ["mailstow.toml", "2", "conections", "connections"] {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
}

#[test]
fn config_prints_each_setting_with_its_origin() {
    let builder = Mailstow::example("config").toml("[limits]\nconnections = 5\n");
    let output = run(&builder, &["config"]);
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    let line = |name: &str| {
        let found = said.lines().find(|l| l.contains(name));
        found
            .unwrap_or_else(|| panic!("no {name} in: {said}"))
            .to_owned()
    };
    assert!(
        line("virtual_mailbox_domains").contains("main.cf:1"),
        "{said}"
    );
    assert!(line("connections").contains("mailstow.toml:2"), "{said}");
    assert!(line("virtual_minimum_uid").contains("default"), "{said}");
}

#[test]
fn config_prints_the_defaults_with_their_meaning() {
    let said = mailstow::answer(&["config", "--defaults"]);
    for name in [
        "virtual_mailbox_limit",
        "recipient_delimiter",
        "connections",
        "idle_timeout",
    ] {
        assert!(said.contains(name), "{name} is missing in: {said}");
    }
}

#[test]
fn resolve_prints_one_object_for_each_address() {
    let builder = Mailstow::example("resolve");
    let addresses = [
        "INFO@example.com",
        "sales+x@example.com",
        "nobody@example.com",
        "x@far.example",
    ];
    let mut arguments = vec!["resolve", "--json", "--"];
    arguments.extend(addresses);
    let output = run(&builder, &arguments);
    let objects: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    assert_eq!(objects.len(), addresses.len(), "{}", said(&output));
    for (object, address) in objects.iter().zip(addresses) {
        assert_eq!(object["address"], address);
    }
    let owner = mailstow::owner();
    for (object, format, path) in [
        (&objects[0], "mbox", "example.com/info"),
        (&objects[1], "maildir", "example.com/sales"),
    ] {
        assert!(object["error"].is_null(), "{object}");
        let result = &object["results"][0];
        assert_eq!(result["class"], "virtual_mailbox");
        assert_eq!(result["format"], format);
        assert_eq!(result["destination"], "mailbox");
        assert!(result["refusal"].is_null(), "{result}");
        assert_eq!(
            (&result["uid"], &result["gid"]),
            (&owner.into(), &owner.into())
        );
        let mailbox = result["mailbox"].as_str().expect("a path");
        assert!(mailbox.trim_end_matches('/').ends_with(path), "{mailbox}");
    }
    assert_eq!(objects[2]["error"]["code"], 550, "{}", objects[2]);
    assert_eq!(objects[2]["error"]["enhanced"], "5.1.1");
    assert_eq!(
        objects[3]["results"][0]["class"], "default",
        "{}",
        objects[3]
    );
}

#[test]
fn table_query_answers_as_postmap_does() {
    let scratch = Scratch::new("query");
    let path = scratch.write("table", "Key@example.com the value\n# comment\nother v2\n");
    let table = format!("hash:{}", path.display());
    let query = |key: &str| mailstow::run(&["table", "query", key, &table]);
    let found = query("key@example.com");
    assert!(found.status.success());
    assert_eq!(String::from_utf8_lossy(&found.stdout), "the value\n");
    let missing = query("missing");
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stdout.is_empty());

    let many = run_with_input(
        command(&["table", "query", "-", &table]),
        b"other\nno\nkey@example.com\n",
    );
    assert_eq!(
        String::from_utf8_lossy(&many.stdout),
        "other\tv2\nkey@example.com\tthe value\n"
    );
}

#[test]
fn table_dump_prints_what_postmap_prints() {
    let scratch = Scratch::new("dump");
    let path = scratch.write("table", "Key@example.com the value\n# comment\nother v2\n");
    let path = path.display().to_string();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let postmap = |arguments: &[&str]| {
        let output = Command::new("/usr/sbin/postmap").args(arguments).output();
        let output = output.expect("postmap(1): install the package postfix");
        assert!(output.status.success(), "{}", said(&output));
        lines(&String::from_utf8_lossy(&output.stdout))
    };
    for kind in ["lmdb", "cdb"] {
        let table = format!("{kind}:{path}");
        postmap(&[&table]);
        let text = std::fs::read(&path).expect("the text");
        let dumped = || lines(&mailstow::answer(&["table", "dump", &table]));
        let from_text = dumped();
        std::fs::remove_file(&path).expect("the text");
        let mut from_index = dumped();
        std::fs::write(&path, text).expect("the text");
        assert_eq!(from_text, ["key@example.com\tthe value", "other\tv2"]);
        from_index.sort();
        assert_eq!(from_index, from_text, "{kind}");
    }
    // Of the two, postmap can list only this one.
    let mut theirs = postmap(&["-s", &format!("lmdb:{path}")]);
    theirs.sort();
    assert_eq!(theirs, lines(&mailstow::answer(&["table", "dump", &path])));
    let unlisted = mailstow::run(&["table", "dump", "static:x"]);
    assert_eq!(unlisted.status.code(), Some(75));
    assert!(
        said(&unlisted).contains("cannot be listed"),
        "{}",
        said(&unlisted)
    );
}

#[test]
fn table_build_makes_a_map_beside_the_text_and_says_how_to_use_it() {
    let scratch = Scratch::new("table-build");
    let text = scratch.write("v-mail", "Key@example.com d/key/\nkey@example.com again\n");
    let text = text.display().to_string();
    let output = mailstow::run(&["table", "build", &text]);
    assert!(output.status.success(), "{}", said(&output));
    let table = format!("mailstow:{text}.map:v_mail");
    assert!(said(&output).contains(&table), "{}", said(&output));
    assert!(said(&output).contains("occurs twice"), "{}", said(&output));
    let value = mailstow::answer(&["table", "query", "KEY@example.com", &table]);
    assert_eq!(value, "d/key/\n");
    assert_eq!(
        mailstow::answer(&["table", "dump", &table]),
        "key@example.com\td/key/\n"
    );

    let map = scratch.join("named.map").display().to_string();
    let argument = format!("virtual_mailbox_maps={text}");
    let arguments = ["table", "build", "--replace", "-o", &map, &argument];
    assert!(mailstow::run(&arguments).status.success());
    let table = format!("mailstow:{map}:virtual_mailbox_maps");
    assert_eq!(
        mailstow::answer(&["table", "query", "key@example.com", &table]),
        "again\n"
    );

    let strict = mailstow::run(&["table", "build", "--strict", &text]);
    assert_eq!(strict.status.code(), Some(1), "{}", said(&strict));
    let pattern = mailstow::run(&["table", "build", "pcre:/etc/passwd"]);
    assert!(
        said(&pattern).contains("can be compiled"),
        "{}",
        said(&pattern)
    );
}

#[test]
fn a_reader_that_goes_away_or_a_full_disk_is_no_panic() {
    let builder = Mailstow::example("output");
    let configuration = builder.configuration();
    let addresses: Vec<String> = (0..300).map(|n| format!("u{n}@far.example")).collect();
    let dump = ["table", "dump", "inline:{a=b}"]
        .map(str::to_owned)
        .to_vec();
    let resolve = |option: &str| {
        let mut all = vec!["resolve".to_owned(), option.to_owned()];
        all.extend(configuration.iter().cloned());
        all.extend(addresses.iter().cloned());
        all
    };
    for arguments in [resolve("--explain"), resolve("--json"), dump] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (reader, writer) = std::io::pipe().expect("pipe(2)");
        drop(reader);
        let full = std::fs::File::options().write(true).open("/dev/full");
        for (stdout, code) in [
            (Stdio::from(writer), 0),
            (Stdio::from(full.expect("/dev/full")), 75),
        ] {
            let output = command(&arguments)
                .stdout(stdout)
                .output()
                .expect("mailstow");
            assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        }
    }
}

#[test]
fn resolve_tells_programs_what_a_destination_is_and_which_member_is_refused() {
    let builder = Mailstow::example("json")
        .main_cf(
            "myhostname = host.example\nmydestination = host.example\n\
             alias_maps = inline:{{ note = \"|/bin/true\" }}\n\
             virtual_alias_maps = inline:{{all@example.com = sales@example.com, \
             unknown@example.com, note@host.example}}\n",
        )
        .toml("[transport]\nenabled = true\n[lmtp]\nexpand_aliases = true\n");
    let output = run(&builder, &["resolve", "--json", "all@example.com"]);
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let object: serde_json::Value = serde_json::from_str(&line).expect("one JSON object");
    assert!(object["error"].is_null(), "{object}");
    let results = object["results"].as_array().expect("a list");
    let kinds: Vec<_> = results.iter().map(|one| &one["destination"]).collect();
    assert_eq!(kinds, ["mailbox", "refused", "command"], "{object}");
    assert_eq!(results[1]["refusal"]["code"], 550);
    assert_eq!(results[2]["command"], "/bin/true");
    assert_eq!(results[2]["user"], "nobody");
}

#[test]
fn help_names_every_subcommand() {
    let said = mailstow::answer(&["--help"]);
    for name in ["serve", "deliver", "resolve", "table", "config", "check"] {
        assert!(said.contains(name), "{name} is missing in: {said}");
    }
}
