//! Whether Postfix's lmtp(8) looks for the server where it listens.
//!
//! Sources: master(5), lmtp(8), transport(5). Mail for a socket without a listener waits in the
//! queue. Sockets on other machines are not checked. Links are resolved, so that two names of one
//! socket are recognised as one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::listen::ListenAddress;
use super::postfix::Service;
use super::settings::Settings;
use super::values::Values;

/// What is wrong between `virtual_transport`, the services of the `master.cf` at `path` and the
/// addresses the server listens on, with its remedy.
pub(super) fn review_handover(
    path: &Path,
    services: &[Service],
    values: &Values,
    settings: &Settings,
) -> Option<String> {
    let (transport, nexthop) = settings.routing.virtual_transport.split_once(':')?;
    let service = services.iter().find(|service| service.name == transport)?;
    if service.command != "lmtp" {
        return None;
    }
    if nexthop.contains([',', ' ', '\t']) {
        // Several next hops: any of them may be ours.
        return None;
    }
    let listen = &settings.lmtp.listen;
    let expand = |text: &str| Some(values.expand("virtual_transport", text).ok()?.value);
    let origin = values.origin("routing", "virtual_transport");
    let Some(socket) = nexthop.strip_prefix("unix:") else {
        let address = local_address(nexthop)?;
        let is_heard = |listens: &ListenAddress| hears(listens, &address);
        return (!listen.iter().any(is_heard)).then(|| {
            format!(
                "virtual_transport ({origin}): Postfix hands mail to {address}, where mailstow \
                 does not listen; {}",
                remedy(&address, settings)
            )
        });
    };
    let is_chrooted = match service.chroot.as_str() {
        "-" => expand("${{$compatibility_level} <level {1} ? {y} : {n}}")? == "y",
        field => field == "y",
    };
    let queue = PathBuf::from(expand("$queue_directory")?);
    let is_hidden = is_chrooted && socket.starts_with('/');
    let seen = match is_hidden {
        true => queue.join(socket.trim_start_matches('/')),
        // lmtp(8) works in the queue directory.
        false => queue.join(socket),
    };
    let address = ListenAddress::Unix(seen.clone());
    if listen.iter().any(|listens| is_same(listens, &seen)) {
        return None;
    }
    Some(match is_hidden {
        true => format!(
            "virtual_transport ({origin}): service {transport} is chrooted ({}:{}) and looks for \
             the socket in {}, where mailstow does not listen; listen on {} and set \
             virtual_transport = {transport}:unix:private/mailstow-lmtp",
            path.display(),
            service.line,
            seen.display(),
            queue.join("private/mailstow-lmtp").display()
        ),
        false => format!(
            "virtual_transport ({origin}): Postfix looks for the socket {}, where mailstow does \
             not listen; {}",
            seen.display(),
            remedy(&address, settings)
        ),
    })
}

/// What an operator should know about lines that lmtp(8) breaks on the way here.
pub(super) fn review_line_length(
    services: &[Service],
    values: &Values,
    settings: &Settings,
) -> Option<String> {
    const NAME: &str = "lmtp_line_length_limit";
    let (transport, _) = settings.routing.virtual_transport.split_once(':')?;
    let service = services.iter().find(|service| service.name == transport)?;
    if service.command != "lmtp" {
        return None;
    }
    let own = service
        .overrides
        .iter()
        .rev()
        .find(|(name, _)| name == NAME);
    let text = match own {
        Some((_, text)) => text.clone(),
        None => format!("${NAME}"),
    };
    let limit = values.expand("virtual_transport", &text).ok()?.value;
    (limit.trim() != "0").then(|| {
        format!(
            "{NAME} = {limit}: Postfix breaks longer lines, which makes DKIM and S/MIME signatures \
             of such mail invalid; set {NAME} = 0 in main.cf, mailstow takes lines of any length"
        )
    })
}

/// Both name one socket, perhaps through links such as /var/run.
pub(super) fn is_same(listens: &ListenAddress, seen: &Path) -> bool {
    let real = |path: &Path| {
        let directory = std::fs::canonicalize(path.parent()?).ok()?;
        Some(directory.join(path.file_name()?))
    };
    match listens {
        ListenAddress::Unix(socket) => {
            socket == seen || real(socket).is_some_and(|real_one| real(seen) == Some(real_one))
        }
        ListenAddress::Inet { .. } => false,
    }
}

/// The address of a next hop on this machine.
pub(super) fn local_address(nexthop: &str) -> Option<ListenAddress> {
    let host = nexthop.strip_prefix("inet:").unwrap_or(nexthop);
    // Brackets only keep lmtp(8) from asking for MX records; IPv6 addresses need them.
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if !host.contains(':') => format!("{host}{port}"),
        _ => host.to_owned(),
    };
    let address: ListenAddress = format!("inet:{host}").parse().ok()?;
    match &address {
        ListenAddress::Inet { host, .. } if is_local(host) => Some(address),
        _ => None,
    }
}

