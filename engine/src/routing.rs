//! The tables of a configuration, kept up to date: answers for recipients, and delivers nothing.
//!
//! All methods may be called from any thread. One background thread watches the table files, one
//! for each recipient map merges its changes.

use crate::clock;
use crate::config::Settings;
use crate::delivery::StoreError;
use crate::map::{MapHandle, MapMaintainer};
use crate::route::{Router, table_context};
use crate::supervisor::{SupervisedThread, Supervisor, ThreadFailure};
use crate::swap::Swap;
use crate::sync::{Arc, Condvar, Mutex, wait_timeout};
use crate::table::{OpenError, TableCache};
use std::time::Duration;

/// How often table files are looked at; a change must be in force within two seconds.
const TABLE_WATCH_INTERVAL: Duration = Duration::from_millis(400);

/// How often they are looked at while one of them is being changed.
const TABLE_RESTLESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long [`Routing::settle_tables`] waits.
const TABLE_SETTLE_MAX: Duration = Duration::from_secs(3);

/// How often a recipient map is looked at whose changes may have become many.
const MAP_MAINTENANCE_INTERVAL: Duration = Duration::from_secs(2);

/// Stack of the thread that watches the tables, in bytes.
const WATCHER_STACK_BYTES: usize = 256 * 1024;

/// Why an engine cannot be opened or reloaded.
///
/// ```
/// use mailstow_engine::{Engine, EngineError, Settings};
///
/// // No directory for mailboxes is named.
/// let error = Engine::open(&Settings::default()).expect_err("nowhere to deliver");
/// assert!(matches!(error, EngineError::Store(_)));
/// assert!(error.to_string().starts_with("virtual_mailbox_base is not set; set it to"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A lookup table or domain list.
    #[error(transparent)]
    Table(#[from] OpenError),
    /// The mailboxes or the state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A directory for mailboxes, given to an engine that was opened without one.
    #[error("virtual_mailbox_base was not set when this was started; restart it to store mail")]
    NewBase,
    /// The watcher thread.
    #[error("cannot start a thread: {0}; raise the limit on processes of this user")]
    Thread(std::io::Error),
}

/// Tables that are open and watched. [`Engine`](crate::Engine) has its own; open one separately to
/// answer for recipients whose mail another program stores.
///
/// ```
/// use mailstow_engine::{Routing, Settings, parse_mailbox};
///
/// let mut settings = Settings::default();
/// settings.routing.virtual_mailbox_domains = "example.com".into();
/// settings.routing.virtual_mailbox_maps = "inline:{info@example.com=somewhere}".into();
/// settings.routing.virtual_transport = "lmtp:unix:/run/store".into();
/// let routing = Routing::open(&settings)?;
/// let resolution = routing.snapshot().resolve(&parse_mailbox("info@example.com")?);
/// assert_eq!(resolution.error, None);
/// assert_eq!(resolution.results[0].nexthop, "unix:/run/store");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Routing {
    shared: Arc<Shared>,
    watcher: Option<SupervisedThread>,
    supervisor: Supervisor,
}

/// What the watcher thread and the callers share.
#[derive(Debug)]
struct Shared {
    open: Mutex<Open>,
    router: Swap<Router>,
    closing: Mutex<bool>,
    wake: Condvar,
}

/// The tables that are open, and the settings that named them. Held while a snapshot is
/// rebuilt, never while a recipient is looked up.
#[derive(Debug)]
struct Open {
    settings: Settings,
    cache: TableCache,
    /// Changed files were read, and lookups do not use their contents yet.
    is_stale: bool,
}

