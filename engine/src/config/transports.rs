//! Reads the services of `master.cf` that deliver mail, with their limits.
//!
//! Sources: master(5), transport(5), pipe(8), postconf(5)
//! (`transport_destination_recipient_limit` and its like).

use std::path::PathBuf;
use std::time::Duration;

use super::handover::{hears, is_same, local_address};
use super::kind::{items, seconds};
use super::postfix::Service;
use super::settings::Settings;
use super::transport_settings::{TransportService, TransportSettings};
use super::values::Values;

impl Settings {
    /// Returns true for a transport and nexthop by which mail comes to this server: what its own
    /// sockets take is stored in mailboxes.
    pub fn is_own_socket(&self, transport: &str, nexthop: &str) -> bool {
        let service = self.transport.services.iter();
        let service = service.clone().find(|service| service.name == transport);
        let is_lmtp = service.map_or(transport == "lmtp", |service| service.command == "lmtp");
        if !is_lmtp {
            return false;
        }
        let mut listen = self.lmtp.listen.iter();
        let Some(socket) = nexthop.strip_prefix("unix:") else {
            let address = local_address(nexthop);
            return address.is_some_and(|address| listen.any(|listens| hears(listens, &address)));
        };
        let is_chrooted = service.is_some_and(|service| service.is_chrooted);
        let socket = match is_chrooted {
            true => socket.trim_start_matches('/'),
            false => socket,
        };
        let seen = self.transport.queue_directory.join(socket);
        listen.any(|listens| is_same(listens, &seen))
    }
}

/// What `master.cf` and `main.cf` say of transports, and what is odd about it.
pub(super) fn settings(
    enabled: bool,
    services: &[Service],
    values: &Values,
) -> (TransportSettings, Vec<String>) {
    let value = |name: &str| value_of(values, name, None).unwrap_or_default();
    let list = |name: &str| {
        let text = value(name);
        items(&text).map(str::to_owned).collect()
    };
    let mut warnings = Vec::new();
    let delivers = |service: &&Service| service.kind != "inet";
    let services = services.iter().filter(delivers);
    let settings = TransportSettings {
        enabled,
        services: services
            .map(|service| transport_service(service, values, &mut warnings))
            .collect(),
        mail_owner: value("mail_owner"),
        queue_directory: PathBuf::from(value("queue_directory")),
        environment: [list("import_environment"), list("export_environment")],
    };
    if !enabled {
        warnings.clear();
    }
    (settings, warnings)
}

fn transport_service(
    service: &Service,
    values: &Values,
    warnings: &mut Vec<String>,
) -> TransportService {
    let name = &service.name;
    // Of the program itself, `-o` wins; the limits per destination are the queue manager's.
    let own = |parameter: &str| {
        let mut own = service.overrides.iter().rev();
        let text = own.find(|(known, _)| known == parameter);
        let text = text.map(|(_, text)| text.clone());
        value_of(values, parameter, text)
    };
    let mut number = |parameter: String, fallback: &str| {
        let text = value_of(values, &parameter, None);
        let text = text.or_else(|| value_of(values, fallback, None));
        let text = text.unwrap_or_default();
        text.parse::<usize>().unwrap_or_else(|_| {
            warnings.push(format!("{parameter} = {text}: use a number; 1 is taken"));
            1
        })
    };
    let recipient_limit = number(
        format!("{name}_destination_recipient_limit"),
        "default_destination_recipient_limit",
    );
    let concurrency_limit = number(
        format!("{name}_destination_concurrency_limit"),
        "default_destination_concurrency_limit",
    );
    let default_process_limit = number("default_process_limit".to_owned(), "");
    let process_limit = match service.process_limit.as_str() {
        "-" => default_process_limit,
        text => text.parse().unwrap_or(default_process_limit),
    };
    let time = own(&format!("{name}_time_limit")).or_else(|| own("command_time_limit"));
    let time_limit = time.as_deref().map(seconds).and_then(Result::ok);
    let is_chrooted = match service.chroot.as_str() {
        "-" => {
            let default = "${{$compatibility_level} <level {1} ? {y} : {n}}";
            let expansion = values.expand("chroot", default);
            expansion.is_ok_and(|expansion| expansion.value == "y")
        }
        field => field == "y",
    };
    TransportService {
        name: name.clone(),
        command: service.command.clone(),
        arguments: service.arguments.clone(),
        is_chrooted,
        line: service.line,
        recipient_limit,
        concurrency_limit,
        process_limit,
        time_limit: Duration::from_secs(time_limit.unwrap_or(1000)),
        recipient_delimiter: own("recipient_delimiter").unwrap_or_default(),
    }
}