/// Returns true when a server that listens there is reached at `address`, which is one of this
/// machine's loopback addresses. What a host name means is not asked: it may be that address.
pub(super) fn hears(listens: &ListenAddress, address: &ListenAddress) -> bool {
    let (
        ListenAddress::Inet { host, port },
        ListenAddress::Inet {
            host: wanted,
            port: wanted_port,
        },
    ) = (listens, address)
    else {
        return false;
    };
    let loopback = |host: &str| match host {
        "localhost" => vec![
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ],
        host => host.parse().ok().into_iter().collect(),
    };
    let (heard, wanted) = (loopback(host), loopback(wanted));
    let is_one = |heard: &IpAddr| match heard {
        // One of IPv6 may take what comes over IPv4, too.
        IpAddr::V6(address) if address.is_unspecified() => true,
        IpAddr::V4(address) if address.is_unspecified() => wanted.iter().any(IpAddr::is_ipv4),
        address => wanted.contains(address),
    };
    port == wanted_port && (heard.is_empty() || heard.iter().any(is_one))
}

fn is_local(host: &str) -> bool {
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

fn remedy(wanted: &ListenAddress, settings: &Settings) -> String {
    let listens: Vec<String> = settings
        .lmtp
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    match listens.as_slice() {
        [] => format!("listen on {wanted}"),
        _ => format!(
            "listen on {wanted}, or name what it listens on: {}",
            listens.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Configuration, Sources};
    use std::fs;

    /// What is said of a handover to `transport`, with lmtp(8) chrooted as `chroot` says.
    fn handover(transport: &str, chroot: &str, listen: &str) -> Option<String> {
        let main_cf = format!(
            "virtual_transport = {transport}\nqueue_directory = /q\n\
             compatibility_level = 3.6\nvirtual_mailbox_domains = a.b\n"
        );
        let toml = format!("[lmtp]\nlisten = \"{listen}\"\n");
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let master_cf = format!("lmtp unix - - {chroot} - - lmtp\nodd unix - n n - - pipe\n");
        for (name, text) in [
            ("main.cf", main_cf),
            ("master.cf", master_cf),
            ("mailstow.toml", toml),
        ] {
            fs::write(path(name), text).expect(name);
        }
        let sources = Sources {
            config: Some(path("mailstow.toml")),
            postfix: Some(directory.path().to_owned()),
            ..Sources::default()
        };
        Configuration::load(&sources).expect("valid").handover
    }

    #[test]
    fn a_socket_that_a_chrooted_lmtp_cannot_see_is_reported() {
        let transport = "lmtp:unix:/run/mailstow/lmtp";
        let hidden = handover(transport, "y", "/run/mailstow/lmtp").expect("a warning");
        assert!(
            hidden.contains("looks for the socket in /q/run/mailstow/lmtp"),
            "{hidden}"
        );
        assert!(hidden.contains("listen on /q/private/mailstow-lmtp and"));
        for (chroot, listen) in [
            ("n", "/run/mailstow/lmtp"),
            ("-", "/run/mailstow/lmtp"),
            ("y", "/q/run/mailstow/lmtp"),
        ] {
            assert_eq!(
                handover(transport, chroot, listen),
                None,
                "{chroot} {listen}"
            );
        }
    }

    #[test]
    fn a_transport_that_leads_past_the_server_is_reported() {
        for (transport, listen, wanted) in [
            (
                "lmtp:unix:private/mailstow",
                "/run/m",
                "unix:/q/private/mailstow",
            ),
            ("lmtp:unix:/run/x", "/run/m", "unix:/run/x"),
            ("lmtp:inet:127.0.0.1:24", "/run/m", "inet:127.0.0.1:24"),
            (
                "lmtp:[localhost]:2400",
                "inet:localhost:24",
                "inet:localhost:2400",
            ),
            ("lmtp:inet:[::1]:2400", "/run/m", "inet:[::1]:2400"),
        ] {
            let missed = handover(transport, "n", listen).expect(transport);
            let remedy = format!("listen on {wanted}, or name");
            assert!(missed.contains(&remedy), "{transport}: {missed}");
        }
        for (transport, listen) in [
            ("lmtp:unix:private/mailstow", "/q/private/mailstow"),
            ("lmtp:unix:/run/m", "/run/m"),
            ("lmtp:inet:127.0.0.1:24", "inet:0.0.0.0:24"),
            ("lmtp:inet:localhost", "inet:127.0.0.1:24"),
            ("lmtp:inet:store.example:24", "/run/m"),
            ("odd:", "/run/m"),
            ("lmtp:unix:/run/x, unix:/run/y", "/run/m"),
            ("lmtp:unix:/proc/self/root/run/m", "/run/m"),
            ("virtual", "/run/m"),
            ("relay:unix:/x", "/run/m"),
        ] {
            assert_eq!(handover(transport, "n", listen), None, "{transport}");
        }
    }
}
