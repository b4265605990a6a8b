//! Talks to a running command: writes the message to it, reads its output, and waits for its end.
//!
//! One thread does all of it, by poll(2), so a command that writes before it reads, reads nothing,
//! or never ends, blocks no other delivery. Invariants: at most [`OUTPUT_KEPT_BYTES`] of output are
//! kept; after the deadline the whole process group is killed.

use super::child::Started;
use super::running::Running;
use crate::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, ExitStatus};
use std::time::{Duration, Instant};

/// Bytes of output that are kept; pipe(8) keeps as many.
const OUTPUT_KEPT_BYTES: usize = 4096;

/// Bytes of output that are read. A command that writes more gets SIGPIPE.
const OUTPUT_READ_BYTES: usize = 1 << 20;

/// How long the message is offered to processes that the command left behind and that do not read.
const LEFT_BEHIND_WAIT: Duration = Duration::from_secs(1);

/// How often the command is checked where the system cannot report its end.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a command that was killed may take to end.
const KILLED_WAIT: Duration = Duration::from_secs(2);

/// Why the rest of the message is not written to the command.
pub(super) enum Stop {
    /// It does not read any more, or has ended.
    Unread,
    /// It was killed.
    Deadline,
    /// The message cannot be read, or a system call failed.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Failed(error.into())
    }
}

/// A running command.
pub(super) struct Exchange {
    child: Child,
    /// Becomes readable when it ends.
    end: Option<OwnedFd>,
    input: Option<ChildStdin>,
    output: Option<io::PipeReader>,
    kept: Vec<u8>,
    read: usize,
    deadline: Instant,
    status: Option<ExitStatus>,
    /// Until it was reaped.
    _running: Running,
}

impl Exchange {
    /// Begins the exchange; the command has until `deadline`.
    ///
    /// # Errors
    /// A system call failed; the command was killed.
    pub(super) fn new(started: Started, deadline: Instant) -> io::Result<Self> {
        let Started {
            child,
            input,
            output,
        } = started;
        let mut exchange = Self {
            _running: Running::new(pid(&child)),
            end: pid(&child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            child,
            input: Some(input),
            output: None,
            kept: Vec::new(),
            read: 0,
            deadline,
            status: None,
        };
        let prepared = exchange
            .input
            .as_ref()
            .map_or(Ok(()), |input| rustix::io::ioctl_fionbio(input, true))
            .and_then(|()| rustix::io::ioctl_fionbio(&output, true));
        if let Err(error) = prepared {
            exchange.kill();
            return Err(error.into());
        }
        exchange.output = Some(output);
        Ok(exchange)
    }

    /// Writes a piece of the message to the command.
    ///
    /// # Errors
    /// It takes no more of it.
    pub(super) fn give(&mut self, mut piece: &[u8]) -> Result<(), Stop> {
        while !piece.is_empty() {
            let Some(input) = &self.input else {
                return Err(Stop::Unread);
            };
            match rustix::io::write(input, piece) {
                Ok(count) => piece = piece.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_to_write()?,
                Err(Errno::PIPE) => return Err(Stop::Unread),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the command reads, and reads its output meanwhile.
    fn wait_to_write(&mut self) -> Result<(), Stop> {
        let has_ended = self.status.is_some();
        let ready = match has_ended {
            // Processes that the command left behind may continue to read.
            true => self.poll(Some(LEFT_BEHIND_WAIT))?,
            false => self.poll(None)?,
        };
        if ready.output {
            self.take_output();
        }
        if ready.end {
            self.look_at_end()?;
        }
        match has_ended && !ready.input && !ready.output {
            true => Err(Stop::Unread),
            false => Ok(()),
        }
    }

    /// Ends the input, and waits until the command has ended. Reads the output that is there by
    /// then: other processes that the command left behind may write for ever.
    ///
    /// # Errors
    /// It was killed, or a system call failed.
    pub(super) fn finish(&mut self) -> Result<ExitStatus, Stop> {
        self.input = None;
        loop {
            if let Some(status) = self.status {
                self.take_output();
                return Ok(status);
            }
            let ready = self.poll(None)?;
            if ready.output {
                self.take_output();
            }
            if ready.end {
                self.look_at_end()?;
            }
        }
    }

    /// Returns the beginning of the command's output.
    pub(super) fn output(&self) -> &[u8] {
        &self.kept
    }

    /// Waits for the next event: as long as the command may run, or `limit`.
    fn poll(&mut self, limit: Option<Duration>) -> Result<Ready, Stop> {
        let now = clock::now();
        let mut wait = self.deadline.saturating_duration_since(now);
        if wait.is_zero() {
            if self.status.is_some() {
                return Err(Stop::Unread);
            }
            self.kill();
            return Err(Stop::Deadline);
        }
        let look = self.end.is_none().then_some(LOOK_INTERVAL);
        for limit in limit.into_iter().chain(look) {
            wait = wait.min(limit);
        }
        let mut sources = Vec::with_capacity(3);
        let mut fds = Vec::with_capacity(3);
        if let Some(input) = &self.input {
            sources.push(Source::Input);
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        if let Some(output) = &self.output {
            sources.push(Source::Output);
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        if let (Some(end), None) = (&self.end, &self.status) {
            sources.push(Source::End);
            fds.push(PollFd::new(end, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timespec(wait))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = Ready {
            end: self.end.is_none(),
            ..Ready::default()
        };
        for (source, fd) in sources.iter().zip(&fds) {
            let is_ready = !fd.revents().is_empty();
            match source {
                Source::Input => ready.input = is_ready,
                Source::Output => ready.output = is_ready,
                Source::End => ready.end |= is_ready,
            }
        }
        Ok(ready)
    }

    /// Reads the available output.
    fn take_output(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    let left = OUTPUT_KEPT_BYTES - self.kept.len();
                    let kept = buffer.get(..count.min(left)).unwrap_or_default();
                    self.kept.extend_from_slice(kept);
                    self.read += count;
                    if self.read >= OUTPUT_READ_BYTES {
                        self.output = None;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    fn look_at_end(&mut self) -> Result<(), Stop> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(())
    }

    /// Kills the command with all processes that it has started, if it has not ended.
    fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        if let Some(pid) = pid(&self.child)
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::warn!(%error, "cannot kill a command");
        }
    }
}

impl Drop for Exchange {
    /// Kills a command that has not ended, and reaps it. Leaves a command that hangs in the kernel.
    fn drop(&mut self) {
        self.kill();
        let deadline = clock::now() + KILLED_WAIT;
        while self.status.is_none() && clock::now() < deadline {
            if let Some(end) = &self.end {
                let mut fds = [PollFd::new(end, PollFlags::IN)];
                let _ = poll(&mut fds, Some(&timespec(KILLED_WAIT)));
            } else {
                std::thread::sleep(LOOK_INTERVAL);
            }
            if self.look_at_end().is_err() {
                return;
            }
        }
        if self.status.is_none() {
            tracing::error!(
                pid = self.child.id(),
                "a command does not end when it is killed"
            );
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// How a command ended, as the system reports it.
pub(super) fn exit(status: ExitStatus) -> Result<i32, i32> {
    match status.code() {
        Some(code) => Ok(code),
        None => Err(status.signal().unwrap_or_default()),
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

#[derive(Clone, Copy)]
enum Source {
    Input,
    Output,
    End,
}

/// The events that are ready.
#[derive(Debug, Default)]
struct Ready {
    input: bool,
    output: bool,
    end: bool,
}
