//! Faults of the real thing under load: disks that are full or read-only, quotas, a stopped
//! process, a log that is full or gone.
//!
//! In each: clients are answered success or a failure that is not their mail's fault; when the
//! cause is gone the server delivers again by itself; and after a kill and a restart every
//! acknowledged message is there once and whole, and nothing else is seen.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mailstow_tests::daemon::Daemon;
use mailstow_tests::mailboxes::list;
use mailstow_tests::power::account::Account;
use mailstow_tests::power::kill;
use mailstow_tests::power::load::{Acknowledged, Load, MAILBOXES, Told};
use mailstow_tests::power::rig::Places;
use mailstow_tests::power::trial::Setup;
use mailstow_tests::scratch::machine_alone;
use mailstow_tests::volume::Volume;
use mailstow_tests::{Client, Scratch, eventually};
use nix::sys::signal::Signal;

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-m", "0"];
/// How long the server may take to be well again: it tries a failed log again more and more
/// rarely, at first after half a second.
const MEND_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to fill a log or a volume, on a busy machine.
const FILL_LIMIT: Duration = Duration::from_secs(600);

struct Site {
    /// Unmounted before the directory it is mounted in is removed.
    volume: Option<Volume>,
    scratch: Scratch,
    places: Places,
    told: Vec<Acknowledged>,
    rounds: usize,
}

impl Site {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let places = Places::new(&scratch);
        places.make_directories();
        Self {
            scratch,
            places,
            volume: None,
            told: Vec::new(),
            rounds: 0,
        }
    }

    /// Puts the mailboxes, the state, or both, which are in the same directory, on a separate file
    /// system.
    fn mount(&mut self, at: &Path, mkfs: &[&str], mebibytes: u64) -> &Volume {
        let image = self.scratch.join("image");
        let volume = Volume::mount_at(at, mkfs, &image, mebibytes);
        // Hides those made before.
        self.places.make_directories();
        let owner = Some(mailstow_tests::mailstow::owner());
        std::os::unix::fs::chown(self.places.base(), owner, owner).expect("chown");
        self.volume.insert(volume)
    }

    fn serve(&self, settings: &str) -> Daemon {
        self.places.configure(MAILBOXES, settings);
        self.places.serve().expect("the server starts")
    }

    fn load(&mut self, millis: u64) -> Told {
        let told = self.loader(millis).run();
        self.told.extend(told.acknowledged.iter().cloned());
        told
    }

    /// A load that another thread may run meanwhile.
    fn loader(&mut self, millis: u64) -> Loader {
        self.rounds += 1;
        Loader {
            places: self.places.clone(),
            load: Load {
                time: Duration::from_millis(millis),
                bytes_max: 8 << 20,
                may_break: false,
                round: self.rounds,
            },
        }
    }

    /// Runs a load and `work` beside it.
    fn load_while(&mut self, millis: u64, work: impl FnOnce()) -> Told {
        let loader = self.loader(millis);
        let told = std::thread::scope(|scope| {
            let load = scope.spawn(|| loader.run());
            work();
            load.join().expect("no client panicked")
        });
        self.told.extend(told.acknowledged.iter().cloned());
        told
    }

    /// Every mailbox takes mail again.
    fn is_well_again(&self) {
        for mailbox in MAILBOXES {
            let to = format!("{}@example.com", mailbox.trim_end_matches('/'));
            eventually(
                &format!("{to} to be delivered to again"),
                MEND_LIMIT,
                || {
                    let mut client = Client::try_lmtp(&self.places.address()).ok()?;
                    let content = mailstow_tests::content::sized("100-probe", 100);
                    let answer = client.try_deliver("s@client.example", &[to.as_str()], &content);
                    let replies = answer.ok()?.ok()?;
                    replies.iter().all(|r| r.code == 250).then_some(())
                },
            );
        }
    }

    /// Kills the server, starts it again and accounts for everything.
    fn reckon(&self, mut server: Daemon) {
        server.kill();
        let mut server = self.places.serve().expect("the server starts again");
        let mut complaints = Vec::new();
        let base = self.places.base();
        let mut account = Account::of(&base, self.told.iter(), false, &mut complaints);
        // Probes are equal messages, sent until one is accepted.
        complaints.retain(|c| !c.starts_with("100-probe"));
        account.doubled = complaints.iter().filter(|c| c.contains(" times")).count();
        server.kill();
        assert!(account.is_clean(), "{account}\n{}", complaints.join("\n"));
        assert!(account.acknowledged > 0, "{account}");
    }
}

