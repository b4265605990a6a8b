//! Checks that need more than one setting, or the meaning of one.

use std::path::Path;

use super::problem::{Origin, Problem};
use super::settings::{Compress, RoutingSettings, Settings};
use super::values::Values;

/// What is wrong (mistakes, then warnings) with settings that are each valid separately.
pub(super) fn validate(settings: &Settings, values: &Values) -> (Vec<Problem>, Vec<String>) {
    let routing = &settings.routing;
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let place = |name: &str| match values.origin("routing", name) {
        Origin::Default => None,
        origin => Some(origin),
    };
    let mut wrong = |name: &str, text: String| {
        problems.push(Problem {
            origin: place(name),
            text,
        });
    };
    if !routing.virtual_mailbox_maps.is_empty() && routing.virtual_mailbox_base == Path::new("/") {
        warnings.push(
            "virtual_mailbox_base is /: a table can name any file of the system; name another \
             directory"
                .to_owned(),
        );
    }
    if let Some(text) = limits(routing) {
        let set = place("virtual_mailbox_limit").is_some();
        wrong(
            if set {
                "virtual_mailbox_limit"
            } else {
                "message_size_limit"
            },
            text,
        );
    }
    if let Some(c) = routing
        .recipient_delimiter
        .chars()
        .find(|c| !is_delimiter(*c))
    {
        wrong(
            "recipient_delimiter",
            format!(
                "recipient_delimiter = {}: {c:?} cannot separate an extension; use + or -",
                routing.recipient_delimiter
            ),
        );
    }
    if routing.virtual_mailbox_domains.is_empty() && !settings.delivers_elsewhere() {
        warnings.push(
            "virtual_mailbox_domains is empty: every recipient is refused; name your domains"
                .to_owned(),
        );
    }
    if settings.limits.memory_bytes < settings.limits.message_memory_bytes {
        warnings.push(format!(
            "memory_bytes = {} is less than message_memory_bytes = {}, which has no effect then",
            settings.limits.memory_bytes, settings.limits.message_memory_bytes
        ));
    }
    (problems, warnings)
}

/// Returns what keeps mail from being delivered by settings that are valid for everything else.
pub(super) fn undeliverable(settings: &Settings, values: &Values) -> Vec<Problem> {
    let compress = compress(settings.store.compress, cfg!(feature = "zstd"))
        .map(|text| Problem::at(&values.origin("store", "compress"), text));
    missing_base(settings, values)
        .into_iter()
        .chain(compress)
        .collect()
}

fn missing_base(settings: &Settings, values: &Values) -> Option<Problem> {
    let routing = &settings.routing;
    let is_needed = !routing.virtual_mailbox_maps.is_empty() && settings.needs_base();
    if !is_needed || !routing.virtual_mailbox_base.as_os_str().is_empty() {
        return None;
    }
    Some(match values.origin("routing", "virtual_mailbox_maps") {
        origin @ Origin::Flag(_) => Problem::at(&origin, "mail needs a directory; add --base DIR"),
        Origin::Default => Problem::anywhere(NO_BASE),
        origin => Problem::at(&origin, NO_BASE),
    })
}

const NO_BASE: &str = "virtual_mailbox_maps is set but virtual_mailbox_base is not; set it to the \
                       directory that holds the mailboxes";

/// Postfix's virtual(8) does not start when a mailbox could not take the largest message.
fn limits(routing: &RoutingSettings) -> Option<String> {
    let (mailbox, message) = (routing.virtual_mailbox_limit, routing.message_size_limit);
    if mailbox == 0 || (message != 0 && mailbox >= message) {
        return None;
    }
    let size = match message {
        0 => "0 (no limit)".to_owned(),
        _ => message.to_string(),
    };
    Some(format!(
        "virtual_mailbox_limit = {mailbox} is smaller than message_size_limit = {size}; raise \
         virtual_mailbox_limit or set it to 0 (no limit)"
    ))
}

/// The server has zstd; a program around the engine may leave it out.
fn compress(compress: Compress, has_zstd: bool) -> Option<String> {
    (compress == Compress::Zstd && !has_zstd).then(|| {
        "compress = zstd: mailstow was built without zstd; build mailstow-engine with the feature \
         \"zstd\", or use none"
            .to_owned()
    })
}

fn is_delimiter(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '@' | '/' | '"' | '\\' | '<' | '>' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_files_are_refused_in_a_build_without_zstd() {
        let refused = compress(Compress::Zstd, false).unwrap_or_default();
        assert!(refused.contains("feature \"zstd\""), "{refused}");
        assert_eq!(compress(Compress::Zstd, true), None);
        assert_eq!(compress(Compress::None, false), None);
    }
}
