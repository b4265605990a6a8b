//! `MAIL FROM` and `RCPT TO` with their parameters.
//!
//! What comes here was accepted by a mail server, which
//! returns the mail that is refused here. So the content of the envelope is read leniently: any
//! address that can be read is taken, and a parameter whose value means nothing is passed over.
//! Parameters that were never offered are refused (RFC 5321 section 4.1.1.11). Sources: RFC 5321
//! sections 4.1.1.2 and 4.1.1.3, RFC 1870 (SIZE), RFC 6152 and RFC 3030 (BODY), RFC 6531
//! (SMTPUTF8), RFC 3461 (DSN), RFC 4954 (AUTH).

use super::params;
use super::paths::Paths;
use super::xtext::{decode_utf8_address, decode_xtext};
use crate::reply::Reply;
use mailstow_engine::ReversePath;
use mailstow_engine::address::{Address, parse_address, parse_mailbox, parse_original_recipient};
use mailstow_engine::transport::{Notify, RecipientDsn, Returned};

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
    /// The client may be sent UTF-8. It may send UTF-8, and any other octets, in every case.
    pub smtputf8: bool,
    /// `ENVID`, decoded: what the sender calls the message.
    pub envelope_id: Option<String>,
    /// `RET`: what a failure notice returns.
    pub returned: Option<Returned>,
    /// `AUTH`, decoded: who submitted the message; empty when that is not told.
    pub sasl_sender: String,
}

impl MailCommand {
    /// Bytes of its texts.
    pub fn texts(&self) -> usize {
        let path = match &self.reverse_path {
            ReversePath::Null => 0,
            ReversePath::Address(address) => {
                address.local_part.len() + address.domain.as_ref().map_or(0, String::len)
            }
        };
        path + self.envelope_id.as_ref().map_or(0, String::len) + self.sasl_sender.len()
    }
}

