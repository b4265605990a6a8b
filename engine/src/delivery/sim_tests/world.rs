//! A store on a simulated disk, its clients, and what they were told.

use super::super::journal::{Journal, JournalSource, OpenedJournal};
use super::super::keeper::Planted;
use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::super::{Ticket, job::OnOutcome};
use crate::address::{Address, ReversePath, parse_address};
use crate::config::{Compress, Durability, Settings};
use crate::envelope::Recipient;
use crate::io::Credentials;
use crate::io::sim::{DiskFault, SimDisk};
use crate::log::sim::{SimFault, SimMedium, SimRandom};
use crate::log::{EncodedRecord, LogError, LogSettings, LogUsage, Sequence, StepLog};
use crate::mailbox::mbox::render;
use crate::mailbox::trace;
use crate::route::{Format, MailboxTarget};
use crate::sync::{Arc, Mutex};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Maildirs end with a slash.
pub(super) const MAILBOXES: [&str; 5] = ["ann/", "bob/", "box", "dir/box", "eve/"];
/// Longer messages do not go through the log.
const LOGGED_BYTES_MAX: u64 = 9000;

impl Journal for StepLog<SimMedium> {
    fn append(&self, record: EncodedRecord) -> Result<crate::log::Ticket, LogError> {
        Self::append(self, record)
    }

    fn append_anyway(&self, record: EncodedRecord) -> Result<crate::log::Ticket, LogError> {
        Self::append_anyway(self, record)
    }

    fn set_uncounted(&self, bytes: u64) {
        Self::set_uncounted(self, bytes);
    }

    fn wait(&self, ticket: crate::log::Ticket) -> Result<Sequence, LogError> {
        Self::wait(self, ticket)
    }

    fn durable_up_to(&self) -> Sequence {
        Self::durable_up_to(self)
    }

    fn truncate_before(&self, sequence: Sequence) -> Result<u64, LogError> {
        Self::truncate_before(self, sequence)
    }

    fn frees_before(&self, sequence: Sequence) -> bool {
        Self::frees_before(self, sequence)
    }

    fn usage(&self) -> LogUsage {
        Self::usage(self)
    }

    fn poisoned(&self) -> Option<LogError> {
        Self::poisoned(self)
    }
}

/// The log of the simulated machine.
#[derive(Debug)]
struct SimSource {
    medium: SimMedium,
    no_flush: bool,
}

impl JournalSource for SimSource {
    fn open(&self) -> Result<OpenedJournal, LogError> {
        let settings = LogSettings {
            segment_bytes: 32 << 10,
            log_bytes_max: 320 << 10,
            in_flight_bytes_max: 1 << 20,
            record_bytes_max: 24 << 10,
            full_wait_max: Duration::ZERO,
            ..LogSettings::default()
        };
        let (log, found) = StepLog::open_on(&Arc::new(self.medium.clone()), &settings)?;
        if self.no_flush {
            log.plant(crate::log::Planted::NoFlush);
        }
        Ok((Arc::new(log), Box::new(found)))
    }
}

/// What one client knows of one message and one mailbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Copies there must be, and may be.
    pub(super) least: u32,
    pub(super) most: u32,
    /// The client must send it again.
    pub(super) open: bool,
}

/// One message.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) content: Vec<u8>,
    pub(super) to: BTreeMap<usize, Known>,
    /// Of the last transaction, until its replies were read or lost.
    tickets: Vec<Ticket>,
    /// Was confirmed, so that the same again is another message.
    confirmed: bool,
    /// Is in doubt, so that the same again is no other message.
    pub(super) doubted: bool,
}

impl Sent {
    fn is_logged(&self) -> bool {
        self.content.len() as u64 <= LOGGED_BYTES_MAX
    }
}

/// A machine with its clients.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) medium: SimMedium,
    pub(super) sent: Vec<Sent>,
    pub(super) settings: Settings,
    bug: Option<Bug>,
    owner: (u32, u32),
    /// Something failed: a refused message may have been stored.
    trouble: bool,
    pub(super) repeated: u64,
}

/// A mistake in the store or in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    Store(Planted),
    LogWithoutFlush,
}

pub(super) fn sender() -> ReversePath {
    parse_address("sender@ex.example").unwrap()
}

pub(super) fn recipient(mailbox: usize) -> Recipient {
    Recipient {
        address: Address::new(format!("user{mailbox}"), Some("vm.example")),
        original: Some(format!("alias{mailbox}@vm.example")),
    }
}

