//! Who may own the directories of a mailbox, and who may write there.
//!
//! A mailbox is only as safe as the directories above it: a user who can rename or remove one of
//! them can replace the mailbox and read new mail. virtual(8) checks the owner of an mbox and no
//! directory above it; Dovecot's agents check nothing. mailstow checks every opened directory below
//! `virtual_mailbox_base`, and defers mail (451 4.2.0) with the reason when one breaks the
//! following rules. `mailstow check` applies the same rules to all mailboxes that the tables list.
//! The check costs system calls when a process uses a mailbox for the first time; later deliveries
//! compare the opened directories with that result.
//!
//! *Recipient* means the uid and gid that `virtual_uid_maps` and `virtual_gid_maps` return.
//!
//! | | may belong to | its group may write | everyone may write |
//! |---|---|---|---|
//! | base | anyone | yes | with the sticky bit |
//! | directory on the way, in one that only its owner may write | anyone: only a user who may write there can have put it there | the recipient's group, root's, or with the sticky bit | with the sticky bit |
//! | directory on the way, in one that others may write too (group, or sticky) | the recipient, root, the owner of the directory it is in | as above | with the sticky bit |
//! | Maildir, its `new` and `cur` and `tmp` | the recipient, root; with `strict_mailbox_ownership = no` as directories on the way | the recipient's group, root's | no |
//! | symbolic link | as a directory in its place | | |
//!
//! So these layouts work: a base of root (0755) with domains that belong to root or to the one user
//! of all mail; a base of that user; domains of root with a directory for each user; Maildirs in
//! the home directories of users; set-group-id directories (2770) of the recipients' group; a spool
//! such as `/var/mail` (1777, or 2775 of group mail). A Maildir that a local user made for another
//! user in a world-writable spool takes no mail, nor does one that another group may write.
//!
//! Access control lists show as the group's permission bits (acl(5): the mask). A directory with a
//! list that lets others write counts as written by its group: it is accepted when that is the
//! recipient's group or root's.
//!
//! For mailboxes of accounts of this machine, and files that aliases name, the base is `/`, and the
//! recipient is the account or the owner of the alias. In a group-writable `mail_spool_directory`,
//! its group counts as the recipient's.
//!
//! The base itself, and the directories above it, are the responsibility of root and the owner of
//! the base. Recovery applies the current rules, and the current `virtual_minimum_uid`, to mail in
//! the delivery log: mail that they refuse stays in the log, is reported as waiting, and is tried
//! again.
