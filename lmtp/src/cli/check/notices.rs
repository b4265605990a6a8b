//! Who sends the success notices that senders ask for.
//!
//! Without a way out nothing is lost: Postfix sends them.

use super::findings::Findings;
use crate::notices::way_out;
use mailstow_engine::config::{Settings, SuccessNotices};

/// Says why DSN is not offered.
pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    let Err(cause) = way_out(settings) else {
        return;
    };
    match settings.lmtp.success_notices {
        SuccessNotices::Auto => findings.note(format_args!(
            "DSN is not offered: {cause}; until then Postfix sends requested success notices, and \
             X-Original-To is not written"
        )),
        SuccessNotices::Yes => findings.warning(format_args!(
            "success_notices = yes: recipients whose sender requests a success notice are \
             deferred: {cause}"
        )),
        SuccessNotices::No => {}
    }
}
