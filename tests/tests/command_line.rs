//! The subcommands an operator and his scripts use: check, config, resolve, table query.

use std::process::Output;

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
fn help_names_every_subcommand() {
    let said = mailstow::answer(&["--help"]);
    for name in ["serve", "deliver", "resolve", "table", "config", "check"] {
        assert!(said.contains(name), "{name} is missing in: {said}");
    }
}
