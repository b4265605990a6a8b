//! The settings of local(8), as values.

use std::time::Duration;

/// Characters that expansions may have; others become `_`.
pub(super) const SAFE: &str =
    "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The settings of local(8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each other field is the Postfix parameter of that name, postconf(5)"
)]
pub struct LocalSettings {
    /// `$name` not expanded.
    pub forward_path: String,
    pub forward_expansion_filter: String,
    pub require_home_directory: bool,
    pub mailbox_transport_maps: String,
    pub mailbox_transport: String,
    pub mailbox_command_maps: String,
    /// `$name` not expanded: a shell does that.
    pub mailbox_command: String,
    pub fallback_transport_maps: String,
    pub fallback_transport: String,
    /// `$name` not expanded.
    pub luser_relay: String,
    pub command_time_limit: Duration,
    pub command_expansion_filter: String,
    pub local_command_shell: String,
    /// What master.cf calls `local` is another program, such as pipe(8).
    pub is_other_program: bool,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            forward_path: "$home/.forward${recipient_delimiter}${extension}, $home/.forward".into(),
            forward_expansion_filter: SAFE.into(),
            require_home_directory: false,
            mailbox_transport_maps: String::new(),
            mailbox_transport: String::new(),
            mailbox_command_maps: String::new(),
            mailbox_command: String::new(),
            fallback_transport_maps: String::new(),
            fallback_transport: String::new(),
            luser_relay: String::new(),
            command_time_limit: Duration::from_secs(1000),
            command_expansion_filter: SAFE.into(),
            local_command_shell: String::new(),
            is_other_program: false,
        }
    }
}
