//! Mail with an odd envelope that Postfix accepts is stored as virtual(8) stores it, through LMTP
//! and through pipe(8), with `smtputf8_enable = yes` and `no`.
//!
//! Method: one private Postfix with three domains that have the same users. virtual(8) delivers
//! for one of them, the others go to mailstow. Every mail is for all three; then the mailboxes
//! and the header lines above `Received:` are compared byte by byte. Senders and recipients are
//! those that are known to occur, and generated ones.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use fastrand::Rng;
use mailstow_tests::mailstow::executable_for_all;
use mailstow_tests::site::OWNER;
use mailstow_tests::{Client, Mailstow, Postfix, mailboxes};

/// Delivered by virtual(8), by the server, by `mailstow deliver`.
const DOMAINS: [&str; 3] = ["vm.example", "lmtp.example", "pipe.example"];

const MAIN_CF: &str = "\
virtual_mailbox_domains = vm.example lmtp.example pipe.example
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = texthash:@DIR@/vmailbox
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_mailbox_limit = 0
transport_maps = inline:{{vm.example = virtual:}, {pipe.example = mailstow:}}
mailstow_destination_recipient_limit = 1
recipient_delimiter = +
";

/// Local parts and their mailboxes.
const USERS: [(&[u8], &str); 8] = [
    (b"user", "user/"),
    (b"mbox", "mbox"),
    (b"\xfcser", "latin/"),
    (b"\xc3\xbcser", "utf8/"),
    (b"\"two words\"", "words/"),
    (b"\"a,b\"", "comma/"),
    (b"postmaster", "postmaster/"),
    // All others.
    (b"", "all/"),
];

const SENDERS: &[&[u8]] = &[
    b"",
    b"root@",
    b"root@host#1",
    b"www-data@{hostname}",
    b"a@b/c",
    b"a@b:25",
    b"a@*.b",
    b"root",
    b"a@b=c",
    b"a@b'c",
    b"a@b|c",
    b"a@${b}",
    b"a@-b",
    b"a@b..",
    b"a@.",
    b"@",
    b"@c",
    b"a@b@c",
    b"a..b@c",
    b"a.@c",
    b"\"two words\"@c",
    b"\"a\\\"b\\\\\"@c",
    b"a@[192.0.2.1",
    b"\xfc@c.example",
    b"a@\xfc.example",
    b"\xff\xfe@\xfd",
    b"\xc3\xbc@c.example",
    b"a@\xc3\xbc.example",
    b"\xe2\x80\xa8@c",
    b"\xc2\x85@c",
    b"\xf4\x8f\xbb\xbc@c",
    b"a\x1bb@c",
    b"a\x7fb@c",
    b"a\x0b\x0c\x1cb@c",
    b"a@b\x1bc",
    b"../../a@b",
    b"Foo (x) <a@b>",
];

/// Local parts, as they are written to sendmail(1).
const RECIPIENTS: &[&[u8]] = &[
    b"user",
    b"USER",
    b"user+ext",
    b"user+\xfc",
    b"\xfcser",
    b"\"\xfcser\"",
    b"\xfcser+x",
    b"\xdcser",
    b"\xc3\xbcser",
    b"\xfeser",
    b"\xf4\x8f\xbb\xbc",
    b"\"two words\"",
    b"\"a,b\"",
    b"\"\"",
    b".user",
    b"user.",
    b"'user'",
    b"a\x1bb",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"../../user",
    b"postmaster",
];

/// Written with routes; the original recipient that lmtp(8) passes on is not the one that
/// virtual(8) writes then.
const ROUTED: &[(&[u8], &[u8])] = &[
    (b"user@", b"."),
    (b"@hop.example:user@", b""),
    (b"user%", b"@"),
];

const PIECES: &[&[u8]] = &[
    b"a",
    b"root",
    b"@",
    b"@",
    b".",
    b"#",
    b":",
    b"/",
    b"{",
    b"}",
    b"*",
    b" ",
    b"\"",
    b"\\",
    b"<",
    b">",
    b"(",
    b")",
    b",",
    b";",
    b"\t",
    b"\x1b",
    b"\x7f",
    b"\xfc",
    b"\xc3\xbc",
    b"[",
    b"]",
    b"!",
    b"%",
    b"+",
    b"=",
    b"-",
    b"host",
    b".example",
    b"?",
    b"~",
    b"$",
    b"&",
    b"'",
    b"`",
    b"|",
    b"_",
];

