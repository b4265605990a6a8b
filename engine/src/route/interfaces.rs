//! The network addresses of this machine, for recipients such as `user@[192.0.2.1]`.
//!
//! Host names in `inet_interfaces` are looked up when the first address literal is asked for, not
//! before: hardly any mail has one. Source: postconf(5) `inet_interfaces`, `proxy_interfaces`; RFC
//! 5321 section 4.1.3.

use crate::config::RoutingSettings;
use crate::sync::OnceLock;
use crate::table::words;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};

/// Addresses that mean this machine.
#[derive(Debug)]
pub(crate) struct Interfaces {
    names: Vec<String>,
    addresses: OnceLock<Vec<IpAddr>>,
}

impl Interfaces {
    pub(crate) fn new(settings: &RoutingSettings) -> Self {
        let lists = [&settings.inet_interfaces, &settings.proxy_interfaces];
        let names = lists
            .iter()
            .flat_map(|list| words(list))
            .map(str::to_owned)
            .collect();
        Self {
            names,
            addresses: OnceLock::new(),
        }
    }

    /// Whether an address literal, without its brackets, is one of ours.
    pub(crate) fn have(&self, literal: &str) -> bool {
        let Some(wanted) = parse_literal(literal) else {
            return false;
        };
        let addresses = self
            .addresses
            .get_or_init(|| self.names.iter().flat_map(|n| find(n)).collect());
        addresses.contains(&wanted)
    }
}

/// The address in an address literal: `192.0.2.1` or `IPv6:2001:db8::1`.
pub(crate) fn parse_literal(literal: &str) -> Option<IpAddr> {
    match literal.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => parse_ipv4(literal).map(IpAddr::V4),
    }
}

/// Whether a domain is the bare address of a host, which is no domain name.
pub(crate) fn is_address(domain: &str) -> bool {
    parse_ipv4(domain).is_some() || domain.parse::<Ipv6Addr>().is_ok()
}

/// Four numbers up to 255; only 0.0.0.0 may begin with a zero byte.
fn parse_ipv4(text: &str) -> Option<std::net::Ipv4Addr> {
    let address: std::net::Ipv4Addr = text.parse().ok()?;
    let [first, ..] = address.octets();
    (first != 0 || address.is_unspecified()).then_some(address)
}

fn find(name: &str) -> Vec<IpAddr> {
    match name {
        "all" => own_addresses(|_| true),
        "loopback-only" => own_addresses(|address| address.is_loopback()),
        name => {
            let name = name.trim_matches(['[', ']']);
            if let Ok(address) = name.parse() {
                return vec![address];
            }
            match (name, 0).to_socket_addrs() {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(error) => {
                    tracing::warn!("inet_interfaces: cannot find the address of {name}: {error}");
                    Vec::new()
                }
            }
        }
    }
}

fn own_addresses(wanted: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!("inet_interfaces: cannot list the network interfaces: {error}");
            return Vec::new();
        }
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(list: &str) -> Interfaces {
        Interfaces::new(&RoutingSettings {
            inet_interfaces: list.into(),
            ..RoutingSettings::default()
        })
    }

    #[test]
    fn only_well_formed_literals_are_addresses() {
        for bad in [
            "",
            "1.2.3",
            "0.1.2.3",
            "2001:db8::1",
            "IPv6:1.2.3.4",
            "IPv6:",
            "host",
        ] {
            assert_eq!(parse_literal(bad), None, "{bad}");
        }
        assert!(parse_literal("0.0.0.0").is_some());
        assert!(parse_literal("ipv6:::1").is_some());
    }

    #[test]
    fn the_loopback_interface_is_always_one_of_all() {
        for list in ["all", "loopback-only", "127.0.0.1, [::1]"] {
            assert!(interfaces(list).have("127.0.0.1"), "{list}");
            assert!(!interfaces(list).have("192.0.2.77"), "{list}");
        }
        assert!(!interfaces("").have("127.0.0.1"));
    }
}
