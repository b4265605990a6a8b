//! What the value of a parameter may be: parsing, naming and printing, one arm per kind.
//!
//! Each kind carries the setter of its field in [`Settings`], so that text becomes a typed setting
//! in one step. Invariant: a value that is out of its range never reaches [`Settings`].

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listen::ListenAddress;
use super::settings::{MboxLock, Settings};

/// Stores one value.
pub type Set<T> = fn(&mut Settings, T);

/// A word and what choosing it sets.
pub type Word = (&'static str, fn(&mut Settings));

/// The kinds of values.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Any text without control characters.
    Text(Set<String>),
    /// A text whose `$name` stay: who uses it expands them.
    Raw(Set<String>),
    /// A host name.
    Host(Set<String>),
    /// Lookup tables, `type:name`, separated by commas or blanks.
    Tables(Set<String>),
    /// Names, patterns or tables, separated by commas or blanks.
    List(Set<String>),
    /// An absolute path, or nothing.
    Path(Set<PathBuf>),
    /// `yes` or `no`.
    YesNo(Set<bool>),
    /// A size in bytes.
    Bytes(RangeInclusive<u64>, Set<u64>),
    /// A whole number of what the text names.
    Number(&'static str, RangeInclusive<u64>, Set<u64>),
    /// A duration; the range is in seconds.
    Time(RangeInclusive<u64>, Set<Duration>),
    /// Permission bits, octal.
    Mode(Set<u32>),
    /// One of these words.
    Choice(&'static [Word]),
    /// Mailbox locks, in order.
    Locks(Set<Vec<MboxLock>>),
    /// Listen addresses.
    Listen(Set<Vec<ListenAddress>>),
}

impl Kind {
    /// The unit or form of a value, for people.
    pub(super) fn unit(&self) -> String {
        match self {
            Self::Text(_) => "text".into(),
            Self::Raw(_) => "text; $name is not expanded when it is read".into(),
            Self::Host(_) => "host name".into(),
            Self::Tables(_) => "tables type:name, separated by commas or blanks".into(),
            Self::List(_) => "list, separated by commas or blanks".into(),
            Self::Path(_) => "absolute path".into(),
            Self::YesNo(_) => "yes or no".into(),
            Self::Bytes(..) => "bytes; in mailstow.toml also like \"50M\"".into(),
            Self::Number(unit, ..) => (*unit).into(),
            Self::Time(..) => "time in s, m, h, d or w; a bare number is seconds".into(),
            Self::Mode(_) => "octal permission bits".into(),
            Self::Choice(words) => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                words.join(", ")
            }
            Self::Locks(_) => "list of fcntl, flock, dotlock".into(),
            Self::Listen(_) => "list of unix:PATH, inet:HOST:PORT or path".into(),
        }
    }

    /// Reads `text` into its field. `suffixes` allows `50M` for sizes, which Postfix does not
    /// know. An error says what is wrong and what is allowed.
    pub(super) fn apply(
        &self,
        text: &str,
        suffixes: bool,
        settings: &mut Settings,
    ) -> Result<(), String> {
        let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        match self {
            Self::Text(set) | Self::Raw(set) => set(settings, plain(text)?),
            Self::Host(set) => set(settings, host(text)?),
            Self::Tables(set) | Self::List(set) => set(settings, text.to_owned()),
            Self::Path(set) => set(settings, path(text)?),
            Self::YesNo(set) => set(settings, yes_no(text)?),
            Self::Bytes(range, set) => set(settings, within(bytes(text, suffixes)?, range)?),
            Self::Number(_, range, set) => set(settings, within(number(text)?, range)?),
            Self::Time(range, set) => {
                set(
                    settings,
                    Duration::from_secs(within(seconds(text)?, range)?),
                );
            }
            Self::Mode(set) => set(settings, mode(text)?),
            Self::Choice(words) => {
                let chosen = words.iter().find(|(word, _)| *word == text);
                let (_, set) = chosen.ok_or_else(|| format!("use one of {}", self.unit()))?;
                set(settings);
            }
            Self::Locks(set) => set(settings, locks(text)?),
            Self::Listen(set) => set(settings, listen(text)?),
        }
        Ok(())
    }

    /// As [`Kind::toml`], for a value in which `$name` was expanded: what looks like it is text.
    pub(super) fn effective_toml(&self, value: &str) -> String {
        match self {
            Self::Raw(_) => self.toml(value),
            _ => self.toml(&value.replace('$', "$$")),
        }
    }

    /// The value as `mailstow.toml` has it: sizes and counts bare, everything else quoted.
    pub(super) fn toml(&self, text: &str) -> String {
        let bare = matches!(self, Self::Bytes(..) | Self::Number(..))
            && text
                .parse::<i64>()
                .is_ok_and(|number| number.to_string() == text);
        if bare {
            text.to_owned()
        } else {
            toml_edit::Value::from(text).to_string()
        }
    }
}

fn plain(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) {
        return Err("it holds a control character; write it on one line".into());
    }
    Ok(text.to_owned())
}

