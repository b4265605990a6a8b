//! Mail that goes elsewhere than into a mailbox: commands of pipe services, refusals by table, and
//! recipients with several destinations.
//!
//! Method: mailstow alone, with Postfix's configuration files and no Postfix. Commands are scripts
//! that note what they are given, and the real maildrop.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use mailstow_tests::client::dot_stuffed;
use mailstow_tests::content::{plain, sized};
use mailstow_tests::mailboxes::{header, maildir};
use mailstow_tests::mailstow::{self, Builder};
use mailstow_tests::{Client, Mailstow, Reply, eventually, example};

const SENDER: &str = "s@client.example";

const MAIN_CF: &str = "\
virtual_mailbox_domains = example.com, domain.tld
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = inline:{info@example.com=info/, sales@example.com=sales/,
    user@domain.tld=user/, @example.com=rest/}
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_transport = virtual
virtual_alias_maps = hash:@DIR@/virtual
transport_maps = hash:@DIR@/transport
myhostname = mx.origin.example
mydestination =
";

const TOML: &str = "\
[lmtp]
expand_aliases = true
[transport]
enabled = true
";

/// A script that every user may run.
fn script(builder: &Builder, name: &str, text: &str) -> PathBuf {
    let path = builder.scratch().write(name, text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    path
}

/// A directory that every user may write into.
fn open_directory(builder: &Builder, name: &str) -> PathBuf {
    let path = builder.scratch().mkdir(name);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o1777)).expect("chmod");
    path
}

fn site(name: &str, aliases: &str, transports: &str, master_cf: &str) -> Builder {
    configured(name, aliases, transports, master_cf).toml(TOML)
}

/// As [`site`], without mailstow.toml.
fn configured(name: &str, aliases: &str, transports: &str, master_cf: &str) -> Builder {
    let builder = Mailstow::build(name)
        .main_cf(MAIN_CF)
        .master_cf(master_cf)
        .table("virtual", aliases)
        .table("transport", transports);
    builder.scratch().mkdir_owned("vhosts", 5000, 5000);
    open_directory(&builder, "noted");
    builder
}

fn deliver(server: &Mailstow, to: &[&str]) -> Vec<String> {
    let mut client = Client::lmtp(&server.unix());
    let replies = client.deliver(SENDER, to, &plain("sent"));
    // Proves that the replies were read, so that the message is settled before the next one.
    assert_eq!(client.command("NOOP").code, 250);
    replies.iter().map(Reply::to_string).collect()
}

fn noted(server: &Mailstow) -> Vec<String> {
    let noted = server.scratch().join("noted");
    let files = fs::read_dir(noted).expect("readdir");
    let mut texts: Vec<String> = files
        .map(|file| fs::read_to_string(file.expect("readdir").path()).expect("text"))
        .collect();
    texts.sort();
    texts
}

fn stored(server: &Mailstow, mailbox: &str) -> usize {
    let path = server.scratch().join("vhosts").join(mailbox);
    match path.exists() {
        true => maildir(&path).len(),
        false => 0,
    }
}

/// The autoreply example of the VIRTUAL_README, only the path moved.
#[test]
fn the_autoreply_example_stores_the_mail_and_runs_the_command() {
    let builder = site(
        "autoreply",
        "user@domain.tld user@domain.tld, user@domain.tld@autoreply.mydomain.tld\n",
        "autoreply.mydomain.tld  autoreply:\n",
        "autoreply unix  -       n       n       -       -       pipe\n    \
         flags= user=nobody argv=@ROOT@/autoreply $sender $mailbox\n",
    );
    script(
        &builder,
        "autoreply",
        "#!/bin/sh\nprintf '%s|' \"$@\" >$(dirname $0)/noted/$$\ncat >/dev/null\n",
    );
    let server = builder.start();
    let replies = deliver(&server, &["user@domain.tld"]);
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert!(replies[0].starts_with("250 2.0.0"), "{replies:?}");
    assert_eq!(noted(&server), ["s@client.example|user@domain.tld|"]);
    assert_eq!(stored(&server, "user"), 1);
    example::show(
        "autoreplies",
        "user@domain.tld -> Maildir of user, and the command with s@client.example and \
         user@domain.tld",
    );
}

