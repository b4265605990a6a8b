//! SIGKILL in the middle of load loses nothing that was acknowledged and shows nothing torn.
//!
//! Method: sessions deliver into Maildirs and mboxes and write down every 250; at a random moment
//! the server is killed and started again on the same directories. After each round every
//! acknowledged message must be there exactly once and whole, and no message may be there twice.
//! What a Maildir shows is whole, acknowledged or not; an mbox may show one torn message for each
//! kill that hit an append, never an acknowledged one. Several rounds on the same mailboxes; the
//! seed is printed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use mailstow_tests::content::sized;
use mailstow_tests::mailboxes::{header, maildir, mbox_parts};
use mailstow_tests::scratch::machine_alone;
use mailstow_tests::{Client, Mailstow};

const ROUNDS: usize = 6;
const SESSIONS: usize = 12;
const MAILDIRS: usize = 4;
const MBOXES: usize = 2;

/// Who got what: mailbox and identity of the message.
type Acknowledged = Mutex<HashSet<(String, String)>>;

fn vmailbox() -> String {
    let maildirs = (0..MAILDIRS).map(|n| format!("d{n}@example.com example.com/d{n}/\n"));
    let mboxes = (0..MBOXES).map(|n| format!("f{n}@example.com example.com/f{n}\n"));
    maildirs.chain(mboxes).collect()
}

/// The subject says size and identity, so that the whole message can be made again from it.
fn content(identity: &str) -> Vec<u8> {
    let (size, _) = identity.split_once('-').expect("size first");
    sized(identity, size.parse().expect("a size"))
}

/// Delivers until the server is gone.
fn load(server: &Mailstow, session: usize, round: usize, seed: u64, done: &Acknowledged) {
    let mut random = fastrand::Rng::with_seed(seed ^ ((round * SESSIONS + session) as u64) << 32);
    let Ok(mut client) = Client::try_lmtp(&server.unix()) else {
        return;
    };
    for number in 0.. {
        let size = match random.u8(..20) {
            // Goes into its mailbox as it arrives, when it is for one alone.
            0 => 2_500_000,
            1..=2 => 300_000,
            3..=6 => 40_000,
            _ => 2_000,
        };
        let identity = format!("{size}-r{round}s{session}n{number}");
        let mut mailboxes = vec![format!("d{}", random.usize(..MAILDIRS))];
        if random.bool() {
            mailboxes.push(format!("f{}", random.usize(..MBOXES)));
        }
        let recipients: Vec<_> = mailboxes
            .iter()
            .map(|m| format!("{m}@example.com"))
            .collect();
        let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
        // The replies are read one by one: some may have come when the server dies.
        match send(&mut client, &recipients, &content(&identity)) {
            Ok(codes) => {
                let mut done = done.lock().expect("no test thread panicked");
                for (mailbox, code) in mailboxes.iter().zip(&codes) {
                    if *code == 250 {
                        done.insert((mailbox.clone(), identity.clone()));
                    }
                }
                if codes.len() < mailboxes.len() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The reply codes that came before the connection broke; `Err` when it broke before the data.
fn send(client: &mut Client, recipients: &[&str], content: &[u8]) -> std::io::Result<Vec<u16>> {
    let mut commands = "MAIL FROM:<s@client.example>\r\n".to_owned();
    for recipient in recipients {
        commands += &format!("RCPT TO:<{recipient}>\r\n");
    }
    commands += "DATA\r\n";
    client.send(commands.as_bytes())?;
    for _ in 0..recipients.len() + 2 {
        let reply = client.read_reply()?;
        assert!(reply.code < 400, "{reply}");
    }
    client.send(&mailstow_tests::client::dot_stuffed(content))?;
    let mut codes = Vec::new();
    for _ in recipients {
        match client.read_reply() {
            Ok(reply) => codes.push(reply.code),
            Err(_) => break,
        }
    }
    Ok(codes)
}

/// The identity of a message that is whole.
fn whole(message: &[u8]) -> Option<String> {
    let identity = header(message, "Subject").first()?.clone();
    let size: usize = identity.split_once('-')?.0.parse().ok()?;
    message
        .ends_with(&sized(&identity, size))
        .then_some(identity)
}

/// How often each whole message is there, and how many in mboxes are torn.
fn stored(server: &Mailstow) -> (HashMap<(String, String), usize>, usize) {
    let mut found = HashMap::new();
    let mut torn = 0;
    for n in 0..MAILDIRS {
        let name = format!("d{n}");
        for message in maildir(&server.mailbox(&format!("example.com/{name}"))) {
            let identity = whole(&message.bytes)
                .unwrap_or_else(|| panic!("{} is torn", message.path.display()));
            *found.entry((name.clone(), identity)).or_insert(0) += 1;
        }
    }
    for n in 0..MBOXES {
        let name = format!("f{n}");
        for part in mbox_parts(&server.mailbox(&format!("example.com/{name}"))) {
            match whole(part.strip_suffix(b"\n").unwrap_or(&part)) {
                Some(identity) => *found.entry((name.clone(), identity)).or_insert(0) += 1,
                None => torn += 1,
            }
        }
    }
    (found, torn)
}

#[test]
fn every_message_answered_250_before_a_kill_is_there_once_and_whole() {
    let _machine = machine_alone();
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("replay with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Record locks end with the process that held them; a lock file would lock the mailbox until
    // it is stale, and the next rounds with it.
    let mut server = Mailstow::example("killed")
        .main_cf("virtual_mailbox_lock = fcntl")
        .table("vmailbox", &vmailbox())
        .start();
    let done = Acknowledged::default();
    for round in 0..ROUNDS {
        let before = done.lock().expect("no test thread panicked").len();
        let life = Duration::from_millis(random.u64(200..900));
        std::thread::scope(|scope| {
            for session in 0..SESSIONS {
                let (server, done) = (&server, &done);
                scope.spawn(move || load(server, session, round, seed, done));
            }
            std::thread::sleep(life);
            server.daemon.signal(nix::sys::signal::Signal::SIGKILL);
        });
        server.restart();
        let done = done.lock().expect("no test thread panicked");
        assert!(
            done.len() > before,
            "round {round} acknowledged nothing in {life:?}"
        );
        let (stored, torn) = stored(&server);
        assert!(
            torn <= (round + 1) * MBOXES,
            "{torn} torn messages after round {round}"
        );
        for key in done.iter() {
            assert_eq!(stored.get(key), Some(&1), "{key:?} in round {round}");
        }
        for (key, count) in &stored {
            assert_eq!(*count, 1, "{key:?} in round {round}");
        }
    }
}
