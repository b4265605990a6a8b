//! What is known of the parameters of section `autoreply`.

use super::kind::Kind::{List, Number, Path, Text, Time, YesNo};
use super::parameter::{Parameter, TIME_MAX, parameter};

/// In the order in which they are printed.
pub(super) static AUTOREPLY: &[Parameter] = &[
    parameter(
        "autoreply",
        "directory",
        "",
        Path(|s, v| s.autoreply.directory = v),
        "Directory of the texts that autoreply: sends, in UTF-8; empty: it sends none, and defers \
         mail",
    ),
    parameter(
        "autoreply",
        "text",
        "%s",
        Text(|s, v| s.autoreply.text = v),
        "The file below it for a recipient: %s is its address in lower case, without extension, %u \
         the local part, %d the domain; without such a file no sender is answered; another nexthop of \
         autoreply: than the domain names the file itself",
    ),
    parameter(
        "autoreply",
        "interval",
        "7d",
        Time(60..=TIME_MAX, |s, v| s.autoreply.interval = v),
        "Shortest time between two autoreplies of a recipient to the same sender",
    ),
    parameter(
        "autoreply",
        "replies_per_sender",
        "100",
        Number("replies", 1..=1_000_000, |s, v| {
            s.autoreply.replies_per_sender = v
        }),
        "Replies that one sender gets within interval, from all recipients; what is mailed \
         beyond that is taken without a reply",
    ),
    parameter(
        "autoreply",
        "only_named",
        "yes",
        YesNo(|s, v| s.autoreply.only_named = v),
        "Whether To, Cc or Bcc of a message must name the recipient, or its original one, for a \
         reply (RFC 3834). Where a nexthop names the text, they must whatever this says",
    ),
    parameter(
        "autoreply",
        "answers_for",
        "",
        List(|s, v| s.autoreply.answers_for = v),
        "Recipients that are answered for although no field names them: addresses without \
         extension, and @DOMAIN for all in a domain",
    ),
    parameter(
        "autoreply",
        "send_through",
        "",
        Text(|s, v| s.autoreply.send_through = v),
        "Where replies go: smtp:[HOST]:PORT, smtp: for relayhost, lmtp:unix:PATH; empty: to \
         sendmail_path",
    ),
];