struct Loader {
    places: Places,
    load: Load,
}

impl Loader {
    fn run(&self) -> Told {
        self.load.send(&self.places.address(), || 0, 1)
    }
}

fn assert_codes(told: &Told, allowed: &[&str]) {
    for code in told.refused.keys() {
        assert!(allowed.contains(&code.as_str()), "{:?}", told.refused);
    }
}

#[test]
fn a_full_mailbox_disk_defers_mail_and_loses_none() {
    let _machine = machine_alone();
    let mut site = Site::new("enospc");
    site.mount(&site.places.base(), EXT4, 48);
    let server = site.serve("[delivery_log]\ncheckpoint_interval = \"1s\"\n");
    site.load(500);
    let filling = site.volume.as_ref().expect("mounted").fill();
    let told = site.load(1500);
    assert_codes(&told, &["452 4.3.1"]);
    assert!(!told.refused.is_empty(), "the disk was full");
    std::fs::remove_file(filling).expect("unlink");
    site.is_well_again();
    assert_codes(&site.load(300), &[]);
    site.reckon(server);
}

#[test]
fn a_full_log_disk_defers_mail_until_there_is_room_and_loses_none() {
    let _machine = machine_alone();
    let mut site = Site::new("enospc-log");
    site.mount(&site.places.state(), EXT4, 32);
    let server = site.serve(
        "[delivery_log]\nbytes_max = 67108864\nsegment_bytes = 1048576\nfull_wait = \"1s\"\n\
         checkpoint_interval = \"1s\"\n",
    );
    site.load(500);
    let filling = site.volume.as_ref().expect("mounted").fill();
    let told = site.load(2500);
    assert_codes(&told, &["452 4.3.1", "451 4.3.0", "451 4.3.2"]);
    std::fs::remove_file(filling).expect("unlink");
    site.is_well_again();
    site.load(300);
    site.reckon(server);
}

#[test]
fn a_full_volume_of_log_and_mailboxes_gives_its_spare_segments_to_the_mailboxes() {
    let _machine = machine_alone();
    let mut site = Site::new("enospc-both");
    site.mount(&site.places.volume(), EXT4, 200);
    let server = site.serve("[delivery_log]\ncheckpoint_interval = \"1s\"\n");
    let log = site.places.state().join("delivery-log");
    let until = Instant::now() + FILL_LIMIT;
    let mut refused = 0;
    while refused == 0 {
        let told = site.load(1000);
        assert_codes(&told, &["452 4.3.1"]);
        refused = told.refused.len();
        assert!(Instant::now() < until, "the volume was never full");
    }
    eventually("the spare segments to be given back", MEND_LIMIT, || {
        let names = list(&log);
        let spares = names.iter().filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("spare-")
        });
        // One is the log's next segment.
        (spares.count() <= 1).then_some(())
    });
    // Recovery finds no room but what the log gives back.
    let mut server = server;
    server.kill();
    let restarted = site.places.serve().expect("the server starts again");
    let log = restarted.log();
    assert!(!log.contains("wait for their mailboxes"), "{log}");
    site.reckon(restarted);
}

#[test]
fn a_quota_that_is_used_up_refuses_its_mailboxes_and_loses_nothing() {
    let _machine = machine_alone();
    let mut site = Site::new("edquot");
    site.mount(&site.places.base(), &["mkfs.btrfs", "-q"], 160);
    let base = site.places.base();
    let btrfs = |arguments: &[&str]| {
        // A quota that is used up may for a while keep its own limit from being changed.
        eventually("btrfs(8) to succeed", MEND_LIMIT, || {
            let output = Command::new("btrfs").args(arguments).arg(&base).output();
            let output = output.expect("btrfs(8): install the package btrfs-progs");
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            output.status.success().then_some(())
        });
    };
    btrfs(&["quota", "enable"]);
    btrfs(&["qgroup", "limit", "6M", "0/5"]);
    let server = site.serve("[delivery_log]\ncheckpoint_interval = \"1s\"\n");
    let told = site.load(4000);
    assert_codes(&told, &["552 5.2.2", "452 4.2.2", "451 4.3.0"]);
    assert!(!told.refused.is_empty(), "the quota was used up");
    btrfs(&["qgroup", "limit", "none", "0/5"]);
    site.is_well_again();
    site.load(300);
    site.reckon(server);
}

