//! A server that finds its recipients in a compiled map: built, delivered by, changed key by key
//! while it runs, replaced, damaged and repaired.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mailstow_tests::Mailstow;
use mailstow_tests::content::plain;
use mailstow_tests::mailboxes;
use mailstow_tests::mailstow::{Builder, answer, owner, run};

/// A changed key is in force within 2 s; the rest is allowance for a busy machine.
const PICK_UP_LIMIT: Duration = Duration::from_secs(20);

const MAP: &str = "mailstow:@ROOT@/recipients.map";

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A site whose domains, mailboxes, owners and aliases are all in one map; not yet built.
fn site(name: &str) -> Builder {
    let builder = Mailstow::build(name)
        .main_cf("virtual_mailbox_base = @ROOT@/vhosts\nrecipient_delimiter = +\n")
        .toml(&format!(
            "[routing]\nvirtual_mailbox_maps = \"{MAP}\"\nvirtual_uid_maps = \"{MAP}\"\n\
             virtual_gid_maps = \"{MAP}\"\nvirtual_mailbox_domains = \"{MAP}\"\n\
             virtual_alias_maps = \"{MAP}\"\n"
        ))
        .table("domains", "example.com x\n")
        .table("vmailbox", "info@example.com example.com/info/\n")
        .table("owner", &format!("@example.com {}\n", owner()))
        .table("virtual", "all@example.com info@example.com\n");
    let owner = owner();
    for directory in ["vhosts", "vhosts/example.com"] {
        let path = builder.scratch().mkdir(directory);
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("chown");
    }
    builder
}

fn map_of(builder: &Builder) -> PathBuf {
    builder.scratch().join("recipients.map")
}

fn build(builder: &Builder) {
    let map = map_of(builder);
    let source = |table: &str, name: &str| {
        let path = builder.scratch().join("conf").join(name);
        format!("{table}={}", path.display())
    };
    let out = answer(&[
        "map",
        "build",
        text(&map),
        &source("virtual_mailbox_domains", "domains"),
        &source("virtual_mailbox_maps", "vmailbox"),
        &source("virtual_uid_maps", "owner"),
        &source("virtual_gid_maps", "owner"),
        &source("virtual_alias_maps", "virtual"),
    ]);
    assert!(out.contains("4 keys, 5 values"), "{out}");
}

#[test]
fn recipients_come_and_go_in_a_map_while_the_server_runs() {
    let builder = site("map");
    build(&builder);
    let map = map_of(&builder);
    let server = builder.start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code("Info+x@example.com"), 250);
    assert_eq!(client.rcpt_code("new@example.com"), 550);
    assert_eq!(client.rcpt_code("new@elsewhere.example"), 550);

    let table = "virtual_mailbox_maps";
    answer(&[
        "map",
        "set",
        text(&map),
        table,
        "New@example.com",
        "example.com/new/",
    ]);
    server.wait_for_rcpt("new@example.com", 250, PICK_UP_LIMIT);
    client.command("RSET");
    let to = ["new@example.com", "info@example.com"];
    let replies = client.deliver("s@client.example", &to, &plain("by the map"));
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
    for name in ["new", "info"] {
        let stored = mailboxes::maildir(&server.mailbox(&format!("example.com/{name}")));
        assert_eq!(stored.len(), 1, "{name}");
    }

    answer(&["map", "unset", text(&map), table, "new@example.com"]);
    server.wait_for_rcpt("new@example.com", 550, PICK_UP_LIMIT);
    assert_eq!(client.rcpt_code("info@example.com"), 250);

    // A build takes the place of map and changes in one step.
    server
        .scratch()
        .write("conf/vmailbox", "built@example.com example.com/built/\n");
    let source =
        |table: &str, name: &str| format!("{table}={}", text(&server.scratch().join(name)));
    answer(&[
        "map",
        "build",
        "--discard-changes",
        text(&map),
        &source(table, "conf/vmailbox"),
        &source("virtual_mailbox_domains", "conf/domains"),
        &source("virtual_uid_maps", "conf/owner"),
        &source("virtual_gid_maps", "conf/owner"),
        &source("virtual_alias_maps", "conf/virtual"),
    ]);
    server.wait_for_rcpt("built@example.com", 250, PICK_UP_LIMIT);
    assert_eq!(client.rcpt_code("info@example.com"), 550);
}

