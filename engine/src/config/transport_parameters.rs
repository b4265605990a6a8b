//! The parameters of `[transport]`.

use super::kind::Kind::YesNo;
use super::parameter::{Parameter, parameter};

/// In the order in which they are printed.
pub(super) static TRANSPORT: &[Parameter] = &[parameter(
    "transport",
    "enabled",
    "no",
    YesNo(|s, v| s.transport.enabled = v),
    "Whether mail is delivered by the transport that transport_maps, virtual_transport, \
     relay_transport, default_transport or local_transport names; otherwise all mail is stored in \
     virtual mailboxes. The transport local delivers to the accounts of this machine, as local(8) \
     does",
)];
