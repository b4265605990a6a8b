//! How addresses and parameters of an envelope are parsed, stored and displayed.
//!
//! Documentation only. A store gets mail that a mail server has accepted. Mail that the store
//! refuses with 5xx is returned to the sender, and mail returned to an unreachable sender is lost.
//! So the syntax of an envelope is refused only where it cannot be parsed. The framing of the
//! protocol stays strict: the end of a command, a chunk or a message is never guessed.
//!
//! # Addresses
//!
//! [`parse_mailbox`](crate::address::parse_mailbox) parses the addresses of every input: `MAIL` and
//! `RCPT`, the arguments of `mailstow deliver` and `mailstow resolve`, the keys of the socketmap
//! server. It removes angle brackets and a source route, and the quotes of a local part that is one
//! quoted string. Anything else stays as it is: `root@`, `root@host#1`, `a@b:25`, `a b@c`.
//!
//! - A reverse-path is not looked up. `Return-Path:` shows it as virtual(8) does, its local part
//!   quoted where RFC 5322 requires it, its domain unchanged.
//! - A recipient is looked up in canonical form, as trivial-rewrite(8) makes it: without a dot at
//!   the end of its domain, with `$myorigin` where it has no domain, `site!user` and `user%site` as
//!   `user@site`. One that is not listed is looked up again as the address that its routes lead to
//!   ([`Router::find`](crate::route::Router::find)).
//! - `<postmaster>` without a domain is the postmaster of `$myorigin`; where that is unknown, it is
//!   the postmaster of the first domain of `virtual_mailbox_domains`, then `virtual_alias_domains`,
//!   that has one, with aliases expanded (RFC 5321 section 4.5.1).
//!
//! # Octets
//!
//! An address may hold any octets but NUL, CR and LF, with or without SMTPUTF8: Postfix takes and
//! virtual(8) stores addresses in UTF-8 and in Latin-1. Headers, paths and other programs get the
//! octets unchanged; replies, log lines and error messages show a `?` for each octet that is not
//! UTF-8. In memory, in the delivery log and in recipient maps such an octet is one character of a
//! private plane (see [`crate::octets`]), so that all text there stays UTF-8.
//!
//! With `smtputf8_enable = no`, tables may hold any octets, too. With `yes`, lines of tables that
//! are not UTF-8 are skipped with a warning, as Postfix skips them.
//!
//! A header line that mailstow writes has a `?` in place of each NUL, CR and LF, which only
//! `ORCPT` and arguments can bring. Other control characters stay, as virtual(8) keeps them.
//!
//! # Parameters
//!
//! | parameter | effect | an invalid value |
//! |---|---|---|
//! | `SIZE` | the message is refused when it is larger than `message_size_limit` | is ignored |
//! | `BODY` | `BINARYMIME` needs `BDAT` | means `8BITMIME` |
//! | `SMTPUTF8` | replies may be UTF-8 | |
//! | `ENVID` | success notices and commands name it, and servers with DSN get it | is used as it is |
//! | `RET` | servers with DSN get it: it chooses what failure notices return | is ignored |
//! | `AUTH` | commands get it as `$sasl_sender` | is used as it is |
//! | `NOTIFY` | `SUCCESS` without `NEVER` asks for a success notice; servers with DSN get it | is ignored |
//! | `ORCPT` | `X-Original-To:`, if it is a mail address | is used as it is |
//! | `XFORWARD` | queue id and client, for the log | is ignored, or shown with `?` |
//!
//! Invalid xtext is used unchanged. Of a repeated parameter the last value counts. Parameters that
//! were not offered are refused with 555.
