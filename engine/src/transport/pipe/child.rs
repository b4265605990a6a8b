//! Starts a command apart from this process: in a separate session, with three descriptors, and no
//! signal blocked or ignored.
//!
//! The standard library gives the command its user, its group and no supplementary groups.

#![allow(
    unsafe_code,
    reason = "work between fork and exec, close_range(2) and sigaction(2)"
)]

use rustix::process::Pid;
use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::ptr;

/// Permission bits that are removed from files that commands make, as Postfix's daemons do.
const UMASK: u32 = 0o077;

/// The last signal with a name. Signals that this process or its parent ignores are reset.
const SIGNAL_MAX: libc::c_int = 31;

/// What to start.
pub(super) struct Wanted<'a> {
    /// The words; at least one.
    pub(super) argv: &'a [OsString],
    /// The whole environment.
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) directory: &'a Path,
    /// User and group, when they are not those of this process.
    pub(super) owner: Option<(u32, u32)>,
}

/// A running command.
pub(super) struct Started {
    pub(super) child: Child,
    /// Its standard input.
    pub(super) input: ChildStdin,
    /// Its standard output and standard error.
    pub(super) output: PipeReader,
}

/// Starts a command.
///
/// # Errors
/// It cannot be started, or its exit status would be lost.
pub(super) fn start(wanted: &Wanted<'_>) -> io::Result<Started> {
    let Some((program, arguments)) = wanted.argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if drops_statuses() {
        return Err(io::Error::other(
            "this process ignores SIGCHLD, so that exit statuses are lost; do not ignore it",
        ));
    }
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(wanted.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(wanted.directory)
        .stdin(Stdio::piped())
        .stdout(OwnedFd::from(writer.try_clone()?))
        .stderr(OwnedFd::from(writer));
    if let Some((uid, gid)) = wanted.owner {
        command.uid(uid).gid(gid);
    }
    let parent = rustix::process::getpid();
    // SAFETY: `detach` runs in the new process between fork and exec. It makes system calls only,
    // which are async-signal-safe, takes no lock and allocates nothing.
    unsafe { command.pre_exec(move || detach(parent)) };
    let mut child = command.spawn()?;
    // The ends of the pipe that the command has.
    drop(command);
    let Some(input) = child.stdin.take() else {
        return Err(io::Error::other("the command has no standard input"));
    };
    Ok(Started {
        child,
        input,
        output,
    })
}

/// Returns true when the system drops the exit statuses of this process's children: a command that
/// took its message would look like one that failed, and would get it again and again.
fn drops_statuses() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call changes nothing. It writes the current one to `action`,
    // which is large enough for it.
    let asked = unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return false;
    }
    // SAFETY: the call succeeded, and has written the whole of it.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}

/// Separates the new process from this one, but kills it when this process dies: a command that has
/// only a part of its message must not take that for the whole message. The thread that starts a
/// command waits for it, so the end of another thread does not kill it.
fn detach(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The parent died just before.
        return Err(rustix::io::Errno::SRCH.into());
    }
    // A new session has no controlling terminal, and is one process group.
    rustix::process::setsid()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    // The threads of the engine block all signals.
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: no handler is installed. The call fails for those that are always default.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // Descriptors that this process opens are closed by exec; others in the process may not be.
    // SAFETY: the call marks descriptors of this process and touches no memory. Those of the
    // standard library that are still needed are closed by exec anyway.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match closed {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Linux before 5.11 lacks the call; then other code must close its descriptors itself.
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
            error => Err(error),
        },
    }
}
