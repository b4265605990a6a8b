//! `MAIL FROM` and `RCPT TO` with their parameters.
//!
//! Imports `reply` and the engine's addresses. Sources: RFC 5321 sections 4.1.1.2 and 4.1.1.3,
//! RFC 1870 (SIZE), RFC 6152 and RFC 3030 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (DSN).

use super::xtext::{decode_utf8_address, decode_xtext};
use super::{Paths, params};
use crate::reply::Reply;
use mailstow_engine::ReversePath;
use mailstow_engine::address::{Address, parse_address, parse_mailbox};

/// The `BODY` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Body {
    /// `7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `8BITMIME`
    EightBitMime,
    /// `BINARYMIME`: the message must come by `BDAT`.
    BinaryMime,
}

/// `MAIL FROM`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailCommand {
    /// Where failure notices go.
    pub reverse_path: ReversePath,
    /// Octets the client expects the message to have; a count beyond `u64` is `u64::MAX`.
    pub size: Option<u64>,
    /// Kind of content.
    pub body: Body,
    /// The client may send UTF-8 in addresses and header fields.
    pub smtputf8: bool,
}

/// `RCPT TO`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcptCommand {
    /// The forward-path.
    pub address: Address,
    /// `ORCPT`, decoded and without its address type; empty when not given or of a type that is
    /// no mail address.
    pub original: String,
}

impl RcptCommand {
    /// Whether the forward-path needs SMTPUTF8 (RFC 6531 section 3.3).
    pub fn needs_smtputf8(&self) -> bool {
        !is_ascii(&self.address)
    }
}

impl MailCommand {
    /// Whether the reverse-path needs SMTPUTF8 although it was not announced.
    pub fn lacks_smtputf8(&self) -> bool {
        match &self.reverse_path {
            ReversePath::Null => false,
            ReversePath::Address(address) => !self.smtputf8 && !is_ascii(address),
        }
    }
}

fn is_ascii(address: &Address) -> bool {
    address.local_part.is_ascii() && address.domain.as_deref().is_none_or(str::is_ascii)
}

pub(super) fn mail(args: &str, paths: Paths) -> Result<MailCommand, Reply> {
    let (path, parameters) = split_path(args, "FROM:", paths)
        .map_err(|why| Reply::with_text(501, "5.5.4", format!("Invalid FROM: {why}")))?;
    let reverse_path = parse_address(path)
        .map_err(|e| Reply::with_text(501, "5.1.7", format!("Bad sender address: {e}")))?;
    let mut command = MailCommand {
        reverse_path,
        size: None,
        body: Body::default(),
        smtputf8: false,
    };
    params::each(parameters, |keyword, value| {
        let bad = || params::bad_value(keyword);
        match (keyword, value) {
            ("SIZE", Some(digits)) => {
                if digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(bad());
                }
                command.size = Some(digits.parse().unwrap_or(u64::MAX));
            }
            ("BODY", Some(body)) => command.body = parse_body(body).ok_or_else(bad)?,
            ("SMTPUTF8", None) => command.smtputf8 = true,
            ("RET", Some(ret)) => {
                let known = ret.eq_ignore_ascii_case("FULL") || ret.eq_ignore_ascii_case("HDRS");
                known.then_some(()).ok_or_else(bad)?;
            }
            ("ENVID", Some(id)) => decode_xtext(id).map(drop).ok_or_else(bad)?,
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => return Err(bad()),
            _ => return Err(params::unsupported()),
        }
        Ok(())
    })?;
    Ok(command)
}

pub(super) fn rcpt(args: &str, paths: Paths) -> Result<RcptCommand, Reply> {
    let (path, parameters) = split_path(args, "TO:", paths)
        .map_err(|why| Reply::with_text(501, "5.5.4", format!("Invalid TO: {why}")))?;
    let address = parse_mailbox(path)
        .map_err(|e| Reply::with_text(501, "5.1.3", format!("Bad recipient address: {e}")))?;
    let mut original = String::new();
    params::each(parameters, |keyword, value| {
        let bad = || params::bad_value(keyword);
        match (keyword, value) {
            ("NOTIFY", Some(when)) => is_notify(when).then_some(()).ok_or_else(bad)?,
            ("ORCPT", Some(value)) => original = parse_orcpt(value).ok_or_else(bad)?,
            ("NOTIFY" | "ORCPT", None) => return Err(bad()),
            _ => return Err(params::unsupported()),
        }
        Ok(())
    })?;
    Ok(RcptCommand { address, original })
}

