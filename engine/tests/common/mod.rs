//! What the tests of the store share: a base, settings, and deliveries that wait for their end.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests; each test program uses its own part"
)]

use mailstow_engine::address::{Address, parse_address};
use mailstow_engine::config::{Copies, Durability, Settings};
use mailstow_engine::route::{Format, MailboxTarget};
use mailstow_engine::sim::{
    Accepted, AcceptedRecipient, CopyLocation, DeliveryId, Extent, LogWriter, LogWriterSettings,
    Record,
};
use mailstow_engine::sim::{Blocking, Disk, Faulty};
use mailstow_engine::sim::{Store, Ticket};
use mailstow_engine::{Mail, Outcome};
use mailstow_engine::{Message, Recipient};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// Longest time any delivery in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A base and a state directory that go with the test.
pub struct Place {
    dir: tempfile::TempDir,
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Who owns the mailboxes: an ordinary user if possible, otherwise the user of the test.
pub fn owner() -> (u32, u32) {
    if is_root() {
        (5000, 5001)
    } else {
        (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        )
    }
}

impl Place {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let place = Self { dir };
        std::fs::create_dir(place.base()).unwrap();
        place.give(&place.base());
        place
    }

    pub fn base(&self) -> PathBuf {
        self.dir.path().join("vhosts")
    }

