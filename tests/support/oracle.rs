//! Asks the real Postfix what it makes of an address: cleanup(8) by way of held mail,
//! trivial-rewrite(8) by its own protocol.
//!
//! Mail is held (`header_checks = static:HOLD`), so that the queue file shows the recipients as
//! cleanup left them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use mailstow_engine::address::quote_address;
use mailstow_engine::config::{Configuration, Sources};
use mailstow_engine::route::{Router, table_context};
use mailstow_engine::table::TableCache;

use crate::client::Client;
use crate::postfix::Postfix;

/// Lines of `main.cf` that hold all mail and let every recipient pass.
pub const HOLD_ALL: &str = "\
header_checks = static:HOLD
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
smtpd_recipient_limit = 10000
smtpd_client_connection_count_limit = 0
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
strict_rfc821_envelopes = no
in_flow_delay = 0
allow_untrusted_routing = yes
parent_domain_matches_subdomains = relay_domains
";

/// What cleanup made of one recipient: all its final recipients, in order, in internal form; `Err`
/// with the reply when the mail was not taken.
pub type Expansion = Result<Vec<String>, String>;

/// Sends one mail to all `recipients` (external form) and says what became of each of them.
/// When the mail as a whole is refused, every recipient is tried on its own.
pub fn expansions(postfix: &Postfix, recipients: &[String]) -> Vec<Expansion> {
    let mut client = Client::smtp(&postfix.smtp());
    let numbered: Vec<(usize, &String)> = recipients.iter().enumerate().collect();
    let mut found = BTreeMap::new();
    ask(postfix, &mut client, &numbered, &mut found);
    numbered
        .iter()
        .map(|(number, _)| found.remove(number).unwrap_or_else(|| Ok(Vec::new())))
        .collect()
}

/// Halves the recipients until those that are refused stand alone.
fn ask(
    postfix: &Postfix,
    client: &mut Client,
    recipients: &[(usize, &String)],
    found: &mut BTreeMap<usize, Expansion>,
) {
    match transaction(postfix, client, recipients) {
        Ok(expansions) => found.extend(expansions.into_iter().map(|(n, list)| (n, Ok(list)))),
        Err(refusal) => match recipients {
            [] => {}
            [(number, _)] => {
                found.insert(*number, Err(refusal));
            }
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                ask(postfix, client, left, found);
                ask(postfix, client, right, found);
            }
        },
    }
}

fn transaction(
    postfix: &Postfix,
    client: &mut Client,
    recipients: &[(usize, &String)],
) -> Result<BTreeMap<usize, Vec<String>>, String> {
    let paths: Vec<String> = recipients
        .iter()
        .map(|(number, address)| format!("<{address}> ORCPT=rfc822;case{number}"))
        .collect();
    let reply = client.submit("<> SMTPUTF8", &paths, b"Subject: held\n\nx\n");
    if reply.code != 250 {
        return Err(reply.to_string());
    }
    let id = reply.text.rsplit(' ').next().expect("queued as ID");
    Ok(held(postfix, id))
}

/// The recipients in a queue file, by the number in their ORCPT. The file is removed.
fn held(postfix: &Postfix, id: &str) -> BTreeMap<usize, Vec<String>> {
    let conf = postfix.directory();
    let output = Command::new("/usr/sbin/postcat")
        .arg("-c")
        .arg(&conf)
        .args(["-e", "-q", id])
        .output()
        .expect("postcat(1): install the package postfix");
    assert!(output.status.success(), "postcat: {output:?}");
    let text = String::from_utf8(output.stdout).expect("our recipients are UTF-8");
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut number = None;
    for line in text.lines() {
        if let Some(case) = line.strip_prefix("named_attribute: dsn_orig_rcpt=rfc822;case") {
            number = Some(case.parse().expect("the number we gave"));
        } else if let Some(recipient) = line.strip_prefix("recipient: ") {
            let number: usize = number.expect("ORCPT goes before its recipient");
            found.entry(number).or_default().push(recipient.to_owned());
        }
    }
    let removed = Command::new("/usr/sbin/postsuper")
        .arg("-c")
        .arg(conf)
        .args(["-d", id])
        .output()
        .expect("postsuper(1)");
    assert!(removed.status.success(), "postsuper: {removed:?}");
    found
}

