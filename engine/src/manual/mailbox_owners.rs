//! Who may own the directories of a mailbox, and who may write there.
//!
//! A mailbox is only as safe as the directories above it: whoever can rename or remove one of them
//! can put another mailbox in its place and read the mail that comes in. virtual(8) looks at the
//! owner of an mbox and at nothing above it, Dovecot's agents at nothing. mailstow looks at every
//! directory below `virtual_mailbox_base`, on the directory that it has opened, and defers mail
//! (451 4.2.0) with the reason when one is not as follows. `mailstow check` finds the same for all
//! mailboxes that the tables list. It costs system calls when a mailbox is used for the first time
//! by a process; later deliveries compare what they have opened with what was found then.
//!
//! *Recipient* is the uid and gid that `virtual_uid_maps` and `virtual_gid_maps` give.
//!
//! | | may belong to | its group may write | everyone may write |
//! |---|---|---|---|
//! | base | anyone | yes | with the sticky bit |
//! | directory on the way, in one that only its owner may write | anyone: whoever may write there has put it there | the recipient's group, root's, or with the sticky bit | with the sticky bit |
//! | directory on the way, in one that others may write too (group, or sticky) | the recipient, root, the owner of the directory it is in | as above | with the sticky bit |
//! | Maildir, its `new` and `cur` and `tmp` | the recipient, root; with `strict_mailbox_ownership = no` as directories on the way | the recipient's group, root's | no |
//! | symbolic link | as a directory in its place | | |
//!
//! So these layouts work: a base of root (0755) with domains that belong to root or to the one user
//! of all mail; a base of that user; domains of root with a directory for each user; Maildirs in
//! the home directories of users; set-group-id directories (2770) of the recipients' group; a spool
//! such as `/var/mail` (1777, or 2775 of group mail). A Maildir that a local user made for somebody
//! else in a spool that everyone may write takes no mail, nor does one that a group of others may
//! write.
//!
//! Access control lists show as the group's permission bits (acl(5): the mask). A directory with a
//! list that lets others write counts as written by its group: it is accepted when that is the
//! recipient's group or root's.
//!
//! Mailboxes of accounts of this machine, and files that aliases name, have `/` for a base, and the
//! account, or who owns the alias, for a recipient. In a `mail_spool_directory` that its group may
//! write to, the recipient's group is that.
//!
//! What root and the owner of the base do with the base itself, and above it, is theirs to answer
//! for. Recovery applies today's rules, and today's `virtual_minimum_uid`, to mail that the
//! delivery log holds: what they refuse stays in the log, is reported as waiting, and is tried
//! again.