fn content(number: usize, random: &mut SimRandom) -> Vec<u8> {
    let bytes = match random.below(8) {
        // Past the log.
        0 => LOGGED_BYTES_MAX + random.below(LOGGED_BYTES_MAX),
        1 | 2 => 4000,
        _ => random.below(1500),
    };
    let mut text = format!("Message-Id: <{number}>\n\nFrom the beginning\n").into_bytes();
    let mut line = 0_u64;
    while (text.len() as u64) < bytes {
        line += 1;
        text.extend_from_slice(format!("line {line} of {number}\n").as_bytes());
    }
    if random.below(6) == 0 {
        text.extend_from_slice(b"no line end");
    }
    text
}

type Outcomes = Arc<Mutex<BTreeMap<usize, bool>>>;

impl World {
    pub(super) fn new(seed: u64, bug: Option<Bug>, state_directory: &Path) -> Self {
        let is_root = nix::unistd::geteuid().is_root();
        let owner = match is_root {
            true => (5000, 5000),
            false => (
                nix::unistd::geteuid().as_raw(),
                nix::unistd::getegid().as_raw(),
            ),
        };
        let disk = SimDisk::new("base", owner.0, owner.1);
        disk.make_directory_durably("base/dir");
        let medium = SimMedium::new(seed);
        disk.share_power_with(&medium);
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_base = "/base".into();
        settings.routing.virtual_mailbox_limit = 0;
        // Locks left behind are known without waiting.
        settings.routing.stale_lock_time = Duration::from_secs(1_000_000);
        settings.routing.deliver_lock_delay = Duration::from_millis(5);
        settings.state_directory = state_directory.to_owned();
        settings.store.durability = Durability::Logged;
        settings.store.compress = match seed % 3 {
            1 => Compress::Zstd,
            _ => Compress::None,
        };
        settings.delivery_log.message_bytes_max = LOGGED_BYTES_MAX;
        Self {
            disk,
            medium,
            sent: Vec::new(),
            settings,
            bug,
            owner,
            trouble: false,
            repeated: 0,
        }
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.disk.is_crashed()
    }

    pub(super) fn expect_trouble(&mut self) {
        self.trouble = true;
    }

    /// Opens the store, which recovers it; `None` when the power went meanwhile.
    pub(super) fn open(&self) -> Result<Option<Store<SimDisk>>, String> {
        let source = SimSource {
            medium: self.medium.clone(),
            no_flush: self.bug == Some(Bug::LogWithoutFlush),
        };
        match Store::open_stepwise(self.disk.clone(), &self.settings, Box::new(source)) {
            Ok(store) => {
                if let Some(Bug::Store(bug)) = self.bug {
                    *store.keeper().planted.lock() = Some(bug);
                }
                Ok(Some(store))
            }
            Err(_) if self.is_crashed() => Ok(None),
            Err(error) => Err(format!("the store does not open: {error}")),
        }
    }

    /// The power goes, now if it has not gone yet; the machine starts again.
    pub(super) fn power_failure(&mut self, random: &mut SimRandom) {
        self.trouble = true;
        self.disk = self.disk.after_crash(random.draw());
        self.medium = self.medium.after_crash(random.draw());
        self.disk.share_power_with(&self.medium);
        self.lose_connections();
    }

    /// The process is killed; the machine goes on.
    pub(super) fn kill(&mut self) {
        self.trouble = true;
        self.disk = self.disk.after_kill();
        self.disk.share_power_with(&self.medium);
        self.lose_connections();
    }

    fn lose_connections(&mut self) {
        self.disk.set_fault(DiskFault::None);
        self.medium.set_fault(SimFault::None);
        for sent in &mut self.sent {
            sent.doubted |= !sent.tickets.is_empty();
            sent.tickets.clear();
        }
    }

    /// Clients send some new messages at once.
    pub(super) fn send_some(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        random: &mut SimRandom,
    ) {
        let mut waiting = Vec::new();
        for _ in 0..=random.below(3) {
            let content = content(self.sent.len(), random);
            let mut to = BTreeMap::new();
            for _ in 0..=random.below(3) {
                let mailbox = usize::try_from(random.below(MAILBOXES.len() as u64)).unwrap();
                to.insert(mailbox, Known::default());
            }
            self.sent.push(Sent {
                content,
                to,
                tickets: Vec::new(),
                confirmed: false,
                doubted: false,
            });
            let index = self.sent.len() - 1;
            let all = self.sent[index].to.keys().copied().collect();
            waiting.push((index, self.submit(store, index, all)));
        }
        while waiting
            .iter()
            .any(|(_, (wanted, got))| got.lock().len() < *wanted)
        {
            store.step(credentials);
            if self.is_crashed() {
                break;
            }
        }
        for (index, (_, outcomes)) in waiting {
            let outcomes = outcomes.lock().clone();
            self.learn(index, &outcomes);
        }
    }