/// The value of a parameter, or `text` in its place, expanded; `None` when there is none.
fn value_of(values: &Values, parameter: &str, text: Option<String>) -> Option<String> {
    let is_name = |name: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !name.is_empty() && name.chars().all(is_part)
    };
    let text = match text {
        Some(text) => text,
        None if is_name(parameter) => values.written_or_default(parameter)?.to_owned(),
        None => return None,
    };
    let value = values.expand(parameter, &text).ok()?.value;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::load::Configuration;
    use super::super::test_files;

    fn load(main_cf: &str, master_cf: &str) -> Configuration {
        test_files::load(main_cf, master_cf, "[transport]\nenabled = true\n")
    }

    #[test]
    fn services_have_the_limits_of_main_cf_and_the_options_of_master_cf() {
        let configuration = load(
            "mail_owner = nobody\nqueue_directory = /q\na_time_limit = 2m\n\
             a_destination_recipient_limit = 1\ndefault_process_limit = 7\n\
             b_destination_concurrency_limit = many\ncompatibility_level = 3.6\n",
            "a unix - n n - - pipe -o command_time_limit=5 user=x argv=y z\n\
             b unix - n - - 3 pipe -o b_time_limit=5 user=x argv=y\n\
             25 inet n - n - - smtpd\nc unix - - y - - lmtp\n",
        );
        let transport = &configuration.settings.transport;
        assert_eq!(transport.mail_owner, "nobody");
        assert_eq!(transport.queue_directory.to_str(), Some("/q"));
        assert_eq!(transport.environment[1], ["TZ", "MAIL_CONFIG", "LANG"]);
        assert!(transport.environment[0].contains(&"LANG=C".to_owned()));
        let services: Vec<_> = transport
            .services
            .iter()
            .map(|s| {
                let limits = (s.recipient_limit, s.concurrency_limit, s.process_limit);
                (
                    s.name.as_str(),
                    limits,
                    s.time_limit.as_secs(),
                    s.is_chrooted,
                )
            })
            .collect();
        assert_eq!(
            services,
            [
                ("a", (1, 20, 7), 120, false),
                ("b", (50, 1, 3), 5, false),
                ("c", (50, 20, 7), 1000, true),
            ]
        );
        let warnings = configuration.warnings.join("\n");
        assert!(
            warnings.contains("b_destination_concurrency_limit = many: use a number"),
            "{warnings}"
        );
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_at_each_loopback_address() {
        let mut settings = load("queue_directory = /q\n", "lmtp unix - - n - - lmtp\n").settings;
        for (listen, nexthop, is_own) in [
            ("inet:0.0.0.0:24", "inet:127.0.0.2:24", true),
            ("inet:0.0.0.0:24", "inet:[::1]:24", false),
            ("inet:[::]:24", "inet:127.0.0.1:24", true),
            ("inet:[::]:24", "inet:[::1]:24", true),
            ("inet:localhost:24", "inet:[::1]:24", true),
            ("inet:localhost:24", "inet:127.0.0.3:24", false),
            ("inet:mx.example:24", "inet:127.0.0.3:24", true),
        ] {
            settings.lmtp.listen = vec![listen.parse().unwrap()];
            let found = settings.is_own_socket("lmtp", nexthop);
            assert_eq!(found, is_own, "{nexthop} of {listen}");
        }
    }

    #[test]
    fn what_comes_to_our_own_sockets_is_ours() {
        let mut settings = load(
            "queue_directory = /q\ncompatibility_level = 3.6\n",
            "hidden unix - - y - - lmtp\nlmtp unix - - n - - lmtp\nsmtp unix - - n - - smtp\n",
        )
        .settings;
        let listen = ["unix:/q/private/m", "inet:127.0.0.1:24"];
        settings.lmtp.listen = listen.map(|one| one.parse().unwrap()).into();
        for (transport, nexthop, is_own) in [
            ("lmtp", "unix:private/m", true),
            ("hidden", "unix:/private/m", true),
            ("lmtp", "unix:/private/m", false),
            ("lmtp", "inet:localhost:24", true),
            ("lmtp", "inet:127.0.0.1:25", false),
            ("lmtp", "inet:127.0.0.2:24", false),
            ("lmtp", "inet:[::1]:24", false),
            ("lmtp", "inet:store.example:24", false),
            ("smtp", "127.0.0.1:24", false),
            ("other", "unix:private/m", false),
        ] {
            assert_eq!(
                settings.is_own_socket(transport, nexthop),
                is_own,
                "{transport}:{nexthop}"
            );
        }
    }
}
