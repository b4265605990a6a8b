//! The mailboxes that tables name one by one: whether mail for each could be stored.
//!
//! Tables that cannot be listed (patterns, `static:`) are asked when mail comes. Nothing is
//! created.

use super::findings::Findings;
use super::places::{is_open_to_everyone, rights};
use mailstow_engine::address::parse_mailbox;
use mailstow_engine::config::RoutingSettings;
use mailstow_engine::route::{
    Format, MailboxTarget, RouteError, Router, Standing, misplaced, table_context,
};
use mailstow_engine::system::unsafe_mailbox;
use mailstow_engine::table::{TableCache, TableList};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many findings are printed in full: a mistake in a uid map concerns every line of a table.
const SHOWN_MAX: usize = 5;

/// What is wrong, in one sentence, and how many listed recipients that concerns.
type Reasons = BTreeMap<String, usize>;

/// Looks at every mailbox; what the owners are is left out when that was found wrong already.
pub(super) fn check(routing: &RoutingSettings, owners_known: bool, findings: &mut Findings) {
    let cache = TableCache::new(table_context(routing));
    // The check of the tables has reported what cannot be opened.
    let Ok(router) = Router::open(routing, &cache) else {
        return;
    };
    let Ok(list) = TableList::parse(
        &routing.virtual_mailbox_maps,
        &routing.default_database_type,
    )
    .map(|list| list.for_parameter("virtual_mailbox_maps")) else {
        return;
    };
    let Ok(set) = cache.open_all(&list) else {
        return;
    };
    let mut reasons = Reasons::new();
    let mut listed = Listed::default();
    let mut keys = Vec::new();
    for table in set.tables() {
        table.for_each(&mut |key, _, _| keys.push(key.to_owned()));
    }
    for key in &keys {
        // Everybody a catch-all catches has the same mailbox.
        let catch_all = key.starts_with('@').then(|| format!("postmaster{key}"));
        let Ok(address) = parse_mailbox(catch_all.as_deref().unwrap_or(key)) else {
            continue;
        };
        let reason = match router.mailbox(&address) {
            Ok(target) => {
                let base = &routing.virtual_mailbox_base;
                let reason = harmful(base, &target)
                    .or_else(|| unwritable(base, &target))
                    .or_else(|| unusable(routing, &target))
                    .or_else(|| unsafe_mailbox(routing, &target));
                listed.add(target);
                reason
            }
            // Not reached by this key: another one is asked first.
            Err(
                RouteError::UnknownUser { .. }
                | RouteError::NotHosted { .. }
                | RouteError::StoredElsewhere { .. },
            ) => None,
            Err(RouteError::NoOwner { .. } | RouteError::BadOwner { .. }) if !owners_known => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    report(&reasons, findings);
    for overlap in listed.overlaps() {
        findings.warning(overlap);
    }
}

/// The mailboxes of a table, to be compared with each other: what is not there yet does harm only
/// when it is.
#[derive(Default)]
struct Listed {
    targets: Vec<MailboxTarget>,
    formats: HashMap<String, Format>,
}

impl Listed {
    fn add(&mut self, target: MailboxTarget) {
        self.formats
            .insert(target.path.as_str().to_owned(), target.format);
        self.targets.push(target);
    }

    /// Mailboxes that will lie in a part of another, or take the name of its lock.
    fn overlaps(&self) -> Vec<String> {
        let mut found = Vec::new();
        for target in &self.targets {
            let cause = misplaced(target, |at| self.would_stand_at(at));
            if let Some(cause) = cause {
                let shown = &target.path;
                found.push(format!(
                    "virtual_mailbox_maps: mail for {shown} will be deferred once both mailboxes \
                     are there: {cause}"
                ));
                if found.len() == SHOWN_MAX {
                    break;
                }
            }
        }
        found
    }

    /// What stands at `path` when every listed mailbox is there.
    fn would_stand_at(&self, path: &str) -> Option<Standing> {
        match self.formats.get(path) {
            Some(Format::Mbox) => return Some(Standing::File),
            Some(Format::Maildir) => return Some(Standing::Directory),
            None => {}
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let is_part = ["cur", "new", "tmp"].contains(&name);
        (is_part && self.formats.get(parent) == Some(&Format::Maildir))
            .then_some(Standing::Directory)
    }
}

/// Why a mailbox would do harm where it lies.
fn harmful(base: &Path, target: &MailboxTarget) -> Option<String> {
    let look = |at: &str| {
        let metadata = fs::metadata(base.join(at)).ok()?;
        match metadata.file_type() {
            kind if kind.is_dir() => Some(Standing::Directory),
            kind if kind.is_file() => Some(Standing::File),
            _ => None,
        }
    };
    let cause = misplaced(target, look)?;
    Some(format!("mailbox {}: {cause}", target.below(base).display()))
}

fn report(reasons: &Reasons, findings: &mut Findings) {
    for (reason, recipients) in reasons.iter().take(SHOWN_MAX) {
        let whose = match recipients {
            1 => "mail for 1 recipient is deferred".to_owned(),
            _ => format!("mail for {recipients} recipients is deferred"),
        };
        findings.error(format_args!("{reason}; until then {whose}"));
    }
    let more = reasons.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        findings.error(format_args!(
            "{more} more mistakes of this kind in virtual_mailbox_maps and its owners; fix \
             those above and check again"
        ));
    }
}

/// Why a mailbox that may not be there yet could not be made; `None` when it could, or when we
/// may not look.
fn unwritable(base: &Path, target: &MailboxTarget) -> Option<String> {
    let (uid, gid) = (target.uid, target.gid);
    let directory = target.below(base);
    let directory = directory.parent()?;
    let (existing, metadata) = nearest_directory(directory)?.ok()?;
    if existing != directory {
        // A base that is missing is reported by itself; directories of Maildirs are made.
        if target.format == Format::Mbox && existing.starts_with(base) {
            return Some(format!(
                "directory {} of mboxes does not exist, and is never created automatically; run \
                 install -d -o {uid} -g {gid} {}",
                directory.display(),
                directory.display()
            ));
        }
        if !existing.starts_with(base) {
            return None;
        }
    }
    if existing != base && is_open_to_everyone(&metadata) {
        return Some(format!(
            "directory {} may be written by everyone: no mail is stored there; run chmod o-w {}",
            existing.display(),
            existing.display()
        ));
    }
    let may_write = rights(&metadata, uid, Some(gid)) & 0o3 == 0o3;
    (!may_write && !is_there(base, target)).then(|| {
        format!(
            "directory {} cannot be written by user id {uid}, who owns the mailboxes in it; run \
             chown {uid}:{gid} {}",
            existing.display(),
            existing.display()
        )
    })
}

/// Why a mailbox that is there could not be used; `None` when it could, is not there, or may not
/// be looked at.
fn unusable(routing: &RoutingSettings, target: &MailboxTarget) -> Option<String> {
    let base = &routing.virtual_mailbox_base;
    let path = target.below(base);
    let shown = path.display();
    let metadata = fs::metadata(&path).ok()?;
    if !fs::canonicalize(&path)
        .ok()?
        .starts_with(fs::canonicalize(base).ok()?)
    {
        return Some(format!(
            "mailbox {shown} leads out of virtual_mailbox_base; move it below {}",
            base.display()
        ));
    }
    let (uid, gid) = (target.uid, target.gid);
    match target.format {
        Format::Mbox if metadata.is_dir() => Some(format!(
            "mailbox {shown} is a directory, and its path in virtual_mailbox_maps names an mbox; \
             add a / to that path for a Maildir, or move the directory away"
        )),
        Format::Mbox if !metadata.is_file() => {
            Some(format!("mailbox {shown} is no regular file; move it away"))
        }
        Format::Mbox if routing.strict_mailbox_ownership && metadata.uid() != uid => Some(format!(
            "mbox {shown} belongs to user id {}, its mail to {uid} (strict_mailbox_ownership); run \
             chown {uid}:{gid} {shown}",
            metadata.uid()
        )),
        Format::Maildir if !metadata.is_dir() => Some(format!(
            "mailbox {shown} is no directory, and its path in virtual_mailbox_maps ends in / for \
             a Maildir; remove the / for an mbox, or move the file away"
        )),
        Format::Maildir => {
            let new = path.join("new");
            // Where that is there, nothing has to be made in the one above.
            closed(if new.exists() { &new } else { &path }, uid, gid)
        }
        Format::Mbox => None,
    }
}

/// Why a directory of a Maildir takes no mail.
fn closed(directory: &Path, uid: u32, gid: u32) -> Option<String> {
    let metadata = fs::metadata(directory).ok()?;
    (rights(&metadata, uid, Some(gid)) & 0o3 != 0o3).then(|| {
        format!(
            "directory {} of a Maildir cannot be written by user id {uid}, who owns the mail; run \
             chown {uid}:{gid} {}",
            directory.display(),
            directory.display()
        )
    })
}

/// The mailbox itself exists: a Maildir needs no more, an mbox may lack its lock file only.
fn is_there(base: &Path, target: &MailboxTarget) -> bool {
    fs::metadata(target.below(base)).is_ok()
}

/// The directory, or the nearest above it that exists; `None` when even the root is missing.
fn nearest_directory(path: &Path) -> Option<io::Result<(&Path, Metadata)>> {
    path.ancestors()
        .find_map(|above| match fs::metadata(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            result => Some(result.map(|metadata| (above, metadata))),
        })
}