fn generated(rng: &mut Rng, end: &[u8]) -> Vec<u8> {
    let count = rng.usize(1..6);
    let mut text: Vec<u8> = (0..count)
        .flat_map(|_| PIECES[rng.usize(..PIECES.len())].to_vec())
        .collect();
    text.extend_from_slice(end);
    text
}

struct Site {
    postfix: Postfix,
    _store: Mailstow,
    sent: usize,
}

impl Site {
    fn start(smtputf8_enable: &str) -> Self {
        let postfix = Postfix::build("odd").user("vmail", OWNER).main_cf(MAIN_CF);
        let scratch = postfix.scratch();
        let mut vmailbox = Vec::new();
        scratch.mkdir_owned("vhosts", OWNER, OWNER);
        for domain in DOMAINS {
            scratch.mkdir_owned(&format!("vhosts/{domain}"), OWNER, OWNER);
            for (local_part, mailbox) in USERS {
                vmailbox.extend_from_slice(local_part);
                vmailbox.extend_from_slice(format!("@{domain} {domain}/{mailbox}\n").as_bytes());
            }
        }
        scratch.write("conf/vmailbox", vmailbox);
        let store = Mailstow::build("odd-store").postfix(&postfix.directory());
        let transport = format!("virtual_transport = lmtp:{}", store.unix().spelled());
        let service = format!(
            "mailstow unix - n n - - pipe\n  flags=q user=vmail argv={} deliver --postfix @DIR@ \
             -f ${{sender}} -o ${{original_recipient}} -- ${{recipient}}",
            executable_for_all(postfix.scratch()).display()
        );
        let postfix = postfix
            .main_cf(&transport)
            .main_cf(&format!("smtputf8_enable = {smtputf8_enable}"))
            .master_cf(&service);
        postfix.write();
        Self {
            _store: store.start(),
            postfix: postfix.start(),
            sent: 0,
        }
    }

    /// Hands one mail to sendmail(1), in all three domains; false when that refuses it.
    fn send(&mut self, sender: &[u8], recipients: &[Vec<u8>]) -> bool {
        self.sent += 1;
        let mut child = Command::new("/usr/sbin/sendmail")
            .arg("-C")
            .arg(self.postfix.directory())
            .args(["-i", "-f"])
            .arg(OsStr::from_bytes(sender))
            .arg("--")
            .args(recipients.iter().map(|r| OsStr::from_bytes(r)))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sendmail(1): install the package postfix");
        let content = format!("Subject: {}\n\ntext\n", self.sent);
        let mut stdin = child.stdin.take().expect("piped");
        let written = stdin.write_all(content.as_bytes());
        drop(stdin);
        child.wait().expect("our own child").success() && written.is_ok()
    }

    /// Sends one mail by SMTP, if smtpd takes such a sender.
    fn submit(&mut self, sender: &[u8]) {
        let mut client = Client::smtp(&self.postfix.smtp());
        if client.command([b"MAIL FROM:<", sender, b">"].concat()).code != 250 {
            return;
        }
        for domain in DOMAINS {
            let reply = client.command(format!("RCPT TO:<user@{domain}>"));
            assert_eq!(reply.code, 250, "{reply}");
        }
        self.sent += 1;
        assert_eq!(client.command("DATA").code, 354);
        let reply = client.command(format!("Subject: {}\r\n\r\ntext\r\n.", self.sent));
        assert_eq!(reply.code, 250, "{reply}");
    }

    /// What a domain has in its mailboxes: by subject and mailbox the lines above `Received:`,
    /// the domain written as `D`.
    fn stored(&self, domain: &str) -> BTreeMap<(usize, String), String> {
        let mut found = BTreeMap::new();
        let base = self.postfix.scratch().join("vhosts").join(domain);
        for (_, name) in USERS {
            for message in messages(&base.join(name)) {
                let subject = &mailboxes::header(&message, "Subject")[0];
                let subject = subject.parse().expect("a number");
                let head = above_received(&message).escape_ascii().to_string();
                let head = head.replace(domain, "D").replace("\\n", "\n");
                assert_eq!(found.insert((subject, name.to_owned()), head), None);
            }
        }
        found
    }
}

fn messages(path: &Path) -> Vec<Vec<u8>> {
    if path.to_str().is_some_and(|path| path.ends_with('/')) {
        mailboxes::maildir(path)
            .into_iter()
            .map(|m| m.bytes)
            .collect()
    } else {
        mailboxes::mbox(path)
    }
}

