//! Which capabilities of root a thread keeps, and why.
//!
//! Taking a recipient's file-system user drops, from what a thread may do, the capabilities that
//! concern files (setfsuid(2)): it leaves CAP_SYS_RESOURCE, with which a hard limit of a quota and
//! the blocks that a file system reserves for root limit no process. So threads that write
//! mailboxes keep only what the table names; a program that starts the engine as root may drop all
//! but [`keep_for_server`]'s from the whole process before that.
//!
//! | capability | who | what for |
//! |---|---|---|
//! | CAP_SETUID, CAP_SETGID | writers, server | to take the recipient's user and groups |
//! | CAP_DAC_READ_SEARCH | writers, server | to find the base below directories that only others may search; gone while a recipient's identity is taken |
//! | CAP_DAC_OVERRIDE | server | tables, the log and the state directory in places of others |
//! | CAP_CHOWN, CAP_FOWNER, CAP_FSETID | server | to give sockets their owner and mode, and compiled maps and published tables those of the files they replace |
//! | CAP_KILL | server | to end commands of other users that take too long, or outlive it |
//! | CAP_NET_BIND_SERVICE | server | TCP ports below 1024, also after a reload |
//! | CAP_IPC_LOCK | server | memory of io_uring's rings on kernels that count it as locked |
//!
//! Sources: capabilities(7), setfsuid(2); Linux `ignore_hardlimit` (quota),
//! `ext4_has_free_clusters`.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::io;

const WRITERS: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::DAC_READ_SEARCH);

const SERVER: CapabilitySet = WRITERS
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::IPC_LOCK);

/// Drops, permanently and for the calling thread, the capabilities that a server of mailboxes does
/// not need. To be called before the process has other threads: these inherit it. Programs that the
/// process starts may have more, as those have that Postfix starts (Postfix's sendmail(1) is one).
///
/// # Errors
/// As capset(2); nothing is given up then.
pub fn keep_for_server() -> io::Result<()> {
    keep(SERVER)
}

/// Drops, permanently and for the calling thread, the capabilities that writing mailboxes does not
/// need.
///
/// # Errors
/// As [`keep_for_server`].
pub(super) fn keep_for_writers() -> io::Result<()> {
    keep(WRITERS)
}

/// Runs `work` bound by quotas and reserved blocks as any user is.
pub(super) fn with_limits<T>(work: impl FnOnce() -> T) -> T {
    struct Back(CapabilitySet);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Ok(now) = capabilities(None) {
                let effective = now.effective | (self.0 & now.permitted);
                let _ = set_capabilities(None, CapabilitySets { effective, ..now });
            }
        }
    }
    let resource = CapabilitySet::SYS_RESOURCE;
    let _back = capabilities(None).ok().and_then(|now| {
        if !now.effective.contains(resource) {
            return None;
        }
        let effective = now.effective - resource;
        let less = CapabilitySets { effective, ..now };
        set_capabilities(None, less).ok().map(|()| Back(resource))
    });
    work()
}

fn keep(wanted: CapabilitySet) -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective &= wanted;
    sets.permitted &= wanted;
    sets.inheritable &= wanted;
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective() -> CapabilitySet {
        capabilities(None).unwrap().effective
    }

    #[test]
    fn a_writer_keeps_what_takes_identities_and_nothing_that_passes_limits() {
        let run = || {
            let before = effective();
            keep_for_writers().unwrap();
            assert_eq!(effective(), before & WRITERS);
            assert!(!effective().contains(CapabilitySet::SYS_RESOURCE));
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn limits_bind_for_a_while_and_the_thread_is_as_before() {
        let before = effective();
        with_limits(|| {
            assert_eq!(effective(), before - CapabilitySet::SYS_RESOURCE);
        });
        assert_eq!(effective(), before);
    }
}
