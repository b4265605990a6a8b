//! How many bytes a TCP client on this machine has received and not read.
//!
//! Asks the kernel for the client's own socket. It finds none when the client is on another
//! machine, or in a container with another network; and it is not asked again when it cannot answer
//! at all. Source: sock_diag(7) `Socket information for IPv4 and IPv6 sockets`.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Where `idiag_rqueue` is in `struct inet_diag_msg`.
const RECEIVE_QUEUE_AT: usize = 56;
/// Bytes of the two structures of a request.
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Longest answer.
const ANSWER_BYTES: usize = 4096;
/// `IPPROTO_TCP`
const TCP: u8 = 6;

/// Bytes that wait in the socket at `peer` of a connection with `local`, which is ours. An end of
/// the stream that we sent, and the client has not seen, counts as one. `None` when there is no
/// such socket on this machine, or the system does not say.
pub(super) fn unread_bytes(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    static CAN_TELL: OnceLock<bool> = OnceLock::new();
    // Our own socket is there, so that an answer must come.
    let can_tell = CAN_TELL.get_or_init(|| ask(local, peer).is_some());
    if *can_tell { ask(peer, local) } else { None }
}

/// The receive queue of the socket at `source` that is connected to `destination`.
fn ask(source: SocketAddr, destination: SocketAddr) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (kind, protocol) = (SocketType::DGRAM, Some(netlink::SOCK_DIAG));
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, protocol).ok()?;
    send(&socket, &request(source, destination), SendFlags::empty()).ok()?;
    let mut answer = [0; ANSWER_BYTES];
    // The kernel answers before send(2) returns.
    let (_, count) = recv(&socket, &mut answer, RecvFlags::empty()).ok()?;
    receive_queue(answer.get(..count)?)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = match source {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let scope = match source {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    let mut out = Vec::with_capacity(REQUEST_BYTES);
    put(&mut out, u32::try_from(REQUEST_BYTES).unwrap_or_default());
    put16(&mut out, BY_FAMILY);
    put16(&mut out, REQUEST);
    // Sequence number and sender: there is one question.
    put(&mut out, 0);
    put(&mut out, 0);
    out.extend([family, TCP, 0, 0]);
    // All states.
    put(&mut out, u32::MAX);
    out.extend(source.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
    out.extend(octets(source.ip()));
    out.extend(octets(destination.ip()));
    put(&mut out, scope);
    // No cookie: whichever socket has these addresses.
    put(&mut out, u32::MAX);
    put(&mut out, u32::MAX);
    out
}

/// The field of `struct inet_diag_msg`; `None` of another message, such as an error.
fn receive_queue(answer: &[u8]) -> Option<u32> {
    let kind = answer.get(4..6)?;
    if kind != native16(BY_FAMILY) {
        return None;
    }
    let at = HEADER_BYTES + RECEIVE_QUEUE_AT;
    let field = answer.get(at..at + 4)?;
    Some(native(field.try_into().ok()?))
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets
                .iter_mut()
                .zip(address.octets())
                .for_each(|(to, from)| *to = from);
            octets
        }
    }
}

fn put(out: &mut Vec<u8>, number: u32) {
    #[expect(
        clippy::host_endian_bytes,
        reason = "netlink(7) uses native byte order"
    )]
    out.extend(number.to_ne_bytes());
}

fn put16(out: &mut Vec<u8>, number: u16) {
    out.extend(native16(number));
}

fn native16(number: u16) -> [u8; 2] {
    #[expect(
        clippy::host_endian_bytes,
        reason = "netlink(7) uses native byte order"
    )]
    number.to_ne_bytes()
}

fn native(bytes: [u8; 4]) -> u32 {
    #[expect(
        clippy::host_endian_bytes,
        reason = "netlink(7) uses native byte order"
    )]
    u32::from_ne_bytes(bytes)
}
