//! The command line.

use crate::servers::{KINDS, Kind};

const USAGE: &str = "\
usage: benches/peers/compare [option...]
  --servers LIST    of mailstow,dovecot,dovecot-tuned,dovecot24,dovecot24-tuned,postfix
                    (mailstow,dovecot,dovecot-tuned,postfix; with $DOVECOT24 all)
  --format NAME     maildir or mbox (maildir)
  --seconds N       of each window; shorter ones leave write-back out (30)
  --bytes N         of each message (4096)
  --sessions N      at once (64)
  --mailboxes N     that the messages are spread over (16)
  --rounds N        of which the median is taken (3)
  --gib N           of the file system, a sparse file (32)
MAILSTOW=PATH names the binary to measure, DOVECOT24=PATH the prefix of a Dovecot 2.4 that was
built from source.";

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) servers: Vec<Kind>,
    pub(crate) is_mbox: bool,
    pub(crate) seconds: usize,
    pub(crate) bytes: usize,
    pub(crate) sessions: usize,
    pub(crate) mailboxes: usize,
    pub(crate) rounds: usize,
    pub(crate) gib: usize,
}

impl Options {
    /// Reads the command line; an error is what to print.
    pub(crate) fn read() -> Result<Self, String> {
        let has_24 = std::env::var_os("DOVECOT24").is_some();
        let mut options = Self {
            servers: KINDS.to_vec(),
            is_mbox: false,
            seconds: 30,
            bytes: 4096,
            sessions: 64,
            mailboxes: 16,
            rounds: 3,
            gib: 32,
        };
        options
            .servers
            .retain(|kind| has_24 || !matches!(kind, Kind::Dovecot24 { .. }));
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" {
                return Err(USAGE.to_owned());
            }
            let value = arguments.next();
            let value = value.ok_or_else(|| format!("{argument} wants a value"))?;
            let number = || match value.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{argument} {value}: use a number above 0")),
            };
            match argument.as_str() {
                "--servers" => options.servers = servers(&value, has_24)?,
                "--format" if value == "maildir" || value == "mbox" => {
                    options.is_mbox = value == "mbox";
                }
                "--seconds" => options.seconds = number()?,
                "--bytes" => options.bytes = number()?,
                "--sessions" => options.sessions = number()?,
                "--mailboxes" => options.mailboxes = number()?,
                "--rounds" => options.rounds = number()?,
                "--gib" => options.gib = number()?,
                _ => return Err(format!("{argument} {value}: not known\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

fn servers(list: &str, has_24: bool) -> Result<Vec<Kind>, String> {
    let kind = |name: &str| {
        let kind = KINDS.iter().find(|kind| kind.name() == name);
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        let kind = kind.ok_or_else(|| format!("--servers {name}: use {}", names.join(", ")))?;
        if matches!(kind, Kind::Dovecot24 { .. }) && !has_24 {
            return Err(format!(
                "--servers {name}: set DOVECOT24 to the prefix of a Dovecot 2.4 built from source"
            ));
        }
        Ok(*kind)
    };
    list.split(',').map(kind).collect()
}
