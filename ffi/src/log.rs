//! The log of the process: disabled, passed to a function of C, or written to a descriptor.
//!
//! A line is one event of the library: its message, then its fields as `name=value`. Invariants: no
//! lock is held while a line is handed over, and none is needed to find the sink, so that a forked
//! process can log at once; a line that cannot be written is lost.

use crate::boundary::{Forever, LogCallback, write_line};
use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Nothing is logged.
pub const MAILSTOW_LOG_OFF: u32 = 0;
/// Errors.
pub const MAILSTOW_LOG_ERROR: u32 = 1;
/// Errors and warnings.
pub const MAILSTOW_LOG_WARNING: u32 = 2;
/// The same, and information for operators.
pub const MAILSTOW_LOG_INFO: u32 = 3;
/// Everything.
pub const MAILSTOW_LOG_DEBUG: u32 = 4;

/// Longest line, in bytes. A pipe takes a line of this length atomically (pipe(7)).
const LINE_BYTES_MAX: usize = 4095;

/// The sink of log lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink {
    Function(LogCallback),
    /// A descriptor that the host keeps open.
    Descriptor(i32),
}

static LEVEL: AtomicU32 = AtomicU32::new(MAILSTOW_LOG_OFF);
static SINK: Forever<Sink> = Forever::new();

/// Sends lines up to `level` to `sink` from now on. The old sink is never freed: another thread may
/// be writing to it.
pub(crate) fn set(level: u32, sink: Sink) {
    install();
    LEVEL.store(MAILSTOW_LOG_OFF, Ordering::Relaxed);
    SINK.set(sink);
    LEVEL.store(level, Ordering::Release);
    tracing::callsite::rebuild_interest_cache();
}

/// Logs nothing from now on.
pub(crate) fn off() {
    LEVEL.store(MAILSTOW_LOG_OFF, Ordering::Release);
}

/// Takes the events of the engine, and the panics of this library. As a shared object, it has a
/// separate copy of the standard library, so panics of other Rust code are not affected.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // It fails only where this library is linked into a Rust program with its own logger.
        let _ = tracing::subscriber::set_global_default(Lines);
        // Standard error may be a connection of the host.
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!("a bug in the library: {panic}");
        }));
    });
}

/// The number of a level; 1 is the most severe.
fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => MAILSTOW_LOG_ERROR,
        Level::WARN => MAILSTOW_LOG_WARNING,
        Level::INFO => MAILSTOW_LOG_INFO,
        Level::DEBUG => MAILSTOW_LOG_DEBUG,
        Level::TRACE => MAILSTOW_LOG_DEBUG + 1,
    }
}

/// Takes events as lines.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level may change.
        tracing::subscriber::Interest::sometimes()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.message;
        text.push_str(&line.fields);
        hand_over(number(*event.metadata().level()), text);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn hand_over(level: u32, mut text: String) {
    let Some(sink) = SINK.get() else {
        return;
    };
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    if text.len() > LINE_BYTES_MAX {
        let cut = (0..=LINE_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
    }
    match sink {
        Sink::Function(function) => {
            if let Ok(line) = CString::new(text) {
                function.call(level, &line);
            }
        }
        Sink::Descriptor(descriptor) => {
            text.push('\n');
            write_line(*descriptor, text.as_bytes());
        }
    }
}

/// The parts of a line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }
}