fn host(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) || text.starts_with('.') {
        return Err("this is no host name; use letters, digits, hyphens and dots".into());
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !text.is_empty() && !path.is_absolute() {
        return Err("the path is relative; write it from / on".into());
    }
    if text.contains(char::is_control) {
        return Err("the path holds a control character".into());
    }
    Ok(path.to_owned())
}

fn yes_no(text: &str) -> Result<bool, String> {
    if text.eq_ignore_ascii_case("yes") {
        Ok(true)
    } else if text.eq_ignore_ascii_case("no") {
        Ok(false)
    } else {
        Err("use yes or no".into())
    }
}

fn number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| "this is no whole number; use digits only".into())
}

fn within(value: u64, range: &RangeInclusive<u64>) -> Result<u64, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!(
            "use a value from {} to {}",
            range.start(),
            range.end()
        ))
    }
}

fn bytes(text: &str, suffixes: bool) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) if suffixes => (text.get(..at), 1 << 10),
        Some((at, 'm' | 'M')) if suffixes => (text.get(..at), 1 << 20),
        Some((at, 'g' | 'G')) if suffixes => (text.get(..at), 1 << 30),
        _ => (Some(text), 1_u64),
    };
    number(digits.unwrap_or_default())
        .ok()
        .and_then(|value| value.checked_mul(unit))
        .ok_or_else(|| match suffixes {
            true => "this is no size; use a number of bytes, or one with K, M or G".into(),
            false => "this is no size; use a number of bytes".into(),
        })
}

/// A number with an optional unit, as postconf(5) writes times.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        Some((at, 'w')) => (text.get(..at), 604_800),
        _ => (Some(text), 1_u64),
    };
    number(digits.unwrap_or_default())
        .ok()
        .and_then(|value| value.checked_mul(unit))
        .ok_or_else(|| "this is no time; use a number with s, m, h, d or w after it".into())
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| octal && *mode <= 0o777)
        .ok_or_else(|| "use octal permission bits from 0 to 0777, like 0660".into())
}

/// The items of a list: separated by commas and blanks.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace())
        .filter(|item| !item.is_empty())
}

fn locks(text: &str) -> Result<Vec<MboxLock>, String> {
    let mut locks = Vec::new();
    for item in items(text) {
        let lock = match item {
            "fcntl" => MboxLock::Fcntl,
            "flock" => MboxLock::Flock,
            "dotlock" => MboxLock::Dotlock,
            _ => {
                return Err(format!(
                    "unknown lock \"{item}\"; use fcntl, flock or dotlock"
                ));
            }
        };
        if !locks.contains(&lock) {
            locks.push(lock);
        }
    }
    if locks.is_empty() {
        return Err("an mbox needs a lock; use fcntl, flock or dotlock".into());
    }
    Ok(locks)
}

fn listen(text: &str) -> Result<Vec<ListenAddress>, String> {
    let mut addresses = Vec::new();
    for item in items(text) {
        let address = item.parse().map_err(|error| format!("{error}"))?;
        if addresses.contains(&address) {
            return Err(format!("{address} is named twice; name it once"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_units_of_postfix() {
        for (text, expected) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("2h", 7200),
            ("1d", 86_400),
            ("1w", 604_800),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "1.5h",
            "-1",
            "1h30m",
            "10 m",
            "10M",
            "99999999999999999999w",
            "é",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_suffixes_only_where_postfix_does_not_read_them() {
        assert_eq!(bytes("51200000", false), Ok(51_200_000));
        assert!(bytes("50M", false).is_err());
        assert_eq!(bytes("50M", true), Ok(50 << 20));
        assert_eq!(bytes("4k", true), Ok(4096));
        assert!(bytes("20000000000G", true).is_err());
        assert!(bytes("", true).is_err() && bytes("M", true).is_err());
    }

    #[test]
    fn permission_bits_are_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("0o600"), Ok(0o600));
        assert_eq!(mode("666"), Ok(0o666));
        for text in ["", "888", "1777", "+7", "0x1"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn locks_keep_their_order_and_unknown_ones_are_named() {
        assert_eq!(
            locks("dotlock, fcntl"),
            Ok(vec![MboxLock::Dotlock, MboxLock::Fcntl])
        );
        assert!(
            locks("fcntl lockf")
                .expect_err("lockf")
                .contains("\"lockf\"")
        );
        assert!(locks("").is_err());
    }

    #[test]
    fn words_and_booleans_outside_their_set_are_refused() {
        assert_eq!(yes_no("YES"), Ok(true));
        assert!(yes_no("true").is_err() && yes_no("").is_err());
        assert!(host("a b").is_err() && host("").is_err() && host("mail.example").is_ok());
        assert!(path("vhosts").is_err() && path("").is_ok() && path("/var/mail").is_ok());
        assert!(number("+1").is_err() && number("0x10").is_err());
    }
}
