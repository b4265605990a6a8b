//! Tables and maps that are written in place while mail comes in: recipients that are in the old
//! and in the new contents are never refused, and the server survives whatever becomes of a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mailstow_tests::content::plain;
use mailstow_tests::mailstow::{Builder, answer, binary, command, owner, run_with_input};
use mailstow_tests::scratch::{close, write_whole};
use mailstow_tests::{Mailstow, eventually};

/// Allowance for a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn user(number: usize) -> String {
    format!("user{number}@example.com")
}

fn lines(users: std::ops::Range<usize>) -> Vec<String> {
    users
        .map(|n| format!("{} example.com/user{n}/\n", user(n)))
        .collect()
}

fn site(name: &str, users: usize) -> Builder {
    Mailstow::example(name).table("vmailbox", &lines(0..users).concat())
}

fn table(server: &Mailstow) -> PathBuf {
    server.scratch().join("conf/vmailbox")
}

/// What clients hear for these users while `write` goes on; every one is asked once at least.
fn codes_while(server: &Mailstow, users: usize, write: impl FnOnce() + Send) -> Vec<u16> {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            write();
            is_done.store(true, Ordering::Relaxed);
        });
        let mut client = server.client();
        let mut codes = Vec::new();
        while !is_done.load(Ordering::Relaxed) || codes.len() < users {
            for number in 0..users {
                codes.push(client.rcpt_code(&user(number)));
            }
        }
        writer.join().expect("the writer writes");
        codes
    })
}

fn settle(server: &Mailstow) {
    // A table that was written just before the start may still be written.
    let mut client = server.client();
    assert_eq!(client.rcpt_code("nobody@example.com"), 550);
}

#[test]
fn recipients_are_known_while_their_table_is_emptied_and_filled_four_seconds_later() {
    let server = site("emptied", 396).start();
    settle(&server);
    let before = server.log().len();
    let codes = codes_while(&server, 396, || {
        let mut file = File::create(table(&server)).expect("emptied");
        drop(file);
        server.log_line_after(before, "the file is empty");
        let mut client = server.client();
        assert_eq!(client.rcpt_code("nobody@example.com"), 451);
        std::thread::sleep(Duration::from_secs(4));
        file = File::options()
            .append(true)
            .open(table(&server))
            .expect("opened");
        file.write_all(lines(0..400).concat().as_bytes())
            .expect("filled");
    });
    assert!(codes.iter().all(|code| *code == 250), "{codes:?}");
    server.wait_for_rcpt(&user(399), 250, LIMIT);
    server.wait_for_rcpt("nobody@example.com", 550, LIMIT);
}

