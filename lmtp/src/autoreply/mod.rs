//! Autoreplies: the transport `autoreply`, which tells the sender of a message what its recipient
//! has to say.
//!
//! A message goes through `original` (its header), `person` (whose reply it is, and whether there
//! is to be one), `text`, `memory` (once for each sender and recipient), `reply` (the message) and
//! `way_out`. A few threads do that; sessions wait for none of them. Invariants: a recipient is
//! answered 250 when no reply is due, or when the reply has left and that is remembered; else 4xx.
//! Two messages of one sender for one recipient are never at work at once. Sources: RFC 3834,
//! VIRTUAL_README "Autoreplies".

mod memory;
mod original;
mod person;
mod reply;
mod text;
mod way_out;

use crate::relay::Relays;
use mailstow_engine::address::ExtensionRule;
use mailstow_engine::config::{AutoreplySettings, Settings};
use mailstow_engine::transport::{Done, Transport, TransportRequest};
use mailstow_engine::{Engine, EnhancedCode, Mail, Recipient, Spool, Status};
use memory::{Begun, Memory, Terms};
use original::Original;
use parking_lot::{Condvar, Mutex};
use person::Person;
use reply::Reply;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use way_out::{Unsent, WayOut};

/// The name that tables know the transport by.
pub(crate) const NAME: &str = "autoreply";

/// Replies that are made at once.
const THREADS: usize = 4;
/// Recipients that may wait for a thread.
const WAITING_MAX: usize = 1024;
/// How long handing over one reply may take.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(30);
/// Stack of a thread, in bytes.
const STACK_BYTES: usize = 1 << 20;

/// The autoreplies of a server.
#[derive(Debug)]
pub(crate) struct Autoreplies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    relays: Arc<Relays>,
    state: Mutex<State>,
    changed: Condvar,
    /// Opened with the first reply.
    memory: Mutex<Option<Arc<Memory>>>,
    count: AtomicU64,
}

#[derive(Debug)]
struct State {
    current: Arc<Current>,
    waiting: VecDeque<Job>,
    /// The keys of those at work.
    busy: HashSet<String>,
    threads: usize,
    idle: usize,
    is_closing: bool,
}

/// What the settings say.
#[derive(Debug)]
struct Current {
    settings: AutoreplySettings,
    rule: ExtensionRule,
    host: String,
    state_directory: PathBuf,
    way_out: Result<WayOut, String>,
    limits: mailstow_engine::config::Limits,
}

/// A message for one recipient.
#[derive(Debug)]
struct Job {
    mail: Arc<Mail>,
    recipient: Recipient,
    nexthop: String,
    deadline: Instant,
    done: Done,
    index: usize,
    /// `None` when no reply can be due.
    person: Option<Person>,
    /// Sender and person.
    key: String,
}

/// Why no reply was made or sent, as the recipient is answered.
type Refused = Status;

impl Job {
    /// Returns the text that the nexthop names. Without one, the nexthop is the domain.
    fn named_text(&self) -> Option<&str> {
        let domain = self.recipient.address.domain.as_deref().unwrap_or_default();
        let named = Some(self.nexthop.as_str());
        named.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(domain))
    }
}

impl Current {
    fn of(settings: &Settings) -> Self {
        Self {
            settings: settings.autoreply.clone(),
            rule: ExtensionRule {
                delimiters: settings.routing.recipient_delimiter.clone(),
                owner_request_special: settings.routing.owner_request_special,
            },
            host: settings.lmtp.hostname.clone(),
            state_directory: settings.state_directory.clone(),
            way_out: match settings.autoreply.directory.as_os_str().is_empty() {
                true => Err("directory is not set in [autoreply]".to_owned()),
                false => WayOut::find(settings),
            },
            limits: settings.limits.clone(),
        }
    }
}

/// Returns what keeps replies from being sent; empty when nothing does, or there are none.
pub(crate) fn problems(settings: &Settings) -> Vec<String> {
    let AutoreplySettings {
        directory, text, ..
    } = &settings.autoreply;
    if directory.as_os_str().is_empty() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if let Some(cause) = text::template_problem(text) {
        problems.push(format!("text = {text} in [autoreply]: {cause}"));
    }
    match std::fs::read_dir(directory) {
        Err(error) => problems.push(format!(
            "directory = {} in [autoreply]: {error}; make it, readable by the user of mailstow",
            directory.display()
        )),
        Ok(entries) => problems.extend(bad_texts(directory, entries)),
    }
    problems.extend(WayOut::find(settings).err());
    problems
}

/// Texts that are looked at by `check`.
const CHECKED_MAX: usize = 1000;

