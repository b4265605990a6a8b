//! Accounts of this machine get mail as local(8) of Postfix serves them: mailboxes, aliases,
//! `.forward` files, commands, and a mailing list.
//!
//! Method: mailstow alone, with Postfix's configuration files and no Postfix. The accounts are
//! known to the server and to nothing else on the machine. Commands note what they are given; the
//! list is one of mlmmj.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use mailstow_tests::content::plain;
use mailstow_tests::hung::HungMount;
use mailstow_tests::mailboxes::{header, maildir, mbox, owner_and_mode};
use mailstow_tests::mailstow::{self, Builder};
use mailstow_tests::{Client, Mailstow, Reply, eventually, example};

const SENDER: &str = "s@client.example";
const TOML: &str = "[lmtp]\nexpand_aliases = true\n[transport]\nenabled = true\n";
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Group `mail`, as of a spool on Debian.
const MAIL: u32 = 8;

/// A site without virtual mailboxes, with the accounts joe (6001) and jane (6002).
fn site(name: &str, main_cf: &str, aliases: &str) -> Builder {
    let builder = Mailstow::build(name)
        .main_cf(
            "compatibility_level = 3.6\nmyhostname = my.host.example\n\
             mail_spool_directory = @ROOT@/spool\nalias_maps = hash:@DIR@/aliases\n\
             recipient_delimiter = +\n",
        )
        .main_cf(main_cf)
        .table("aliases", aliases)
        .toml(TOML)
        .user("joe", 6001, "@ROOT@/home/joe")
        .user("jane", 6002, "@ROOT@/home/jane");
    builder.scratch().mkdir("home");
    builder.scratch().mkdir_owned("home/joe", 6001, 6001);
    builder.scratch().mkdir_owned("home/jane", 6002, 6002);
    let spool = builder.scratch().mkdir_owned("spool", 0, MAIL);
    fs::set_permissions(spool, PermissionsExt::from_mode(0o2775)).expect("chmod");
    let noted = builder.scratch().mkdir("noted");
    fs::set_permissions(noted, PermissionsExt::from_mode(0o1777)).expect("chmod");
    let script = "#!/bin/sh\nid -u >$0.d/$$\nenv >>$0.d/$$\ncat >>$0.d/$$\n\
                  mv $0.d/$$ $(dirname $0)/noted/$$\nexit ${1:-0}\n";
    let note = builder.scratch().write("note", script);
    fs::set_permissions(note, PermissionsExt::from_mode(0o755)).expect("chmod");
    let being_written = builder.scratch().mkdir("note.d");
    fs::set_permissions(being_written, PermissionsExt::from_mode(0o1777)).expect("chmod");
    builder
}

/// Writes a `.forward` file of joe.
fn forward(builder: &Builder, text: &str) {
    let text = text.replace("@ROOT@", &builder.scratch().path().display().to_string());
    let file = builder.scratch().write("home/joe/.forward", text);
    chown(file, Some(6001), Some(6001)).expect("chown");
}

fn deliver(server: &Mailstow, to: &[&str], content: &[u8]) -> Vec<String> {
    let mut client = Client::lmtp(&server.unix());
    let replies = client.deliver(SENDER, to, content);
    // Proves that the replies were read, so that the message is settled before the next one.
    assert_eq!(client.command("NOOP").code, 250);
    replies.iter().map(Reply::to_string).collect()
}

/// Delivers one mail, which is taken.
fn delivered(server: &Mailstow, to: &str) {
    let replies = deliver(server, &[to], &plain("sent"));
    assert!(
        replies[0].starts_with("250 2.0.0"),
        "{to}: {replies:?}\n{}",
        server.log()
    );
}

fn noted(server: &Mailstow) -> Vec<String> {
    let noted = server.scratch().join("noted");
    let files = fs::read_dir(noted).expect("readdir");
    let read = |file: std::io::Result<fs::DirEntry>| {
        let path = file.expect("readdir").path();
        let text = fs::read_to_string(&path).expect("text");
        fs::remove_file(path).expect("unlink");
        text
    };
    files.map(read).collect()
}

