//! A file system with mailboxes that does not answer for a while.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mailstow_tests::content::sized;
use mailstow_tests::mailboxes::maildir;
use mailstow_tests::scratch::machine_alone;
use mailstow_tests::volume::Volume;
use mailstow_tests::{Client, Mailstow, eventually};

/// So many that they would occupy all threads of the sessions, however many processors there are.
const STUCK: usize = 8;
const MEBIBYTES: u64 = 256;
const LIMIT: Duration = Duration::from_secs(60);

/// Writes to a file system wait until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(volume: &Volume) -> Self {
        let path = volume.path().to_owned();
        run("-f", &path);
        Self(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("-u", &self.0);
    }
}

fn run(option: &str, path: &std::path::Path) {
    let status = Command::new("fsfreeze").arg(option).arg(path).status();
    assert!(status.expect("fsfreeze(8)").success(), "fsfreeze {option}");
}

/// Threads of sessions and their helpers that wait for a disk.
fn waiting_for_disks(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(mailstow-lmtp)") || stat.contains("(mailstow-place)"))
        .filter(|stat| stat.contains(") D "))
        .count()
}

#[test]
fn sessions_go_on_while_long_messages_wait_for_their_mailboxes() {
    let _machine = machine_alone();
    let builder = Mailstow::build("hanging");
    let base = builder.scratch().mkdir("vhosts");
    let image = builder.scratch().join("image");
    let volume = Volume::mount_at(&base, &["mkfs.ext4", "-q", "-m", "0"], &image, MEBIBYTES);
    let owner = mailstow_tests::mailstow::owner();
    std::os::unix::fs::chown(&base, Some(owner), Some(owner)).expect("chown");
    let server = builder
        .main_cf(&format!(
            "virtual_mailbox_domains = example.com\n\
             virtual_mailbox_base = @ROOT@/vhosts\n\
             virtual_mailbox_maps = texthash:@DIR@/vmailbox\n\
             virtual_uid_maps = static:{owner}\n\
             virtual_gid_maps = static:{owner}"
        ))
        .table("vmailbox", "sales@example.com sales/\n")
        .start();
    let recipient = ["sales@example.com"];
    // So that the Maildir is there.
    let replies = Client::lmtp(&server.unix()).deliver("", &recipient, b"Subject: 0\n\n");
    assert_eq!(replies.first().map(|reply| reply.code), Some(250));
    let mut other = Client::lmtp(&server.unix());
    let content = sized("long", 3 << 20);
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let frozen = Frozen::new(&volume);
        let long = || {
            let mut client = Client::lmtp(&server.unix());
            client
                .deliver("", &recipient, &content)
                .first()
                .map(|reply| reply.code)
        };
        let clients: Vec<_> = (0..STUCK).map(|_| scope.spawn(long)).collect();
        let pid = server.daemon.pid();
        eventually("the messages wait", LIMIT, || {
            (waiting_for_disks(pid) == STUCK).then_some(())
        });
        assert_eq!(other.command("NOOP").code, 250);
        let mut newcomer = Client::lmtp(&server.unix());
        assert_eq!(newcomer.command("MAIL FROM:<>").code, 250);
        assert_eq!(newcomer.command("RCPT TO:<sales@example.com>").code, 250);
        drop(frozen);
        let ended = clients.into_iter().map(|client| client.join());
        ended.filter_map(|code| code.expect("a client")).collect()
    });
    assert_eq!(codes, [250; STUCK]);
    assert_eq!(maildir(&server.mailbox("sales")).len(), 1 + STUCK);
}