    fn submit(
        &mut self,
        store: &Store<SimDisk>,
        index: usize,
        to: Vec<usize>,
    ) -> (usize, Outcomes) {
        let sent = &mut self.sent[index];
        let mut message = store.new_message().binary();
        message.write(&sent.content).unwrap();
        let mail = Arc::new(Mail {
            reverse_path: sender(),
            queue_id: None,
            message: message.finish().unwrap(),
        });
        let (uid, gid) = self.owner;
        let targets = to.iter().map(|mailbox| {
            let name = MAILBOXES[*mailbox];
            let target = MailboxTarget {
                path: name.trim_end_matches('/').to_owned(),
                format: match name.ends_with('/') {
                    true => Format::Maildir,
                    false => Format::Mbox,
                },
                uid,
                gid,
            };
            (recipient(*mailbox), target)
        });
        let targets = targets.collect();
        let outcomes = Outcomes::default();
        let wanted = to.len();
        let (report, disk) = (Arc::clone(&outcomes), self.disk.clone());
        let on_outcome = move |at: usize, outcome: Outcome| {
            // Nothing that is said after the power went is heard.
            if !disk.is_crashed() {
                let told = outcome.status.is_success();
                assert!(report.lock().insert(to[at], told).is_none());
            }
        };
        let on_outcome: Arc<OnOutcome> = Arc::new(on_outcome);
        sent.tickets = store.submit(mail, targets, on_outcome);
        (wanted, outcomes)
    }

    /// What the client knows after a message was sent for the first time.
    fn learn(&mut self, index: usize, outcomes: &BTreeMap<usize, bool>) {
        // What was flushed in its mailbox and then taken back may come back with a crash.
        let trouble = self.trouble || !self.sent[index].is_logged();
        for (mailbox, known) in &mut self.sent[index].to {
            match outcomes.get(mailbox) {
                Some(true) => {
                    known.least += 1;
                    known.most += 1;
                }
                Some(false) if !trouble => known.open = true,
                Some(false) | None => {
                    known.most += 1;
                    known.open = true;
                }
            }
        }
    }

    /// One client's next command, or its loss.
    pub(super) fn settle_some(&mut self, store: &Store<SimDisk>, random: &mut SimRandom) {
        for sent in &mut self.sent {
            if sent.tickets.is_empty() || random.below(2) == 0 {
                continue;
            }
            if random.below(3) == 0 {
                store.doubt(&sent.tickets);
                sent.doubted = true;
            } else {
                store.confirm(&sent.tickets);
                sent.confirmed = true;
            }
            sent.tickets.clear();
        }
    }

    /// Clients that were lost send the same again; others send the same on purpose.
    pub(super) fn send_again(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        random: &mut SimRandom,
    ) {
        let indices: Vec<usize> = (0..self.sent.len()).collect();
        for index in indices {
            if self.is_crashed() || random.below(4) != 0 {
                continue;
            }
            let sent = &self.sent[index];
            if sent.doubted && sent.to.values().all(|known| !known.open) {
                self.repeat(store, credentials, index);
            } else if sent.confirmed && !self.trouble && sent.to.values().all(|known| !known.open) {
                self.send_same(store, credentials, index);
            }
        }
    }

    fn send_and_wait(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        index: usize,
        to: Vec<usize>,
    ) -> BTreeMap<usize, bool> {
        let (wanted, outcomes) = self.submit(store, index, to);
        while outcomes.lock().len() < wanted && !self.is_crashed() {
            store.step(credentials);
        }
        std::mem::take(&mut outcomes.lock())
    }

    /// The same message on purpose: another copy.
    fn send_same(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        index: usize,
    ) {
        let all = self.sent[index].to.keys().copied().collect();
        let outcomes = self.send_and_wait(store, credentials, index, all);
        let known_before: Vec<Known> = self.sent[index].to.values().copied().collect();
        self.learn(index, &outcomes);
        // Its client never asks again, so that only one kind of doubt is looked at.
        for (known, before) in self.sent[index].to.values_mut().zip(known_before) {
            known.open = before.open;
        }
        if !self.is_crashed() {
            let sent = &mut self.sent[index];
            store.confirm(&sent.tickets);
            sent.tickets.clear();
        }
    }

    /// The same message again, because the client does not know what became of it. A doubted
    /// delivery must not make a second copy.
    fn repeat(&mut self, store: &Store<SimDisk>, credentials: &RefCell<Credentials>, index: usize) {
        let all: Vec<usize> = self.sent[index].to.keys().copied().collect();
        let outcomes = self.send_and_wait(store, credentials, index, all);
        self.repeated += 1;
        let (is_logged, is_crashed) = (self.sent[index].is_logged(), self.is_crashed());
        for (mailbox, known) in &mut self.sent[index].to {
            // What was flushed in its mailbox is remembered only if nothing crashed since.
            if !is_logged && self.trouble {
                known.most += 1;
            }
            if outcomes.get(mailbox) == Some(&false) {
                known.open = true;
            }
        }
        if !is_crashed {
            let sent = &mut self.sent[index];
            store.confirm(&sent.tickets);
            sent.tickets.clear();
            sent.doubted = false;
        }
    }

