//! The file-system identity of a thread: whose files it may write, and who owns what it makes.
//!
//! Invariants: an identity is never root; mail is written within the limits of its owner, not of
//! root; only the calling thread changes; nothing is asked of the kernel while the identity stays
//! the same, but at the begin and the end of what is done under it. The program around the engine
//! may change the user of the process, and setuid(3) does so in every thread: what was written
//! meanwhile is never seen. Sources: setfsuid(2), setfsgid(2), setgroups(2), credentials(7),
//! nptl(7).

use super::capabilities::{keep_for_writers, with_limits};
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};
use std::io;
use std::marker::PhantomData;

/// Why a thread cannot take the identity of a recipient.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// User or group 0 was asked for.
    #[error(
        "mail is never written as uid {uid}, gid {gid}: map the recipient to a user and a group \
         other than 0 in virtual_uid_maps and virtual_gid_maps"
    )]
    Root {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
    },
    /// The process has no right to change its identity.
    #[error(
        "started without root, cannot become uid {uid}, gid {gid}: start as root, or map the \
         recipient to uid {own_uid}, gid {own_gid}"
    )]
    Unprivileged {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
        /// The user of this process.
        own_uid: u32,
        /// The group of this process.
        own_gid: u32,
    },
    /// The kernel refused.
    #[error("cannot become uid {uid}, gid {gid}: {source}; is CAP_SETUID or CAP_SETGID missing?")]
    Refused {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process changed its user meanwhile, which changes that of every thread.
    #[error(
        "the process changed its user or group while mail was being written: drop privileges \
         before the engine is opened, and not after"
    )]
    Changed,
}

/// The identity of the thread that made it. Not `Send`: it is a statement about one thread.
#[derive(Debug)]
pub(crate) struct Credentials {
    privileged: bool,
    own: (u32, u32),
    now: Option<(u32, u32)>,
    /// How often others changed the identity.
    changes: u64,
    thread: PhantomData<*const ()>,
}

impl Credentials {
    /// The identity of the calling thread, which must not have been changed by other means.
    pub(crate) fn of_this_thread() -> Self {
        let own = (geteuid().as_raw(), getegid().as_raw());
        Self {
            privileged: own.0 == 0,
            own,
            now: None,
            changes: 0,
            thread: PhantomData,
        }
    }

    /// As [`Credentials::of_this_thread`], for a thread of the engine that does nothing but write
    /// mailboxes: it permanently drops root's other capabilities.
    pub(crate) fn of_own_thread() -> Self {
        if let Err(error) = keep_for_writers() {
            tracing::warn!(
                %error,
                "a thread that writes mailboxes cannot give up root's capabilities: quotas and \
                 reserved blocks do not bind it"
            );
        }
        Self::of_this_thread()
    }

    /// Begins a piece of work, whose files [`Credentials::verify`] checks with what this returns.
    pub(crate) fn begin(&mut self) -> u64 {
        self.leave();
        self.changes
    }

    /// Looks whether everything since [`Credentials::begin`] was done with the identities that
    /// were taken: a file made meanwhile belongs to its owner. To be called before it is seen.
    ///
    /// # Errors
    /// The identity was changed by others.
    pub(crate) fn verify(&mut self, begun: u64) -> Result<(), CredentialError> {
        self.leave();
        match self.changes == begun {
            true => Ok(()),
            false => Err(CredentialError::Changed),
        }
    }

    /// Notes whether the identity taken last is still there.
    fn leave(&mut self) {
        if self.now.is_some_and(|now| now != current()) {
            self.changes += 1;
            self.now = None;
        }
    }

    /// Makes every later file operation of this thread one of `uid` and `gid`, with no
    /// supplementary groups but `gid`.
    ///
    /// # Errors
    /// The identity is root's, or this process cannot take it. The thread's identity is then
    /// unchanged, or unknown but not root's.
    pub(crate) fn become_user(&mut self, uid: u32, gid: u32) -> Result<(), CredentialError> {
        if self.now == Some((uid, gid)) {
            return Ok(());
        }
        if uid == 0 || gid == 0 {
            return Err(CredentialError::Root { uid, gid });
        }
        if self.privileged {
            self.leave();
            self.now = None;
            switch(uid, gid).map_err(|source| CredentialError::Refused { uid, gid, source })?;
        } else if self.own != (uid, gid) {
            let (own_uid, own_gid) = self.own;
            return Err(CredentialError::Unprivileged {
                uid,
                gid,
                own_uid,
                own_gid,
            });
        }
        self.now = Some((uid, gid));
        Ok(())
    }

    /// Gives the calling thread the file-system user and group of the process back, whatever it
    /// took since. Its groups stay those of the last identity.
    pub(crate) fn restore_this_thread() {
        if geteuid().is_root() {
            setfsgid(getegid());
            setfsuid(geteuid());
        }
    }