fn spool(server: &Mailstow, user: &str) -> Vec<Vec<u8>> {
    let path = server.scratch().join("spool").join(user);
    match path.exists() {
        true => mbox(&path),
        false => Vec::new(),
    }
}

/// "As simple as can be: shared domains, UNIX system accounts" of the VIRTUAL_README.
#[test]
fn the_shared_domains_example_delivers_to_the_accounts_of_the_machine() {
    let server = site(
        "shared-domains",
        "mydestination = $myhostname localhost.$mydomain example.com\n",
        "postmaster: joe\n",
    )
    .start();
    // "Mail for info@my.host.name is delivered to the same UNIX system account as mail for
    // info@example.com."
    delivered(&server, "joe@my.host.example");
    delivered(&server, "Joe@Example.com");
    delivered(&server, "postmaster@example.com");
    delivered(&server, "jane+list@example.com");
    let joe = spool(&server, "joe");
    assert_eq!(joe.len(), 3);
    assert!(joe[0].starts_with(b"From s@client.example  "));
    assert_eq!(header(&joe[0], "Return-Path"), ["<s@client.example>"]);
    assert_eq!(header(&joe[1], "Delivered-To"), ["Joe@Example.com"]);
    assert_eq!(header(&joe[2], "Delivered-To"), ["postmaster@example.com"]);
    let path = server.scratch().join("spool/joe");
    assert_eq!(owner_and_mode(&path), format!("6001:{MAIL} 0600"));
    assert_eq!(spool(&server, "jane").len(), 1);
    let mut client = Client::lmtp(&server.unix());
    client.command("MAIL FROM:<>");
    let unknown = client.command("RCPT TO:<jim@example.com>").to_string();
    assert!(unknown.starts_with("550 5.1.1"), "{unknown}");
    example::show(
        "shared domains, UNIX system accounts",
        "joe@my.host.example, Joe@Example.com and postmaster@example.com -> mbox of joe, \
         jane+list@example.com -> mbox of jane, jim@example.com -> 550 5.1.1",
    );
}

#[test]
fn the_mailbox_is_at_home_where_home_mailbox_says_so() {
    let server = site("at-home", "home_mailbox = Maildir/\n", "").start();
    delivered(&server, "joe@my.host.example");
    let mail = maildir(&server.scratch().join("home/joe/Maildir"));
    assert_eq!(mail.len(), 1);
    assert_eq!(owner_and_mode(&mail[0].path), "6001:6001 0600");
    let server = site("at-home-mbox", "home_mailbox = Mailbox\n", "").start();
    delivered(&server, "joe@my.host.example");
    let path = server.scratch().join("home/joe/Mailbox");
    assert_eq!(mbox(&path).len(), 1);
    assert_eq!(owner_and_mode(&path), "6001:6001 0600");
}