#[test]
fn maildrop_as_in_debians_master_cf_delivers_into_a_maildir() {
    let builder = site(
        "maildrop",
        "",
        "info@example.com maildrop:\n",
        "maildrop  unix  -       n       n       -       -       pipe\n  \
         flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}\n",
    )
    .main_cf("maildrop_destination_recipient_limit = 1")
    .user("vmail", 5000, "/nonexistent")
    .user("info@example.com", 5000, "@ROOT@/home");
    let home = builder.scratch().mkdir_owned("home", 5000, 5000);
    let filter = builder
        .scratch()
        .write("home/.mailfilter", "to \"$HOME/Maildir/\"\n");
    fs::set_permissions(&filter, PermissionsExt::from_mode(0o600)).expect("chmod");
    for part in ["Maildir", "Maildir/new", "Maildir/cur", "Maildir/tmp"] {
        builder
            .scratch()
            .mkdir_owned(&format!("home/{part}"), 5000, 5000);
    }
    std::os::unix::fs::chown(&filter, Some(5000), Some(5000)).expect("chown");
    let server = builder.start();
    let replies = deliver(&server, &["Info@Example.com", "sales@example.com"]);
    assert!(
        replies.iter().all(|reply| reply.starts_with("250 2.0.0")),
        "{replies:?} {}",
        server.log()
    );
    assert!(
        replies[0].contains("delivered via maildrop service"),
        "{replies:?}"
    );
    let messages = maildir(&home.join("Maildir"));
    assert_eq!(messages.len(), 1);
    assert_eq!(
        header(&messages[0].bytes, "Return-Path"),
        ["<s@client.example>"]
    );
    example::show(
        "non-Postfix mailbox store, maildrop",
        "info@example.com -> maildrop -> Maildir below its home",
    );
    assert_eq!(
        header(&messages[0].bytes, "Delivered-To"),
        ["Info@Example.com"]
    );
    assert_eq!(header(&messages[0].bytes, "Subject"), ["sent"]);
    assert_eq!(stored(&server, "sales"), 1);
}

#[test]
fn tables_refuse_put_off_and_discard_by_transport() {
    let builder = site(
        "refusing",
        "",
        "gone@example.com error:5.7.1 not for you\nlater@example.com retry:4.3.2 come back\n\
         plain@example.com error:no such thing\nvoid@example.com discard:silently\n\
         odd@example.com nowhere:\nnobody@elsewhere.example discard:\n",
        "",
    );
    let server = builder.start();
    let mut client = Client::lmtp(&server.unix());
    client.command(format!("MAIL FROM:<{SENDER}>"));
    let mut rcpt = |to: &str| client.command(format!("RCPT TO:<{to}>")).to_string();
    assert_eq!(
        rcpt("gone@example.com"),
        "550 5.7.1 <gone@example.com> not for you"
    );
    assert_eq!(
        rcpt("later@example.com"),
        "450 4.3.2 <later@example.com> come back"
    );
    assert_eq!(
        rcpt("plain@example.com"),
        "550 5.0.0 <plain@example.com> no such thing"
    );
    assert_eq!(
        rcpt("odd@example.com"),
        "451 4.3.5 mail system configuration error: unknown transport nowhere"
    );
    // No relay for everybody.
    assert!(rcpt("any@foreign.example").starts_with("550 5.7.1"));
    drop(client);
    let replies = deliver(&server, &["void@example.com", "nobody@elsewhere.example"]);
    assert!(
        replies.iter().all(|reply| reply.starts_with("250 2.0.0")),
        "{replies:?}"
    );
    assert!(replies[0].contains("silently"), "{replies:?}");
    assert_eq!(stored(&server, "rest"), 0);
}

#[test]
fn a_recipient_with_several_destinations_is_answered_by_the_worst_of_them() {
    let builder = site(
        "several",
        "both@example.com info@example.com, bad@cmd.example\n\
         later@example.com info@example.com, bad@cmd.example, busy@cmd.example\n\
         all@example.com info@example.com, good@cmd.example, sales@example.com\n",
        "cmd.example cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd ${mailbox}\n",
    )
    .main_cf("cmd_destination_recipient_limit = 1");
    script(
        &builder,
        "cmd",
        "#!/bin/sh\ncat >/dev/null\ncase $1 in bad) exit 67;; busy) exit 75;; esac\n",
    );
    let server = builder.start();
    let replies = deliver(
        &server,
        &["both@example.com", "later@example.com", "all@example.com"],
    );
    assert!(replies[0].starts_with("550 5.1.1"), "{replies:?}");
    assert!(replies[1].starts_with("451 4.3.0"), "{replies:?}");
    assert!(replies[2].starts_with("250 2.0.0"), "{replies:?}");
    assert_eq!(stored(&server, "sales"), 1);
}