#[test]
fn a_mailbox_disk_that_turns_read_only_defers_mail_until_it_is_writable() {
    let _machine = machine_alone();
    let mut site = Site::new("read-only");
    site.mount(&site.places.base(), EXT4, 64);
    let server = site.serve("[delivery_log]\ncheckpoint_interval = \"1s\"\n");
    let volume = site.volume.take().expect("mounted");
    let told = site.load_while(3000, || {
        // Refused while a file is open for writing; under load there is a gap between two.
        eventually("the volume to be read-only", MEND_LIMIT, || {
            volume.remount("ro").then_some(())
        });
        std::thread::sleep(Duration::from_millis(500));
    });
    let told_later = site.load(500);
    for told in [&told, &told_later] {
        let own = told.refused.keys().all(|code| code.starts_with("451 4."));
        assert!(own, "{:?}", told.refused);
    }
    assert!(!told_later.refused.is_empty(), "the volume was read-only");
    assert!(volume.remount("rw"), "the volume can be made writable");
    site.volume = Some(volume);
    site.is_well_again();
    assert_codes(&site.load(300), &[]);
    site.reckon(server);
}

#[test]
fn a_server_stopped_and_continued_under_load_loses_nothing() {
    let _machine = machine_alone();
    let mut site = Site::new("stopped");
    let server = site.serve("");
    let until = Instant::now() + Duration::from_millis(2000);
    let told = site.load_while(2500, || {
        while Instant::now() < until {
            server.signal(Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(150));
            server.signal(Signal::SIGCONT);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_codes(&told, &[]);
    site.reckon(server);
}

#[test]
fn a_log_directory_removed_under_a_running_server_loses_nothing_that_is_in_mailboxes() {
    let _machine = machine_alone();
    let mut site = Site::new("log-removed");
    let server = site.serve(
        "[delivery_log]\nbytes_max = 8388608\nsegment_bytes = 262144\n\
         checkpoint_interval = \"1s\"\n",
    );
    let log = site.places.state().join("delivery-log");
    let told = site.load_while(3000, || {
        std::thread::sleep(Duration::from_millis(700));
        // The server may make a file meanwhile.
        eventually("the log to be removed", MEND_LIMIT, || {
            std::fs::remove_dir_all(&log).ok()
        });
    });
    assert_codes(&told, &["451 4.3.0", "452 4.3.1"]);
    site.is_well_again();
    site.load(300);
    assert!(log.is_dir(), "a new log was begun: {}", server.log());
    site.reckon(server);
}

#[test]
fn a_full_log_makes_deliveries_wait_and_then_defers_them() {
    let _machine = machine_alone();
    let mut site = Site::new("log-full");
    let tiny = "[delivery_log]\nbytes_max = 1048576\nsegment_bytes = 131072\n\
                checkpoint_interval = \"1h\"\nfull_wait = ";
    // Patient: the checkpoint that a half-full log begins makes room.
    let mut server = site.serve(&format!("{tiny}\"60s\"\n"));
    assert_codes(&site.load(1500), &[]);
    assert_eq!(server.stop().code(), Some(0));
    let server = site.serve(&format!("{tiny}\"0s\"\n"));
    let mut refused = 0;
    let until = Instant::now() + FILL_LIMIT;
    while refused == 0 {
        let told = site.load(500);
        assert_codes(&told, &["452 4.3.1"]);
        refused += told.refused.len();
        assert!(Instant::now() < until, "the log was never full");
    }
    site.is_well_again();
    site.reckon(server);
}

#[test]
fn kills_at_any_moment_lose_double_and_tear_nothing_with_any_log() {
    let _machine = machine_alone();
    for setup in [Setup::SmallLog, Setup::Bounded] {
        let seed = fastrand::u64(..);
        let (account, complaints) = kill::run(setup, 3, seed);
        let complaints = complaints.join("\n");
        assert!(
            account.is_clean(),
            "seed {seed} {setup:?}: {account}\n{complaints}"
        );
    }
}
