//! Configuration: one vocabulary from built-in defaults, Postfix's files, `mailstow.toml` and
//! flags, later ones winning.
//!
//! What leaves this room is [`Settings`]: typed, validated once, immutable; and for people
//! [`Configuration`], which knows where each value came from. Sources: postconf(5), master(5),
//! <https://toml.io/en/v1.0.0>.
//!
//! In `mailstow.toml` times are text with a unit (`"10m"`) or a number of seconds, sizes are a
//! number of bytes or text with `K`, `M` or `G` (`"50M"`), lists are text or arrays of text,
//! and `$name` is replaced by the Postfix parameter of that name in every value (`$$` for `$`).

mod autoreply_parameters;
mod autoreply_settings;
mod environment;
mod expand;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod handover;
mod kind;
mod known;
mod listen;
mod load;
mod local_parameters;
mod local_settings;
mod log_parameters;
mod parameter;
mod parameters;
mod postfix;
mod problem;
mod program;
mod read;
mod recipient_parameters;
mod registry;
mod relay_parameters;
mod relay_settings;
mod remarks;
mod services;
mod settings;
mod socket_access;
mod store_parameters;
#[cfg(test)]
mod test_files;
mod time_limits;
mod toml_file;
mod transport_parameters;
mod transport_settings;
mod transports;
mod validate;
mod values;

pub use autoreply_settings::AutoreplySettings;
pub(crate) use expand::expand_attributes;
pub use flags::Flags;
pub use kind::{Kind, Set, Word};
pub use listen::{ListenAddress, ListenError};
pub use load::{Configuration, ConfiguredValue, Sources};
pub use local_settings::LocalSettings;
pub use parameter::{Fallback, Parameter};
pub use problem::{ConfigError, Origin, Problem};
pub use registry::PARAMETERS;
pub use relay_settings::{RelaySettings, TlsLevel};
pub use settings::{
    BareNewline, Compress, Copies, DeliveryLogSettings, Durability, FlushMethod, Limits,
    LmtpSettings, LogFormat, LogSettings, MboxLock, NulPolicy, PathSubstitution, RoutingSettings,
    Settings, SocketmapSettings, StatusFields, StoreSettings, SuccessNotices,
};
pub use transport_settings::{TransportService, TransportSettings};