/// The lines that the delivery agent wrote, without the date of a `From ` line.
fn above_received(message: &[u8]) -> Vec<u8> {
    let end = message.windows(10).position(|w| w == b"\nReceived:");
    let head = &message[..=end.expect("cleanup(8) adds a Received: line")];
    match head.strip_prefix(b"From ") {
        Some(rest) => {
            let end = rest.iter().position(|b| *b == b'\n').expect("a line");
            [&rest[..end - 24], &rest[end..]].concat()
        }
        None => head.to_vec(),
    }
}

fn in_all_domains(local_parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let address = |local_part: &[u8], domain: &str| [local_part, b"@", domain.as_bytes()].concat();
    let domains = DOMAINS.iter();
    domains
        .flat_map(|domain| local_parts.iter().map(move |l| address(l, domain)))
        .collect()
}

fn compare(smtputf8_enable: &str, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut site = Site::start(smtputf8_enable);
    let mut names = BTreeMap::new();
    let mut random: Vec<_> = (0..40)
        .map(|n| generated(&mut rng, if n % 2 == 0 { b"@host" } else { b"" }))
        .collect();
    // As long as smtpd(8) takes lines.
    random.push([&[b'a'; 1900][..], b"@host"].concat());
    random.push([&b"\""[..], &b"\\\"".repeat(900), b"\"@host"].concat());
    for sender in SENDERS
        .iter()
        .copied()
        .chain(random.iter().map(Vec::as_slice))
    {
        site.send(sender, &in_all_domains(&[b"user", b"mbox"]));
        names.insert(site.sent, format!("-f '{}'", sender.escape_ascii()));
        site.submit(sender);
        names
            .entry(site.sent)
            .or_insert_with(|| format!("<{}>", sender.escape_ascii()));
    }
    let mut random: Vec<_> = (0..30).map(|_| generated(&mut rng, b"")).collect();
    random.push(vec![b'a'; 1900]);
    for local_part in RECIPIENTS
        .iter()
        .copied()
        .chain(random.iter().map(Vec::as_slice))
    {
        site.send(b"sender@client.example", &in_all_domains(&[local_part]));
        names.insert(site.sent, format!("'{}'@D", local_part.escape_ascii()));
    }
    let mut routed = Vec::new();
    for (before, after) in ROUTED {
        let recipients = DOMAINS.map(|domain| [before, domain.as_bytes(), after].concat());
        site.send(b"sender@client.example", &recipients);
        names.insert(site.sent, format!("{}D", before.escape_ascii()));
        routed.push(site.sent);
    }
    site.postfix.drain();
    let [theirs, lmtp, pipe] = DOMAINS.map(|domain| site.stored(domain));
    assert!(theirs.len() > 120, "virtual(8) stored {}", theirs.len());
    for (way, ours) in [("lmtp", &lmtp), ("pipe", &pipe)] {
        for (key, theirs) in &theirs {
            let name = &names[&key.0];
            let ours = ours
                .get(key)
                .unwrap_or_else(|| panic!("{way}: {name} is not in {}; seed {seed}", key.1));
            let without_original = |head: &str| {
                let lines = head
                    .lines()
                    .filter(|line| !line.starts_with("X-Original-To:"));
                lines.collect::<Vec<_>>().join("\n")
            };
            if routed.contains(&key.0) && way == "lmtp" {
                assert_eq!(
                    without_original(ours),
                    without_original(theirs),
                    "{way}: {name}"
                );
            } else {
                assert_eq!(ours, theirs, "{way}: {name}; seed {seed}");
            }
        }
        for key in ours.keys() {
            let name = &names[&key.0];
            assert!(
                theirs.contains_key(key),
                "{way}: {name} is in {}; seed {seed}",
                key.1
            );
        }
    }
}

#[test]
fn odd_envelopes_are_stored_as_virtual_stores_them() {
    compare("yes", 1);
}

#[test]
fn odd_envelopes_are_stored_as_virtual_stores_them_without_smtputf8() {
    compare("no", 2);
}

