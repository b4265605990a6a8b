//! What all connections of a server share.

use crate::admission::Admission;
use crate::autoreply::Autoreplies;
use crate::buffers::Pool;
use crate::drain::Drain;
use crate::ids::Ids;
use crate::in_place::InPlaceSlots;
use crate::notices::Notices;
use mailstow_engine::Engine;
use mailstow_engine::config::Settings;
use mailstow_engine::supervisor::Supervisor;
use parking_lot::Mutex;
use std::sync::Arc;

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) drain: Drain,
    pub(crate) ids: Ids,
    pub(crate) buffers: Pool,
    pub(crate) in_place_slots: InPlaceSlots,
    pub(crate) notices: Notices,
    pub(crate) autoreplies: Option<Arc<Autoreplies>>,
    /// What the server was started with; some of it stays in force until it ends.
    pub(crate) started_with: Arc<Settings>,
    settings: Mutex<Arc<Settings>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) supervisor: Supervisor,
}

impl Shared {
    /// What the sessions of a new server share.
    pub(crate) fn new(engine: Arc<Engine>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self {
            engine,
            drain: Drain::default(),
            ids: Ids::new(),
            buffers: Pool::default(),
            in_place_slots: InPlaceSlots::default(),
            notices: Notices::new(&settings),
            autoreplies: None,
            started_with: Arc::clone(&settings),
            settings: Mutex::new(settings),
            admission: Arc::default(),
            supervisor: Supervisor::default(),
        }
    }

    /// The settings in force now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    /// Puts other settings in force.
    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.lock() = Arc::new(settings);
    }
}
