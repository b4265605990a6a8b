//! The arguments of a pipe(8) service in master.cf: user, command and flags.
//!
//! Source: Postfix pipe(8). Arguments with which pipe(8) does not start are errors here.

use std::path::PathBuf;

/// The attributes of a service's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `user=`: name of the user, and of the group when it is not that of the user.
    pub(super) user: String,
    pub(super) group: Option<String>,
    /// `argv=`: the words of the command; at least one.
    pub(super) argv: Vec<String>,
    pub(super) flags: Flags,
    /// `size=`: bytes of the largest message; 0 for any.
    pub(super) size_limit: u64,
    /// `eol=`: the line end.
    pub(super) eol: Vec<u8>,
    /// `null_sender=`: the text for the null reverse-path.
    pub(super) null_sender: String,
    /// `directory=`: the working directory of the command.
    pub(super) directory: Option<PathBuf>,
}

/// `flags=`, by their letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `B`
    pub(super) blank_line_at_end: bool,
    /// `D`
    pub(super) delivered_to: bool,
    /// `F`
    pub(super) envelope_line: bool,
    /// `O`
    pub(super) original_to: bool,
    /// `R`
    pub(super) return_path: bool,
    /// `.`
    pub(super) stuff_dots: bool,
    /// `>`
    pub(super) quote_from: bool,
    /// `h`
    pub(super) fold_domain: bool,
    /// `u`
    pub(super) fold_user: bool,
    /// `q`
    pub(super) quote_local_part: bool,
    /// `X`
    pub(super) is_final: bool,
}

impl Flags {
    fn set(&mut self, flag: char) -> Result<(), String> {
        match flag {
            'B' => self.blank_line_at_end = true,
            'D' => self.delivered_to = true,
            'F' => self.envelope_line = true,
            'O' => self.original_to = true,
            'R' => self.return_path = true,
            'X' => self.is_final = true,
            '.' => self.stuff_dots = true,
            '>' => self.quote_from = true,
            'h' => self.fold_domain = true,
            'u' => self.fold_user = true,
            'q' => self.quote_local_part = true,
            flag => return Err(format!("unknown flag {flag:?} in flags=; remove it")),
        }
        Ok(())
    }
}

impl Attributes {
    /// Reads the arguments of a service.
    ///
    /// # Errors
    /// pipe(8) would not start with them, or they ask for something that is not supported.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut user = None;
        let mut found = Self {
            user: String::new(),
            group: None,
            argv: Vec::new(),
            flags: Flags::default(),
            size_limit: 0,
            eol: b"\n".to_vec(),
            null_sender: "MAILER-DAEMON".to_owned(),
            directory: None,
        };
        for (at, argument) in arguments.iter().enumerate() {
            // Options of the daemon itself, such as -v.
            if argument.starts_with('-') {
                continue;
            }
            let Some((name, value)) = argument.split_once('=') else {
                return Err(format!(
                    "unknown attribute \"{argument}\"; write name=value"
                ));
            };
            match name.to_ascii_lowercase().as_str() {
                "flags" => value.chars().try_for_each(|flag| found.flags.set(flag))?,
                "user" => user = Some(value),
                "size" => {
                    found.size_limit = size(value)
                        .ok_or_else(|| format!("size={value}: use a number of bytes"))?;
                }
                "eol" => found.eol = unescape(value),
                "null_sender" => value.clone_into(&mut found.null_sender),
                "directory" => found.directory = Some(PathBuf::from(value)),
                "chroot" => {
                    return Err(
                        "chroot= is not supported; remove it, and give the command a separate \
                         user"
                            .to_owned(),
                    );
                }
                "argv" => {
                    found.argv.push(value.to_owned());
                    found.argv.extend(arguments.iter().skip(at + 1).cloned());
                    break;
                }
                _ => return Err(format!("unknown attribute {name}=; remove it")),
            }
        }
        let user = user.ok_or("user= is missing; name the user that the command runs as")?;
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        user.clone_into(&mut found.user);
        found.group = (!group.is_empty()).then(|| group.to_owned());
        if found.argv.first().is_none_or(String::is_empty) {
            return Err("argv= is missing; name the command".to_owned());
        }
        Ok(found)
    }
}

/// A size in bytes, with the suffixes of Postfix.
fn size(text: &str) -> Option<u64> {
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let digits = unit.map_or(text, |unit| text.trim_end_matches(unit));
    let factor = match unit.map(|unit| unit.to_ascii_lowercase()) {
        None => 1,
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        Some('g') => 1 << 30,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Replaces the escapes of C in a text.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(escaped) = bytes.next() else {
            out.push(b'\\');
            break;
        };
        out.push(match escaped {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            first @ b'0'..=b'7' => {
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    let digit = bytes.next_if(|byte| (b'0'..=b'7').contains(byte));
                    let Some(digit) = digit else { break };
                    value = value * 8 + u32::from(digit - b'0');
                }
                u8::try_from(value & 0xff).unwrap_or_default()
            }
            other => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Attributes, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Attributes::parse(&words)
    }

    #[test]
    fn the_maildrop_service_of_debian_is_understood() {
        let found = parse("-v flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}");
        let found = found.unwrap();
        assert_eq!(found.user, "vmail");
        assert_eq!(found.argv, ["/usr/bin/maildrop", "-d", "${recipient}"]);
        let flags = Flags {
            delivered_to: true,
            return_path: true,
            fold_domain: true,
            fold_user: true,
            is_final: true,
            ..Flags::default()
        };
        assert_eq!(found.flags, flags);
    }

    #[test]
    fn every_attribute_is_read() {
        let found = parse(
            "FLAGS=q user=v:mail size=10K eol=\\r\\n\\101 null_sender= directory=/tmp argv=x a=b",
        )
        .unwrap();
        assert_eq!(found.group.as_deref(), Some("mail"));
        assert_eq!(found.size_limit, 10_240);
        assert_eq!(found.eol, b"\r\nA");
        assert_eq!(found.null_sender, "");
        assert_eq!(found.directory, Some(PathBuf::from("/tmp")));
        assert_eq!(found.argv, ["x", "a=b"]);
    }

    #[test]
    fn what_pipe_would_not_start_with_is_refused_with_its_reason() {
        for (text, reason) in [
            ("argv=/bin/cat", "user= is missing"),
            ("user=v", "argv= is missing"),
            ("user=v argv=", "argv= is missing"),
            ("user=v flags=Z argv=x", "unknown flag 'Z'"),
            ("user=v size=ten argv=x", "size=ten"),
            ("user=v chroot=/j argv=x", "chroot= is not supported"),
            ("user=v what=x argv=x", "unknown attribute what="),
            ("user=v word argv=x", "unknown attribute \"word\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
