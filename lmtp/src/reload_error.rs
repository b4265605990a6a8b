//! Why new settings are not taken into use.

use mailstow_engine::EngineError;
use mailstow_engine::config::Settings;

/// New settings cannot be used; the old ones stay in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Their tables or directories cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Without this parameter all recipients would be unknown, and their mail bounced.
    #[error(
        "{0} was set and is empty now, as when a file is read while it is written; restart the \
         server to serve without it"
    )]
    Emptied(&'static str),
}

impl ReloadError {
    /// Refuses settings that lose what says who has a mailbox.
    pub(crate) fn of(old: &Settings, new: &Settings) -> Option<Self> {
        let (old, new) = (&old.routing, &new.routing);
        let parameters = [
            (
                "virtual_mailbox_domains",
                &old.virtual_mailbox_domains,
                &new.virtual_mailbox_domains,
            ),
            (
                "virtual_mailbox_maps",
                &old.virtual_mailbox_maps,
                &new.virtual_mailbox_maps,
            ),
        ];
        let is_lost = |old: &str, new: &str| !old.trim().is_empty() && new.trim().is_empty();
        let lost = parameters
            .into_iter()
            .find(|(_, old, new)| is_lost(old, new))?;
        Some(Self::Emptied(lost.0))
    }
}
