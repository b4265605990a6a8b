//! Time limits that are never reached, because a shorter one ends the delivery before.
//!
//! The rule: a delivery has until `delivery_deadline`, whatever delivers it, and that must end
//! before Postfix gives the session up. Sources: postconf(5) `command_time_limit`,
//! `lmtp_data_done_timeout`.

use std::fmt::Write as _;
use std::time::Duration;

use super::kind::seconds;
use super::postfix::Service;
use super::settings::Settings;
use super::values::Values;

/// A time limit with its name.
type TimeLimit = (String, Duration);

/// Returns a remark about the limits that `delivery_deadline` is shorter than.
pub(super) fn review_time_limits(settings: &Settings) -> Option<String> {
    let deadline = settings.lmtp.delivery_deadline;
    let unreached = |(_, limit): &TimeLimit| *limit >= deadline;
    let limits: Vec<TimeLimit> = of_deliveries(settings)
        .into_iter()
        .filter(unreached)
        .collect();
    let (first, rest) = limits.split_first()?;
    let mut names = shown(first);
    for limit in rest {
        let _ = write!(names, ", {}", shown(limit));
    }
    Some(format!(
        "{names}: never reached: delivery_deadline = {}s ends each delivery before, and its mail \
         is deferred (451) instead of returned; set delivery_deadline in [lmtp] to a longer time, \
         or the time limit to a shorter one",
        deadline.as_secs()
    ))
}

/// Returns a warning when Postfix, whose `main.cf` was read, does not wait for the replies.
pub(super) fn review_reply_time(
    settings: &Settings,
    services: &[Service],
    values: &Values,
) -> Option<String> {
    const NAME: &str = "lmtp_data_done_timeout";
    let deadline = settings.lmtp.delivery_deadline;
    let read = |text: &str| seconds(&values.expand(NAME, text).ok()?.value).ok();
    let general = values.written_or_default(NAME).and_then(read);
    let clients = services.iter().filter(|service| service.command == "lmtp");
    let of_client = |service: &Service| {
        let mut own = service.overrides.iter().rev();
        let own = own.find(|(name, _)| name == NAME);
        own.and_then(|(_, text)| read(text)).or(general)
    };
    // The longest: which client is for this server is not known.
    let longest = clients.filter_map(of_client).max().or(general)?;
    (deadline.as_secs() >= longest).then(|| {
        format!(
            "delivery_deadline = {}s is never reached: Postfix ends the session after {NAME} = \
             {longest}s and sends the mail again while it is being delivered; set \
             delivery_deadline of [lmtp] below {longest}s",
            deadline.as_secs()
        )
    })
}

/// The limits of what delivers mail, besides `delivery_deadline`.
fn of_deliveries(settings: &Settings) -> Vec<TimeLimit> {
    let mut limits = Vec::new();
    if !settings.transport.enabled {
        return limits;
    }
    let of_commands = settings.routing.local.command_time_limit;
    let services = settings.transport.services.iter();
    let pipes: Vec<_> = services.filter(|one| one.command == "pipe").collect();
    let takes_general = |limit: Duration| limit == of_commands;
    if settings.delivers_locally() || pipes.iter().any(|pipe| takes_general(pipe.time_limit)) {
        limits.push(("command_time_limit".to_owned(), of_commands));
    }
    for pipe in pipes {
        if !takes_general(pipe.time_limit) {
            limits.push((format!("{}_time_limit", pipe.name), pipe.time_limit));
        }
    }
    let relay = &settings.relay;
    limits.push((
        "connect_timeout of [transport]".to_owned(),
        relay.connect_timeout,
    ));
    limits.push((
        "reply_timeout of [transport]".to_owned(),
        relay.reply_timeout,
    ));
    limits
}

fn shown((name, limit): &TimeLimit) -> String {
    format!("{name} = {}s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::test_files::load;

    fn remark(master_cf: &str, toml: &str) -> Option<String> {
        let toml = format!("{toml}[transport]\nenabled = true\n");
        let remarks = load(
            "mail_owner = nobody\nqueue_directory = /q\n",
            master_cf,
            &toml,
        );
        let mut advice = remarks.advice.into_iter();
        advice.find(|text| text.contains("never reached"))
    }

    #[test]
    fn a_time_limit_that_the_deadline_ends_before_is_named() {
        let pipes = "a unix - n n - - pipe user=x argv=y\n\
                     b unix - n n - - pipe -o b_time_limit=60 user=x argv=y\n\
                     c unix - n n - - pipe -o c_time_limit=2m user=x argv=y\n";
        let text = remark(pipes, "").unwrap();
        let named = "command_time_limit = 1000s, c_time_limit = 120s: never reached";
        assert!(text.starts_with(named), "{text}");
        assert!(text.contains("delivery_deadline = 120s"), "{text}");
        let patient = "[lmtp]\ndelivery_deadline = \"1001s\"\n";
        assert_eq!(remark(pipes, patient), None);
        let hasty = "[lmtp]\ndelivery_deadline = 20\n";
        let text = remark("", hasty).unwrap();
        assert!(
            text.contains("reply_timeout of [transport] = 30s"),
            "{text}"
        );
        assert!(!text.contains("connect_timeout"), "{text}");
    }

    #[test]
    fn where_no_transport_is_in_use_no_time_limit_is() {
        let pipe = "a unix - n n - - pipe user=x argv=y\n";
        let loaded = load("mail_owner = nobody\n", pipe, "");
        assert!(!loaded.advice.iter().any(|text| text.contains("never")));
    }

    #[test]
    fn a_deadline_past_the_timeout_of_postfix_is_a_fault() {
        let warning = |main_cf: &str, master_cf: &str, deadline: &str| {
            let toml = format!("[lmtp]\ndelivery_deadline = \"{deadline}\"\n");
            let warnings = load(main_cf, master_cf, &toml).warnings;
            let mut warnings = warnings.into_iter();
            warnings.find(|text| text.contains("lmtp_data_done_timeout"))
        };
        assert_eq!(warning("", "", "599s"), None);
        let text = warning("", "", "10m").unwrap();
        assert!(
            text.starts_with("delivery_deadline = 600s is never"),
            "{text}"
        );
        assert!(warning("lmtp_data_done_timeout = 1m\n", "", "2m").is_some());
        let own = "store unix - - n - - lmtp -o lmtp_data_done_timeout=20m\n";
        assert_eq!(warning("", own, "10m"), None);
    }
}
