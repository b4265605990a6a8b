//! What local delivery makes of a recipient: one end of its mail, and how the mail differs there.
//!
//! An alias or a `.forward` file may give a recipient many ends. Each says where its mail goes,
//! which sender it has then, and through whom it went.

use super::mailbox_target::{MailboxTarget, TransportTarget};
use crate::octets;
use crate::status::Status;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// One end of the mail for a local recipient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalTarget {
    /// Where the mail goes.
    pub end: LocalEnd,
    /// The sender that takes the place of the message's, in external form: the owner of a list;
    /// empty for the null reverse-path.
    pub sender: Option<String>,
    /// The `Delivered-To:` lines that mail has got which was sent on, the first one first; in
    /// external form.
    pub sent_on_from: Vec<String>,
    /// Who the mail was for at first, in external form, where a list with an owner hides that;
    /// empty: it is not told. `None`: as the message has it.
    pub original: Option<String>,
    /// The local recipients that the mail was for on its way here, in internal form, folded. A
    /// message that was delivered to one of them before goes round in a loop.
    pub passed: Vec<String>,
}

/// Where mail for a local recipient goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LocalEnd {
    /// The mailbox of an account, or a file that an alias names. Its path is below `/`.
    Account(MailboxTarget),
    /// A command.
    Command(CommandTarget),
    /// It is taken and thrown away.
    Discarded,
    /// It is not taken there, for this reason.
    Failed(Status),
    /// It is sent on to a virtual mailbox.
    Mailbox(MailboxTarget),
    /// It is sent on by a transport.
    Transport(TransportTarget),
}

/// A command that takes mail, with its values for the recipient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommandTarget {
    /// As it stands in the alias, without the `|`.
    pub command: String,
    /// User id that it runs as; never 0.
    pub uid: u32,
    /// Group id that it runs as; never 0.
    pub gid: u32,
    /// HOME: of whose aliases it is part; `None` for those of root.
    pub home: Option<PathBuf>,
    /// SHELL, as HOME.
    pub shell: Option<PathBuf>,
    /// USER and LOGNAME: the local part without its extension, folded.
    pub user: String,
    /// LOCAL: the local part, folded.
    pub local_part: String,
    /// EXTENSION, without its delimiter.
    pub extension: Option<String>,
    /// RECIPIENT, in internal form.
    pub recipient: String,
    /// DOMAIN, folded.
    pub domain: String,
}

impl LocalTarget {
    /// Returns roughly how many bytes of memory it takes beside itself.
    pub fn text_bytes(&self) -> usize {
        let texts = |texts: &[String]| {
            texts
                .iter()
                .map(|text| text.len() + size_of::<String>())
                .sum()
        };
        let end = match &self.end {
            LocalEnd::Account(target) | LocalEnd::Mailbox(target) => target.path.len(),
            LocalEnd::Command(target) => {
                target.command.len()
                    + 2 * target.recipient.len()
                    + 2 * target.local_part.len()
                    + 100
            }
            LocalEnd::Discarded => 0,
            LocalEnd::Failed(status) => status.text.len(),
            LocalEnd::Transport(target) => target.transport.len() + target.nexthop.len(),
        };
        let (on, passed): (usize, usize) = (texts(&self.sent_on_from), texts(&self.passed));
        size_of::<Self>() + end + on + passed + self.sender.as_ref().map_or(0, String::len)
    }
}

/// The name of the transport that runs commands of local delivery.
pub(crate) const LOCAL: &str = "local";

impl CommandTarget {
    /// Returns the target of the transport that runs the command.
    pub(crate) fn transport(&self) -> TransportTarget {
        let path = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| path.as_os_str().as_bytes());
            path.map(|path| octets::text(path).into_owned())
        };
        let optional = |text: Option<String>| match text {
            Some(text) => format!("={text}"),
            None => String::new(),
        };
        let fields = [
            self.uid.to_string(),
            self.gid.to_string(),
            self.command.clone(),
            optional(path(&self.home)),
            optional(path(&self.shell)),
            self.user.clone(),
            self.local_part.clone(),
            optional(self.extension.clone()),
            self.recipient.clone(),
            self.domain.clone(),
        ];
        // Neither words of commands nor their environment have NUL.
        let fields = fields.map(|field| field.replace('\0', "_"));
        TransportTarget {
            transport: LOCAL.to_owned(),
            nexthop: fields.join("\0"),
        }
    }

    /// Returns the command of a target of [`CommandTarget::transport`].
    pub(crate) fn of_transport(target: &TransportTarget) -> Option<Self> {
        let mut fields = target.nexthop.split('\0');
        let optional = |text: &str| text.strip_prefix('=').map(str::to_owned);
        let path = |text: &str| optional(text).map(|text| octets::path(&text).into_owned());
        Some(Self {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            command: fields.next()?.to_owned(),
            home: path(fields.next()?),
            shell: path(fields.next()?),
            user: fields.next()?.to_owned(),
            local_part: fields.next()?.to_owned(),
            extension: optional(fields.next()?),
            recipient: fields.next()?.to_owned(),
            domain: fields.next()?.to_owned(),
        })
    }
}

impl fmt::Display for CommandTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "|{}", self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_the_same_when_a_transport_has_it() {
        let command = CommandTarget {
            command: "/bin/cmd -x \"$EXTENSION\"".into(),
            uid: 1000,
            gid: 100,
            home: Some("/home/joe".into()),
            shell: None,
            user: "joe".into(),
            local_part: "joe+".into(),
            extension: Some(String::new()),
            recipient: "Joe+@origin.example".into(),
            domain: "origin.example".into(),
        };
        let target = command.transport();
        assert_eq!(target.transport, LOCAL);
        assert_eq!(CommandTarget::of_transport(&target), Some(command));
        let other = TransportTarget {
            nexthop: "origin.example".into(),
            ..target
        };
        assert_eq!(CommandTarget::of_transport(&other), None);
    }
}