/// What one destination has stored is not stored again because another one was busy.
#[test]
fn a_repetition_after_a_partial_failure_stores_no_second_copy() {
    let builder = site(
        "partial",
        "both@example.com info@example.com, busy@cmd.example\n",
        "cmd.example cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd ${mailbox}\n",
    );
    let text = "#!/bin/sh\ncat >/dev/null\nmkdir $(dirname $0)/noted/tried 2>/dev/null && exit 75\nexit 0\n";
    script(&builder, "cmd", text);
    let server = builder.start();
    let first = deliver(&server, &["both@example.com"]);
    assert!(first[0].starts_with("451 4.3.0"), "{first:?}");
    let second = deliver(&server, &["both@example.com"]);
    assert!(second[0].starts_with("250 2.0.0"), "{second:?}");
    assert_eq!(stored(&server, "info"), 1);
}

/// A command that counts its runs by its first argument; the first run of `busy` fails.
const COUNTING: &str = "#!/bin/sh\ncat >/dev/null\nnoted=$(dirname $0)/noted\n\
    [ $1 = busy ] && mkdir $noted/tried 2>/dev/null && exit 75\necho $1 >$noted/$$\n";

#[test]
fn a_repetition_after_a_partial_failure_runs_no_command_again_that_took_the_mail() {
    let builder = site(
        "partial-commands",
        "all@example.com good@cmd.example, info@example.com, busy@cmd.example\n",
        "cmd.example cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd ${mailbox}\n",
    )
    .main_cf("cmd_destination_recipient_limit = 1");
    script(&builder, "cmd", COUNTING);
    let server = builder.start();
    let first = deliver(&server, &["all@example.com"]);
    assert!(first[0].starts_with("451 4.3.0"), "{first:?}");
    let second = deliver(&server, &["all@example.com"]);
    assert!(second[0].starts_with("250 2.0.0"), "{second:?}");
    fs::remove_dir(server.scratch().join("noted/tried")).expect("rmdir");
    assert_eq!(noted(&server), ["busy\n", "good\n"]);
    assert_eq!(stored(&server, "info"), 1);
    // Now that the client has read it, the same is another message.
    fs::create_dir(server.scratch().join("noted/tried")).expect("mkdir");
    let on_purpose = deliver(&server, &["all@example.com"]);
    assert!(on_purpose[0].starts_with("250 2.0.0"), "{on_purpose:?}");
    fs::remove_dir(server.scratch().join("noted/tried")).expect("rmdir");
    assert_eq!(noted(&server).len(), 4);
    assert_eq!(stored(&server, "info"), 2);
}

/// The client is lost before it has read that all took the mail, and then the server is killed.
#[test]
fn a_command_does_not_run_again_after_its_reply_was_lost_and_the_server_killed() {
    let builder = site(
        "lost-reply",
        "all@example.com good@cmd.example, info@example.com\n",
        "cmd.example cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd ${mailbox}\n",
    );
    script(&builder, "cmd", COUNTING);
    let mut server = builder.start();
    for is_killed in [false, true] {
        let mut client = Client::lmtp(&server.unix());
        for line in [
            "XFORWARD IDENT=4F2B1",
            &format!("MAIL FROM:<{SENDER}>"),
            "RCPT TO:<all@example.com>",
            "DATA",
        ] {
            let reply = client.command(line);
            assert!(reply.code < 400, "{line}: {reply}");
        }
        let before = server.log().len();
        client.send(&dot_stuffed(&plain("sent"))).expect("send");
        server.log_line_after(before, "info@example.com");
        // With the reply in its socket.
        drop(client);
        if is_killed {
            server.kill();
            server.restart();
        }
    }
    let mut client = Client::lmtp(&server.unix());
    client.command("XFORWARD IDENT=4F2B1");
    let replies = client.deliver(SENDER, &["all@example.com"], &plain("sent"));
    assert!(
        replies[0].to_string().starts_with("250 2.0.0"),
        "{replies:?}"
    );
    assert_eq!(noted(&server), ["good\n"]);
    assert_eq!(stored(&server, "info"), 1);
}

