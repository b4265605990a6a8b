//! Where recipients are not found exactly as Postfix 3.7 finds them, and why.
//!
//! Documentation only. Alias expansion is compared with cleanup(8), classes and transports with
//! trivial-rewrite(8), local recipients with what local(8) writes, runs and sends on, over
//! generated tables and addresses. [`crate::table`] lists the differences of lookup tables.
//!
//! # Aliases
//!
//! - cleanup(8) expands aliases before mail arrives. The LMTP server expands them only when
//!   `expand_aliases` is on: otherwise autoreplies would be sent twice.
//! - With `expand_aliases`, an alias is answered with the worst reply of its members. It is
//!   deferred before any of them gets the mail when one of them is deferred by the tables, or when
//!   all of them are refused, because that is a mistake in `virtual_alias_maps`. Without
//!   `[transport] enabled`, one member that is refused defers the alias.
//! - `canonical_maps` and `recipient_bcc_maps` are not applied. They rewrite what the sender wrote,
//!   which Postfix has done before mail is resolved here.
//!
//! # Addresses
//!
//! - Letters beyond ASCII in a domain are taken as they are; Postfix checks the domain in its
//!   IDNA form.
//! - `domain` and `.domain` patterns are folded to lower case with Unicode's rules, as keys are.
//!
//! - With `smtputf8_enable = no`, letters beyond ASCII that are UTF-8 are still folded to lower
//!   case, for lookups; Postfix folds ASCII alone then. Other octets are never folded.
//! - A recipient whose domain is no domain name is looked up as it is, and stored when a table
//!   lists it; trivial-rewrite(8) refuses it before.
//!
//! # Transports
//!
//! - `sender_dependent_*` parameters are ignored: the answer depends on the recipient alone.
//! - The wildcard `*` of `transport_maps` is looked up each time; Postfix remembers it for 30
//!   seconds.
//!
//! # The local class
//!
//! Mail is delivered as local(8) does where `[transport] enabled` is on; otherwise its final
//! destinations are only named.
//!
//! - All final destinations of a recipient are found at RCPT. It is refused when there is none, and
//!   deferred when one cannot be determined. Otherwise it is answered 250 when all of them took the
//!   mail, or with the worst of their answers. The client returns that to the sender of the
//!   message, also where a list has an owner.
//! - Nothing is delivered with the rights of root: mail for root without an alias is deferred, as
//!   is mail for a `mail_spool_directory` that only root may write to.
//! - The owner of an mbox that an alias names must be the user who writes it
//!   (`strict_mailbox_ownership`), and no special file is written, but for `/dev/null`. Mail for a
//!   file in a directory in which the user may not make a lock file is deferred.
//! - `Delivered-To:` is written wherever mail is delivered or forwarded
//!   (`prepend_delivered_header`). Forwarded mail gets no additional `Received:`.
//! - An account whose mailbox an alias names twice, as `user` and `user+detail`, gets one copy;
//!   local(8) writes two.
//! - A `luser_relay` address that is unknown itself is refused; local(8) may discard such mail.
//! - A command that cannot be started defers the mail. `command_execution_directory` is not used,
//!   nor are options (`-o`) of the service `local` in `master.cf`.
//! - Of `$name` in `forward_path` and `luser_relay`, `client_*` and `sasl_*` have no value.
//! - A faulty `:include:` file (missing, writable by everyone, relative), a `~/file` without a
//!   user, and an alias without members defer the mail, because they are mistakes of the operator;
//!   for a faulty `:include:` file Postfix returns the mail.
//! - `:include:` files of root's aliases are read with the rights of mailstow, not with those of
//!   `default_privs`; lines of more than `line_length_limit` bytes are not cut.
//! - A forwarding loop through an address that needs quotes is found like any other. Postfix 3.7
//!   does not recognise such an address in `Delivered-To:`, and forwards the mail until it exceeds
//!   `hopcount_limit`.
//! - Mail that is forwarded 50 times in a row, or through more than 2000 forwarded recipients, is
//!   deferred with the reason; Postfix continues, or returns it. So are aliases with loops in more
//!   than 10000 combinations, each of which local(8) would try.
//! - The owner of an alias table is the owner of its text; for Postfix, that of its index.
//! - Tables of type `nis:` are ignored.
//!
//! # Delivery
//!
//! - Duplicate keys in a text table do not disable it: the first one counts, with a warning.
//! - An I/O error defers the mail; virtual(8) returns it. A full file system is 452 4.3.1.
//! - `..` in a mailbox path is refused.
//! - Recipients of one message that share a mailbox get one copy that names them all;
//!   `copies` in `[store]` asks for one each.
//! - An `X-Original-To` in the message is removed, because it may be forged.
//! - The directory of a new message is flushed too, not only the message.
//!
//! # Mailboxes
//!
//! The mailbox, its owner and the codes are compared with those of virtual(8), over generated
//! tables and recipients.
//!
//! - Rules of pattern tables whose result has `$1` are skipped where Postfix skips them:
//!   `virtual_mailbox_maps`, `virtual_uid_maps`, `virtual_gid_maps`, `alias_maps`,
//!   `transport_maps`. `mailbox_path_substitution = "component"` in `[store]` permits them in
//!   `virtual_mailbox_maps`; each `$1` is then one safe path component. With `mailbox_path`, the
//!   values of `virtual_mailbox_maps` are no paths, and nothing is skipped.
//! - A path with `..`, and one that names `virtual_mailbox_base` itself, is refused with a
//!   temporary error; Postfix 3.7 follows it.
//! - Symbolic links on the way to a mailbox are followed when they are relative and stay below
//!   `virtual_mailbox_base`. An absolute link is refused with a temporary error even if its target
//!   is below the base, because the kernel resolves paths beneath an opened directory
//!   (`RESOLVE_BENEATH` of openat2(2)) and starts an absolute target at the root, outside of it.
//!   virtual(8) follows every link on the way, wherever it leads, as the mailbox's owner. Make the
//!   link relative (`ln -rsf TARGET LINK`). `mailstow check` names such mailboxes. `path` itself
//!   in `virtual_mailbox_base` may have links of any kind. A mailbox file that is itself a link is
//!   refused, by both.
//! - A mailbox inside `cur/`, `new/` or `tmp/` of a Maildir, or with the name of a lock or of a
//!   file that Dovecot keeps beside mail, is refused with a temporary error; virtual(8) delivers
//!   there. [`super::address_text`] lists the names, and where they are ordinary mailboxes.
//! - An owner or group that is anything but a number from 1 to 4294967294 is refused with a
//!   temporary error. Postfix 3.7 reads the leading digits (`5000x`), and truncates larger numbers:
//!   4294967296 is root.
//! - A table that fails is answered 4.3.0, by virtual(8) 4.3.5, because the cause is not always in
//!   `main.cf`.
//! - Parameters that are needed only for resolution (aliases, transports, local users) may name
//!   tables that cannot be opened: recipients that need them are deferred, and mail for virtual
//!   mailboxes is not delayed.