impl Routing {
    /// Opens the tables that `settings` name, and starts to watch them. Neither
    /// `virtual_mailbox_base` nor a state directory is needed.
    ///
    /// # Errors
    /// A table cannot be used, or no thread can be started.
    pub fn open(settings: &Settings) -> Result<Self, EngineError> {
        let cache = TableCache::new(table_context(&settings.routing));
        let router = Arc::new(Router::open(&settings.routing, &cache)?);
        let shared = Arc::new(Shared {
            open: Mutex::new(Open {
                settings: settings.clone(),
                cache,
                is_stale: false,
            }),
            router: Swap::new(router),
            closing: Mutex::new(false),
            wake: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        let supervisor = Supervisor::default();
        let maintainers = supervisor.clone();
        let watch = move || watched.watch(&maintainers);
        let watcher = supervisor
            .spawn("mailstow-tables", WATCHER_STACK_BYTES, watch)
            .map_err(EngineError::Thread)?;
        Ok(Self {
            shared,
            watcher: Some(watcher),
            supervisor,
        })
    }

    /// Threads that panicked a short time ago, or are lost.
    pub(crate) fn failures(&self) -> Vec<ThreadFailure> {
        self.supervisor.failures()
    }

    /// Returns why files of tables and lists are not used as they are now, one sentence each. Asks
    /// no file system.
    pub(crate) fn held_back(&self) -> Vec<String> {
        self.shared.router.load().held_back()
    }

    /// The current snapshot of the tables. Takes no lock.
    pub fn snapshot(&self) -> Arc<Router> {
        let router = self.shared.router.load();
        router.look_at_maps();
        router
    }

    /// Complaints about the tables that are open: file, line, what is wrong.
    pub fn table_warnings(&self) -> Vec<String> {
        self.shared.open.lock().cache.warnings()
    }

    /// Waits until the tables that were changed shortly before they were opened are known to be
    /// whole, a second or two mostly, and reads them anew if they were changed again. False when
    /// there was nothing to wait for. To be called before a program that has just opened the tables
    /// permanently refuses a recipient that they lack.
    pub fn settle_tables(&self) -> bool {
        let settle_in = || self.shared.open.lock().cache.settle_in();
        let mut left = settle_in();
        if left.is_zero() {
            return false;
        }
        let deadline = clock::now() + TABLE_SETTLE_MAX;
        while !left.is_zero() && clock::now() < deadline {
            std::thread::sleep(left);
            // One look sees a change, the next one takes it.
            self.shared.refresh();
            self.shared.refresh();
            left = settle_in();
        }
        true
    }

    /// Takes new settings into use and reads changed table files at once. Returns complaints
    /// that do not stand in the way.
    ///
    /// # Errors
    /// The new settings name a table that cannot be opened; the old ones stay in force.
    pub fn reload(&self, settings: &Settings) -> Result<Vec<String>, EngineError> {
        let mut open = self.shared.open.lock();
        let context = table_context(&settings.routing);
        let new_cache = if context == table_context(&open.settings.routing) {
            None
        } else {
            Some(open.cache.for_context(context))
        };
        let cache = new_cache.as_ref().unwrap_or(&open.cache);
        let refresh = cache.refresh_now();
        let mut complaints = refresh.problems;
        cache.begin_generation();
        let router = match Router::open(&settings.routing, cache) {
            Ok(router) => router,
            Err(error) => {
                open.is_stale |= refresh.changed;
                return Err(error.into());
            }
        };
        cache.close_unused();
        complaints.extend_from_slice(router.warnings());
        complaints.extend(cache.warnings());
        if let Some(cache) = new_cache {
            open.cache = cache;
        }
        open.settings = settings.clone();
        open.is_stale = false;
        self.shared.router.replace(Arc::new(router));
        Ok(complaints)
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        *self.shared.closing.lock() = true;
        self.shared.wake.notify_all();
        self.watcher = None;
    }
}

impl Shared {
    /// Looks after the table files until the engine closes.
    fn watch(&self, supervisor: &Supervisor) {
        let mut maintainers = Vec::new();
        loop {
            self.maintain_maps(supervisor, &mut maintainers);
            let interval = match self.open.lock().cache.is_restless() {
                true => TABLE_RESTLESS_INTERVAL,
                false => TABLE_WATCH_INTERVAL,
            };
            let closing = wait_timeout(&self.wake, self.closing.lock(), interval);
            if *closing {
                return;
            }
            drop(closing);
            self.refresh();
        }
    }

    /// Starts a maintainer for each recipient map that has none, and ends those of maps that are in
    /// use no more.
    fn maintain_maps(
        &self,
        supervisor: &Supervisor,
        maintainers: &mut Vec<(Arc<MapHandle>, MapMaintainer)>,
    ) {
        let maps = self.open.lock().cache.maps();
        maintainers.retain(|(kept, _)| maps.iter().any(|map| Arc::ptr_eq(map, kept)));
        for map in maps {
            if maintainers.iter().any(|(kept, _)| Arc::ptr_eq(&map, kept)) {
                continue;
            }
            match MapMaintainer::start(supervisor, Arc::clone(&map), MAP_MAINTENANCE_INTERVAL) {
                Ok(maintainer) => maintainers.push((map, maintainer)),
                Err(error) => tracing::warn!(%error, "changes of a map are not merged"),
            }
        }
    }

    /// Reads changed table files and swaps the snapshot. What cannot be read keeps its old
    /// contents and is reported.
    fn refresh(&self) {
        let mut open = self.open.lock();
        let refresh = open.cache.refresh();
        for problem in &refresh.problems {
            tracing::error!("{problem}");
        }
        for warning in &refresh.warnings {
            tracing::warn!("{warning}");
        }
        if !refresh.changed && !open.is_stale {
            return;
        }
        let opened = Router::open(&open.settings.routing, &open.cache);
        open.is_stale = opened.is_err();
        match opened {
            Ok(router) => {
                self.router.replace(Arc::new(router));
                for name in &refresh.reloaded {
                    tracing::info!("table {name}: changed, now in force");
                }
            }
            Err(error) if refresh.changed => {
                tracing::error!("the old tables stay in force: {error}");
            }
            // It is tried again at each look, and was reported.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_the_new_settings_do_not_name_is_closed_and_warns_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        std::fs::write(&path, "no_value\n").unwrap();
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_domains = "example.com".into();
        settings.routing.virtual_mailbox_maps = "inline:{info@example.com=info/}".into();
        settings.routing.virtual_alias_maps = format!("hash:{}", path.display());
        let routing = Routing::open(&settings).unwrap();
        assert_eq!(routing.table_warnings().len(), 1);
        settings.routing.virtual_alias_maps = String::new();
        let complaints = routing.reload(&settings).unwrap();
        assert_eq!(complaints, [""; 0]);
        assert_eq!(routing.table_warnings(), [""; 0]);
    }

    #[test]
    fn a_change_that_was_read_for_settings_that_cannot_be_used_is_in_force_soon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailboxes");
        std::fs::write(&path, "info@example.com info/\n").unwrap();
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_domains = "example.com".into();
        settings.routing.virtual_mailbox_maps = format!("hash:{}", path.display());
        settings.routing.virtual_uid_maps = "static:5000".into();
        settings.routing.virtual_gid_maps = "static:5000".into();
        settings.routing.table_hold_time = Duration::ZERO;
        let routing = Routing::open(&settings).unwrap();
        std::fs::write(&path, "info@example.com info/\nnew@example.com new/\n").unwrap();
        let mut unusable = settings.clone();
        unusable.routing.virtual_uid_maps = "hash:/nonexistent/owners".into();
        assert!(routing.reload(&unusable).is_err());
        routing.shared.refresh();
        let new = crate::address::parse_mailbox("new@example.com").unwrap();
        let resolution = routing.shared.router.load().resolve(&new);
        assert_eq!(resolution.error, None);
    }

    #[test]
    fn settings_that_cannot_be_used_close_no_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        std::fs::write(&path, "no_value\n").unwrap();
        let mut settings = Settings::default();
        settings.routing.virtual_mailbox_domains = "example.com".into();
        settings.routing.virtual_alias_maps = format!("hash:{}", path.display());
        let routing = Routing::open(&settings).unwrap();
        let mut bad = settings.clone();
        bad.routing.virtual_alias_maps = String::new();
        bad.routing.virtual_mailbox_maps = "hash:/nowhere/at/all".into();
        assert!(routing.reload(&bad).is_err());
        assert_eq!(routing.table_warnings().len(), 1);
    }
}