    /// Every client that was not told of success sends again what it must. Then there is exactly
    /// one copy.
    pub(super) fn send_rest(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
    ) -> Result<(), String> {
        for index in 0..self.sent.len() {
            let open = self.sent[index].to.iter().filter(|(_, known)| known.open);
            let open: Vec<usize> = open.map(|(mailbox, _)| *mailbox).collect();
            if open.is_empty() {
                continue;
            }
            let outcomes = self.send_and_wait(store, credentials, index, open);
            if self.is_crashed() {
                return Ok(());
            }
            self.repeated += 1;
            let is_logged = self.sent[index].is_logged();
            for (mailbox, told) in outcomes {
                let Some(known) = self.sent[index].to.get_mut(&mailbox) else {
                    continue;
                };
                if !told {
                    return Err(format!("message {index} is refused without any fault"));
                }
                known.open = false;
                known.least += 1;
                known.most = match is_logged {
                    true => known.least.max(known.most.min(known.least)),
                    false => known.most + 1,
                };
            }
            let sent = &mut self.sent[index];
            store.confirm(&sent.tickets);
            sent.tickets.clear();
            sent.confirmed = true;
            sent.doubted = false;
        }
        Ok(())
    }

    /// Looks at every mailbox as a reader does.
    pub(super) fn check(&self) -> Result<(), String> {
        for (mailbox, name) in MAILBOXES.iter().enumerate() {
            let found = match name.strip_suffix('/') {
                Some(name) => self.maildir(mailbox, name)?,
                None => self.mbox(mailbox, name)?,
            };
            for (index, sent) in self.sent.iter().enumerate() {
                let Some(known) = sent.to.get(&mailbox) else {
                    continue;
                };
                let copies = found.get(&index).copied().unwrap_or(0);
                if copies < known.least || copies > known.most {
                    let Known { least, most, .. } = known;
                    return Err(format!(
                        "message {index} ({} bytes) is in {name} {copies} times, not {least} to {most}",
                        sent.content.len()
                    ));
                }
            }
        }
        Ok(())
    }

    fn number(text: &[u8]) -> Result<usize, String> {
        let text = String::from_utf8_lossy(text);
        let number = text.lines().find_map(|line| {
            let number = line.strip_prefix("Message-Id: <")?.strip_suffix('>')?;
            number.parse().ok()
        });
        number.ok_or_else(|| format!("a message without its number: {:?}", text.get(..60)))
    }

    fn maildir(&self, mailbox: usize, name: &str) -> Result<BTreeMap<usize, u32>, String> {
        let mut found = BTreeMap::new();
        for file in self.disk.names(&format!("base/{name}/new")) {
            let bytes = self.disk.content(&format!("base/{name}/new/{file}"));
            let mut bytes = bytes.unwrap_or_default();
            if self.settings.store.compress == Compress::Zstd {
                let torn = |error| format!("{file} in {name} is no whole frame: {error}");
                bytes = zstd::decode_all(bytes.as_slice()).map_err(torn)?;
            }
            let index = Self::number(&bytes)?;
            let header = trace::header(&sender(), &recipient(mailbox));
            let whole = [&header[..], &self.sent[index].content].concat();
            if bytes != whole {
                return Err(format!("message {index} is not whole in {name}"));
            }
            *found.entry(index).or_default() += 1;
        }
        Ok(found)
    }

    fn mbox(&self, mailbox: usize, name: &str) -> Result<BTreeMap<usize, u32>, String> {
        let mut found = BTreeMap::new();
        let bytes = self
            .disk
            .content(&format!("base/{name}"))
            .unwrap_or_default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if !rest.starts_with(b"From ") {
                return Err(format!(
                    "{name} does not parse {} bytes before its end",
                    rest.len()
                ));
            }
            let index = Self::number(rest)?;
            let line = memchr::memchr(b'\n', rest).map_or(0, |at| at + 1);
            let mut whole = rest[..line].to_vec();
            let header = trace::header(&sender(), &recipient(mailbox));
            let content = &self.sent[index].content;
            render(&header, &mut whole, |take| {
                take(content);
                Ok::<(), ()>(())
            })
            .unwrap();
            rest = rest
                .strip_prefix(whole.as_slice())
                .ok_or_else(|| format!("message {index} is not whole in {name}"))?;
            *found.entry(index).or_default() += 1;
        }
        Ok(found)
    }
}