#[test]
fn an_alias_has_users_commands_files_lists_and_addresses_for_members() {
    let builder = site(
        "members",
        "transport_maps = inline:{far.example=far:}\nfar_destination_recipient_limit = 1\n",
        "all: joe, \"|@ROOT@/note\", @ROOT@/archive/all, @ROOT@/archive/box/, /dev/null,\n    \
         :include:@ROOT@/members, x@far.example\n\
         team: jane, x@far.example\nowner-team: joe\n",
    )
    .master_cf("far unix - n n - - pipe user=nobody argv=@ROOT@/note 0 $sender $recipient\n");
    builder
        .scratch()
        .write("members", "# of the team\njane, y@far.example\n");
    let archive = builder.scratch().mkdir("archive");
    fs::set_permissions(archive, PermissionsExt::from_mode(0o1777)).expect("chmod");
    let server = builder.start();
    delivered(&server, "all@my.host.example");
    let nobody = nix::unistd::User::from_name("nobody")
        .unwrap()
        .unwrap()
        .uid
        .to_string();
    assert_eq!(spool(&server, "joe").len(), 1);
    let jane = spool(&server, "jane");
    // Members of an :include: file get mail that was sent on.
    assert_eq!(
        header(&jane[0], "Delivered-To"),
        ["jane@my.host.example", "all@my.host.example"]
    );
    let file = server.scratch().join("archive/all");
    assert_eq!(mbox(&file).len(), 1);
    assert_eq!(file.metadata().unwrap().uid().to_string(), nobody);
    assert_eq!(maildir(&server.scratch().join("archive/box")).len(), 1);
    let mut notes = noted(&server);
    notes.sort_by_key(|note| note.contains("LOGNAME="));
    let [far_1, far_2, command] = notes.as_slice() else {
        panic!("{notes:#?}");
    };
    assert!(command.starts_with(&format!("{nobody}\n")), "{command}");
    for line in [
        "\nUSER=all\n",
        "\nRECIPIENT=all@my.host.example\n",
        "\nSENDER=s@client.example\n",
        "\nLOCAL=all\n",
        "\nDOMAIN=my.host.example\n",
        "\nFrom s@client.example  ",
        "\nReturn-Path: <s@client.example>\n",
        "\nDelivered-To: all@my.host.example\n",
    ] {
        assert!(command.contains(line), "{line:?} in {command}");
    }
    assert!(!command.contains("HOME="), "{command}");
    for far in [far_1, far_2] {
        assert!(
            far.contains("\nDelivered-To: all@my.host.example\n"),
            "{far}"
        );
    }

    // A list with an owner has its own sender, and hides who it was sent to.
    delivered(&server, "team@my.host.example");
    let notes = noted(&server);
    assert_eq!(notes.len(), 1, "{notes:#?}");
    let jane = spool(&server, "jane");
    let sender = header(&jane[1], "Return-Path");
    assert_eq!(sender, ["<owner-team@my.host.example>"]);
}

#[test]
fn a_forward_file_says_where_the_mail_of_its_user_goes() {
    let builder = site("forward", "", "");
    forward(&builder, "\\joe, \"|@ROOT@/note\"\n~/copies, jane\n");
    let server = builder.start();
    delivered(&server, "joe@my.host.example");
    assert_eq!(spool(&server, "joe").len(), 1);
    assert_eq!(spool(&server, "jane").len(), 1);
    let copies = server.scratch().join("home/joe/copies");
    assert_eq!(owner_and_mode(&copies), "6001:6001 0600");
    let notes = noted(&server);
    assert_eq!(notes.len(), 1);
    let home = server.scratch().join("home/joe");
    for line in [
        "6001\n",
        &format!("\nHOME={}\n", home.display()),
        "\nUSER=joe\n",
    ] {
        assert!(notes[0].contains(line), "{line:?} in {}", notes[0]);
    }

    // One for an extension counts before it; one that others may write is passed over.
    let write = |name: &str, text: &str, mode| {
        let file = server.scratch().write(&format!("home/joe/{name}"), text);
        chown(&file, Some(6001), Some(6001)).expect("chown");
        fs::set_permissions(file, PermissionsExt::from_mode(mode)).expect("chmod");
    };
    write(".forward+lists", "~/lists\n", 0o600);
    delivered(&server, "joe+lists@my.host.example");
    assert_eq!(mbox(&server.scratch().join("home/joe/lists")).len(), 1);
    write(".forward+lists", "~/lists\n", 0o666);
    delivered(&server, "joe+lists@my.host.example");
    assert_eq!(mbox(&server.scratch().join("home/joe/lists")).len(), 1);
    assert_eq!(spool(&server, "joe").len(), 2);
    assert!(server.log().contains("everyone may write the file"));
}

#[test]
fn a_forward_file_cannot_read_what_its_user_cannot() {
    let builder = site("secrets", "", "");
    let secret = builder.scratch().write("secret", "jane\n");
    fs::set_permissions(secret, PermissionsExt::from_mode(0o600)).expect("chmod");
    forward(&builder, ":include:@ROOT@/secret\n");
    let server = builder.start();
    let replies = deliver(&server, &["joe@my.host.example"], &plain("x"));
    assert!(
        replies.is_empty() || !replies[0].starts_with("250"),
        "{replies:?}"
    );
    assert!(spool(&server, "jane").is_empty());
    assert!(!server.log().contains("jane"), "{}", server.log());
}

