//! Configuration: one vocabulary from built-in defaults, Postfix's files, `mailstow.toml` and
//! flags, later ones winning.
//!
//! Imports `limits`. What leaves this room is [`Settings`]: typed, validated once, immutable;
//! and for people [`Configuration`], which knows where each value came from. Sources:
//! postconf(5), master(5), <https://toml.io/en/v1.0.0>.
//!
//! In `mailstow.toml` times are text with a unit (`"10m"`) or a number of seconds, sizes are a
//! number of bytes or text with `K`, `M` or `G` (`"50M"`), lists are text or arrays of text,
//! and `$name` stands for the Postfix parameter of that name in every value (`$$` for `$`).

mod expand;
mod flags;
mod handover;
mod kind;
mod known;
mod listen;
mod load;
mod log_parameters;
mod parameters;
mod postfix;
mod problem;
mod program;
mod read;
mod recipient_parameters;
mod registry;
mod services;
mod settings;
mod surroundings;
mod toml_file;
mod validate;
mod values;

pub use flags::Flags;
pub use kind::{Kind, Set, Word};
pub use listen::{ListenAddress, ListenError};
pub use load::{Configuration, Entry, Sources};
pub use problem::{ConfigError, Origin, Problem};
pub use registry::{Fallback, PARAMETERS, Parameter};
pub use settings::{
    BareNewline, Compress, DeliveryLogSettings, Durability, FlushMethod, Limits, LmtpSettings,
    LogFormat, LogSettings, MboxLock, NulPolicy, PathSubstitution, RoutingSettings, Settings,
    SocketmapSettings, StoreSettings,
};

/// Reads `bytes` as `main.cf`, and expands every value in it; then as `master.cf` and as
/// `mailstow.toml`. For the fuzzer.
///
/// # Panics
/// A parameter that was read has no line.
#[cfg(any(test, fuzzing))]
pub fn read_main_cf(bytes: &[u8]) {
    use std::path::Path;
    let parsed = postfix::parse_main_cf(Path::new("main.cf"), bytes);
    let mut values = values::Values::new();
    for postfix::Assignment { name, value, line } in &parsed.assignments {
        assert!(*line > 0 && !name.is_empty(), "{name:?} in line {line}");
        let written = values::Written {
            text: value.clone(),
            origin: Origin::Default,
            main_cf: true,
        };
        values.set("routing", name, written);
    }
    let _ = values.name_host("machine");
    for postfix::Assignment { name, value, .. } in &parsed.assignments {
        let expanded = values.expand(name, value).map(|found| found.value);
        let mut settings = Settings::default();
        if let (Ok(value), Some(parameter)) = (expanded, registry::find("routing", name)) {
            let _ = parameter.kind.apply(&value, false, &mut settings);
        }
    }
    postfix::parse_master_cf(Path::new("master.cf"), bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        toml_file::parse_toml(Path::new("mailstow.toml"), text.as_bytes());
    }
}
