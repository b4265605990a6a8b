//! A whole mail site: Postfix in front, mailstow behind it, joined in one of three ways.

use std::path::PathBuf;

use crate::mailstow::executable_for_all;
use crate::postfix::Builder;
use crate::{Mailstow, Postfix, eventually};

/// How Postfix hands mail over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// `virtual_transport = lmtp:unix:PATH`
    LmtpUnix,
    /// `virtual_transport = lmtp:inet:HOST:PORT`
    LmtpInet,
    /// A pipe(8) service that runs `mailstow deliver`.
    Pipe,
}

/// The uid and gid that own all mailboxes of a site.
pub const OWNER: u32 = 5000;

/// Both servers, running.
pub struct Site {
    /// In front.
    pub postfix: Postfix,
    /// Behind; none when mail goes through pipe(8).
    pub store: Option<Mailstow>,
}

impl Site {
    /// Joins and starts both. mailstow reads the `main.cf` of `postfix`, unless `store` has a
    /// separate configuration.
    pub fn start(
        postfix: Builder,
        handover: Handover,
        store: Option<crate::mailstow::Builder>,
    ) -> Self {
        let base = postfix.scratch().mkdir_owned("vhosts", OWNER, OWNER);
        postfix
            .scratch()
            .mkdir_owned("vhosts/example.com", OWNER, OWNER);
        assert!(base.is_dir());
        let (postfix, store) = if handover == Handover::Pipe {
            (piped(postfix), None)
        } else {
            let store =
                store.unwrap_or_else(|| Mailstow::build("store").postfix(&postfix.directory()));
            let address = match handover {
                Handover::LmtpInet => store.inet(),
                _ => store.unix(),
            };
            let line = format!("virtual_transport = lmtp:{}", address.spelled());
            (postfix.main_cf(&line), Some(store))
        };
        postfix.write();
        let store = store.map(crate::mailstow::Builder::start);
        Self {
            postfix: postfix.start(),
            store,
        }
    }

    /// A path below `virtual_mailbox_base`.
    pub fn mailbox(&self, name: &str) -> PathBuf {
        self.postfix.scratch().join("vhosts").join(name)
    }

    /// Waits until the store answers `RCPT TO` with this code (a changed table was taken up).
    /// Nothing to wait for with pipe(8): each delivery reads the tables anew.
    pub fn wait_for_recipient(&self, recipient: &str, code: u16) {
        let Some(store) = &self.store else { return };
        let what = format!("{code} for {recipient}");
        eventually(&what, std::time::Duration::from_secs(10), || {
            let mut client = store.client();
            client.command("MAIL FROM:<probe@client.example>");
            let reply = client.command(format!("RCPT TO:<{recipient}>"));
            (reply.code == code).then_some(())
        });
    }
}

fn piped(postfix: Builder) -> Builder {
    let service = format!(
        "mailstow unix - n n - - pipe\n  flags= user=vmail argv={} deliver --postfix @DIR@ \
         -f ${{sender}} -o ${{original_recipient}} -- ${{recipient}}",
        executable_for_all(postfix.scratch()).display()
    );
    postfix
        .user("vmail", OWNER)
        .master_cf(&service)
        .main_cf("virtual_transport = mailstow:\nmailstow_destination_recipient_limit = 1")
}
