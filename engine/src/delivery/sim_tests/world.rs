//! A store on a simulated disk, its clients, and the replies that they read.

use super::super::store::Store;
use super::super::types::{Mail, Outcome};
use super::super::{OnOutcome, Ticket};
use super::content::{LOGGED_BYTES_MAX, content};
use super::mistaken::Mistake;
use super::running::Running;
use super::source::SimSource;
use crate::address::{Address, ReversePath, parse_address};
use crate::config::{Compress, Copies, Durability, FlushMethod, Settings, StatusFields};
use crate::envelope::Recipient;
use crate::io::Credentials;
use crate::io::sim::{DiskFault, SimDisk, SimRandom};
use crate::log::sim::{SimFault, SimMedium};
use crate::sync::{Arc, Mutex};
use crate::target::{Format, MailboxTarget};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Maildirs end with a slash.
pub(super) const MAILBOXES: [&str; 5] = ["ann/", "bob/", "box", "dir/box", "eve/"];

/// Users of each mailbox.
pub(super) const USERS: u64 = 3;

/// A recipient: mailbox and user.
pub(super) type To = (usize, usize);

/// The state of one recipient of one message, as its client knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The copies that must, and may, name it.
    pub(super) least: u32,
    pub(super) most: u32,
    /// The client must send it again.
    pub(super) open: bool,
    /// Is in doubt, so that an equal message is a repetition.
    doubted: bool,
    /// Copies that a reader has removed: only a crash may restore them.
    pub(super) removed: u32,
}

/// One message.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) content: Vec<u8>,
    pub(super) to: BTreeMap<To, Known>,
    /// The tickets of the last transaction, until its replies were read or lost.
    pub(super) tickets: Vec<Ticket>,
    /// Its recipients.
    pub(super) last: Vec<To>,
    /// Was confirmed, so that an equal message is a new one.
    confirmed: bool,
}

impl Sent {
    fn is_logged(&self) -> bool {
        self.content.len() as u64 <= LOGGED_BYTES_MAX
    }

    /// Disconnects before the client read the replies.
    fn lose(&mut self) {
        for to in std::mem::take(&mut self.last) {
            if let (false, Some(known)) = (self.tickets.is_empty(), self.to.get_mut(&to)) {
                known.doubted = true;
            }
        }
        self.tickets.clear();
    }

    /// Notes that the client has read the replies.
    fn confirm(&mut self, store: &Store<SimDisk>) {
        store.confirm(&self.tickets);
        for to in std::mem::take(&mut self.last) {
            if let Some(known) = self.to.get_mut(&to) {
                known.doubted = false;
            }
        }
        self.tickets.clear();
    }
}

/// A machine with its clients.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) medium: SimMedium,
    pub(super) sent: Vec<Sent>,
    pub(super) settings: Settings,
    bug: Option<Bug>,
    pub(super) owner: (u32, u32),
    /// An operation failed: a refused message may have been stored.
    trouble: bool,
    pub(super) running: Arc<Running>,
    /// Deliveries are answered before their writers are done with them.
    pub(super) hangs: bool,
    /// When segments are made in advance.
    pace: SimRandom,
    pub(super) repeated: u64,
}

/// A mistake in the store or below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// In the use of the log by the store.
    Store(Mistake),
    /// The disk does not flush the writes of the log.
    LogWithoutFlush,
    /// The disk does not flush the mailboxes for a checkpoint.
    CheckpointWithoutFlush,
}

pub(super) fn sender() -> ReversePath {
    parse_address("sender@ex.example").unwrap()
}

pub(super) fn recipient((mailbox, user): To) -> Recipient {
    Recipient {
        address: Address::new(format!("user{user}"), Some("vm.example")),
        // Unknown for some recipients.
        original: (user > 0).then(|| format!("alias{mailbox}@vm.example")),
    }
}

fn any_recipient(random: &mut SimRandom) -> To {
    let mailbox = random.below(MAILBOXES.len() as u64);
    let user = random.below(USERS);
    (
        usize::try_from(mailbox).unwrap(),
        usize::try_from(user).unwrap(),
    )
}

fn shuffled(mut all: Vec<To>, random: &mut SimRandom) -> Vec<To> {
    for at in (1..all.len()).rev() {
        all.swap(at, usize::try_from(random.below(at as u64 + 1)).unwrap());
    }
    all
}

pub(super) type Outcomes = Arc<Mutex<BTreeMap<To, bool>>>;

/// Returns the state of a message as its client knows it.
pub(super) type HandedOver = (Vec<Ticket>, Outcomes);

