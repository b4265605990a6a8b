//! Whether autoreplies can be made and sent.

use super::Findings;
use crate::autoreply::problems;
use mailstow_engine::config::Settings;

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    if settings.autoreply.directory.as_os_str().is_empty() {
        return;
    }
    if !settings.transport.enabled {
        findings.note("[autoreply] has no effect: [transport] is not enabled");
        return;
    }
    for problem in problems(settings) {
        findings.error(format_args!("autoreplies cannot be sent: {problem}"));
    }
}
