//! Who was answered when: a small database in the state directory.
//!
//! Invariants: before a reply is sent, the database has durably taken that it is going to be; so
//! that none is sent while it takes nothing. What was sent is known in this process even if the
//! database cannot take that any more. A reply whose end a crash left open is sent again. redb
//! does the rest: a transaction is durable or was never made, and one process has the file.

use parking_lot::Mutex;
use redb::{
    Database, DatabaseError, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in the state directory.
pub(super) const FILE: &str = "autoreplies.redb";

/// From recipient and sender to the time of the reply, in seconds since the UNIX epoch, and
/// whether it was sent.
const REPLIES: TableDefinition<'_, &str, (u64, bool)> = TableDefinition::new("replies");

/// From sender, without tags, to the time of its first reply, in seconds since the UNIX epoch, and
/// how many it has had from then on.
const SENDERS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("senders");

/// Bytes of the database that are kept in memory.
const CACHE_BYTES: usize = 1 << 20;
/// Most replies that are remembered; while there are more, none is sent.
const REPLIES_MAX: u64 = 1_000_000;
/// How often those that are too old are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// The replies of one server.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` after an error: redb takes nothing more then, and is opened anew.
    database: Option<Database>,
    /// Sent, and not in the database.
    unsaved: HashSet<String>,
    /// When what is too old was forgotten last, since the UNIX epoch.
    swept: Duration,
}

/// Whether a reply is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is, and the caller must call [`Memory::sent`].
    Send,
    /// One was sent before.
    SentBefore,
    /// The sender has had as many replies as one may get.
    TooMany,
}

/// How often senders are answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long a sender who was answered is not answered again by the same recipient.
    pub(super) interval: Duration,
    /// Replies for one sender in this time.
    pub(super) replies_per_sender: u64,
}