#[test]
fn recipients_are_known_while_their_table_is_written_line_by_line() {
    let server = site("lines", 40).start();
    settle(&server);
    // As a program writes that keeps the file open, and as a script does with ">>".
    for keeps_open in [true, false] {
        let codes = codes_while(&server, 40, || {
            let mut file = File::create(table(&server)).expect("emptied");
            for line in lines(0..41) {
                file.write_all(line.as_bytes()).expect("written");
                if !keeps_open {
                    file = File::options()
                        .append(true)
                        .open(table(&server))
                        .expect("opened");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(codes.iter().all(|code| *code == 250), "{codes:?}");
        server.wait_for_rcpt(&user(40), 250, LIMIT);
        server.wait_for_rcpt("nobody@example.com", 550, LIMIT);
    }
}

#[test]
fn a_table_that_was_cut_counts_as_it_is_after_the_hold_time() {
    let server = site("cut", 40)
        .toml("[tables]\nhold_time = \"4s\"\n")
        .start();
    settle(&server);
    write_whole(&table(&server), lines(0..10).concat());
    server.wait_for_rcpt("nobody@example.com", 451, LIMIT);
    let mut client = server.client();
    assert_eq!(client.rcpt_code(&user(39)), 250);
    server.wait_for_rcpt(&user(39), 550, LIMIT);
    assert_eq!(client.rcpt_code(&user(9)), 250);
    assert!(server.log().contains("without 30 of the 40 entries"));
}

#[test]
fn an_empty_table_that_was_empty_from_the_start_refuses_for_good() {
    for list in ["hash:@DIR@/vmailbox", "texthash:/dev/null"] {
        let server = Mailstow::example("empty")
            .table("vmailbox", "")
            .main_cf(&format!("virtual_mailbox_maps = {list}"))
            .start();
        let mut client = server.client();
        assert_eq!(client.rcpt_code(&user(0)), 550, "{list}");
    }
}

#[test]
fn a_published_table_is_in_force_at_once_and_one_that_looks_like_a_part_is_refused() {
    let server = site("published", 40).start();
    settle(&server);
    let path = table(&server);
    let hash = format!("hash:{}", path.display());
    let new = server
        .scratch()
        .write("vmailbox.new", lines(0..39).concat());
    let said = answer(&["table", "publish", text(&new), &hash]);
    assert!(
        said.contains("39 entries in force instead of 40; 1 of the old ones are missing"),
        "{said}"
    );
    server.wait_for_rcpt(&user(39), 550, LIMIT);

    let publish = |arguments: &[&str], input: &str| {
        let all: Vec<_> = ["table", "publish"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        run_with_input(command(&all), input.as_bytes())
    };
    for (input, doubt) in [
        ("", "it is empty"),
        (
            lines(0..5).concat().as_str(),
            "it lacks 34 of the 39 entries",
        ),
        (lines(0..39).concat().trim_end(), "its last line has no end"),
        ("odd\n", "no value"),
    ] {
        let refused = publish(&["-", &hash], input);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(doubt), "{said}");
    }
    let small = lines(0..5).concat();
    assert!(
        publish(&["--force", "-", text(&path)], &small)
            .status
            .success()
    );
    server.wait_for_rcpt(&user(30), 550, LIMIT);
    let mut client = server.client();
    assert_eq!(client.rcpt_code(&user(4)), 250);

    // Edited in place, and then said to be whole.
    write_whole(&path, lines(0..1).concat());
    server.wait_for_rcpt("nobody@example.com", 451, LIMIT);
    assert!(publish(&[text(&path)], "").status.success());
    server.wait_for_rcpt(&user(4), 550, LIMIT);
    server.wait_for_rcpt("nobody@example.com", 550, LIMIT);
}

#[test]
fn a_message_for_who_is_not_in_a_table_that_is_being_written_stays_in_the_queue() {
    // Not while the table waits.
    binary();
    let store = Mailstow::example("deliver-written");
    let path = store.scratch().join("conf/vmailbox");
    let deliver = |recipient: &str| {
        let mut arguments = vec!["deliver".to_owned()];
        arguments.extend(store.configuration());
        arguments.extend(["-f", "s@client.example", "--", recipient].map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run_with_input(command(&arguments), &plain("x"))
            .status
            .code()
    };
    let mut writer = File::create(&path).expect("emptied");
    assert_eq!(deliver("sales@example.com"), Some(75));
    writer
        .write_all(b"sales@example.com example.com/sales/\n")
        .expect("written");
    assert_eq!(deliver("sales@example.com"), Some(0));
    assert_eq!(deliver("info@example.com"), Some(75));
    close(writer);
    assert_eq!(deliver("info@example.com"), Some(67));
}

#[test]
fn a_server_that_starts_while_a_table_is_written_defers_until_it_is_whole() {
    let builder = site("start", 40);
    let path = builder.scratch().join("conf/vmailbox");
    let mut writer = File::create(&path).expect("emptied");
    writer
        .write_all(lines(0..20).concat().as_bytes())
        .expect("written");
    let server = builder.start();
    let mut client = server.client();
    assert_eq!(client.rcpt_code(&user(5)), 250);
    assert_eq!(client.rcpt_code(&user(30)), 451);
    writer
        .write_all(lines(20..40).concat().as_bytes())
        .expect("written");
    close(writer);
    eventually("250 for the last user", LIMIT, || {
        match client.rcpt_code(&user(39)) {
            250 => Some(()),
            code => {
                assert_eq!(code, 451);
                None
            }
        }
    });
    server.wait_for_rcpt("nobody@example.com", 550, LIMIT);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A map of these users, at `name` in the scratch directory.
fn build_map(builder: &Builder, name: &str, users: usize, path: &str) -> PathBuf {
    let text_path = builder.scratch().write(
        "users",
        (0..users)
            .map(|n| format!("{} {path}/user{n}/\n", user(n)))
            .collect::<String>(),
    );
    let map = builder.scratch().join(name);
    answer(&[
        "map",
        "build",
        "-o",
        text(&map),
        &format!("virtual_mailbox_maps={}", text(&text_path)),
    ]);
    map
}

#[test]
fn a_recipient_map_that_is_copied_over_kills_nobody_and_defers_until_it_is_whole() {
    const USERS: usize = 5000;
    let builder = Mailstow::example("map-copied")
        .main_cf("virtual_mailbox_maps =")
        .toml("[routing]\nvirtual_mailbox_maps = \"mailstow:@ROOT@/live.map\"\n");
    let owner = owner();
    for name in ["one", "two"] {
        let path = builder.scratch().mkdir(&format!("vhosts/{name}"));
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("chown");
    }
    let maps = [
        build_map(&builder, "one.map", USERS, "one"),
        build_map(&builder, "two.map", USERS, "two"),
    ];
    let live = builder.scratch().join("live.map");
    fs::copy(&maps[0], &live).expect("copied");
    let server = builder.start();
    let codes = codes_while(&server, USERS / 10, || {
        for (round, map) in maps.iter().cycle().take(20).enumerate() {
            if round % 2 == 0 {
                let status = std::process::Command::new("cp").args([map, &live]).status();
                assert!(status.expect("cp runs").success());
            } else {
                // Slowly, as from a network.
                let bytes = fs::read(map).expect("it was built");
                let mut file = File::create(&live).expect("emptied");
                for part in bytes.chunks(bytes.len() / 10 + 1) {
                    file.write_all(part).expect("written");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        // Emptied permanently.
        File::create(&live).expect("emptied");
    });
    let odd: Vec<_> = codes
        .iter()
        .filter(|code| !matches!(code, 250 | 451))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    let mut client = server.client();
    for number in 0..USERS / 10 {
        assert_eq!(client.rcpt_code(&user(number)), 451);
    }
    fs::copy(&maps[1], &live).expect("copied");
    server.wait_for_rcpt(&user(USERS - 1), 250, LIMIT);
    server.wait_for_rcpt("nobody@example.com", 550, LIMIT);
}

#[test]
fn whatever_takes_the_place_of_a_recipient_map_defers_who_is_not_in_the_one_in_use() {
    let builder = Mailstow::example("map-replaced")
        .main_cf("virtual_mailbox_maps =")
        .toml("[routing]\nvirtual_mailbox_maps = \"mailstow:@ROOT@/live.map\"\n");
    let good = build_map(&builder, "good.map", 10, "one");
    let live = builder.scratch().join("live.map");
    let other = builder.scratch().join("other");
    fs::copy(&good, &live).expect("copied");
    let mut server = builder.start();
    let unknown = "nobody@example.com";
    assert_eq!(server.client().rcpt_code(unknown), 550);
    let remove = || {
        let _ = fs::remove_dir(&live).or_else(|_| fs::remove_file(&live));
    };
    let replacements: [(&str, &dyn Fn()); 5] = [
        ("nothing", &|| remove()),
        ("a part of a map", &|| {
            let bytes = fs::read(&good).expect("it was built");
            fs::write(&other, &bytes[..bytes.len() / 2]).expect("written");
            fs::rename(&other, &live).expect("renamed");
        }),
        ("a FIFO", &|| {
            let status = std::process::Command::new("mkfifo").arg(&other).status();
            assert!(status.expect("mkfifo").success());
            fs::rename(&other, &live).expect("renamed");
        }),
        ("a directory", &|| {
            remove();
            fs::create_dir(&live).expect("mkdir");
        }),
        ("a device", &|| {
            remove();
            std::os::unix::fs::symlink("/dev/zero", &live).expect("symlink");
        }),
    ];
    for (what, replace) in replacements {
        replace();
        eprintln!("{what}");
        server.wait_for_rcpt(unknown, 451, LIMIT);
        assert_eq!(server.client().rcpt_code(&user(3)), 250, "{what}");
        remove();
        fs::copy(&good, &other).expect("copied");
        fs::rename(&other, &live).expect("renamed");
        server.wait_for_rcpt(unknown, 550, LIMIT);
    }
    assert_eq!(server.daemon.stop().code(), Some(0));
}

#[test]
fn a_map_is_not_built_from_a_text_that_is_being_written() {
    let builder = Mailstow::example("map-text");
    let map = build_map(&builder, "recipients.map", 40, "x");
    let path = builder.scratch().join("users");
    let build = |arguments: &[&str]| {
        let source = format!("virtual_mailbox_maps={}", text(&path));
        let mut all = vec!["map", "build", "-o", text(&map), &source];
        all.extend(arguments);
        run_with_input(command(&all), b"")
    };
    let whole = fs::read(&map).expect("it was built");
    let mut writer = File::create(&path).expect("emptied");
    writer
        .write_all(lines(0..40).concat().as_bytes())
        .expect("written");
    let refused = build(&["--force"]);
    assert!(!refused.status.success(), "somebody writes it: {refused:?}");
    close(writer);
    assert!(build(&[]).status.success());
    write_whole(&path, lines(0..10).concat());
    let refused = build(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("10 values in the place of 40"), "{said}");
    assert_ne!(fs::read(&map).expect("it is there"), whole);
    assert!(build(&["--force"]).status.success());
}