#[test]
fn a_forward_file_cannot_make_the_mailbox_of_another_user() {
    let builder = site(
        "spool-of-another",
        "mydestination = $myhostname\nforward_path = @ROOT@/home/$user/.forward\n",
        "postmaster: joe\n",
    );
    forward(&builder, "@ROOT@/spool/jane\n");
    let server = builder.start();
    let replies = deliver(&server, &["joe@my.host.example"], &plain("planted"));
    assert!(!replies[0].starts_with('2'), "{replies:?}");
    assert!(spool(&server, "jane").is_empty());
    assert!(!server.scratch().join("spool/jane").exists());
    delivered(&server, "jane@my.host.example");
    assert_eq!(spool(&server, "jane").len(), 1);
}

#[test]
fn homes_on_a_file_system_that_hangs_put_off_mail_for_their_accounts_alone() {
    // More than one file system has threads.
    const ASKING: usize = 20;
    let builder = site("hung-home", "", "").user("far", 6003, "@ROOT@/far/far");
    let far = builder.scratch().mkdir("far");
    // The file system fails before the directory above it is removed.
    let server;
    let hung = HungMount::on(&far);
    forward(&builder, "jane\n");
    server = builder.start();
    let session = || {
        let mut client = Client::lmtp(&server.unix());
        assert_eq!(client.command("MAIL FROM:<>").code, 250);
        client
    };
    let mut asking: Vec<Client> = (0..ASKING).map(|_| session()).collect();
    for client in &mut asking {
        client
            .send(b"RCPT TO:<far@my.host.example>\r\n")
            .expect("it reads");
    }
    eventually("a thread waits", TIMEOUT, || {
        hung.is_waited_for(server.daemon.pid()).then_some(())
    });
    delivered(&server, "joe@my.host.example");
    assert_eq!(spool(&server, "jane").len(), 1);
    for client in &mut asking {
        let reply = client.reply().to_string();
        assert!(
            reply.starts_with("451 4.3.0") && reply.contains("does not answer"),
            "{reply}"
        );
    }
    // By now all threads of this file system have waited in vain.
    let reply = session().command("RCPT TO:<far@my.host.example>");
    assert_eq!(reply.code, 451, "{reply}");
    let line = server.log_line("lookups have had no answer");
    assert!(line.contains(&far.display().to_string()), "{line}");
    delivered(&server, "joe@my.host.example");
}

#[test]
fn forward_files_are_read_only_where_forward_path_asks_for_it() {
    let builder = site("no-forward", "forward_path =\n", "");
    forward(&builder, "jane\n");
    let server = builder.start();
    delivered(&server, "joe@my.host.example");
    assert_eq!(
        (spool(&server, "joe").len(), spool(&server, "jane").len()),
        (1, 0)
    );
}

#[test]
fn mail_that_comes_back_is_refused_as_a_loop() {
    let builder = site("loop", "", "");
    forward(&builder, "jane\n");
    let file = builder.scratch().write("home/jane/.forward", "joe\n");
    chown(file, Some(6002), Some(6002)).expect("chown");
    let server = builder.start();
    let mut client = Client::lmtp(&server.unix());
    client.command(format!("MAIL FROM:<{SENDER}>"));
    let circle = client.command("RCPT TO:<joe@my.host.example>").to_string();
    assert!(circle.starts_with("550 5.4.6"), "{circle}");
    fs::remove_file(server.scratch().join("home/jane/.forward")).expect("unlink");
    // By way of another machine.
    let content = b"Delivered-To: Joe@my.host.example\r\nSubject: back\r\n\r\nx\r\n";
    let replies = deliver(&server, &["joe@my.host.example"], content);
    assert!(
        replies[0].starts_with("550 5.4.6") && replies[0].contains("mail forwarding loop for"),
        "{replies:?}"
    );
    assert!(spool(&server, "jane").is_empty());
}

