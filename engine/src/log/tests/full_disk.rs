//! Goal: a log whose disk was full is as good as any other when there is room again.

use super::super::sim::SimMedium;
use super::super::{LogError, StepwiseLog};
use super::support::{record, small};
use crate::sync::Arc;

#[test]
fn a_log_whose_disk_was_full_once_grows_past_its_bound_when_it_must() {
    let medium = SimMedium::new(1);
    let (log, _) = StepwiseLog::open_stepwise(Arc::new(medium.clone()), small()).unwrap();
    let append = |id| {
        let ticket = log.append_anyway(record(id, 3000).encode())?;
        log.wait(ticket)
    };
    medium.set_capacity(Some(medium.used()));
    let refused = (0..1000).map(append).find_map(Result::err);
    assert!(
        matches!(refused, Some(LogError::Full { .. })),
        "{refused:?}"
    );
    medium.set_capacity(None);
    log.preallocate();
    for id in 1000..1060 {
        append(id).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    assert!(medium.used() > small().log_bytes_max);
}
