//! Configuration: one vocabulary from built-in defaults, Postfix's files, `mailstow.toml` and
//! flags, later ones winning.
//!
//! Imports `table` (names of table lists only), `clock`. What leaves this room is [`Settings`]:
//! typed, validated once, immutable.

mod settings;

pub use settings::{
    BareNewline, Durability, FlushMethod, Limits, LmtpSettings, LogFormat, LogSettings, MboxLock,
    NulPolicy, RoutingSettings, Settings, StoreSettings,
};