fn parse_body(body: &str) -> Option<Body> {
    [
        ("7BIT", Body::SevenBit),
        ("8BITMIME", Body::EightBitMime),
        ("BINARYMIME", Body::BinaryMime),
    ]
    .into_iter()
    .find_map(|(name, kind)| body.eq_ignore_ascii_case(name).then_some(kind))
}

/// `NEVER`, or a list of the others (RFC 3461 section 4.1).
fn is_notify(value: &str) -> bool {
    value.eq_ignore_ascii_case("NEVER")
        || value.split(',').all(|when| {
            ["SUCCESS", "FAILURE", "DELAY"]
                .iter()
                .any(|known| when.eq_ignore_ascii_case(known))
        })
}

/// `addr-type ";" xtext` (RFC 3461 section 4.2, RFC 6533 section 3).
fn parse_orcpt(value: &str) -> Option<String> {
    let (kind, encoded) = value.split_once(';')?;
    if kind.is_empty() || encoded.is_empty() {
        return None;
    }
    if kind.eq_ignore_ascii_case("utf-8") {
        decode_utf8_address(encoded)
    } else if kind.eq_ignore_ascii_case("rfc822") {
        decode_xtext(encoded)
    } else {
        Some(String::new())
    }
}

/// Splits `FROM:<path> parameters` into path and parameters.
fn split_path<'a>(
    args: &'a str,
    keyword: &str,
    paths: Paths,
) -> Result<(&'a str, &'a str), &'static str> {
    let (head, mut rest) = args.split_at_checked(keyword.len()).unwrap_or((args, ""));
    if !head.eq_ignore_ascii_case(keyword) {
        return Err("Missing the path");
    }
    if rest.starts_with([' ', '\t']) {
        if paths == Paths::Strict {
            return Err("Unexpected whitespace before path");
        }
        rest = rest.trim_ascii_start();
    }
    let (path, after) = match rest.strip_prefix('<') {
        Some(inside) => {
            let end = path_end(inside, |c| c == '>').ok_or("Missing '>'")?;
            let (path, after) = inside.split_at(end);
            (path, after.strip_prefix('>').unwrap_or(after))
        }
        None if paths == Paths::Strict => return Err("Missing '<'"),
        None => {
            let end = path_end(rest, |c| c == ' ' || c == '\t').unwrap_or(rest.len());
            if end == 0 {
                return Err("Missing the path");
            }
            rest.split_at(end)
        }
    };
    if !after.is_empty() && !after.starts_with([' ', '\t']) {
        return Err("Unexpected text after the path");
    }
    Ok((path, after.trim_ascii_start()))
}

