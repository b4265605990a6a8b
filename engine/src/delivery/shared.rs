//! What the threads of a store share.

use super::context::Context;
use super::domains::Domains;
use super::ledger::Ledger;
use super::patience::Patience;
use crate::io::Disk;
use crate::sync::Arc;

/// What the threads of a store share.
#[derive(Debug)]
pub(super) struct Shared<D: Disk> {
    pub(super) context: Arc<Context<D>>,
    pub(super) domains: Arc<Domains>,
    pub(super) patience: Arc<Patience>,
    /// Present with `durability = "logged"`.
    pub(super) ledger: Option<Arc<Ledger<D::Handle>>>,
}