impl Memory {
    /// Opens the database in the state directory, and makes it when there is none.
    ///
    /// # Errors
    /// Why it cannot be used, and the remedy.
    pub(super) fn open(state_directory: &Path) -> Result<Self, String> {
        let path = state_directory.join(FILE);
        let is_new = !path.exists();
        let database = open_database(&path).map_err(|error| {
            format!(
                "{}: {error}; check that no other server uses it; if it is damaged, remove it, \
                 after which some senders get another reply",
                path.display()
            )
        })?;
        if is_new {
            let flushed = File::open(state_directory).and_then(|directory| directory.sync_all());
            flushed.map_err(|error| format!("{}: {error}", state_directory.display()))?;
        }
        let state = State {
            database: Some(database),
            ..State::default()
        };
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// Notes durably that a reply is going to be sent, unless one was sent within the interval, or
    /// as many as the sender may have. `key` is recipient and sender, with NUL between them.
    ///
    /// # Errors
    /// The database takes nothing; no reply must be sent.
    pub(super) fn begin(&self, key: &str, now: Duration, terms: Terms) -> Result<Begun, String> {
        let mut state = self.state.lock();
        let begun = self.begin_in(&mut state, key, now, terms);
        if begun.is_err() {
            state.database = None;
        }
        drop(state);
        begun.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn begin_in(
        &self,
        state: &mut State,
        key: &str,
        now: Duration,
        terms: Terms,
    ) -> Result<Begun, redb::Error> {
        let Terms { interval, .. } = terms;
        let is_swept = now.saturating_sub(state.swept) >= SWEEP_INTERVAL;
        let write = self.begin_write(state)?;
        let begun = {
            let mut table = write.open_table(REPLIES)?;
            let mut senders = write.open_table(SENDERS)?;
            if is_swept {
                table.retain(|_, (at, _)| is_fresh(at, now, interval))?;
                senders.retain(|_, (since, _)| is_fresh(since, now, interval))?;
            }
            let known = table.get(key)?.map(|entry| entry.value());
            let known = known.filter(|(at, _)| is_fresh(*at, now, interval));
            let is_unsaved = state.unsaved.contains(key);
            if is_unsaved {
                table.insert(key, (now.as_secs(), true))?;
                Begun::SentBefore
            } else if let Some((_, true)) = known {
                Begun::SentBefore
            } else if table.len()? >= REPLIES_MAX {
                Begun::SentBefore
            // One that was begun before was counted then.
            } else if known.is_none() && !count(&mut senders, key, now, terms)? {
                Begun::TooMany
            } else {
                table.insert(key, (now.as_secs(), false))?;
                Begun::Send
            }
        };
        write.commit()?;
        if is_swept {
            state.swept = now;
        }
        state.unsaved.remove(key);
        Ok(begun)
    }

    /// Notes durably that the reply was sent.
    ///
    /// # Errors
    /// The database does not take it; it is known to this process all the same.
    pub(super) fn sent(&self, key: &str, now: Duration) -> Result<(), String> {
        let mut state = self.state.lock();
        let saved = self.save(&mut state, key, now);
        if saved.is_err() {
            state.database = None;
            state.unsaved.insert(key.to_owned());
        }
        saved.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn begin_write(&self, state: &mut State) -> Result<WriteTransaction, redb::Error> {
        let database = match state.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        Ok(state.database.insert(database).begin_write()?)
    }

    fn save(&self, state: &mut State, key: &str, now: Duration) -> Result<(), redb::Error> {
        let write = self.begin_write(state)?;
        write
            .open_table(REPLIES)?
            .insert(key, (now.as_secs(), true))?;
        Ok(write.commit()?)
    }
}

/// Counts a reply for its sender; false when that has had all it may get.
fn count(
    senders: &mut Table<'_, &str, (u64, u64)>,
    key: &str,
    now: Duration,
    terms: Terms,
) -> Result<bool, redb::Error> {
    let sender = key.rsplit_once('\0').map_or(key, |(_, sender)| sender);
    let sender = &*without_tags(sender);
    let known = senders.get(sender)?.map(|entry| entry.value());
    let known = known.filter(|(since, _)| is_fresh(*since, now, terms.interval));
    let (since, replies) = known.unwrap_or((now.as_secs(), 0));
    if replies >= terms.replies_per_sender {
        return Ok(false);
    }
    senders.insert(sender, (since, replies + 1))?;
    Ok(true)
}

/// Returns the address that a sender is counted by: without the extension and the tag that make
/// many addresses of one (`user+list@site`, and BATV's `prvs=0123abcdef=user@site`).
fn without_tags(sender: &str) -> Cow<'_, str> {
    let (local, domain) = match sender.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (sender, None),
    };
    let tagged = local.strip_prefix("prvs=");
    let user = tagged.and_then(|tagged| tagged.split_once('='));
    let user = user.map_or(local, |(_, user)| user);
    let user = match user.split_once('+') {
        Some((user, _)) if !user.is_empty() => user,
        _ => user,
    };
    match domain {
        _ if user.len() == local.len() => Cow::Borrowed(sender),
        Some(domain) => Cow::Owned(format!("{user}@{domain}")),
        None => Cow::Owned(user.to_owned()),
    }
}

fn open_database(path: &Path) -> Result<Database, DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.create(path)
}

