//! What `master.cf` says to the program that mailstow stands in for.
//!
//! Source: master(5).

use std::path::Path;

use super::postfix::Service;
use super::registry::find;

/// Warnings about overrides of our parameters for virtual(8) in the `master.cf` at `path`.
pub(super) fn review_services(path: &Path, services: &[Service]) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in services {
        if service.command != "virtual" {
            continue;
        }
        for (name, _) in &service.overrides {
            if find("routing", name).is_some() {
                warnings.push(format!(
                    "{}:{}: service {} sets {name} with -o, which mailstow does not read; set \
                     it in main.cf or mailstow.toml",
                    path.display(),
                    service.line,
                    service.name
                ));
            }
        }
    }
    warnings
}
