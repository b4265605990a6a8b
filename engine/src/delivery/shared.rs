//! What the threads of a store share.

use super::context::Context;
use super::ledger::Ledger;
use super::step_limit::StepLimit;
use super::writer_pools::WriterPools;
use crate::io::Disk;
use crate::sync::Arc;

/// What the threads of a store share.
#[derive(Debug)]
pub(super) struct Shared<D: Disk> {
    pub(super) context: Arc<Context<D>>,
    pub(super) pools: Arc<WriterPools>,
    pub(super) step_limit: Arc<StepLimit>,
    /// Present with `durability = "logged"`.
    pub(super) ledger: Option<Arc<Ledger<D::Handle>>>,
}
