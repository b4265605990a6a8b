//! Which server sends a success notice, and why.
//!
//! Documentation only. A sender may ask for a success notice (RFC 3461, `NOTIFY=SUCCESS`). Postfix
//! 3.7 handles such a message by the extensions that the LMTP server offers:
//!
//! | the server offers | Postfix sends to the server | Postfix sends to the sender |
//! |---|---|---|
//! | DSN | `ORCPT` for every recipient, `NOTIFY`, `RET`, `ENVID` | nothing: the server must send the notice |
//! | no DSN | none of these | "relayed", once the server has answered 250 |
//!
//! `X-Original-To:` needs `ORCPT`, which Postfix sends only with DSN. With no offer does Postfix
//! send both `ORCPT` and the notice. So mailstow offers DSN where it can send notices itself, and
//! otherwise leaves them to Postfix. The setting is `success_notices` in `[lmtp]`:
//!
//! - `auto`, the default: DSN is offered when notices can be submitted, and deliveries are
//!   remembered (`durability = "logged"`).
//! - `no`: DSN is never offered. Postfix sends "relayed" notices; there is no `X-Original-To:`.
//! - `yes`: DSN is always offered. When notices cannot be submitted, recipients whose sender asks
//!   for one are deferred.
//!
//! `mailstow check` reports whether DSN is offered, and the remedy if not.
//!
//! # How notices are submitted
//!
//! Notices are handed to sendmail(1) (`sendmail_path`, `/usr/sbin/sendmail` by default), with the
//! null sender and `NOTIFY=NEVER`. Postfix's sendmail(1) flushes a message to its queue before it
//! exits with 0, whether Postfix runs or not. A server that runs as root starts it as the user of
//! `default_privs` and the group `setgid_group`, so it can use any configuration directory. A
//! server without root's rights can use the default one, and those that
//! `alternate_config_directories` in /etc/postfix/main.cf names; it needs the right to run
//! set-group-id programs (`NoNewPrivileges=no`), or membership in that group. In a container
//! without Postfix, name any program that accepts sendmail's arguments.
//!
//! # When
//!
//! One notice for each message is sent when the mail of all recipients that request one is durable,
//! and before these recipients are answered. Other recipients do not wait, unless they come after
//! one that does, because LMTP answers in order.
//!
//! When a notice cannot be submitted within 30 seconds, its recipients are answered 451 4.3.0.
//! Their deliveries stay in doubt ([`Receipt::doubt`](crate::Receipt::doubt)): when the client
//! repeats the message, nothing is stored again and the notice is tried again. The notice waits in
//! the queue of the client, so a crash loses none. A repetition after a lost reply sends its notice
//! a second time. With `durability = "direct"` no repetition is recognised; with `yes`, a failed
//! notice is then lost, with an error in the log.
//!
//! # What a notice contains
//!
//! A multipart/report (RFC 3462, RFC 3464) with the action `delivered`, the `ENVID` and `ORCPT` of
//! the client, and the header of the message. `RET=FULL` concerns failure notices only (RFC 3461
//! section 4.3). A recipient that `expand_aliases`, an alias of local delivery or a `.forward` file
//! expands is `expanded`, and its members are not named; an alias with an `owner-` alias beside it
//! is a mailing list, whose mail is `delivered`. Where cleanup(8) expands, Postfix sends that
//! notice and asks for no other.
//!
//! # Mail that goes on
//!
//! A server that offers DSN gets `NOTIFY`, `ORCPT`, `RET` and `ENVID` as they came, and sends the
//! notice. For a server without DSN, and for commands of pipe(8) without flag `X`, mailstow sends a
//! notice with the action `relayed`, once the success is recorded durably. When the reply to such a
//! message was lost, its repetition causes another `relayed` notice. Members of an alias are sent
//! on without `SUCCESS`.
//!
//! No notice goes to the null sender, or to a sender with an invalid domain.