/// Submits a message for these recipients. Returns for each whether the client read success.
pub(super) fn hand_over(
    store: &Store<SimDisk>,
    disk: &SimDisk,
    (content, to): (&[u8], &[To]),
    (uid, gid): (u32, u32),
) -> HandedOver {
    let mut message = store.new_message().binary();
    message.write(content).unwrap();
    let mail = Arc::new(Mail {
        reverse_path: sender(),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.finish().unwrap(),
    });
    let targets = to.iter().map(|to| {
        let name = MAILBOXES[to.0];
        let target = MailboxTarget::new(name, Format::of(name), uid, gid).unwrap();
        (recipient(*to), target)
    });
    let targets = targets.collect();
    let outcomes = Outcomes::default();
    let (report, disk, to) = (Arc::clone(&outcomes), disk.clone(), to.to_vec());
    let on_outcome = move |at: usize, outcome: Outcome| {
        // Answers after a power loss reach no client.
        if !disk.is_crashed() {
            let told = outcome.status.is_success();
            assert!(report.lock().insert(to[at], told).is_none());
        }
    };
    let on_outcome: Arc<OnOutcome> = Arc::new(on_outcome);
    (store.submit(mail, targets, on_outcome), outcomes)
}

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
        disk.share_power_with(medium.clone());
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_base = "/base".into();
        settings.routing.virtual_mailbox_limit = 0;
        // Recognises stale locks without waiting.
        settings.routing.stale_lock_time = Duration::from_secs(1_000_000);
        settings.routing.deliver_lock_delay = Duration::from_millis(5);
        settings.state_directory = state_directory.to_owned();
        settings.store.durability = Durability::Logged;
        settings.store.compress = match seed % 3 {
            1 => Compress::Zstd,
            _ => Compress::None,
        };
        settings.store.copies = match seed % 5 {
            1 => Copies::Recipient,
            _ => Copies::Mailbox,
        };
        settings.delivery_log.message_bytes_max = LOGGED_BYTES_MAX;
        if bug == Some(Bug::CheckpointWithoutFlush) {
            // Then only checkpoints flush whole file systems.
            settings.store.flush = FlushMethod::Fsync;
        }
        Self {
            disk,
            medium,
            sent: Vec::new(),
            settings,
            bug,
            owner,
            trouble: false,
            hangs: false,
            running: Arc::default(),
            pace: SimRandom::new(seed ^ 0xfeed),
            repeated: 0,
        }
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.disk.is_crashed()
    }

    pub(super) fn expect_trouble(&mut self) {
        self.trouble = true;
    }

    /// Opens the store, which recovers it; `None` when the power was lost meanwhile.
    pub(super) fn open(&self) -> Result<Option<Store<SimDisk>>, String> {
        let source = SimSource {
            medium: self.medium.clone(),
            mistake: match self.bug {
                Some(Bug::Store(mistake)) => Some(mistake),
                _ => None,
            },
            running: Arc::clone(&self.running),
        };
        match Store::open_stepwise(self.disk.clone(), &self.settings, Box::new(source)) {
            Ok(store) => {
                // It was opened without mistakes.
                match self.bug {
                    Some(Bug::LogWithoutFlush) => self.medium.forget_frames(),
                    Some(Bug::CheckpointWithoutFlush) => self.disk.forget_flushes(),
                    Some(Bug::Store(_)) | None => {}
                }
                Ok(Some(store))
            }
            Err(_) if self.is_crashed() => Ok(None),
            Err(error) => Err(format!("the store does not open: {error}")),
        }
    }

    /// Loses power, unless it is lost already, and starts the machine again.
    pub(super) fn power_failure(&mut self, random: &mut SimRandom) {
        self.trouble = true;
        // The operator may have changed the configuration before the start.
        self.settings.store.mbox_status_fields = match random.below(2) {
            0 => StatusFields::Remove,
            _ => StatusFields::Keep,
        };
        self.running = Arc::default();
        self.disk = self.disk.after_crash(random.draw());
        self.medium = self.medium.after_crash(random.draw());
        self.disk.share_power_with(self.medium.clone());
        self.lose_connections();
    }

    /// Kills the process; the machine stays up.
    pub(super) fn kill(&mut self) {
        self.trouble = true;
        self.disk = self.disk.after_kill();
        self.disk.share_power_with(self.medium.clone());
        self.lose_connections();
    }

    /// The log makes segments in advance, or not yet.
    pub(super) fn preallocate_perhaps(&mut self) {
        if self.pace.below(3) == 0 {
            self.running.preallocate();
        }
    }

    fn lose_connections(&mut self) {
        let hangs = self.hangs;
        let known = self.sent.iter_mut().flat_map(|sent| sent.to.values_mut());
        for known in known {
            known.most += std::mem::take(&mut known.removed);
            // A delivery that was given up is refused in the log without waiting.
            known.most += u32::from(hangs && known.open);
        }
        self.disk.set_fault(DiskFault::None);
        self.medium.set_fault(SimFault::None);
        self.sent.iter_mut().for_each(Sent::lose);
    }

    /// Returns the index of a message that is to be sent.
    pub(super) fn write_down(&mut self, content: Vec<u8>, to: BTreeMap<To, Known>) -> usize {
        self.sent.push(Sent {
            content,
            to,
            tickets: Vec::new(),
            last: Vec::new(),
            confirmed: false,
        });
        self.sent.len() - 1
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
            for _ in 0..=random.below(4) {
                to.insert(any_recipient(random), Known::default());
            }
            let all = shuffled(to.keys().copied().collect(), random);
            let index = self.write_down(content, to);
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

    fn submit(&mut self, store: &Store<SimDisk>, index: usize, to: Vec<To>) -> (usize, Outcomes) {
        let sent = &mut self.sent[index];
        let message = (&sent.content[..], &to[..]);
        let (tickets, outcomes) = hand_over(store, &self.disk, message, self.owner);
        sent.tickets = tickets;
        sent.last.clone_from(&to);
        (to.len(), outcomes)
    }

    /// The state after a message was sent to a recipient for the first time.
    pub(super) fn learn(&mut self, index: usize, outcomes: &BTreeMap<To, bool>) {
        for to in self.sent[index].to.keys().copied().collect::<Vec<To>>() {
            self.learn_one(index, to, outcomes.get(&to).copied());
        }
    }

    fn learn_one(&mut self, index: usize, to: To, outcome: Option<bool>) {
        let sent = &mut self.sent[index];
        // A message that was flushed in its mailbox and then removed may come back with a crash.
        let trouble = self.trouble || !sent.is_logged();
        let known = sent.to.entry(to).or_default();
        match outcome {
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

    /// The next command of one client, or its loss.
    pub(super) fn settle_some(&mut self, store: &Store<SimDisk>, random: &mut SimRandom) {
        for sent in &mut self.sent {
            if sent.tickets.is_empty() || random.below(2) == 0 {
                continue;
            }
            if random.below(3) == 0 {
                store.doubt(&sent.tickets);
                sent.lose();
            } else {
                sent.confirm(store);
                sent.confirmed = true;
            }
        }
    }

    /// Disconnected clients send their message again; others send equal messages on purpose.
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
            let known = || sent.to.values();
            if known().any(|known| known.open) {
                continue;
            }
            if known().any(|known| known.doubted) {
                self.repeat(store, credentials, index, random);
            } else if sent.confirmed && !self.trouble {
                self.send_same(store, credentials, index);
            }
        }
    }

    fn send_and_wait(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        index: usize,
        to: Vec<To>,
    ) -> BTreeMap<To, bool> {
        let (wanted, outcomes) = self.submit(store, index, to);
        while outcomes.lock().len() < wanted && !self.is_crashed() {
            store.step(credentials);
        }
        std::mem::take(&mut outcomes.lock())
    }

    /// Sends an equal message on purpose: another copy.
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
        // Its client never repeats it, so that only one kind of doubt is tested.
        for (known, before) in self.sent[index].to.values_mut().zip(known_before) {
            known.open = before.open;
        }
        if !self.is_crashed() {
            self.sent[index].confirm(store);
        }
    }

    /// Sends a message again because the client does not know its outcome: for all or some of the
    /// recipients whose replies were lost, in any order, perhaps with one recipient more. A
    /// delivery in doubt must not make a second copy.
    fn repeat(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
        index: usize,
        random: &mut SimRandom,
    ) {
        let doubted = self.sent[index]
            .to
            .iter()
            .filter(|(_, known)| known.doubted);
        let mut to: Vec<To> = doubted.map(|(to, _)| *to).collect();
        to = shuffled(to, random);
        to.truncate(1 + usize::try_from(random.below(to.len() as u64)).unwrap());
        let one_more = any_recipient(random);
        let is_new = random.below(3) == 0 && !self.sent[index].to.contains_key(&one_more);
        if is_new {
            to.push(one_more);
            to = shuffled(to, random);
        }
        let outcomes = self.send_and_wait(store, credentials, index, to.clone());
        self.repeated += 1;
        let (is_logged, is_crashed) = (self.sent[index].is_logged(), self.is_crashed());
        for to in to {
            if is_new && to == one_more {
                self.learn_one(index, to, outcomes.get(&to).copied());
                continue;
            }
            let known = self.sent[index].to.entry(to).or_default();
            // A message that was flushed in its mailbox is remembered only until a crash.
            if !is_logged && self.trouble {
                known.most += 1;
            }
            if outcomes.get(&to) == Some(&false) {
                known.open = true;
            }
        }
        if !is_crashed {
            self.sent[index].confirm(store);
        }
    }

    /// Every client that did not read success sends its message again. Then exactly one copy names
    /// each of its recipients.
    pub(super) fn send_rest(
        &mut self,
        store: &Store<SimDisk>,
        credentials: &RefCell<Credentials>,
    ) -> Result<(), String> {
        for index in 0..self.sent.len() {
            let open = self.sent[index].to.iter().filter(|(_, known)| known.open);
            let open: Vec<To> = open.map(|(to, _)| *to).collect();
            if open.is_empty() {
                continue;
            }
            let outcomes = self.send_and_wait(store, credentials, index, open);
            if self.is_crashed() {
                return Ok(());
            }
            self.repeated += 1;
            let is_logged = self.sent[index].is_logged();
            for (to, told) in outcomes {
                let Some(known) = self.sent[index].to.get_mut(&to) else {
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
            sent.confirm(store);
            sent.confirmed = true;
        }
        Ok(())
    }
}