/// It has got a part of its message, and would see the end of it.
#[test]
fn a_command_is_killed_with_the_server_that_gives_it_its_message() {
    let builder = site(
        "killed-command",
        "",
        "info@example.com cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd\n",
    );
    let text = "#!/bin/sh\necho $$ >$(dirname $0)/noted/new\n\
        mv $(dirname $0)/noted/new $(dirname $0)/noted/pid\nexec sleep 1000\n";
    script(&builder, "cmd", text);
    let mut server = builder.start();
    let mut client = Client::lmtp(&server.unix());
    for line in [
        &format!("MAIL FROM:<{SENDER}>"),
        "RCPT TO:<info@example.com>",
        "DATA",
    ] {
        assert!(client.command(line).code < 400, "{line}");
    }
    let content = dot_stuffed(&sized("long", 500_000));
    client.send(&content).expect("send");
    let pid = server.scratch().join("noted/pid");
    let limit = Duration::from_secs(60);
    let pid = eventually("the command", limit, || fs::read_to_string(&pid).ok());
    let process = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    assert!(process.exists());
    server.kill();
    eventually("the end of the command", limit, || {
        let stat = fs::read_to_string(&process).ok();
        // Another process may have to collect it.
        stat.is_none_or(|stat| stat.contains(") Z ")).then_some(())
    });
}

/// Without `[transport]` everything that is listed is stored.
#[test]
fn transports_are_of_no_account_unless_they_are_enabled() {
    let builder = Mailstow::build("stored")
        .main_cf(MAIN_CF)
        .table("virtual", "")
        .table("transport", "info@example.com error:no\n");
    builder.scratch().mkdir_owned("vhosts", 5000, 5000);
    let server = builder.start();
    assert!(deliver(&server, &["info@example.com"])[0].starts_with("250"));
    assert_eq!(stored(&server, "info"), 1);
}

#[test]
fn the_deliver_command_hands_over_to_commands() {
    let builder = site(
        "command",
        "",
        "info@example.com cmd:\n",
        "cmd unix - n n - - pipe user=nobody argv=@ROOT@/cmd ${recipient}\n",
    );
    let text = "#!/bin/sh\n(echo $1; cat) >$(dirname $0)/noted/$$\nexit 67\n";
    script(&builder, "cmd", text);
    let mut command = mailstow::command(&["deliver", "-f", SENDER]);
    command.args(builder.configuration());
    command.args(["--", "info@example.com"]);
    let output = mailstow::run_with_input(command, &plain("sent"));
    assert_eq!(output.status.code(), Some(67), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("5.1.1 user unknown"));
    let directory: &Path = &builder.scratch().join("noted");
    let noted = fs::read_dir(directory)
        .expect("readdir")
        .next()
        .expect("one");
    let text = fs::read_to_string(noted.expect("readdir").path()).expect("text");
    assert!(text.starts_with("info@example.com\n"), "{text}");
}

