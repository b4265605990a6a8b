//! How addresses and parameters of an envelope are read, kept and shown.
//!
//! Documentation only. A store stands behind a mail server that has accepted the mail. What the
//! store refuses with 5xx is returned to the sender, and what is returned to a sender that cannot
//! be reached is lost. So an envelope is refused for its spelling only where nothing can be read.
//! The framing of the protocol stays strict: what ends a command, a chunk or a message is never
//! guessed.
//!
//! # Addresses
//!
//! [`parse_mailbox`](crate::address::parse_mailbox) reads the addresses of every entrance: `MAIL`
//! and `RCPT`, the arguments of `mailstow deliver` and `mailstow resolve`, the keys of the
//! socketmap server. It takes off angle brackets and a source route, and the quotes of a local part
//! that is a quoted string as a whole. Anything else is taken as it is: `root@`, `root@host#1`,
//! `a@b:25`, `a b@c`.
//!
//! - A reverse-path is not looked up. `Return-Path:` shows it as virtual(8) does, its local part
//!   quoted where RFC 5322 wants that, its domain as it came.
//! - A recipient is looked up in canonical form, as trivial-rewrite(8) makes it: without a dot at
//!   the end of its domain, with `$myorigin` where it has no domain, `site!user` and `user%site`
//!   as `user@site`. One that is not listed is looked up once more as what its routes lead to
//!   ([`Router::find`](crate::route::Router::find)).
//! - `<postmaster>` without a domain is the postmaster of `$myorigin`; where that one is unknown,
//!   of the first domain of `virtual_mailbox_domains`, then `virtual_alias_domains`, that has
//!   one, its aliases expanded (RFC 5321 section 4.5.1).
//!
//! # Octets
//!
//! An address may hold any octets but NUL, CR and LF, with or without SMTPUTF8: Postfix takes and
//! virtual(8) stores addresses in UTF-8 and in Latin-1. Headers, paths and other programs get the
//! octets as they came; replies, log lines and error messages show a `?` for each octet that is
//! not UTF-8. In memory, in the delivery log and in recipient maps such an octet is one character
//! of a private plane (see [`crate::octets`]), so that all text there stays UTF-8.
//!
//! With `smtputf8_enable = no`, tables may hold any octets, too. With `yes`, lines of tables that
//! are not UTF-8 are skipped with a warning, as Postfix skips them.
//!
//! A header line that mailstow writes has a `?` in place of each NUL, CR and LF, which only
//! `ORCPT` and arguments can bring. Other control characters stay, as virtual(8) keeps them.
//!
//! # Parameters
//!
//! | parameter | what is taken from it | an odd value |
//! |---|---|---|
//! | `SIZE` | the message is refused when it is larger than `message_size_limit` | says nothing |
//! | `BODY` | `BINARYMIME` needs `BDAT` | is `8BITMIME` |
//! | `SMTPUTF8` | replies may be UTF-8 | |
//! | `ENVID` | success notices name it | is taken as it is |
//! | `RET` | nothing: it chooses what failure notices return | |
//! | `AUTH` | nothing | |
//! | `NOTIFY` | `SUCCESS` asks for a success notice, unless `NEVER` is there, too | says nothing |
//! | `ORCPT` | `X-Original-To:`, if it is an address of mail | is taken as it is |
//! | `XFORWARD` | queue id and client, for the log | the attribute is passed over, or shown with `?` |
//!
//! xtext that is none stands for itself. A parameter that is given twice counts as it is given
//! last. Parameters that were never offered are refused with 555.