/// Parameters of RCPT as smtpd(8) takes them, and the original recipient that is written.
const PARAMETERS: &[(&str, &str)] = &[
    ("ORCPT=rfc822;a=b", "a=b"),
    ("ORCPT=rfc822;a+0Ab@x", "\"a\\?b\"@x"),
    ("ORCPT=rfc822;+FF@x", "\u{fffd}@x"),
    ("ORCPT=rfc822;+C3+BC@x", "\u{fc}@x"),
    ("ORCPT=utf-8;a\\x{FC}b@x", "a\u{fc}b@x"),
    ("ORCPT=utf-8;a+2Bb@x", "a+2Bb@x"),
    ("ORCPT=rfc822;\"a+20b\"@x", "\"a b\"@x"),
    ("ORCPT=rfc822;a>b@x", "\"a>b\"@x"),
    ("ORCPT=rfc822;<a@b>", "a@b"),
    ("ORCPT=unknown;a@b", "a@b"),
    ("ORCPT=rfc822;", ""),
    ("ORCPT=x400;/c=de", ""),
    ("NOTIFY=DELAY,failure", "user@lmtp.example"),
    ("NOTIFY=NEVER", "user@lmtp.example"),
];

#[test]
fn odd_parameters_that_postfix_passes_on_refuse_nobody() {
    let site = Site::start("yes");
    for (n, (parameters, _)) in PARAMETERS.iter().enumerate() {
        let mut client = Client::smtp(&site.postfix.smtp());
        let mail = "MAIL FROM:<s@client.example> RET=full AUTH=<> ENVID=";
        let envelope_id = ["a=b", "<>", "a,b;c", "+3D+2B+20"][n % 4];
        assert_eq!(client.command(format!("{mail}{envelope_id}")).code, 250);
        let reply = client.command(format!("RCPT TO:<user@lmtp.example> {parameters}"));
        assert_eq!(reply.code, 250, "{parameters}: {reply}");
        assert_eq!(client.command("DATA").code, 354);
        let reply = client.command(format!("Subject: {n}\r\n\r\ntext\r\n."));
        assert_eq!(reply.code, 250, "{reply}");
    }
    site.postfix.drain();
    let user = site.postfix.scratch().join("vhosts/lmtp.example/user/");
    let stored: BTreeMap<usize, Vec<String>> = messages(&user)
        .iter()
        .map(|message| {
            let subject = mailboxes::header(message, "Subject")[0].parse();
            (
                subject.expect("a number"),
                mailboxes::header(message, "X-Original-To"),
            )
        })
        .collect();
    for (n, (parameters, original)) in PARAMETERS.iter().enumerate() {
        let expected: Vec<_> = (!original.is_empty())
            .then_some(original)
            .into_iter()
            .collect();
        let found = stored
            .get(&n)
            .unwrap_or_else(|| panic!("{parameters} was not stored"));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{parameters}");
    }
}

#[test]
fn a_client_with_an_odd_name_costs_no_queue_id_in_the_log() {
    let postfix = Postfix::build("xforward")
        .main_cf(MAIN_CF)
        .main_cf("lmtp_send_xforward_command = yes");
    for directory in ["vhosts", "vhosts/lmtp.example"] {
        postfix.scratch().mkdir_owned(directory, OWNER, OWNER);
    }
    postfix
        .scratch()
        .write("conf/vmailbox", "@lmtp.example lmtp.example/all/\n");
    let store = Mailstow::build("xforward-store").postfix(&postfix.directory());
    let postfix = postfix.main_cf(&format!(
        "virtual_transport = lmtp:{}",
        store.unix().spelled()
    ));
    postfix.write();
    let store = store.start();
    let postfix = postfix.start();
    for (n, name) in ["a=b", "a+zz", "[x]", "a;b,c", "\"q\"", "a>b"]
        .iter()
        .enumerate()
    {
        let mut client = Client::dial(&postfix.smtp()).expect("smtpd is there");
        assert_eq!(client.reply().code, 220);
        let reply = client.command(format!("EHLO {name}"));
        assert_eq!(reply.code, 250, "{name}: {reply}");
        let user = format!("user{n}@lmtp.example");
        for command in ["MAIL FROM:<s@client.example>", &format!("RCPT TO:<{user}>")] {
            assert_eq!(client.command(command).code, 250, "{command}");
        }
        assert_eq!(client.command("DATA").code, 354);
        let reply = client.command("Subject: x\r\n\r\ntext\r\n.");
        assert_eq!(reply.code, 250, "{reply}");
        let queue_id = reply.text.rsplit(' ').next().expect("a word").to_owned();
        let line = store.log_line(&format!("to=<{user}>"));
        assert!(
            line.contains(&format!(" {queue_id}: to=")),
            "{name}: {line}"
        );
    }
}
