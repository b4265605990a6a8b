//! A server process in the foreground: started, watched, stopped by its own process id.
//!
//! It leads a separate process group, so that its children end with it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::eventually;

/// How long a server may take to end after SIGTERM before the test fails.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A command that runs `program` and dies with the thread that starts it, so that no server stays
/// behind when a test run is killed (prctl(2) `PR_SET_PDEATHSIG`, set by setpriv(1)).
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running server; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `command` with standard error going to the file `log` and standard output to one
    /// beside it that ends with `.out`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let open = |path: &Path| {
            let mut options = File::options();
            let file = options.create(true).append(true).open(path);
            file.expect("the log file of a server can be made")
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&log.with_extension("out")))
            .stderr(open(log))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Self {
            child,
            log: log.to_owned(),
            ended: None,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Threads of the process.
    pub fn threads(&self) -> usize {
        self.entries("task")
    }

    /// Files that it has open.
    pub fn open_files(&self) -> usize {
        self.entries("fd")
    }

    fn entries(&self, of: &str) -> usize {
        let path = format!("/proc/{}/{of}", self.pid());
        std::fs::read_dir(path)
            .expect("the server still runs")
            .count()
    }

    /// Changes a soft limit of the running process, as prlimit(1) spells it: `--nofile=256:`. That
    /// is done as its own user, who needs no rights for it.
    pub fn limit(&self, limit: &str) {
        let pid = self.pid().to_string();
        let owner = std::fs::metadata(format!("/proc/{pid}")).expect("the server still runs");
        let changed = Command::new("prlimit")
            .args(["--pid", &pid, limit])
            .uid(owner.uid())
            .gid(owner.gid())
            .status()
            .expect("prlimit(1): install the package util-linux");
        assert!(changed.success(), "prlimit {limit}");
    }

    fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }

    /// Everything it has written to standard error so far.
    pub fn log(&self) -> String {
        text_of(&self.log)
    }

    /// Everything it has written to standard output so far.
    pub fn output(&self) -> String {
        text_of(&self.log.with_extension("out"))
    }

    /// Sends a signal to the server alone.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "the server has ended already");
        kill(self.process(), signal).expect("a child not yet waited for takes signals");
    }

    /// Its exit status, if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("waiting for our own child");
        }
        self.ended
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        if self.status().is_none() {
            self.signal(Signal::SIGTERM);
        }
        self.wait()
    }

    /// Waits for the end without asking for it.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of process {}", self.pid());
        eventually(&what, STOP_LIMIT, || self.status())
    }

    /// SIGKILL to the whole group: no handler of the server runs.
    pub fn kill(&mut self) {
        if self.status().is_none() {
            let _ = killpg(self.process(), Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    /// A memory figure of `/proc/PID/status` in bytes: `VmRSS` (now) or `VmHWM` (the peak).
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).expect("the server still runs");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("{path} has no {field}"));
        let kibibytes = line.trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().expect("a number of kB") * 1024
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("--- end of {} ---", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