    /// Runs `look` with the identity the process was started with. For finding
    /// `virtual_mailbox_base`, whose path is the operator's: a recipient need not be able to
    /// search the directories above it. Nothing may be created in there.
    pub(crate) fn as_self<T>(&mut self, look: impl FnOnce() -> T) -> T {
        self.leave();
        if self.privileged && self.now.take().is_some() {
            setfsgid(Gid::from_raw(self.own.1));
            setfsuid(Uid::from_raw(self.own.0));
        }
        look()
    }
}

/// Runs `work` with the file-system user `uid`, if this process runs as root: for a file that is
/// open and is to be written as its owner would, within its owner's limits, or a name in a
/// directory of `uid`. The groups stay.
pub fn with_user<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    struct Back(Uid);
    impl Drop for Back {
        fn drop(&mut self) {
            setfsuid(self.0);
        }
    }
    let _back = geteuid()
        .is_root()
        .then(|| Back(setfsuid(Uid::from_raw(uid))));
    with_limits(work)
}

/// Runs `look` as a user with no group but this, if this process runs as root; as itself else, and
/// for root. For a thread that makes no files: its groups stay those of the last user.
///
/// # Errors
/// The kernel refuses the identity; nothing was run.
pub(crate) fn as_user<T>(uid: u32, gid: u32, look: impl FnOnce() -> T) -> io::Result<T> {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            Credentials::restore_this_thread();
        }
    }
    if uid == 0 || !geteuid().is_root() {
        return Ok(look());
    }
    let _back = Back;
    switch(uid, gid)?;
    Ok(look())
}

/// Groups first, the user last: giving up the user's rights must not come before they were used.
/// setfsuid and setfsgid report no failure, so the result is read back by asking for an
/// impossible id.
fn switch(uid: u32, gid: u32) -> io::Result<()> {
    rustix::thread::set_thread_groups(&[rustix::fs::Gid::from_raw(gid)])?;
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    if current() == (uid, gid) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// The file-system user and group of the calling thread.
fn current() -> (u32, u32) {
    let user = setfsuid(Uid::from_raw(u32::MAX)).as_raw();
    (user, setfsgid(Gid::from_raw(u32::MAX)).as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unprivileged() -> Credentials {
        Credentials {
            privileged: false,
            own: (1000, 1000),
            now: None,
            changes: 0,
            thread: PhantomData,
        }
    }

    #[test]
    fn root_is_never_an_identity_for_mail() {
        let mut credentials = Credentials::of_this_thread();
        for (uid, gid) in [(0, 0), (0, 5000), (5000, 0)] {
            let error = credentials.become_user(uid, gid).unwrap_err();
            assert!(matches!(error, CredentialError::Root { .. }), "{error}");
        }
    }

    #[test]
    fn without_root_only_the_own_identity_is_there_and_the_text_says_why() {
        assert!(unprivileged().become_user(1000, 1000).is_ok());
        let error = unprivileged().become_user(5000, 5000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "started without root, cannot become uid 5000, gid 5000: start as root, or map the \
             recipient to uid 1000, gid 1000"
        );
    }

    #[test]
    fn an_identity_that_others_changed_is_noticed_before_anything_is_seen() {
        if !geteuid().is_root() {
            return;
        }
        // setuid(3) changes every thread of a process; this one alone is changed here.
        let change = |uid: u32| {
            setfsuid(Uid::from_raw(uid));
        };
        let run = move || {
            let mut credentials = Credentials::of_this_thread();
            let first = credentials.begin();
            credentials.become_user(5000, 5001).unwrap();
            assert!(credentials.verify(first).is_ok());
            change(0);
            assert!(matches!(
                credentials.verify(first),
                Err(CredentialError::Changed)
            ));
            // The next work takes its identity anew; what began before stays suspect.
            let second = credentials.begin();
            credentials.become_user(5000, 5001).unwrap();
            assert_eq!(current(), (5000, 5001));
            assert!(credentials.verify(second).is_ok());
            assert!(credentials.verify(first).is_err());
            // A change that another switch undoes is remembered.
            change(1234);
            credentials.become_user(5002, 5003).unwrap();
            assert!(credentials.verify(second).is_err());
            change(1234);
            credentials.begin();
            credentials.become_user(5002, 5003).unwrap();
            assert_eq!(current(), (5002, 5003));
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_thread_becomes_a_user_alone_and_its_files_are_that_users() {
        if !geteuid().is_root() {
            return;
        }
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let path = dir.path().to_owned();
        std::thread::spawn(move || {
            let mut credentials = Credentials::of_this_thread();
            for (name, uid, gid) in [("a", 5000, 5001), ("b", 5002, 5003)] {
                credentials.become_user(uid, gid).unwrap();
                std::fs::write(path.join(name), b"").unwrap();
                let made = std::fs::metadata(path.join(name)).unwrap();
                assert_eq!((made.uid(), made.gid()), (uid, gid));
            }
            assert!(
                std::fs::read("/etc/shadow").is_err(),
                "root's rights remain"
            );
        })
        .join()
        .unwrap();
        std::fs::write(dir.path().join("c"), b"").unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("c")).unwrap().uid(), 0);
    }
}
