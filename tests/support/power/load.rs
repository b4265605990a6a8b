//! Real clients, and the replies that they read, with their times.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::client::dot_stuffed;
use crate::content::sized;
use crate::{Address, Client, Reply};

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
    /// The server may go away; else that is a failure.
    pub may_break: bool,
    /// Shows in the identities, so that those of two loads differ.
    pub round: usize,
}

/// The replies that the clients read.
#[derive(Debug, Default)]
pub struct Told {
    /// Successes.
    pub acknowledged: Vec<Acknowledged>,
    /// Refusals: how many of each code, as `452 4.3.1`.
    pub refused: BTreeMap<String, usize>,
}

/// The message of that identity.
pub fn content(identity: &str) -> Option<Vec<u8>> {
    let (size, _) = identity.split_once('-')?;
    Some(sized(identity, size.parse().ok()?))
}

impl Load {
    /// Loads the server until the time is over. `position` is asked after each success was read.
    /// Clients send each message once, whatever the answer.
    pub fn send(self, to: &Address, position: impl Fn() -> usize + Sync, seed: u64) -> Told {
        let told = Mutex::new(Told::default());
        let (bytes, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let until = Instant::now() + self.time;
        std::thread::scope(|scope| {
            for session in 0..SESSIONS {
                let (told, bytes, is_over, position) = (&told, &bytes, &is_over, &position);
                scope.spawn(move || {
                    let mut sender = Sender {
                        random: Rng::with_seed(seed.wrapping_add((session as u64) << 32)),
                        name: format!("r{}s{session}", self.round),
                        number: 0,
                        told,
                        position,
                    };
                    let mut client = None;
                    while Instant::now() < until && !is_over.load(Ordering::Relaxed) {
                        match sender.send(&mut client, to) {
                            Ok(sent) => {
                                let all = bytes.fetch_add(sent, Ordering::Relaxed) + sent;
                                if all > self.bytes_max {
                                    is_over.store(true, Ordering::Relaxed);
                                }
                            }
                            Err(_) if self.may_break => return,
                            Err(error) => panic!("session {session}: {error}"),
                        }
                    }
                });
            }
        });
        told.into_inner().expect("no client panicked")
    }
}

struct Sender<'a, P> {
    random: Rng,
    name: String,
    number: usize,
    told: &'a Mutex<Told>,
    position: &'a P,
}

impl<P: Fn() -> usize> Sender<'_, P> {
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

    fn size(&mut self) -> usize {
        match self.random.u8(..20) {
            0 => self.random.usize(64_000..200_000),
            1..=4 => self.random.usize(10_000..40_000),
            5..=10 => self.random.usize(2_000..6_000),
            _ => self.random.usize(200..1_000),
        }
    }

    /// One message; the bytes of all copies. Now and then the client goes away without reading
    /// the replies.
    fn send(&mut self, slot: &mut Option<Client>, to: &Address) -> io::Result<usize> {
        let mut client = match slot.take() {
            Some(client) => client,
            None => Client::try_lmtp(to)?,
        };
        let mailboxes = self.mailboxes();
        let identity = format!("{}-{}n{}", self.size(), self.name, self.number);
        self.number += 1;
        let content = content(&identity).expect("our own identity");
        let accepted = self.begin(&mut client, &mailboxes)?;
        if !accepted.is_empty() {
            client.send(&dot_stuffed(&content))?;
            if self.random.u8(..40) == 0 {
                return Ok(content.len() * accepted.len());
            }
        }
        for mailbox in &accepted {
            let reply = client.read_reply()?;
            // After the reply was read: whatever made it true is before that event.
            let at = (self.position)();
            if reply.code == 250 {
                let identity = identity.clone();
                let mut told = self.told.lock().expect("no client panicked");
                told.acknowledged.push(Acknowledged {
                    at,
                    mailbox,
                    identity,
                });
            } else {
                self.note_refusal(&reply);
            }
        }
        *slot = Some(client);
        Ok(content.len() * accepted.len())
    }

    fn note_refusal(&self, reply: &Reply) {
        let mut told = self.told.lock().expect("no client panicked");
        *told.refused.entry(reply.codes()).or_default() += 1;
    }

    /// Envelope and `DATA`: the mailboxes for which replies will come.
    fn begin(
        &self,
        client: &mut Client,
        mailboxes: &[&'static str],
    ) -> io::Result<Vec<&'static str>> {
        let mut commands = format!("MAIL FROM:<{SENDER}>\r\n");
        for mailbox in mailboxes {
            let name = mailbox.trim_end_matches('/');
            commands += &format!("RCPT TO:<{name}@example.com>\r\n");
        }
        commands += "DATA\r\n";
        client.send(commands.as_bytes())?;
        let mail = client.read_reply()?;
        let mut accepted = Vec::new();
        for mailbox in mailboxes {
            match client.read_reply()? {
                reply if reply.code == 250 => accepted.push(*mailbox),
                reply => self.note_refusal(&reply),
            }
        }
        let data = client.read_reply()?;
        if mail.code == 250 && data.code == 354 {
            return Ok(accepted);
        }
        self.note_refusal(&data);
        client.send(b"RSET\r\n")?;
        client.read_reply()?;
        Ok(Vec::new())
    }
}