#[test]
fn the_end_of_a_command_decides_the_reply() {
    let server = site(
        "ends",
        "command_time_limit = 1s\n",
        "ok: \"|exit 0\"\nlater: \"|exit 75\"\nnever: \"|echo 5.7.1 not you; exit 1\"\n\
         none: |@ROOT@/no-such-command\nslow: \"|sleep 60\"\nboth: joe, \"|exit 75\"\n",
    )
    .start();
    for (name, wanted) in [
        ("ok", "250 2.0.0"),
        ("later", "451 4.3.0"),
        ("never", "550 5.7.1"),
        ("none", "451 4.3.0"),
        ("slow", "550 5.3.0"),
        ("both", "451 4.3.0"),
    ] {
        let to = format!("{name}@my.host.example");
        let replies = deliver(&server, &[&to], &plain("x"));
        assert!(replies[0].starts_with(wanted), "{name}: {replies:?}");
    }
}

#[test]
fn a_command_that_took_a_message_is_not_run_again_when_another_end_put_it_off() {
    let server = site("again", "", "all: joe, \"|@ROOT@/note\", \"|exit 75\"\n").start();
    for _ in 0..2 {
        let replies = deliver(&server, &["all@my.host.example"], &plain("x"));
        assert!(replies[0].starts_with("451 4.3.0"), "{replies:?}");
    }
    assert_eq!(noted(&server).len(), 1);
    assert_eq!(spool(&server, "joe").len(), 1);
}

#[test]
fn a_command_or_a_relay_takes_the_place_of_mailboxes() {
    let server = site(
        "mailbox-command",
        "mailbox_command = @ROOT@/note 0 \"$EXTENSION\"\nluser_relay = jane+$local@localhost\n",
        "",
    )
    .start();
    delivered(&server, "joe+x@my.host.example");
    let notes = noted(&server);
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].starts_with("6001\n") && notes[0].contains("\nEXTENSION=x\n"),
        "{notes:?}"
    );
    // Behind Postfix, whose smtpd has refused unknown users where it was to.
    let server = site(
        "luser-relay",
        "local_recipient_maps =\nluser_relay = jane+$local\n",
        "",
    )
    .start();
    delivered(&server, "nosuchuser@my.host.example");
    let jane = spool(&server, "jane");
    assert_eq!(
        header(&jane[0], "Delivered-To"),
        ["nosuchuser@my.host.example"]
    );
    assert!(spool(&server, "joe").is_empty());
}

#[test]
fn mail_is_never_delivered_with_the_rights_of_root() {
    let server = site("root", "default_privs = root\n", "cmd: \"|@ROOT@/note\"\n").start();
    for name in ["root", "cmd"] {
        let mut client = Client::lmtp(&server.unix());
        client.command(format!("MAIL FROM:<{SENDER}>"));
        let reply = client.command(format!("RCPT TO:<{name}@my.host.example>"));
        assert!(
            reply.to_string().starts_with("451 4.3.5"),
            "{name}: {reply}"
        );
    }
    assert!(noted(&server).is_empty());
}

#[test]
fn a_post_to_a_list_of_mlmmj_gets_into_its_archive() {
    let builder = site(
        "mlmmj",
        "",
        "list: \"|/usr/bin/mlmmj-receive -F -L @ROOT@/lists/list/\"\nowner-list: joe\n",
    )
    .user("mlmmj", 6003, "/nonexistent");
    // The command runs with the rights of who owns the aliases.
    chown(
        builder.scratch().join("conf/aliases"),
        Some(6003),
        Some(6003),
    )
    .expect("chown");
    let lists = builder.scratch().mkdir_owned("lists", 6003, 6003);
    make_list(&lists);
    let server = builder.start();
    for subject in ["first", "second"] {
        let to = ["list@my.host.example"];
        let content = format!(
            "From: {SENDER}\r\nTo: list@my.host.example\r\nSubject: {subject}\r\n\r\nx\r\n"
        );
        let replies = deliver(&server, &to, content.as_bytes());
        assert!(
            replies[0].starts_with("250 2.0.0"),
            "{replies:?}\n{}",
            server.log()
        );
    }
    let archived = |number: usize| {
        let path = lists.join(format!("list/archive/{number}"));
        eventually("a post in the archive", TIMEOUT, || {
            let text = fs::read(&path).ok()?;
            (!header(&text, "Subject").is_empty()).then_some(text)
        })
    };
    assert_eq!(header(&archived(1), "Subject"), ["first"]);
    assert_eq!(header(&archived(2), "Subject"), ["second"]);
    example::show(
        "mailing lists",
        "list@my.host.example -> the command of mlmmj -> two posts in the list's archive",
    );
}

