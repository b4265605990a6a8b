//! A command of local delivery: its words, its environment, and the meaning of its exit status.
//!
//! Source: Postfix local(8), aliases(5). A command without shell characters runs without a shell.
//! Values of the envelope are passed in the environment only, with `_` in place of characters that
//! `command_expansion_filter` does not allow.

use super::attributes::{Attributes, Flags};
use super::child::Wanted;
use super::content;
use super::outcome::{self, End};
use super::run::{self, Failed};
use crate::address::ReversePath;
use crate::envelope::Recipient;
use crate::mail::Mail;
use crate::octets;
use crate::status::Status;
use crate::target::CommandTarget;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Characters that have no meaning to a shell, without blanks.
const PLAIN: &str = "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

const SHELL: &str = "/bin/sh";

/// Settings of commands of local delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: PathBuf,
    /// `command_expansion_filter`
    pub(super) filter: String,
    /// `local_command_shell`: its words.
    pub(super) shell: Vec<String>,
    pub(super) time_limit: Duration,
    /// User and group of this process.
    pub(super) own: (u32, u32),
}

/// Delivers a message by a run of the command. Waits for it.
pub(super) fn run(
    manner: &Manner,
    mail: &Mail,
    target: &CommandTarget,
    recipient: &Recipient,
    deadline: Instant,
) -> Status {
    let CommandTarget {
        command, uid, gid, ..
    } = target;
    let owner = match manner.own {
        // Nothing runs as root, whatever the target says.
        (0, _) if *uid == 0 || *gid == 0 => {
            tracing::error!("|{command}: commands are not run with the rights of root");
            return Status::configuration("mail system configuration error");
        }
        own if own == (*uid, *gid) => None,
        (0, _) if *uid != 0 && *gid != 0 => Some((*uid, *gid)),
        _ => {
            tracing::error!("|{command}: only root can run commands as user id {uid}");
            return Status::configuration("mail system configuration error");
        }
    };
    let mut environment = manner.environment.clone();
    environment.extend(of_message(manner, mail, target, recipient));
    let form = form();
    let start = |argv: &[OsString]| {
        let wanted = Wanted {
            argv,
            environment: &environment,
            directory: &manner.directory,
            owner,
        };
        run::exchange(&wanted, (manner.time_limit, deadline), |exchange| {
            content::render(mail, recipient, &form, |piece| exchange.give(piece))
        })
    };
    let in_shell = || [SHELL, "-c", command].map(OsString::from);
    let ended = match (manner.shell.as_slice(), plain_words(command)) {
        ([], Some(words)) => match start(&words) {
            // A built-in command of the shell.
            Err(Failed::Start(error)) if is_unknown(&error, &words) => start(&in_shell()),
            ended => ended,
        },
        ([], None) => start(&in_shell()),
        (shell, _) => {
            let words = shell.iter().chain([command]);
            start(&words.map(OsString::from).collect::<Vec<_>>())
        }
    };
    match ended {
        Ok((End::Exited(0), _)) => Status::ok(format!("delivered to command: {command}")),
        Ok((end, output)) => outcome::status("local", command, end, &output),
        Err(Failed::Content(error)) => run::not_given(&error),
        Err(Failed::Start(error)) => {
            tracing::error!("cannot run |{command}: {error}");
            Status::system(format!("cannot run the command \"{command}\": {error}"))
        }
    }
}

/// Returns the lines before the message.
fn form() -> Attributes {
    Attributes {
        user: String::new(),
        group: None,
        argv: Vec::new(),
        flags: Flags {
            envelope_line: true,
            return_path: true,
            original_to: true,
            delivered_to: true,
            ..Flags::default()
        },
        size_limit: 0,
        eol: b"\n".to_vec(),
        null_sender: String::new(),
        directory: None,
    }
}

/// Returns the words of a command that needs no shell.
fn plain_words(command: &str) -> Option<Vec<OsString>> {
    let is_plain = |c: char| PLAIN.contains(c) || matches!(c, ' ' | '\t');
    let words = command.split([' ', '\t']).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(OsString::from).collect();
    (command.chars().all(is_plain) && !words.is_empty()).then_some(words)
}

fn is_unknown(error: &io::Error, words: &[OsString]) -> bool {
    let has_path = |word: &OsString| word.as_bytes().contains(&b'/');
    error.kind() == io::ErrorKind::NotFound && !words.first().is_some_and(has_path)
}

/// Returns the environment that describes a message and its recipient.
fn of_message(
    manner: &Manner,
    mail: &Mail,
    target: &CommandTarget,
    recipient: &Recipient,
) -> Vec<(OsString, OsString)> {
    let path = |path: &PathBuf| octets::text(path.as_os_str().as_bytes()).into_owned();
    let sender = match &mail.reverse_path {
        ReversePath::Null => String::new(),
        ReversePath::Address(address) => address.internal(),
    };
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let original = content::original_of(recipient);
    let client = &mail.client;
    let all = [
        ("HOME", target.home.as_ref().map(path)),
        ("LOGNAME", Some(target.user.clone())),
        ("USER", Some(target.user.clone())),
        ("SENDER", Some(sender)),
        ("RECIPIENT", Some(target.recipient.clone())),
        ("LOCAL", Some(target.local_part.clone())),
        ("SHELL", target.shell.as_ref().map(path)),
        ("DOMAIN", some(&target.domain)),
        ("EXTENSION", target.extension.clone()),
        ("ORIGINAL_RECIPIENT", some(&original)),
        ("CLIENT_HOSTNAME", some(&client.name)),
        ("CLIENT_ADDRESS", some(&client.address)),
        ("CLIENT_HELO", some(&client.helo)),
        ("CLIENT_PROTOCOL", some(&client.protocol)),
        ("SASL_SENDER", some(&client.sasl_sender)),
        ("ENVID", mail.dsn.envelope_id.clone()),
    ];
    let known = all.into_iter().filter_map(|(name, value)| {
        let value = filtered(&value?, &manner.filter);
        Some((OsString::from(name), OsString::from_vec(value)))
    });
    known.collect()
}

/// Returns the octets of a text, with `_` in place of those that are not among these characters.
fn filtered(text: &str, filter: &str) -> Vec<u8> {
    let octets = octets::octets(text);
    let allowed = filter.as_bytes();
    let shown = |octet: &u8| match allowed.contains(octet) {
        true => *octet,
        false => b'_',
    };
    octets.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_characters_of_a_shell_is_split_into_words() {
        let words = |command| plain_words(command).map(|words| words.len());
        assert_eq!(words("/usr/bin/procmail  -a x"), Some(3));
        for command in [
            "a | b", "a > /x", "a 'b c'", "a $USER", "(a)", "a; b", "", " ",
        ] {
            assert_eq!(words(command), None, "{command}");
        }
    }

    #[test]
    fn what_a_filter_does_not_have_becomes_an_underscore() {
        assert_eq!(filtered("a b;$(c)\u{e9}", "abc"), b"a_b___c___");
    }
}