#[test]
fn a_damaged_map_defers_and_never_bounces_until_it_is_mended() {
    let builder = site("map-damage");
    build(&builder);
    let map = map_of(&builder);
    let sound = fs::read(&map).expect("it was built");
    let server = builder.start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code("info@example.com"), 250);
    let mut flipped = sound.clone();
    for byte in flipped.iter_mut().skip(4096) {
        *byte ^= 0x55;
    }
    let damages = [
        ("emptied in place", Vec::new()),
        ("cut in place", sound[..5000].to_vec()),
        ("overwritten in place", vec![b'x'; sound.len()]),
        ("damaged behind its header", flipped),
    ];
    for (what, bytes) in damages {
        fs::write(&map, bytes).expect("the map is written");
        server.wait_for_rcpt("info@example.com", 451, PICK_UP_LIMIT);
        for recipient in ["nobody@example.com", "info@other.example"] {
            assert_eq!(client.rcpt_code(recipient), 451, "{what}: {recipient}");
        }
        let mended = server.scratch().write("mended", &sound);
        fs::rename(mended, &map).expect("rename");
        server.wait_for_rcpt("info@example.com", 250, PICK_UP_LIMIT);
        assert_eq!(client.rcpt_code("nobody@example.com"), 550, "{what}");
    }
}

#[test]
fn a_broken_map_in_the_place_of_a_whole_one_is_not_taken() {
    let builder = site("map-broken");
    build(&builder);
    let map = map_of(&builder);
    let server = builder.start();
    let before = server.log().len();
    let broken = server.scratch().write("broken", "no map at all");
    fs::rename(broken, &map).expect("rename");
    server.log_line_after(before, "old contents stay in use");
    let mut client = server.client();
    assert_eq!(client.rcpt_code("info@example.com"), 250);
    // The new one may have more recipients.
    assert_eq!(client.rcpt_code("nobody@example.com"), 451);
}

#[test]
fn a_server_that_finds_its_map_damaged_defers_and_takes_up_a_new_one() {
    let builder = site("map-start");
    let map = map_of(&builder);
    fs::write(&map, "no map at all").expect("write");
    let server = builder.start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code("info@example.com"), 451);
    assert_eq!(client.rcpt_code("nobody@example.com"), 451);
    server.log_line("not a recipient map");
    fs::remove_file(&map).expect("unlink");
    let source =
        |table: &str, name: &str| format!("{table}={}", text(&server.scratch().join(name)));
    answer(&[
        "map",
        "build",
        text(&map),
        &source("virtual_mailbox_maps", "conf/vmailbox"),
        &source("virtual_mailbox_domains", "conf/domains"),
        &source("virtual_uid_maps", "conf/owner"),
        &source("virtual_gid_maps", "conf/owner"),
        &source("virtual_alias_maps", "conf/virtual"),
    ]);
    server.wait_for_rcpt("info@example.com", 250, PICK_UP_LIMIT);
    assert_eq!(client.rcpt_code("nobody@example.com"), 550);
}

#[test]
fn the_tools_know_maps() {
    let builder = site("map-tools");
    let configuration = builder.configuration();
    let with = |words: &[&str]| {
        let mut arguments: Vec<&str> = words.to_vec();
        arguments.extend(configuration.iter().map(String::as_str));
        run(&arguments)
    };
    let out = |words: &[&str]| String::from_utf8(with(words).stdout).expect("UTF-8");

    let missing = out(&["check"]);
    assert!(missing.contains("mailstow map build"), "{missing}");
    build(&builder);
    let map = map_of(&builder);
    let named = format!("mailstow:{}:virtual_alias_maps", map.display());
    assert_eq!(
        answer(&["table", "query", "All@example.com", &named]),
        "info@example.com\n"
    );
    assert_eq!(
        run(&["table", "query", "x@example.com", &named])
            .status
            .code(),
        Some(1)
    );

    let explained = out(&["resolve", "--explain", "all@example.com"]);
    for words in [
        ":virtual_alias_maps",
        ":virtual_mailbox_maps",
        "vhosts/example.com/info/",
    ] {
        assert!(explained.contains(words), "{explained}");
    }
    let checked = out(&[
        "check",
        "--state-directory",
        text(&builder.scratch().join("state")),
    ]);
    assert!(!checked.contains("recipient map"), "{checked}");

    let mut bytes = fs::read(&map).expect("read");
    bytes[5000] ^= 1;
    fs::write(&map, bytes).expect("write");
    let checked = with(&["check"]);
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(
        text.contains("error:") && text.contains("damaged block"),
        "{text}"
    );
    assert_eq!(checked.status.code(), Some(1));
    let asked = run(&["table", "query", "all@example.com", &named]);
    assert_eq!(asked.status.code(), Some(75), "{asked:?}");
}

