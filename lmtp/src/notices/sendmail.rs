//! The way out for notices: sendmail(1), which hands them to the queue of the mail server.
//!
//! Postfix's sendmail(1) runs postdrop(1), which flushes a message to the queue before it ends with
//! 0, whether the mail system runs or not. It runs without root's rights: as the user of
//! `default_privs`, and as the group `setgid_group`, to which the queue is open. (postdrop(1) takes
//! a configuration directory other than the default one from root, or from who has the group
//! already.) Sources: sendmail(1), postdrop(1), postconf(5) `sendmail_path`, `setgid_group`,
//! `alternate_config_directories`.

use mailstow_engine::config::Settings;
use nix::unistd::{Group, User, getegid, geteuid};
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Postfix's configuration directory, unless another one is named.
const DEFAULT_CONFIG_DIRECTORY: &str = "/etc/postfix";

/// User without rights, where `default_privs` names none.
const NOBODY: u32 = 65534;

/// Longest pause between two looks whether the command has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Most bytes of what the command complains about.
const COMPLAINT_BYTES_MAX: u64 = 500;

/// How notices are handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sendmail {
    path: PathBuf,
    /// Postfix's configuration directory; `None` for the default one.
    config_directory: Option<PathBuf>,
    /// It is Postfix's, and knows the option `-N`.
    is_postfix: bool,
    /// User and group to run it as; `None` for those of this process.
    identity: Option<(u32, u32)>,
}

impl Sendmail {
    /// Finds the way out that `settings` name.
    ///
    /// # Errors
    /// Why there is none, and the remedy.
    pub(crate) fn find(settings: &Settings) -> Result<Self, String> {
        let routing = &settings.routing;
        let path = &routing.sendmail_path;
        let shown = path.display();
        let is_program =
            |metadata: Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        if !std::fs::metadata(path).is_ok_and(is_program) {
            return Err(format!(
                "sendmail_path = {shown} is no program; install one, or name it"
            ));
        }
        let beside = |name| {
            path.parent()
                .is_some_and(|directory| directory.join(name).exists())
        };
        let is_postfix = beside("postdrop") || Path::new("/usr/sbin/postdrop").exists();
        let config_directory = Some(settings.postfix_directory.clone())
            .filter(|directory| is_postfix && !is_default(directory));
        let identity = match geteuid().is_root() {
            true if is_postfix => Some(queue_identity(
                &routing.default_privs,
                &routing.setgid_group,
            )?),
            true => Some((user_id(&routing.default_privs), NOBODY)),
            false => {
                if is_postfix {
                    may_submit(config_directory.as_deref(), &routing.setgid_group)?;
                }
                None
            }
        };
        Ok(Self {
            path: path.clone(),
            config_directory,
            is_postfix,
            identity,
        })
    }

    /// Hands a message with a null sender over to `recipient`, an address in external form. When
    /// this returns, the mail server has the message on its disk.
    ///
    /// # Errors
    /// What went wrong; the message may have been taken all the same when that is `limit`.
    pub(crate) fn hand_over(
        &self,
        recipient: &[u8],
        message: &[u8],
        limit: Duration,
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        // Files in memory: neither side ever waits for the other to read or write.
        let mut input = memory_file().map_err(failed)?;
        input.write_all(message).map_err(failed)?;
        input.rewind().map_err(failed)?;
        let mut complaints = memory_file().map_err(failed)?;
        let stderr = complaints.try_clone().map_err(failed)?;
        let mut command = Command::new(&self.path);
        command.args(["-i", "-f", "<>"]);
        if self.is_postfix {
            // RFC 3461 section 6.1: a notice causes no notice.
            command.args(["-N", "never"]);
        }
        command.arg("--").arg(OsStr::from_bytes(recipient));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/");
        if let Some(directory) = &self.config_directory {
            // The option -C is for root alone, whatever the group.
            command.env("MAIL_CONFIG", directory);
        }
        command.stdin(input).stdout(Stdio::null()).stderr(stderr);
        // Signals for us are none for it.
        command.process_group(0);
        if let Some((uid, gid)) = self.identity {
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().map_err(failed)?;
        match ended_within(child, limit).map_err(failed)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let mut said = Vec::new();
                let _ = complaints.rewind();
                let _ = complaints.take(COMPLAINT_BYTES_MAX).read_to_end(&mut said);
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().next_back().unwrap_or_default().trim();
                Err(format!("{}: {status}: {said}", self.path.display()))
            }
            None => Err(format!(
                "{} did not end within {} s",
                self.path.display(),
                limit.as_secs()
            )),
        }
    }
}

fn is_default(directory: &Path) -> bool {
    directory.as_os_str().is_empty() || directory == Path::new(DEFAULT_CONFIG_DIRECTORY)
}

fn memory_file() -> io::Result<File> {
    Ok(memfd_create("mailstow-notice", MemfdFlags::CLOEXEC)?.into())
}

