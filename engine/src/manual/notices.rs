//! Who tells a sender that mail was delivered, and why.
//!
//! Documentation only. A sender may ask for a success notice (RFC 3461, `NOTIFY=SUCCESS`). What
//! Postfix 3.7 does with such a message depends on what the LMTP server offers:
//!
//! | the server offers | Postfix sends on | Postfix tells the sender |
//! |---|---|---|
//! | DSN | `ORCPT` for every recipient, `NOTIFY`, `RET`, `ENVID` | nothing: that is the server's task |
//! | no DSN | none of these | "relayed", once the server has answered 250 |
//!
//! `X-Original-To:` needs `ORCPT`, which comes with DSN alone. No offer makes Postfix send `ORCPT`
//! and the notice. So mailstow offers DSN where it can send the notices itself, and leaves both to
//! Postfix where it cannot. Whether it does is `success_notices` in `[lmtp]`:
//!
//! - `auto`, the default: DSN is offered when there is a way out, and deliveries are remembered
//!   (`durability = "logged"`).
//! - `no`: DSN is never offered. Postfix sends "relayed" notices; there is no `X-Original-To:`.
//! - `yes`: DSN is always offered. Without a way out, recipients whose sender asks for a notice
//!   are put off.
//!
//! `mailstow check` says which it is, and the remedy.
//!
//! # The way out
//!
//! Notices are handed to sendmail(1) (`sendmail_path`, `/usr/sbin/sendmail` by default), with the
//! null sender and `NOTIFY=NEVER`. Postfix's flushes a message to its queue before it ends with 0,
//! whether Postfix runs or not. A server that root runs starts it as the user of `default_privs`
//! and the group `setgid_group`, so any configuration directory will do. A server without root's
//! rights can use the default one, and those that `alternate_config_directories` in
//! /etc/postfix/main.cf names; it needs the right to run set-group-id programs
//! (`NoNewPrivileges=no`), or the group itself. In a container without Postfix, name any program
//! that takes sendmail's arguments.
//!
//! # When
//!
//! A notice is sent when the mail of all recipients that want it is durable, one for each message,
//! and before these recipients are answered. Recipients that want none do not wait, unless they
//! come after one that does: LMTP answers in order.
//!
//! A notice that cannot be handed over within 30 seconds makes its recipients 451 4.3.0. Their
//! deliveries stay in doubt ([`Receipt::doubt`](crate::Receipt::doubt)): when the client repeats
//! the message, nothing is stored again and the notice is tried again. The queue of the client is
//! where the notice waits, so none is lost with a crash. A repetition after a lost reply sends its
//! notice a second time. With `durability = "direct"` no repetition is recognised; with `yes`, a
//! notice that fails is lost there, with an error in the log.
//!
//! # What it says
//!
//! A multipart/report (RFC 3462, RFC 3464) with the action `delivered`, `ENVID` and `ORCPT` as they
//! came, and the header of the message. `RET=FULL` concerns failure notices alone (RFC 3461
//! section 4.3). A recipient that `expand_aliases` expands is `expanded`, and its members are not
//! named; where cleanup(8) expands, Postfix sends that notice and asks for no other.
//!
//! No notice goes to the null sender, nor to one whose domain could not be one.