/// `RCPT TO`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcptCommand {
    /// The forward-path.
    pub address: Address,
    /// `ORCPT`, decoded and without its address type, in external form; empty when not given or
    /// of a type that is no mail address.
    pub original: String,
    /// Set when the client says which notices the sender wants (`NOTIFY`).
    pub dsn: Option<RecipientDsn>,
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
        envelope_id: None,
        returned: None,
        sasl_sender: String::new(),
    };
    params::each(parameters, |keyword, value| {
        match keyword {
            "SIZE" => command.size = value.and_then(parse_size),
            "BODY" => command.body = value.map_or(Body::SevenBit, parse_body),
            "SMTPUTF8" => command.smtputf8 = true,
            "ENVID" => command.envelope_id = value.map(decode_xtext),
            "RET" => command.returned = value.and_then(parse_returned),
            "AUTH" => command.sasl_sender = value.map_or_else(String::new, parse_submitter),
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
    let (mut original, mut notify) = (None, None);
    params::each(parameters, |keyword, value| {
        match keyword {
            "NOTIFY" => notify = value.and_then(parse_notify),
            "ORCPT" => original = value.map(Original::parse),
            _ => return Err(params::unsupported()),
        }
        Ok(())
    })?;
    Ok(RcptCommand {
        address,
        dsn: notify.map(|notify| RecipientDsn {
            notify: Some(notify),
            original: original.as_ref().map_or_else(String::new, Original::typed),
        }),
        original: original
            .as_ref()
            .map_or_else(String::new, Original::address),
    })
}

/// A size that is no number says nothing.
fn parse_size(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whatever else a client names is no more than a message of lines with any octets.
fn parse_body(body: &str) -> Body {
    match body {
        body if body.eq_ignore_ascii_case("7BIT") => Body::SevenBit,
        body if body.eq_ignore_ascii_case("BINARYMIME") => Body::BinaryMime,
        _ => Body::EightBitMime,
    }
}

/// A `NOTIFY` list (RFC 3461 section 4.1); `None` when it says nothing. `NEVER` has the last word.
fn parse_notify(value: &str) -> Option<Notify> {
    let has = |wanted: &str| {
        value
            .split(',')
            .any(|when| when.eq_ignore_ascii_case(wanted))
    };
    let notify = Notify {
        success: has("SUCCESS"),
        failure: has("FAILURE"),
        delay: has("DELAY"),
    };
    match has("NEVER") {
        true => Some(Notify::default()),
        false => Some(notify).filter(|notify| *notify != Notify::default()),
    }
}

fn parse_returned(value: &str) -> Option<Returned> {
    let is = |word: &str| value.eq_ignore_ascii_case(word);
    match (is("FULL"), is("HDRS")) {
        (true, _) => Some(Returned::Full),
        (_, true) => Some(Returned::Headers),
        _ => None,
    }
}

/// Who submitted the message (RFC 4954 section 5); `<>` names none.
fn parse_submitter(value: &str) -> String {
    let submitter = decode_xtext(value);
    match submitter.as_str() {
        "<>" => String::new(),
        _ => submitter,
    }
}

/// `ORCPT`: `addr-type ";" xtext` (RFC 3461 section 4.2, RFC 6533 section 3).
struct Original<'a> {
    /// The type; empty when there is none.
    kind: &'a str,
    decoded: String,
}

impl<'a> Original<'a> {
    fn parse(value: &'a str) -> Self {
        let (kind, encoded) = value.split_once(';').unwrap_or(("", value));
        let decoded = if kind.eq_ignore_ascii_case("utf-8") {
            decode_utf8_address(encoded)
        } else {
            decode_xtext(encoded)
        };
        Self { kind, decoded }
    }

    /// The address in external form; empty when it is none of mail.
    fn address(&self) -> String {
        let is_mail = ["", "rfc822", "utf-8", "unknown"]
            .iter()
            .any(|kind| self.kind.eq_ignore_ascii_case(kind));
        if is_mail {
            parse_original_recipient(&self.decoded)
        } else {
            String::new()
        }
    }

    fn typed(&self) -> String {
        let kind = if self.kind.is_empty() {
            "rfc822"
        } else {
            self.kind
        };
        [kind, ";", &self.decoded].concat()
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
        Some(inside) => bracketed(inside)?,
        None if paths == Paths::Strict => return Err("Missing '<'"),
        None => {
            let end = bare_end(rest);
            if end == 0 {
                return Err("Missing the path");
            }
            rest.split_at(end)
        }
    };
    Ok((path, after.trim_ascii_start()))
}

/// Splits `path> parameters`. A path may hold `>` in quotes, and in a domain that is none: of the
/// places where it could end, that one is right behind which there are parameters alone.
fn bracketed(inside: &str) -> Result<(&str, &str), &'static str> {
    let split = |(at, ..): (usize, char, bool)| {
        let after = inside.get(at + 1..).unwrap_or_default();
        let ends = after.is_empty() || after.starts_with([' ', '\t']);
        ends.then(|| (inside.get(..at).unwrap_or_default(), after))
    };
    let closing = |quoted: bool| {
        move |(_, c, is_quoted): &(usize, char, bool)| *c == '>' && *is_quoted == quoted
    };
    let outside = quoting(inside).filter(closing(false)).filter_map(split);
    let quoted = quoting(inside).filter(closing(true)).filter_map(split);
    let mut places = outside.clone().chain(quoted.clone());
    let are_parameters = |(_, after): &(&str, &str)| params::are_parameters(after);
    let found = places.find(are_parameters);
    found
        .or_else(|| outside.chain(quoted).next())
        .ok_or(if inside.contains('>') {
            "Unexpected text after the path"
        } else {
            "Missing '>'"
        })
}

/// Where a path without angle brackets ends: at the first blank that is not in quotes.
fn bare_end(text: &str) -> usize {
    let is_end = |(_, c, is_quoted): &(usize, char, bool)| !is_quoted && matches!(*c, ' ' | '\t');
    quoting(text).find(is_end).map_or(text.len(), |(at, ..)| at)
}

/// The characters of a text with their places, and whether they are within quotes. A quote that is
/// not closed quotes nothing.
fn quoting(text: &str) -> impl Iterator<Item = (usize, char, bool)> + Clone {
    let mut unclosed = None;
    for (at, _, was_quoted, is_quoted) in toggling(text) {
        if was_quoted != is_quoted {
            unclosed = is_quoted.then_some(at);
        }
    }
    let end = unclosed.unwrap_or(text.len());
    toggling(text).map(move |(at, c, was_quoted, _)| (at, c, was_quoted && at < end))
}

/// The characters of a text with their places, and whether a quote is open before and behind them.
fn toggling(text: &str) -> impl Iterator<Item = (usize, char, bool, bool)> + Clone {
    let mut quoted = false;
    let mut escaped = false;
    text.char_indices().map(move |(at, c)| {
        let was_quoted = quoted;
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        (at, c, was_quoted, quoted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailstow_engine::octets;

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

    fn sender(args: &str) -> String {
        from(args).unwrap().reverse_path.to_string()
    }

    #[test]
    fn mail_as_postfix_sends_it_is_understood() {
        let command = from("FROM:<s@x> SIZE=1505 ENVID=AA+2B RET=FULL SMTPUTF8 BODY=8BITMIME");
        let command = command.unwrap();
        assert_eq!(command.reverse_path.to_string(), "s@x");
        assert_eq!(command.size, Some(1505));
        assert_eq!(command.body, Body::EightBitMime);
        assert!(command.smtputf8);
        assert_eq!(command.envelope_id.as_deref(), Some("AA+"));
        assert_eq!(from("from:<>").unwrap().reverse_path, ReversePath::Null);
    }

    #[test]
    fn rcpt_as_postfix_sends_it_is_understood() {
        let line =
            "TO:<\"a b\"@vm.example> ORCPT=rfc822;loc+2Be@origin.example NOTIFY=SUCCESS,DELAY";
        let command = to(line).unwrap();
        assert_eq!(command.address.external(), "\"a b\"@vm.example");
        assert_eq!(command.original, "loc+e@origin.example");
        assert_eq!(command.dsn.unwrap().original, "rfc822;loc+e@origin.example");
        let command = to("TO:<a@b> ORCPT=utf-8;\\x{FC}@x").unwrap();
        assert_eq!(command.original, "ü@x");
        assert_eq!(to("TO:<a@b> ORCPT=x400;foo").unwrap().original, "");
        assert_eq!(to("TO:<postmaster>").unwrap().address.domain, None);
        let quoted = to("TO:<\"a>b\\\"c\"@x> NOTIFY=NEVER").unwrap();
        assert_eq!(quoted.address.local_part, "a>b\"c");
        assert_eq!(quoted.dsn.unwrap().notify, Some(Notify::default()));
    }

    /// Postfix writes ORCPT in internal form, other clients in external form.
    #[test]
    fn an_original_recipient_is_quoted_where_it_must_be() {
        for (value, original) in [
            ("rfc822;a+20b@x", "\"a b\"@x"),
            ("rfc822;\"a+20b\"@x", "\"a b\"@x"),
            ("rfc822;\"a\"@x", "a@x"),
            ("rfc822;a\"b@x", "\"a\\\"b\"@x"),
            ("rfc822;@r.example:u@x", "@r.example:u@x"),
            ("rfc822;info", "info"),
            ("rfc822;a..b@x", "\"a..b\"@x"),
            ("rfc822;<a@b>", "a@b"),
        ] {
            let command = to(&format!("TO:<a@b> ORCPT={value}")).unwrap();
            assert_eq!(command.original, original, "{value}");
        }
    }

    #[test]
    fn what_the_sender_wants_to_be_told_is_read() {
        for (list, shown) in [
            ("FAILURE,delay", Some("FAILURE,DELAY")),
            ("SUCCESS", Some("SUCCESS")),
            ("NEVER,SUCCESS", Some("NEVER")),
            ("SOMETIMES", None),
        ] {
            let command = to(&format!("TO:<a@b> NOTIFY={list}")).unwrap();
            let notify = command.dsn.and_then(|dsn| dsn.notify);
            assert_eq!(notify.map(|n| n.to_string()).as_deref(), shown, "{list}");
        }
        for (value, returned) in [
            ("full", Some(Returned::Full)),
            ("HDRS", Some(Returned::Headers)),
            ("NONE", None),
        ] {
            let command = from(&format!("FROM:<a@b> RET={value}")).unwrap();
            assert_eq!(command.returned, returned, "{value}");
        }
        for (value, submitter) in [("a+2Bb@x", "a+b@x"), ("<>", "")] {
            let command = from(&format!("FROM:<a@b> AUTH={value}")).unwrap();
            assert_eq!(command.sasl_sender, submitter);
        }
    }

    #[test]
    fn what_we_never_offered_is_unsupported() {
        for args in ["FROM:<a@b> FOO=1", "FROM:<a@b> FOO"] {
            assert_eq!(refused(from(args)), (555, "5.5.4"), "{args}");
        }
        assert_eq!(refused(to("TO:<a@b> FOO=1")), (555, "5.5.4"));
        for args in ["FROM:<a@b> =1", "FROM:<a@b> -X=1"] {
            assert_eq!(refused(from(args)), (501, "5.5.4"), "{args}");
        }
    }

    #[test]
    fn an_odd_value_of_a_parameter_refuses_nobody() {
        for args in [
            "AUTH=<>",
            "AUTH=a+2Bb",
            "AUTH",
            "SIZE=x",
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "BODY=9BIT",
            "BODY=",
            "SMTPUTF8=1",
            "RET=SOME",
            "RET",
            "ENVID=+zz",
            "ENVID=",
            "ENVID=a=b=",
            "ENVID=+0A+00",
            "SIZE=1 SIZE=2",
            "ENVID=\u{fc}",
            "size=1",
        ] {
            let command = from(&format!("FROM:<a@b> {args}"));
            assert!(command.is_ok(), "{args}: {command:?}");
        }
        assert_eq!(from("FROM:<a@b> SIZE=x").unwrap().size, None);
        assert_eq!(from("FROM:<a@b> SIZE=1 SIZE=2").unwrap().size, Some(2));
        let huge = "FROM:<a@b> SIZE=123456789012345678901";
        assert_eq!(from(huge).unwrap().size, Some(u64::MAX));
        for args in [
            "NOTIFY=NOW",
            "NOTIFY=",
            "NOTIFY",
            "NOTIFY=NEVER,DELAY",
            "ORCPT=a@b",
            "ORCPT=",
            "ORCPT",
            "ORCPT=;",
            "ORCPT=;a",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;a+0Ab",
            "ORCPT=rfc822;+zz",
            "ORCPT=rfc822;+FF@x",
            "ORCPT=utf-8;\\x{zz}",
            "ORCPT=rfc822;a=b",
            "ORCPT=rfc822;a>b ORCPT=rfc822;c> NOTIFY=success",
        ] {
            let command = to(&format!("TO:<a@b> {args}"));
            assert_eq!(command.unwrap().address.internal(), "a@b", "{args}");
        }
        for (list, wants) in [
            ("SUCCESS", true),
            ("delay,success", true),
            ("SUCCESS,SUCCESS,NOW", true),
            ("NEVER,SUCCESS", false),
            ("FAILURE", false),
        ] {
            let command = to(&format!("TO:<a@b> NOTIFY={list}")).unwrap();
            let notify = command.dsn.and_then(|dsn| dsn.notify);
            assert_eq!(notify.is_some_and(|notify| notify.success), wants, "{list}");
        }
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
    fn a_path_without_brackets_ends_at_a_blank_that_is_not_in_closed_quotes() {
        for (args, local_part, size) in [
            ("FROM:\"a b\"@x SIZE=1", "a b", Some(1)),
            ("FROM:\"a b\"@x", "a b", None),
            ("FROM:a\"@x SIZE=1", "a\"", Some(1)),
            ("FROM:\"a b\"\"@x SIZE=1", "\"a b\"\"", Some(1)),
            ("FROM:a\"@x", "a\"", None),
        ] {
            let command = mail(args, Paths::Lenient).unwrap();
            let address = Address::new(local_part, Some("x"));
            assert_eq!(
                command.reverse_path,
                ReversePath::Address(address),
                "{args:?}"
            );
            assert_eq!(command.size, size, "{args:?}");
        }
    }

    #[test]
    fn a_path_ends_where_parameters_begin() {
        assert_eq!(sender("FROM:<a@b>>"), "a@b>");
        assert_eq!(sender("FROM:<<a@b>>"), "a@b");
        assert_eq!(sender("FROM:<a@b> c> SIZE=1"), "a@b> c");
        assert_eq!(sender("FROM:<a@b> c>"), "a@b> c");
        assert_eq!(sender("FROM:<\"a> SIZE=1\"@b> SIZE=2"), "\"a> SIZE=1\"@b");
        assert_eq!(sender("FROM:<\"a@b> SIZE=1"), "\"\\\"a\"@b");
        assert_eq!(sender("FROM:<a@b\"c> SIZE=1"), "a@b\"c");
        assert_eq!(
            sender("FROM:<\"a> SIZE=1\"@b\"> SIZE=2"),
            "\"a> SIZE=1\"@b\""
        );
        assert_eq!(from("FROM:<a@b> c> SIZE=1").unwrap().size, Some(1));
    }

    #[test]
    fn a_reverse_path_with_an_odd_host_is_accepted() {
        for path in [
            "root@",
            "root@host#1",
            "www-data@{hostname}",
            "a@b/c",
            "a@b:25",
            "a@*.b",
            "a b@c",
            "a@b c",
            "\"\"@",
            "a@b@c",
            "\u{fc}@x",
            "a\u{1b}@b\t",
        ] {
            assert!(from(&format!("FROM:<{path}>")).is_ok(), "{path}");
        }
        let latin = octets::text(b"FROM:<\xfc@\xff>");
        assert_eq!(octets::octets(&sender(&latin)).as_ref(), b"\xfc@\xff");
    }

    #[test]
    fn an_address_that_cannot_be_read_names_its_side() {
        let long = "x".repeat(5000);
        assert_eq!(refused(from(&format!("FROM:<{long}>"))), (501, "5.1.7"));
        assert_eq!(refused(to("TO:<>")), (501, "5.1.3"));
    }
}