/// What trivial-rewrite(8) resolves an address to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Transport.
    pub transport: String,
    /// Nexthop.
    pub nexthop: String,
    /// Recipient, in internal form.
    pub recipient: String,
    /// Bits: see the constants.
    pub flags: u32,
}

impl Resolved {
    /// The address cannot be resolved now.
    pub const FAIL: u32 = 1 << 3;
    /// The address is no valid one.
    pub const ERROR: u32 = 1 << 2;

    /// The class, in our words.
    pub fn class(&self) -> &'static str {
        match self.flags >> 8 {
            1 => "local",
            2 => "virtual_alias",
            4 => "virtual_mailbox",
            8 => "relay",
            16 => "default",
            _ => "none",
        }
    }
}

/// A connection to a private Postfix's trivial-rewrite(8).
pub struct Rewriter {
    socket: UnixStream,
}

impl Rewriter {
    /// Connects to `private/rewrite`.
    pub fn new(postfix: &Postfix) -> Self {
        let path = postfix.scratch().join("queue/private/rewrite");
        let socket = UnixStream::connect(path).expect("private/rewrite");
        let mut rewriter = Self { socket };
        let hello = rewriter.reply();
        assert_eq!(
            hello.get("protocol").map(String::as_str),
            Some("trivial_rewrite_protocol"),
            "{hello:?}"
        );
        rewriter
    }

    /// The canonical form of an address; both in external form.
    pub fn rewrite(&mut self, external: &str) -> String {
        self.request(&[
            ("request", "rewrite"),
            ("rule", "local"),
            ("address", external),
        ]);
        let mut reply = self.reply();
        reply.remove("address").expect("an address")
    }

    /// The canonical form of an address; both in internal form.
    pub fn canonical(&mut self, internal: &str) -> String {
        let external = self.rewrite(&quote_address(internal));
        unquoted(&external)
    }

    /// Resolves an address in internal form.
    pub fn resolve(&mut self, internal: &str) -> Resolved {
        self.request(&[
            ("request", "resolve"),
            ("sender", ""),
            ("address", internal),
        ]);
        let mut reply = self.reply();
        let mut take = |name: &str| reply.remove(name).expect("an attribute of the reply");
        Resolved {
            transport: take("transport"),
            nexthop: take("nexthop"),
            recipient: take("recipient"),
            flags: take("flags").parse().expect("a number"),
        }
    }

    fn request(&mut self, attributes: &[(&str, &str)]) {
        let mut bytes = Vec::new();
        for (name, value) in attributes {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
        bytes.push(0);
        self.socket
            .write_all(&bytes)
            .expect("trivial-rewrite reads");
    }

    /// One list of attributes, ended by an empty name; the last of two equal names counts.
    fn reply(&mut self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        loop {
            let name = self.string();
            if name.is_empty() {
                return found;
            }
            let value = self.string();
            found.insert(name, value);
        }
    }

    fn string(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            self.socket
                .read_exact(&mut byte)
                .expect("trivial-rewrite answers");
            if byte == [0] {
                return String::from_utf8(bytes).expect("UTF-8");
            }
            bytes.extend_from_slice(&byte);
        }
    }
}

/// An address without the quotes and backslashes of its local part.
fn unquoted(external: &str) -> String {
    let mut plain = String::new();
    let mut local_end = None;
    let mut in_quotes = false;
    let mut chars = external.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => in_quotes = !in_quotes,
            '\\' => plain.extend(chars.next().map(|(_, escaped)| escaped)),
            c => {
                if c == '@' && !in_quotes {
                    local_end = Some((plain.len(), at));
                }
                plain.push(c);
            }
        }
    }
    match local_end {
        Some((end, at)) => format!("{}{}", &plain[..end], &external[at..]),
        None => plain,
    }
}

/// Our router for the `main.cf` of a private Postfix.
pub fn router(postfix: &Postfix) -> Router {
    let sources = Sources {
        postfix: Some(postfix.directory()),
        ..Sources::default()
    };
    let configuration = Configuration::load(&sources).expect("main.cf of a test");
    let routing = configuration.settings.routing;
    let context = table_context(&routing);
    Router::open(&routing, &TableCache::new(context)).expect("tables of a test")
}