/// Which of the files cannot be sent.
fn bad_texts(directory: &Path, entries: std::fs::ReadDir) -> Vec<String> {
    let names = entries.flatten().take(CHECKED_MAX);
    let names = names.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let bad = names.filter_map(|name| text::read(directory, &name).err());
    bad.collect()
}

impl Autoreplies {
    /// The autoreplies that `settings` ask for.
    pub(crate) fn new(settings: &Settings, relays: Arc<Relays>) -> Arc<Self> {
        let shared = Shared {
            relays,
            state: Mutex::new(State {
                current: Arc::new(Current::of(settings)),
                waiting: VecDeque::new(),
                busy: HashSet::new(),
                threads: 0,
                idle: 0,
                is_closing: false,
            }),
            changed: Condvar::new(),
            memory: Mutex::default(),
            count: AtomicU64::new(0),
        };
        let autoreplies = Self(Arc::new(shared));
        autoreplies.reload(settings);
        Arc::new(autoreplies)
    }

    /// Takes new settings into use, for messages that come from now on.
    pub(crate) fn reload(&self, settings: &Settings) {
        let current = Arc::new(Current::of(settings));
        let is_wanted = !current.settings.directory.as_os_str().is_empty();
        if let (true, Err(cause)) = (is_wanted, &current.way_out) {
            tracing::warn!("autoreplies cannot be sent: {cause}");
        }
        let mut state = self.0.state.lock();
        state.current = current;
        if is_wanted && state.threads == 0 {
            // One at once: a later one may lack rights that this process gives up.
            self.0.add_thread(&mut state);
        }
    }
}

impl Drop for Autoreplies {
    fn drop(&mut self) {
        self.0.state.lock().is_closing = true;
        self.0.changed.notify_all();
    }
}