/// The user without rights and the group of the queue.
fn queue_identity(default_privs: &str, setgid_group: &str) -> Result<(u32, u32), String> {
    match Group::from_name(setgid_group) {
        Ok(Some(group)) => Ok((user_id(default_privs), group.gid.as_raw())),
        _ => Err(format!(
            "setgid_group = {setgid_group} is no group; name that of Postfix's queue"
        )),
    }
}

/// The id of a user, never root's.
fn user_id(name: &str) -> u32 {
    let user = User::from_name(name).ok().flatten();
    user.map_or(NOBODY, |user| match user.uid.as_raw() {
        0 => NOBODY,
        uid => uid,
    })
}

/// Whether postdrop(1) takes mail for that configuration directory from a user without rights.
fn may_submit(config_directory: Option<&Path>, setgid_group: &str) -> Result<(), String> {
    let group = Group::from_name(setgid_group).ok().flatten();
    if group.is_some_and(|group| group.gid == getegid()) {
        return Ok(());
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return Err(format!(
            "this process may not gain the group {setgid_group} (NoNewPrivileges); run it with \
             that group, or allow it"
        ));
    }
    match config_directory {
        Some(directory) if !is_authorised(directory) => Err(format!(
            "postdrop(1) accepts mail for {} from root only; name it in \
             alternate_config_directories of {DEFAULT_CONFIG_DIRECTORY}/main.cf, or run mailstow \
             with the group {setgid_group}",
            directory.display()
        )),
        _ => Ok(()),
    }
}

/// Whether the default `main.cf` names this directory as that of another instance.
fn is_authorised(directory: &Path) -> bool {
    let main_cf = Path::new(DEFAULT_CONFIG_DIRECTORY).join("main.cf");
    let Ok(text) = std::fs::read_to_string(main_cf) else {
        return false;
    };
    let mut names_directories = false;
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| {
            let value = match line.split_once('=') {
                Some((name, value)) if !line.starts_with([' ', '\t']) => {
                    let name = name.trim();
                    names_directories =
                        ["alternate_config_directories", "multi_instance_directories"]
                            .contains(&name);
                    value
                }
                _ => line,
            };
            let mut words = value
                .split([' ', '\t', ','])
                .filter(|word| !word.is_empty());
            names_directories && words.any(|word| Path::new(word) == directory)
        })
}

/// Waits for a command to end; `None` when it took too long and was killed with all it started.
fn ended_within(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            let group = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw);
            if let Ok(group) = group {
                // Whatever is left of the group.
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program is written by another process: no child of this one may hold it open for
    /// writing while it is started.
    fn script(directory: &Path, text: &str) -> Sendmail {
        let path = directory.join("sendmail");
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh", text]).arg(&path);
        assert!(shell.status().unwrap().success());
        Sendmail {
            path,
            config_directory: None,
            is_postfix: true,
            identity: None,
        }
    }

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn the_command_gets_the_recipient_and_the_message() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let text = format!("(echo \"$@\"; cat; env) > {}", out.display());
        let sendmail = script(directory.path(), &text);
        let message = vec![b'x'; 1 << 20];
        sendmail.hand_over(b"\xfc@x", &message, LIMIT).unwrap();
        let got = std::fs::read(out).unwrap();
        assert!(got.starts_with(b"-i -f <> -N never -- \xfc@x\nxxx"));
        assert!(got.len() > message.len());
        assert!(
            !got.windows(5).any(|w| w == b"HOME="),
            "no environment of ours"
        );
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let sendmail = script(
            directory.path(),
            "echo warning >&2; echo 'no queue' >&2; exit 75",
        );
        let error = sendmail.hand_over(b"a@b", b"x", LIMIT).unwrap_err();
        assert!(
            error.contains("75") && error.ends_with(": no queue"),
            "{error}"
        );
        let none = Sendmail {
            path: directory.path().join("none"),
            ..sendmail
        };
        assert!(none.hand_over(b"a@b", b"x", LIMIT).is_err());
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let text = format!(
            "sleep 1000 & echo $! > {}.new; mv {0}.new {0}; wait",
            pid.display()
        );
        let sendmail = script(directory.path(), &text);
        let limit = Duration::from_millis(700);
        let error = sendmail.hand_over(b"a@b", b"x", limit).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
        let Ok(pid) = std::fs::read_to_string(pid) else {
            // It was killed before it had started anything.
            return;
        };
        let process = Path::new("/proc").join(pid.trim()).join("stat");
        let end = Instant::now() + LIMIT;
        let is_dead = |stat: String| stat.contains(") Z ");
        while !std::fs::read_to_string(&process).map_or(true, is_dead) {
            assert!(Instant::now() < end, "it is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_no_way_out() {
        let mut settings = Settings::default();
        settings.routing.sendmail_path = "/nonexistent/sendmail".into();
        let error = Sendmail::find(&settings).unwrap_err();
        assert!(error.contains("/nonexistent/sendmail"), "{error}");
        settings.routing.sendmail_path = "/etc".into();
        assert!(Sendmail::find(&settings).is_err());
    }
}