/// True for a reply that keeps another from being sent. One from a time to come was noted with a
/// clock that was wrong.
fn is_fresh(at: u64, now: Duration, interval: Duration) -> bool {
    now.as_secs().abs_diff(at) < interval.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    const START: Duration = Duration::from_secs(1_764_400_000);

    const TERMS: Terms = Terms {
        interval: WEEK,
        replies_per_sender: 1000,
    };

    fn begin(memory: &Memory, key: &str, at: Duration) -> Begun {
        memory.begin(key, at, TERMS).unwrap()
    }

    #[test]
    fn a_sender_gets_so_many_replies_in_an_interval_whoever_the_recipients_are() {
        let place = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(place.path()).unwrap();
        let terms = Terms {
            replies_per_sender: 2,
            ..TERMS
        };
        let answers = [
            ("a\0sender", Begun::Send),
            // Not sent yet, and counted once.
            ("a\0sender", Begun::Send),
            ("b\0sender", Begun::Send),
            ("c\0sender", Begun::TooMany),
            ("b\0sender", Begun::Send),
            ("c\0other", Begun::Send),
        ];
        for (key, begun) in answers {
            assert_eq!(memory.begin(key, START, terms), Ok(begun), "{key:?}");
        }
        memory.sent("a\0sender", START).unwrap();
        drop(memory);
        memory = Memory::open(place.path()).unwrap();
        let begin = |key, at| memory.begin(key, at, terms).unwrap();
        assert_eq!(begin("a\0sender", START), Begun::SentBefore);
        assert_eq!(begin("c\0sender", START + WEEK / 2), Begun::TooMany);
        assert_eq!(begin("c\0sender", START + WEEK), Begun::Send);
    }

    #[test]
    fn addresses_that_differ_in_their_tags_are_one_sender() {
        for (sender, counted) in [
            ("user@site", "user@site"),
            ("user+list@site", "user@site"),
            ("prvs=0123abcdef=user@site", "user@site"),
            ("prvs=0123abcdef=user+a+b@site", "user@site"),
            ("prvs=x@site", "prvs=x@site"),
            ("+x@site", "+x@site"),
            ("user+x", "user"),
        ] {
            assert_eq!(without_tags(sender), counted, "{sender}");
        }
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path()).unwrap();
        let terms = Terms {
            replies_per_sender: 1,
            ..TERMS
        };
        let begin = |key| memory.begin(key, START, terms).unwrap();
        assert_eq!(begin("a\0user+1@site"), Begun::Send);
        assert_eq!(begin("a\0user+2@site"), Begun::TooMany);
    }

    #[test]
    fn after_an_error_the_database_is_opened_anew_and_what_was_sent_is_known() {
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path()).unwrap();
        assert_eq!(begin(&memory, "a", START), Begun::Send);
        // A directory in its place cannot be opened.
        memory.state.lock().database = None;
        let (path, aside) = (place.path().join(FILE), place.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(memory.sent("a", START).is_err());
        assert!(memory.begin("b", START, TERMS).is_err());
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(begin(&memory, "a", START), Begun::SentBefore);
        assert_eq!(begin(&memory, "b", START), Begun::Send);
    }

    #[test]
    fn a_reply_is_sent_once_in_an_interval_over_restarts_too() {
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path()).unwrap();
        assert_eq!(begin(&memory, "a", START), Begun::Send);
        memory.sent("a", START).unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(begin(&memory, "a", START + day), Begun::SentBefore);
        assert_eq!(begin(&memory, "b", START + day), Begun::Send);
        drop(memory);
        let memory = Memory::open(place.path()).unwrap();
        assert_eq!(begin(&memory, "a", START + 6 * day), Begun::SentBefore);
        // Its end is not known.
        assert_eq!(begin(&memory, "b", START + day), Begun::Send);
        assert_eq!(begin(&memory, "a", START + WEEK), Begun::Send);
        memory.sent("a", START + WEEK).unwrap();
        assert_eq!(begin(&memory, "a", START + 8 * day), Begun::SentBefore);
        // The clock is set back for long.
        assert_eq!(begin(&memory, "a", START - WEEK), Begun::Send);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let memory = Memory::open(place.path()).unwrap();
        for number in 0..50 {
            let key = format!("key{number}");
            assert_eq!(begin(&memory, &key, START), Begun::Send);
            memory.sent(&key, START).unwrap();
        }
        assert_eq!(begin(&memory, "new", START + WEEK), Begun::Send);
        let read = memory.begin_write(&mut memory.state.lock()).unwrap();
        assert_eq!(read.open_table(REPLIES).unwrap().len().unwrap(), 1);
    }

    #[test]
    fn a_second_process_is_told_that_the_file_is_in_use() {
        let place = tempfile::tempdir().unwrap();
        let _memory = Memory::open(place.path()).unwrap();
        let error = Memory::open(place.path()).unwrap_err();
        assert!(error.contains("no other server"), "{error}");
        std::fs::write(place.path().join("x"), "").unwrap();
        assert!(Memory::open(&place.path().join("x")).is_err());
    }
}