/// Where the first unquoted `is_end` character stands.
fn path_end(text: &str, is_end: impl Fn(char) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        } else if !quoted && is_end(c) {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<impl std::fmt::Debug, Reply>) -> (u16, &'static str) {
        let reply = result.unwrap_err();
        (reply.code, reply.enhanced)
    }

    fn from(args: &str) -> Result<MailCommand, Reply> {
        mail(args, Paths::Strict)
    }

    fn to(args: &str) -> Result<RcptCommand, Reply> {
        rcpt(args, Paths::Strict)
    }

    #[test]
    fn mail_as_postfix_sends_it_is_understood() {
        let command = from("FROM:<s@x> SIZE=1505 ENVID=AA+2B RET=FULL SMTPUTF8 BODY=8BITMIME");
        let command = command.unwrap();
        assert_eq!(command.reverse_path.to_string(), "s@x");
        assert_eq!(command.size, Some(1505));
        assert_eq!(command.body, Body::EightBitMime);
        assert!(command.smtputf8);
        assert_eq!(from("from:<>").unwrap().reverse_path, ReversePath::Null);
    }

    #[test]
    fn rcpt_as_postfix_sends_it_is_understood() {
        let line =
            "TO:<\"a b\"@vm.example> ORCPT=rfc822;loc+2Be@origin.example NOTIFY=SUCCESS,DELAY";
        let command = to(line).unwrap();
        assert_eq!(command.address.external(), "\"a b\"@vm.example");
        assert_eq!(command.original, "loc+e@origin.example");
        let command = to("TO:<a@b> ORCPT=utf-8;\\x{FC}@x").unwrap();
        assert_eq!(command.original, "ü@x");
        assert_eq!(to("TO:<a@b> ORCPT=x400;foo").unwrap().original, "");
        assert_eq!(to("TO:<postmaster>").unwrap().address.domain, None);
        let quoted = to("TO:<\"a>b\\\"c\"@x> NOTIFY=NEVER").unwrap();
        assert_eq!(quoted.address.local_part, "a>b\"c");
    }

    #[test]
    fn what_we_never_offered_is_unsupported_and_what_we_offer_has_a_syntax() {
        for args in ["FROM:<a@b> AUTH=<>", "FROM:<a@b> FOO=1", "FROM:<a@b> FOO"] {
            assert_eq!(refused(from(args)), (555, "5.5.4"), "{args}");
        }
        assert_eq!(refused(to("TO:<a@b> FOO=1")), (555, "5.5.4"));
        for args in [
            "FROM:<a@b> SIZE=x",
            "FROM:<a@b> SIZE",
            "FROM:<a@b> SIZE=",
            "FROM:<a@b> BODY=9BIT",
            "FROM:<a@b> SMTPUTF8=1",
            "FROM:<a@b> RET=SOME",
            "FROM:<a@b> ENVID=+zz",
            "FROM:<a@b> SIZE=1 SIZE=1",
            "FROM:<a@b> =1",
            "FROM:<a@b> -X=1",
            "FROM:<a@b> SIZE=123456789012345678901",
        ] {
            assert_eq!(refused(from(args)), (501, "5.5.4"), "{args}");
        }
        for args in [
            "NOTIFY=NOW",
            "NOTIFY=NEVER,DELAY",
            "ORCPT=a@b",
            "ORCPT=rfc822;a+0Ab",
        ] {
            assert_eq!(
                refused(to(&format!("TO:<a@b> {args}"))),
                (501, "5.5.4"),
                "{args}"
            );
        }
        assert_eq!(
            from("FROM:<a@b> SIZE=99999999999999999999").unwrap().size,
            Some(u64::MAX)
        );
    }

    #[test]
    fn paths_are_strict_unless_told_otherwise() {
        for args in [
            "",
            "FROM",
            "FROM:",
            "FROM:a@b",
            "FROM: <a@b>",
            "FROM:<a@b",
            "FROM:<a@b>x",
            "TO:<a@b>",
            "FROM <a@b>",
            "FROM:<a@b>>",
        ] {
            assert_eq!(refused(from(args)), (501, "5.5.4"), "{args:?}");
        }
        for args in ["FROM:a@b", "FROM: <a@b>", "FROM: a@b SIZE=1"] {
            let command = mail(args, Paths::Lenient).unwrap();
            assert_eq!(command.reverse_path.to_string(), "a@b", "{args:?}");
        }
        assert!(mail("FROM:", Paths::Lenient).is_err());
    }

    #[test]
    fn bad_addresses_name_the_side_they_stand_on() {
        assert_eq!(refused(from("FROM:<a b@c>")), (501, "5.1.7"));
        assert_eq!(refused(to("TO:<>")), (501, "5.1.3"));
        assert_eq!(refused(to("TO:<a@>")), (501, "5.1.3"));
    }

    #[test]
    fn addresses_beyond_ascii_need_smtputf8() {
        assert!(from("FROM:<ü@x>").unwrap().lacks_smtputf8());
        assert!(!from("FROM:<ü@x> SMTPUTF8").unwrap().lacks_smtputf8());
        assert!(to("TO:<a@ü.example>").unwrap().needs_smtputf8());
        assert!(!to("TO:<a@x> ORCPT=utf-8;ü@x").unwrap().needs_smtputf8());
    }
}
