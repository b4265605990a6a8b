//! A host and its port, as servers of databases are named.

/// `host[:port]`, the host perhaps in brackets; `None` when the port is no number.
pub(super) fn host_and_port(text: &str, default: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address has colons, too, unless brackets enclose it.
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some((bare.unwrap_or(host), port))
}
