//! The figures of a handle as OpenMetrics text.
//!
//! Source: the OpenMetrics specification 1.0.

use crate::boundary::mailstow_statistics;
use std::fmt::Write as _;

/// Returns the text, which ends with `# EOF`.
pub(crate) fn text(figures: &mailstow_statistics) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    };
    let messages = [("", figures.messages)];
    family(
        "mailstow_messages",
        "counter",
        "Messages handed over.",
        &messages,
    );
    family(
        "mailstow_deliveries",
        "counter",
        "Recipients by outcome.",
        &[
            ("{state=\"durable\"}", figures.durable),
            ("{state=\"refused\"}", figures.refused),
            ("{state=\"deferred\"}", figures.deferred),
            ("{state=\"in_doubt\"}", figures.in_doubt),
        ],
    );
    let gauges: [(&str, &str, u64); 6] = [
        (
            "mailstow_deliveries_in_flight",
            "Recipients whose results were not freed.",
            figures.in_flight,
        ),
        (
            "mailstow_deliveries_in_flight_max",
            "Most of these there may be.",
            figures.in_flight_max,
        ),
        (
            "mailstow_log_state",
            "0 without a delivery log, 1 in service, 2 failed.",
            figures.log_state.into(),
        ),
        (
            "mailstow_log_used_bytes",
            "Bytes of the delivery log in use.",
            figures.log_bytes,
        ),
        (
            "mailstow_log_max_bytes",
            "Maximum size of the delivery log.",
            figures.log_bytes_max,
        ),
        (
            "mailstow_waiting_messages",
            "Messages that recovery could not store yet.",
            figures.waiting,
        ),
    ];
    for (name, help, value) in gauges {
        family(name, "gauge", help, &[("", value)]);
    }
    let lookups = [("", figures.lookups)];
    family(
        "mailstow_lookups",
        "counter",
        "Recipients looked up.",
        &lookups,
    );
    let busy = [("", figures.busy)];
    family(
        "mailstow_busy",
        "counter",
        "Calls refused because too many deliveries were in progress.",
        &busy,
    );
    text.push_str("# EOF\n");
    text
}