    pub fn outside(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Makes a file or directory the mailbox owner's.
    pub fn give(&self, path: &Path) {
        if is_root() {
            let (uid, gid) = owner();
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    pub fn make_dir(&self, path: &str) -> PathBuf {
        let path = self.base().join(path);
        std::fs::create_dir(&path).unwrap();
        self.give(&path);
        path
    }

    pub fn make_file(&self, path: &str, content: &[u8]) -> PathBuf {
        let path = self.base().join(path);
        std::fs::write(&path, content).unwrap();
        self.give(&path);
        path
    }

    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_base = self.base();
        settings.state_directory = self.dir.path().join("state");
        settings.store.host = "host.example".into();
        settings.store.durability = Durability::Direct;
        // So that a test may send many copies to one mailbox at once.
        settings.store.copies = Copies::Recipient;
        settings.routing.deliver_lock_delay = Duration::from_millis(5);
        settings
    }
}

pub fn target(path: &str) -> MailboxTarget {
    let (uid, gid) = owner();
    MailboxTarget::new(path, Format::of(path), uid, gid).unwrap()
}

pub fn recipient() -> Recipient {
    Recipient {
        address: Address::new("info", Some("vm.example")),
        original: Some("orig@ex.example".into()),
    }
}

pub fn message<D: Disk>(store: &Store<D>, content: &[u8]) -> Message {
    let mut builder = store.new_message();
    builder.write(content).unwrap();
    builder.finish().unwrap()
}

pub fn mail<D: Disk>(store: &Store<D>, content: &[u8]) -> Arc<Mail> {
    Arc::new(Mail {
        reverse_path: parse_address("s@ex.example").unwrap(),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message(store, content),
    })
}

/// Deliveries in progress.
pub struct Pending {
    pub tickets: Vec<Ticket>,
    outcomes: mpsc::Receiver<(usize, Outcome)>,
}

pub fn submit<D: Disk>(store: &Store<D>, content: &[u8], to: Vec<MailboxTarget>) -> Pending {
    submit_mail(store, mail(store, content), to)
}

pub fn submit_mail<D: Disk>(store: &Store<D>, mail: Arc<Mail>, to: Vec<MailboxTarget>) -> Pending {
    let (sender, outcomes) = mpsc::channel();
    // Recipients of one mailbox must differ to get a copy each.
    let to = to.into_iter().enumerate().map(|(number, target)| {
        let mut recipient = recipient();
        if number > 0 {
            recipient.address.local_part.push_str(&number.to_string());
        }
        (recipient, target)
    });
    let to = to.collect();
    let report = move |index, outcome| {
        let _ = sender.send((index, outcome));
    };
    let tickets = store.submit(mail, to, Arc::new(report));
    Pending { tickets, outcomes }
}

impl Pending {
    /// The statuses, in order.
    pub fn statuses(self) -> Vec<String> {
        let outcomes = self.outcomes().into_iter();
        outcomes.map(|outcome| outcome.status.to_string()).collect()
    }

    /// The outcomes, in order.
    pub fn outcomes(self) -> Vec<Outcome> {
        let mut all = vec![None; self.tickets.len()];
        let deadline = Instant::now() + DEADLINE;
        for _ in 0..all.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let (index, outcome) = self
                .outcomes
                .recv_timeout(left)
                .expect("an outcome in time");
            assert!(all[index].is_none(), "outcome {index} came twice");
            all[index] = Some(outcome);
        }
        all.into_iter().flatten().collect()
    }

    pub fn is_silent_for(&self, time: Duration) -> bool {
        self.outcomes.recv_timeout(time).is_err()
    }
}

/// Delivers to one mailbox and waits; the status.
pub fn deliver<D: Disk>(store: &Store<D>, content: &[u8], path: &str) -> String {
    submit(store, content, vec![target(path)])
        .statuses()
        .remove(0)
}

/// Names in a directory, sorted; none if it does not exist.
pub fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A log with one acknowledged message for a Maildir and an mbox of these names, as a killed
/// process leaves it.
pub fn leave_a_log(settings: &Settings, content: &[u8], mailboxes: [&str; 2]) {
    let directory = settings.state_directory.join("delivery-log");
    std::fs::create_dir_all(&directory).unwrap();
    let (log, _) = LogWriter::open(&directory, LogWriterSettings::default()).unwrap();
    let (uid, gid) = owner();
    let [maildir, mbox] = mailboxes;
    let to = |mailbox: &str, location| AcceptedRecipient {
        address: "info@vm.example".into(),
        original: "orig@ex.example".into(),
        mailbox: mailbox.into(),
        uid,
        gid,
        location,
    };
    let file_name = "1000.M1P1.host.example,S=9".to_owned();
    let envelope = Accepted {
        id: DeliveryId(7),
        accepted_at: SystemTime::UNIX_EPOCH.elapsed().unwrap(),
        reverse_path: "s@ex.example".into(),
        queue_id: String::new(),
        recipients: vec![
            to(maildir, CopyLocation::Maildir { file_name }),
            to(
                mbox,
                CopyLocation::Mbox {
                    size_before: 0,
                    without_status: false,
                },
            ),
        ],
    };
    let content = content.into();
    let record = Record::Accepted { envelope, content };
    log.append_and_wait(record.encode()).unwrap();
    // Its header tells which log it is of, if that of the first segment is damaged.
    let next = "segment-0000000000000002.log".to_owned();
    let deadline = Instant::now() + DEADLINE;
    while !names(&directory).contains(&next) {
        assert!(Instant::now() < deadline, "the next segment is made");
        std::thread::yield_now();
    }
    log.close().unwrap();
}

/// Adds to a log that a message was to be appended to an mbox, at an offset where a sector begins.
pub fn leave_an_extent(settings: &Settings, mailbox: &str, (offset, message): (u64, &[u8])) {
    let directory = settings.state_directory.join("delivery-log");
    let (log, _) = LogWriter::open(&directory, LogWriterSettings::default()).unwrap();
    let (uid, gid) = owner();
    let extent = Extent {
        mailbox: mailbox.into(),
        uid,
        gid,
        offset,
        length: message.len() as u64,
        sums: message.chunks(512).map(crc32fast::hash).collect(),
    };
    log.append_and_wait(Record::Extent(extent).encode())
        .unwrap();
    log.close().unwrap();
}

/// A store on a disk that fails or stops on order.
pub type FaultyStore = Store<Faulty<Blocking>>;

pub fn open_faulty(settings: &Settings) -> FaultyStore {
    Store::open_on(Faulty::new(Blocking::new()), settings).unwrap()
}

pub fn wait_for(store: &FaultyStore, what: &str, mut happens: impl FnMut(&FaultyStore) -> bool) {
    let until = Instant::now() + DEADLINE;
    while !happens(store) {
        assert!(Instant::now() < until, "{what}: {:?}", store.health());
        std::thread::sleep(Duration::from_millis(5));
    }
}