impl Transport for Autoreplies {
    fn deliver(&self, request: TransportRequest) {
        let mut state = self.0.state.lock();
        for one in request.recipients {
            let person = Person::of(&one.recipient, &state.current.rule);
            let sender = request.mail.reverse_path.external();
            let own = person.as_ref().map(|person| person.address.external());
            let key = format!("{}\0{sender}", own.unwrap_or_default());
            let job = Job {
                mail: Arc::clone(&request.mail),
                recipient: one.recipient,
                nexthop: request.target.nexthop.clone(),
                deadline: request.deadline,
                done: request.done.clone(),
                index: one.index,
                person,
                key: key.to_lowercase(),
            };
            self.0.push(&mut state, job);
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn push(self: &Arc<Self>, state: &mut State, job: Job) {
        if state.waiting.len() >= WAITING_MAX || state.is_closing {
            let code = EnhancedCode::new(4, 3, 2);
            let status = Status::new(451, code, "Too many autoreplies wait");
            return job.done.answer(job.index, status);
        }
        state.waiting.push_back(job);
        if state.idle < state.waiting.len() && state.threads < THREADS {
            self.add_thread(state);
        }
        if state.threads == 0
            && let Some(job) = state.waiting.pop_back()
        {
            let status = Status::system("the system has no threads left");
            job.done.answer(job.index, status);
        }
    }

    /// Adds a thread, unless the system refuses one; it is asked again with the next message.
    fn add_thread(self: &Arc<Self>, state: &mut State) {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("mailstow-reply".into())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work());
        match thread {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::error!("cannot start a thread for autoreplies: {error}"),
        }
    }

    /// Answers for recipients until the server ends.
    fn work(&self) {
        while let Some((job, current)) = self.next() {
            if job.done.begin(job.index) {
                let answer = || self.answer(&job, &current);
                let answer = catch_unwind(AssertUnwindSafe(answer));
                let status = answer.unwrap_or_else(|_| Err(Status::system("a bug")));
                let status = status.unwrap_or_else(|refused| refused);
                job.done.answer(job.index, status);
            }
            self.state.lock().busy.remove(&job.key);
            // Another message of this sender may wait.
            self.changed.notify_all();
        }
    }

    /// Waits for a message that may be worked at; `None` when the server ends.
    fn next(&self) -> Option<(Job, Arc<Current>)> {
        let mut guard = self.state.lock();
        loop {
            let state = &mut *guard;
            let mut waiting = state.waiting.iter();
            let at = waiting.position(|job| !state.busy.contains(&job.key));
            if let Some(job) = at.and_then(|at| state.waiting.remove(at)) {
                state.busy.insert(job.key.clone());
                return Some((job, Arc::clone(&state.current)));
            }
            if state.is_closing {
                return None;
            }
            state.idle += 1;
            self.changed.wait(&mut guard);
            guard.idle -= 1;
        }
    }

    /// Returns the reply for the recipient.
    fn answer(&self, job: &Job, current: &Current) -> Result<Status, Refused> {
        let AutoreplySettings {
            directory,
            interval,
            replies_per_sender,
            only_named,
            answers_for,
            ..
        } = &current.settings;
        let none = |why: &str| Ok(Status::ok(format!("no autoreply: {why}")));
        let Some(person) = &job.person else {
            return none("the recipient has no domain");
        };
        let original = Original::of(&job.mail).map_err(|error| {
            tracing::error!("a message that is kept in a file cannot be read: {error}");
            Status::system("the message cannot be read")
        })?;
        let sender = &job.mail.reverse_path;
        // A text that is named for whatever comes makes no recipient one that the text is of.
        let is_expected = job.named_text().is_none() && !only_named;
        let only_named = !is_expected && !person.is_in(answers_for, &current.rule);
        if let Some(why) = person.refusal(sender, &original, (&current.rule, only_named)) {
            return none(&why);
        }
        if directory.as_os_str().is_empty() {
            return Err(misconfigured("directory is not set in [autoreply]"));
        }
        let Some(text) = text_of(job, person, current)? else {
            return none("the recipient has no text");
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let memory = self.memory(&current.state_directory)?;
        let terms = Terms {
            interval: *interval,
            replies_per_sender: *replies_per_sender,
        };
        let begun = memory
            .begin(&job.key, now, terms)
            .map_err(|cause| troubled(&cause))?;
        match begun {
            Begun::Send => {}
            Begun::SentBefore => return none("the sender had one before"),
            Begun::TooMany => return none("the sender had too many"),
        }
        let sender_text = sender.external();
        let id = format!(
            "{:x}.{:x}",
            now.as_nanos(),
            self.count.fetch_add(1, Ordering::Relaxed)
        );
        let reply = Reply {
            person,
            sender: &sender_text,
            original: &original,
            text: &text,
            host: &current.host,
            id: &id,
            now,
        };
        let message = reply.message().map_err(|cause| troubled(&cause))?;
        match self.hand_over(job, current, &message) {
            Ok(()) => {}
            Err(Unsent::ForGood(why)) => {
                return none(&format!("the sender is refused: {why}"));
            }
            Err(Unsent::Now(cause)) => return Err(troubled(&cause)),
        }
        tracing::info!("autoreply of <{}> sent to <{sender_text}>", person.address);
        memory
            .sent(&job.key, now)
            .map_err(|cause| troubled(&cause))?;
        Ok(Status::ok("autoreply sent"))
    }

    fn hand_over(&self, job: &Job, current: &Current, message: &[u8]) -> Result<(), Unsent> {
        let way_out = current.way_out.as_ref();
        let way_out = way_out.map_err(|cause| Unsent::Now(cause.clone()))?;
        let mailstow_engine::ReversePath::Address(sender) = &job.mail.reverse_path else {
            return Err(Unsent::ForGood("there is no sender".to_owned()));
        };
        let spool = Spool::open(&current.state_directory, &current.limits);
        let spool = spool.map_err(|error| Unsent::Now(error.to_string()))?;
        let left = job.deadline.saturating_duration_since(Instant::now());
        let limit = left.min(HAND_OVER_LIMIT);
        way_out.hand_over((&spool, &self.relays), sender, message, limit)
    }

    /// Returns the memory, opened when it was not.
    fn memory(&self, state_directory: &Path) -> Result<Arc<Memory>, Refused> {
        let mut memory = self.memory.lock();
        if let Some(memory) = &*memory {
            return Ok(Arc::clone(memory));
        }
        // No other user may put a file in its place.
        let directory = Engine::make_state_directory(state_directory);
        directory.map_err(|error| troubled(&error.to_string()))?;
        let opened = Memory::open(state_directory).map_err(|cause| troubled(&cause))?;
        Ok(Arc::clone(memory.insert(Arc::new(opened))))
    }
}

/// Returns the text for a recipient; `None` when there is none.
fn text_of(job: &Job, person: &Person, current: &Current) -> Result<Option<String>, Refused> {
    let AutoreplySettings {
        directory, text, ..
    } = &current.settings;
    let Some(name) = job.named_text() else {
        let Some(name) = text::name_of(text, person) else {
            return Ok(None);
        };
        return text::read(directory, &name).map_err(|cause| misconfigured(&cause));
    };
    match text::read(directory, name) {
        Ok(None) => Err(misconfigured(&format!(
            "{}/{name}: the text that {NAME}:{name} names is not there, or empty",
            directory.display()
        ))),
        read => read.map_err(|cause| misconfigured(&cause)),
    }
}

/// The operator's mistake.
fn misconfigured(cause: &str) -> Refused {
    tracing::error!("autoreply: {cause}");
    Status::configuration("mail system configuration error: autoreply")
}

/// Trouble that may pass.
fn troubled(cause: &str) -> Refused {
    tracing::error!("an autoreply cannot be sent now, the client tries again: {cause}");
    Status::system("the autoreply cannot be sent now")
}