#[test]
fn a_map_of_a_whole_postfix_configuration_answers_as_the_configuration_did() {
    let builder = Mailstow::build("map-postfix")
        .main_cf(
            "virtual_mailbox_base = @ROOT@/vhosts\nrecipient_delimiter = +\n\
             virtual_mailbox_domains = vm.example, hash:@DIR@/domains\n\
             virtual_mailbox_maps = hash:@DIR@/vmailbox, inline:{in@vm.example=vm/in/}, \
             pcre:@DIR@/patterns\n\
             virtual_uid_maps = static:5000\nvirtual_gid_maps = hash:@DIR@/groups\n\
             virtual_alias_domains = hash:@DIR@/virtual\n\
             virtual_alias_maps = hash:@DIR@/virtual\n\
             transport_maps = hash:@DIR@/transport\n",
        )
        .table("domains", "More.example x\n")
        .table(
            "vmailbox",
            "Info@vm.example vm/info/\ninfo@vm.example second/\n@more.example m/\n",
        )
        .table("patterns", "/^pat.*@vm\\.example$/ vm/pat/\n")
        .table("groups", "@vm.example 5001\n@more.example 5002\n")
        .table(
            "virtual",
            "va.example anything\nall@va.example info@vm.example, in@vm.example\n",
        )
        .table("transport", "far.example lmtp:unix:/far\n");
    let before = builder.configuration();
    let map = map_of(&builder);
    let mut arguments = vec!["map", "build", "-o", text(&map)];
    arguments.extend(before.iter().map(String::as_str));
    let built = run(&arguments);
    assert!(built.status.success(), "{built:?}");
    let out = String::from_utf8(built.stdout).expect("UTF-8");
    let complaints = String::from_utf8(built.stderr).expect("UTF-8");
    assert!(
        complaints.contains("virtual_uid_maps: static:5000 stays"),
        "{complaints}"
    );
    assert!(complaints.contains("occurs twice"), "{complaints}");
    let (_, toml) = out.split_once("mailstow.toml:\n").expect("it says how");
    let toml = builder.scratch().write("map.toml", toml);

    let addresses = [
        "INFO+x@vm.example",
        "in@vm.example",
        "patty@vm.example",
        "nobody@vm.example",
        "who@more.example",
        "all+y@va.example",
        "other@va.example",
        "u@far.example",
        "u@elsewhere.example",
    ];
    let resolve = |more: &[&str]| {
        let mut arguments = vec!["resolve", "--json"];
        arguments.extend(before.iter().map(String::as_str));
        arguments.extend(more.iter().chain(&addresses));
        run(&arguments)
    };
    let (by_tables, by_map) = (resolve(&[]), resolve(&["--config", text(&toml)]));
    let lines = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert_eq!(lines(&by_map.stdout), lines(&by_tables.stdout));
    assert_eq!(lines(&by_map.stdout).lines().count(), addresses.len());
    // No lookup reads the remaining texts.
    for name in ["domains", "vmailbox", "groups", "virtual", "transport"] {
        builder.scratch().write(&format!("conf/{name}"), "");
    }
    let alone = resolve(&["--config", text(&toml)]);
    assert_eq!(lines(&alone.stdout), lines(&by_tables.stdout));
}