#[test]
fn check_and_resolve_tell_of_transports() {
    let builder = site(
        "told",
        "all@example.com info@example.com, sales@example.com\n",
        "info@example.com cmd:\nodd@example.com nowhere:\nnear@example.com cdm:\n\
         bad@example.com bad:\na@example.com gone:\nb@example.com astray:\nmx@example.com smtp:box.example\n",
        "cmd unix - n n - - pipe user=nobody argv=true\n\
         gone unix - n n - - pipe user=nobody argv=@ROOT@/gone\n\
         astray unix - n n - - pipe user=nobody directory=/no/such argv=/bin/true\n\
         bad unix - n n - - pipe user=root argv=/bin/true\n\
         unused unix - n n - - pipe user=root argv=/bin/true\n",
    );
    let told = |arguments: &[&str]| {
        let mut command = mailstow::command(&arguments[..1]);
        command.args(builder.configuration()).args(&arguments[1..]);
        let output = mailstow::run_with_input(command, b"");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let [resolved, _] = told(&["resolve", "all@example.com"]);
    let cmd = resolved.split("recipient  ").nth(1).expect(&resolved);
    assert!(
        cmd.contains("cmd:example.com") && !cmd.contains("mailbox    "),
        "{resolved}"
    );
    assert!(resolved.contains("vhosts/sales/"), "{resolved}");
    let [odd, _] = told(&["resolve", "odd@example.com"]);
    assert!(odd.contains("refused    451 4.3.5"), "{odd}");
    assert!(
        odd.contains("transport nowhere: master.cf has no such service"),
        "{odd}"
    );
    let [near, _] = told(&["resolve", "near@example.com"]);
    assert!(
        near.contains("transport cdm: master.cf has no such service; did you mean cmd?"),
        "{near}"
    );
    let [mx, _] = told(&["resolve", "mx@example.com"]);
    assert!(
        mx.contains("refused    451 4.3.5") && mx.contains("smtp:[box.example]"),
        "{mx}"
    );
    let checked = told(&["check"]).concat();
    assert!(
        checked.contains("transport_maps names nowhere:"),
        "{checked}"
    );
    assert!(
        checked.contains("transport_maps names bad:, whose mail is deferred: user=root"),
        "{checked}"
    );
    for cause in ["/gone: there is no such program", "directory=/no/such:"] {
        assert!(checked.contains(cause), "{checked}");
    }
    assert!(
        !checked.contains("unused") && !checked.contains("names cmd"),
        "{checked}"
    );
}

#[test]
fn what_master_cf_calls_local_is_used_as_what_it_is() {
    let build = |master_cf: &str| {
        let builder = site("local-pipe", "", "", master_cf)
            .main_cf("mydestination = here.example\nalias_maps = inline:{ann=nobody}\n");
        let text = "#!/bin/sh\n(echo $1; cat) >$(dirname $0)/noted/$$\n";
        script(&builder, "cmd", text);
        builder
    };
    let told = |builder: &Builder, arguments: &[&str]| {
        let mut command = mailstow::command(&arguments[..1]);
        command.args(builder.configuration()).args(&arguments[1..]);
        let output = mailstow::run_with_input(command, b"");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let pipe = "local unix - n n - - pipe user=nobody argv=@ROOT@/cmd $recipient\n";
    let builder = build(pipe).main_cf("local_recipient_maps =\n");
    let resolved = told(&builder, &["resolve", "ann@here.example"]);
    assert!(
        resolved.contains("recipient  ann@here.example"),
        "{resolved}"
    );
    let note = "which is pipe(8)";
    assert!(resolved.contains(note), "{resolved}");
    let checked = told(&builder, &["check"]);
    assert!(checked.contains(note), "{checked}");
    let server = builder.start();
    let replies = deliver(&server, &["ann@here.example"]);
    assert!(
        replies[0].starts_with("250 2.0.0"),
        "{replies:?} {}",
        server.log()
    );
    let noted = noted(&server);
    assert!(noted[0].starts_with("ann@here.example\n"), "{noted:?}");

    let builder = build("");
    let note = "goes to the accounts of this machine";
    for said in [
        told(&builder, &["check"]),
        told(&builder, &["resolve", "ann@here.example"]),
    ] {
        assert!(said.contains(note), "{said}");
    }
    let builder = builder.main_cf("local_transport = local:here\n");
    assert!(!told(&builder, &["check"]).contains(note));
}

#[test]
fn what_a_command_has_started_ends_with_a_server_that_does_not_wait_for_it() {
    let builder = configured(
        "cut-command",
        "",
        "user@domain.tld slow:\n",
        "slow unix - n n - - pipe\n  flags= user=nobody argv=@ROOT@/slow\n",
    )
    .toml("[lmtp]\ndrain_timeout = \"1s\"\n[transport]\nenabled = true\n");
    script(
        &builder,
        "slow",
        "#!/bin/sh\ncat >/dev/null\n\
         sh -c 'echo $$ >$1/part; mv $1/part $1/child; exec sleep 300' - $(dirname $0)/noted\n\
         exit 0\n",
    );
    let mut server = builder.start();
    let mut client = Client::lmtp(&server.unix());
    for (command, code) in [
        ("MAIL FROM:<s@client.example>", 250),
        ("RCPT TO:<user@domain.tld>", 250),
        ("DATA", 354),
    ] {
        assert_eq!(client.command(command).code, code);
    }
    client.send(&dot_stuffed(&plain("x"))).expect("content");
    let noted = server.scratch().join("noted/child");
    let child = eventually("the command", Duration::from_secs(30), || {
        fs::read_to_string(&noted).ok()
    });
    server.daemon.signal(Signal::SIGTERM);
    assert_eq!(server.daemon.wait().code(), Some(1));
    let is_gone = || {
        // One that was not reaped yet is a zombie.
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    };
    eventually(
        "the end of what the command started",
        Duration::from_secs(10),
        || is_gone().then_some(()),
    );
}
