//! The process groups of all running commands, so that a program can kill them before it ends.
//!
//! The kernel kills a command when the program that started it dies, but not what the command
//! started.

use crate::sync::{LazyLock, Mutex};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;

static ALL: LazyLock<Mutex<Groups>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Groups {
    /// Their ids.
    running: BTreeSet<i32>,
    /// The program ends.
    is_over: bool,
}

/// One running command.
#[derive(Debug)]
pub(super) struct Running(Option<Pid>);

impl Running {
    /// Notes a command that has been started, until this is dropped.
    pub(super) fn new(group: Option<Pid>) -> Self {
        if let Some(group) = group {
            let mut all = ALL.lock();
            all.running.insert(group.as_raw_pid());
            if all.is_over {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        Self(group)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            ALL.lock().running.remove(&group.as_raw_pid());
        }
    }
}

/// Kills all commands of this process that deliver mail, with what they started, and those that are
/// started from now on.
///
/// For a program that ends without [`Engine::close`](crate::Engine::close), which waits for them.
/// Their mail is delivered again when the client repeats it.
pub fn kill_commands() {
    let mut all = ALL.lock();
    all.is_over = true;
    for group in &all.running {
        if let Some(group) = Pid::from_raw(*group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
