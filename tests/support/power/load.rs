//! Real clients, and what they were told when.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::recorder::Recorder;
use crate::client::dot_stuffed;
use crate::content::sized;
use crate::{Address, Client};

/// A Maildir has a slash behind its name. The first mbox gets most of what mboxes get.
pub const MAILBOXES: &[&str] = &["d0/", "d1/", "d2/", "d3/", "f0", "f1", "f2"];
/// Who sends.
pub const SENDER: &str = "s@client.example";
const SESSIONS: usize = 8;

/// A reply of 250 that a client has read.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Events of the disk before it was read.
    pub at: usize,
    /// Of [`MAILBOXES`].
    pub mailbox: &'static str,
    /// Of the message: its size and a name.
    pub identity: String,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How long.
    pub time: Duration,
    /// Bytes of all copies together, so that the disk does not fill up.
    pub bytes_max: usize,
}

/// The message of that identity.
pub fn content(identity: &str) -> Option<Vec<u8>> {
    let (size, _) = identity.split_once('-')?;
    Some(sized(identity, size.parse().ok()?))
}

impl Load {
    /// Loads the server until the time is over; what was acknowledged, and how many messages
    /// were refused. Clients send each message once, whatever the answer.
    pub fn send(self, to: &Address, disk: &Recorder, seed: u64) -> (Vec<Acknowledged>, usize) {
        let noted = Mutex::new(Vec::new());
        let (refused, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let is_over = AtomicBool::new(false);
        let until = Instant::now() + self.time;
        std::thread::scope(|scope| {
            for session in 0..SESSIONS {
                let (noted, refused, bytes, is_over) = (&noted, &refused, &bytes, &is_over);
                scope.spawn(move || {
                    let mut sender = Sender {
                        random: Rng::with_seed(seed.wrapping_add((session as u64) << 32)),
                        session,
                        number: 0,
                    };
                    let mut client = Client::lmtp(to);
                    while Instant::now() < until && !is_over.load(Ordering::Relaxed) {
                        let (sent, vanishes) = sender.send(&mut client, disk, noted, refused);
                        let sent = sent.unwrap_or_else(|e| panic!("session {session}: {e}"));
                        let all = bytes.fetch_add(sent, Ordering::Relaxed) + sent;
                        if all > self.bytes_max {
                            is_over.store(true, Ordering::Relaxed);
                        }
                        if vanishes {
                            client = Client::lmtp(to);
                        }
                    }
                });
            }
        });
        let noted = noted.into_inner().expect("no client panicked");
        (noted, refused.into_inner())
    }
}

struct Sender {
    random: Rng,
    session: usize,
    number: usize,
}

impl Sender {
    fn mailboxes(&mut self) -> Vec<&'static str> {
        if self.random.u8(..3) == 0 {
            return vec!["f0"];
        }
        let count = [1, 1, 1, 2, 4, MAILBOXES.len()][self.random.usize(..6)];
        let mut mailboxes = MAILBOXES.to_vec();
        self.random.shuffle(&mut mailboxes);
        mailboxes.truncate(count);
        mailboxes
    }

    /// The bytes of all copies; and whether the client went away without reading the replies.
    fn send(
        &mut self,
        client: &mut Client,
        disk: &Recorder,
        noted: &Mutex<Vec<Acknowledged>>,
        refused: &AtomicUsize,
    ) -> (io::Result<usize>, bool) {
        let mailboxes = self.mailboxes();
        let size = match self.random.u8(..20) {
            0 => self.random.usize(64_000..200_000),
            1..=4 => self.random.usize(10_000..40_000),
            5..=10 => self.random.usize(2_000..6_000),
            _ => self.random.usize(200..1_000),
        };
        let identity = format!("{size}-s{}n{}", self.session, self.number);
        self.number += 1;
        let content = content(&identity).expect("our own identity");
        let vanishes = self.random.u8(..40) == 0;
        let result = begin(client, &mailboxes).and_then(|()| {
            client.send(&dot_stuffed(&content))?;
            for mailbox in mailboxes.iter().filter(|_| !vanishes) {
                let reply = client.read_reply()?;
                // After the reply was read: whatever made it true is before that event.
                let at = disk.events();
                if reply.code == 250 {
                    let identity = identity.clone();
                    let mut noted = noted.lock().expect("no client panicked");
                    noted.push(Acknowledged {
                        at,
                        mailbox,
                        identity,
                    });
                } else {
                    assert!((400..500).contains(&reply.code), "{mailbox}: {reply}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(content.len() * mailboxes.len())
        });
        (result, vanishes)
    }
}

fn begin(client: &mut Client, mailboxes: &[&str]) -> io::Result<()> {
    let mut commands = format!("MAIL FROM:<{SENDER}>\r\n");
    for mailbox in mailboxes {
        let name = mailbox.trim_end_matches('/');
        commands += &format!("RCPT TO:<{name}@example.com>\r\n");
    }
    commands += "DATA\r\n";
    client.send(commands.as_bytes())?;
    for _ in 0..mailboxes.len() + 2 {
        let reply = client.read_reply()?;
        if reply.code >= 400 {
            return Err(io::Error::other(reply.to_string()));
        }
    }
    Ok(())
}
