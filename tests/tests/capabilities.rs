//! What of root's rights the server keeps, and that its mail is written within the limits that
//! bind its owner.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mailstow_tests::content::sized;
use mailstow_tests::mailstow::owner;
use mailstow_tests::volume::Volume;
use mailstow_tests::{Client, Mailstow};

/// Numbers of capabilities, capabilities(7).
const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const IPC_LOCK: u32 = 14;
const SYS_RESOURCE: u32 = 24;

const MAIN_CF: &str = "virtual_mailbox_domains = example.com\n\
     virtual_mailbox_base = @ROOT@/vhosts\n\
     virtual_mailbox_maps = texthash:@DIR@/vmailbox";
const VMAILBOX: &str = "maildir@example.com maildir/\nmbox@example.com mbox\n";

fn set(numbers: &[u32]) -> u64 {
    numbers.iter().fold(0, |set, number| set | 1 << number)
}

/// The permitted and the effective capabilities of every thread, by its name.
fn of_threads(pid: u32) -> BTreeMap<String, Vec<(u64, u64)>> {
    let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("a running process") {
        let path = task.expect("a thread").path().join("status");
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(path) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let bits = |name: &str| u64::from_str_radix(&field(name), 16).expect("a hexadecimal set");
        let of_name = found.entry(field("Name:")).or_default();
        of_name.push((bits("CapPrm:"), bits("CapEff:")));
    }
    found
}

fn owned(builder: &mailstow_tests::mailstow::Builder) -> String {
    let base = builder.scratch().path().join("vhosts");
    chown(&base, Some(owner()), Some(owner())).expect("chown");
    let owner = owner();
    format!("{MAIN_CF}\nvirtual_uid_maps = static:{owner}\nvirtual_gid_maps = static:{owner}")
}

#[test]
fn the_server_keeps_few_capabilities_of_root_and_its_writers_fewer() {
    let builder = Mailstow::build("capabilities");
    builder.scratch().mkdir("vhosts");
    let main_cf = owned(&builder);
    let server = builder
        .main_cf(&main_cf)
        .table("vmailbox", VMAILBOX)
        .start();
    let to = ["maildir@example.com", "mbox@example.com"];
    let replies = Client::lmtp(&server.unix()).deliver("", &to, b"Subject: 0\n\n");
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");

    let writers = set(&[SETUID, SETGID, DAC_READ_SEARCH]);
    let all = writers
        | set(&[
            DAC_OVERRIDE,
            CHOWN,
            FOWNER,
            FSETID,
            KILL,
            NET_BIND_SERVICE,
            IPC_LOCK,
        ]);
    let threads = of_threads(server.daemon.pid());
    let mut seen = 0;
    for (name, sets) in threads {
        let is_writer = name.starts_with("mailstow-wr");
        let may = match is_writer {
            true => writers,
            false => all,
        };
        seen += usize::from(is_writer);
        for (permitted, effective) in sets {
            assert_eq!(permitted & !may, 0, "{name} is permitted {permitted:x}");
            assert_eq!(effective & !permitted, 0, "{name} has {effective:x}");
            assert_eq!(permitted & set(&[SYS_RESOURCE]), 0, "{name}");
        }
    }
    assert!(seen > 0, "no thread of a writer is there");
}

/// Fills the file system as a user without rights until only what is reserved for root is left.
fn fill_as_owner(directory: &Path) {
    let file = directory.join("filling");
    let script = "cat /dev/zero > \"$0\"; sync -f \"$0\"; cat /dev/zero >> \"$0\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(&file)
        .uid(owner())
        .gid(owner());
    let output = command.output().expect("sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left"), "{said}");
}

#[test]
fn blocks_that_are_reserved_for_root_take_no_mail() {
    let builder = Mailstow::build("reserved");
    let base = builder.scratch().mkdir("vhosts");
    let image = builder.scratch().join("image");
    let volume = Volume::mount_at(&base, &["mkfs.ext4", "-q", "-m", "40"], &image, 128);
    let main_cf = owned(&builder);
    let server = builder
        .main_cf(&main_cf)
        .table("vmailbox", VMAILBOX)
        .start();
    let to = ["maildir@example.com", "mbox@example.com"];
    let mut client = Client::lmtp(&server.unix());
    // So that the mailboxes are there.
    let replies = client.deliver("", &to, b"Subject: 0\n\n");
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
    fill_as_owner(volume.path());

    // The short one is copied into its mailboxes, the long one goes there as it arrives.
    for content in [sized("short", 64 << 10), sized("long", 8 << 20)] {
        for to in to {
            let replies = client.deliver("", &[to], &content);
            let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
            assert_eq!(codes, [452], "{to}: {replies:?}");
        }
    }
    // Root itself has room for all of them.
    let room = vec![0; 20 << 20];
    fs::write(volume.path().join("of-root"), room).expect("blocks reserved for root");
}
