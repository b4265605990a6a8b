//! Where the text of an address goes, and why no sender can abuse it.
//!
//! Documentation only. A sender chooses the local part, and often the domain, of a recipient. Each
//! row names a place that this text can reach, the protection, and the test that shows it. Tests
//! called `address_text` are those of [`crate::route`] (without a server) and of the file
//! `tests/tests/address_text.rs` (with PostgreSQL, MariaDB, SQLite, OpenLDAP).
//!
//! # Into paths
//!
//! | way | what is done | test |
//! |---|---|---|
//! | `mailbox_path`, `template:` | each expansion is one path component: never empty, `.`, `..`, hidden or `*.lock`, no `/`, NUL or control character (these are written `=XX`); two texts never share one | `a_template_gives_one_safe_component_for_each_expansion` |
//! | `$1` of `regexp:` and `pcre:` in `virtual_mailbox_maps` | the rule is skipped with a warning, as virtual(8) does, inside `unionmap:`, `pipemap:` and `proxy:` too | `rules_with_substitution_are_skipped_wherever_a_path_or_an_owner_would_come_from_them`, `substitution_agrees` |
//! | the same with `mailbox_path_substitution = "component"` | each `$1` is one path component as above; an empty one defers | `substitution_that_is_permitted_in_mailbox_paths_gives_one_safe_component` |
//! | `$1` where `mailbox_path` makes the paths | nothing: the value is not used | `tables_that_only_say_who_exists_may_substitute` |
//! | `%U %D %S %1` of `result_format` (`pgsql: mysql: sqlite: ldap:`) | a recipient whose local part or domain has a `/`, a control character or a `.` in front is deferred | `a_path_that_a_database_makes_of_the_address_does_not_steer` |
//! | a value that a query makes of the key (`SELECT '%d/%u/'`) | the same, when that text is found in the value | the same |
//! | a value that a `tcp:` or `socketmap:` server makes of the key | the same | `a_path_that_a_server_makes_of_the_address_does_not_steer` |
//! | a path that a table lists for the address (`hash:`, `inline:`, a recipient map) | nothing: the operator chose it | `a_path_that_is_written_down_may_have_any_text` |
//! | any path | no `..`, nothing outside of `virtual_mailbox_base` (openat2), no mailbox inside another, no name of a lock or control file (below) | `store_maildir`, `route::place` |
//! | an address extension | nothing: it is cut off or looked up, and names no folder | `case_and_extension_do_not_matter_and_a_catch_all_catches` |
//! | names of message files and locks | nothing: they consist of time, process, host and the name of the mailbox | `names_carry_sizes_and_an_escaped_host`, `names_never_repeat_in_one_process` |
//! | `~/file`, `/file`, `:include:` of a local alias | named by `mailstow resolve`, never written; `$1` in `alias_maps` is skipped as above | `substitution_agrees` |
//!
//! # Into owners
//!
//! | way | what is done | test |
//! |---|---|---|
//! | `$1` in `virtual_uid_maps`, `virtual_gid_maps` | the rule is skipped; no setting permits it | `rules_with_substitution_are_skipped_wherever_a_path_or_an_owner_would_come_from_them` |
//! | `%U %D %S %1` of `result_format` there | mail is deferred, and `check` names the table | `an_owner_is_never_made_of_the_address` |
//! | a value that a query or server makes | a number from `virtual_minimum_uid` on, never root; the query chooses it | `trouble_in_our_tables_defers` |
//! | the account of a local recipient | only names that the account database has | `who_has_no_account_has_no_mailbox_and_no_rights` |
//!
//! # Into queries
//!
//! | way | what is done | test |
//! |---|---|---|
//! | an expansion in a string of an SQL query | characters that could end this kind of string (`''`, `""`, `E''`) are doubled | `keys_stay_data_in_pgsql`, `keys_stay_data_in_mysql`, `keys_stay_data_in_sqlite`, `quoted_text_never_ends_its_string` |
//! | an expansion in a name or comment | a text that could end it is refused | `text_is_quoted_in_strings_and_refused_where_it_could_be_more_than_data` |
//! | an expansion outside of all of these | only digits are allowed; opening the table logs a warning | `an_expansion_outside_of_a_string_takes_nothing_but_digits` |
//! | `query_filter` of `ldap:` | RFC 4515: `* ( ) \` are escaped | `keys_stay_data_in_ldap` |
//! | `search_base` of `ldap:` | RFC 4514: separators between parts of a name are escaped | the same |
//! | the answer of one table as the key of the next (`pipemap:`) | as a key from outside | `a_path_that_a_database_makes_of_the_address_does_not_steer` |
//! | `tcp:` | octets other than printable ASCII are sent as `%XX` | `keys_are_encoded_and_values_decoded` |
//! | `socketmap:` | the request says its length | `answers_errors_and_broken_connections_are_told_apart` |
//!
//! After `LIKE`, `%` and `_` of an address match anything, as in Postfix: use `=`.
//!
//! # Into command lines
//!
//! | way | what is done | test |
//! |---|---|---|
//! | `\|command` of a local alias | named by `mailstow resolve`, never started; `$1` in `alias_maps` is skipped | `substitution_agrees` |
//! | the arguments of `mailstow deliver` | pipe(8) starts it without a shell; what follows `-f`, `-o` and `--` is an address whatever it looks like | `an_address_that_looks_like_an_option_is_an_address` |
//!
//! # Into other addresses
//!
//! `$1` is permitted in `virtual_alias_maps` and `relocated_maps`, as in Postfix. The result is an
//! address, to which all of the above applies.
//!
//! # Mailboxes that damage others
//!
//! A mailbox is refused with 451 4.3.5 when a delivery to it would damage another one. `mailstow
//! check` names such mailboxes.
//!
//! | path | refused | because |
//! |---|---|---|
//! | `d/x/new/`, `d/x/cur/y/`, `d/x/tmp/y` | when `d/x` is a Maildir | readers treat files there as messages of `d/x` |
//! | mbox `d/x.lock` | always | programs that lock the mbox `d/x` remove an old file of this name, with the mail in it |
//! | Maildir `d/x.lock/` | when `d/x` is an mbox | no program could lock `d/x` any more |
//! | `dovecot.index*`, `dovecot-uidlist*`, `maildirsize`, `.dovecot.*` and others | always | readers read, replace or remove the file because of its name |
//! | `subscriptions`, `dovecot.*`, `dovecot-*`, `courierimap*` and others | when the directory is a Maildir | as above |
//!
//! Everything else stays a mailbox: folders of Maildir++ (`d/x/.Sent/`), a Maildir below another
//! (`d/x/y/`), users called `new`, `subscriptions`, `dovecot` or `john.lock` who have a Maildir. A
//! directory is a Maildir when it has `cur/`, `new/` and `tmp/` and none of these is a Maildir
//! itself, so that a domain may have users of all three names.