/// Makes an open list with a subscriber whose mail server is not there.
fn make_list(lists: &Path) {
    let mut child = Command::new("/usr/bin/mlmmj-make-ml")
        .args(["-L", "list", "-s"])
        .arg(lists)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("mlmmj-make-ml: install the package mlmmj");
    let answers = b"my.host.example\nowner@far.example\nen\nn\nn\n";
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, answers).expect("mlmmj-make-ml reads");
    drop(input);
    assert!(child.wait().expect("our own child").success());
    let list = lists.join("list");
    for (name, value) in [("relayhost", "127.0.0.1\n"), ("smtpport", "1\n")] {
        fs::write(list.join("control").join(name), value).expect("a tunable of the list");
    }
    fs::create_dir_all(list.join("subscribers.d")).expect("mkdir");
    fs::write(list.join("subscribers.d/s"), format!("{SENDER}\n")).expect("a subscriber");
    let status = Command::new("chown")
        .args(["-R", "6003:6003"])
        .arg(&list)
        .status();
    assert!(status.expect("chown").success());
}

#[test]
fn a_message_to_an_account_is_stored_once_however_often_its_reply_is_lost() {
    let mut server = site("killed", "", "").start();
    delivered(&server, "joe@my.host.example");
    server.kill();
    server.restart();
    assert_eq!(spool(&server, "joe").len(), 1);
    // A client that is gone before it reads the reply sends the same message again.
    let send = || {
        let mut client = Client::lmtp(&server.unix());
        client.command("XFORWARD IDENT=4XyZ1b2c3d");
        client.command(format!("MAIL FROM:<{SENDER}>"));
        client.command("RCPT TO:<jane@my.host.example>");
        client.command("DATA");
        client
            .send(b"Subject: once\r\n\r\nx\r\n.\r\n")
            .expect("send");
        client
    };
    drop(send());
    eventually("the message", TIMEOUT, || {
        (spool(&server, "jane").len() == 1).then_some(())
    });
    let mut again = send();
    let reply = again.reply().to_string();
    assert!(reply.starts_with('2') || reply.starts_with('4'), "{reply}");
    assert_eq!(spool(&server, "jane").len(), 1);
}

#[test]
fn check_and_resolve_say_what_local_delivery_does() {
    let builder = site("check", "", "all: joe, \"|@ROOT@/note\", x@far.example\n")
        .main_cf("default_transport = error:5.1.2 no\n");
    let arguments = builder.configuration();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let resolved =
        mailstow::run(&[&["resolve"], &arguments[..], &["all@my.host.example"]].concat());
    let text = String::from_utf8_lossy(&resolved.stdout).into_owned();
    for words in ["command    ", "run as     nobody", "returned   550 5.1.2"] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let state = builder.scratch().join("state").display().to_string();
    let state = ["--state-directory", &state];
    let listen = ["--listen", &builder.unix().spelled()].map(str::to_owned);
    builder.make_directories();
    let check = || {
        let listen = [listen[0].as_str(), listen[1].as_str()];
        let all = [&["check"], &arguments[..], &state, &listen].concat();
        String::from_utf8_lossy(&mailstow::run(&all).stdout).into_owned()
    };
    let found = check();
    assert!(!found.contains("error:"), "{found}");
    let spool = builder.scratch().join("spool");
    fs::set_permissions(&spool, PermissionsExt::from_mode(0o755)).expect("chmod");
    let found = check();
    assert!(found.contains("may be written by root only"), "{found}");
    fs::remove_dir(spool).expect("rmdir");
    let found = check();
    assert!(found.contains("error: mail_spool_directory"), "{found}");
}
