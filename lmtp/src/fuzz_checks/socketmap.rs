//! What must hold for any bytes that a client of the socketmap server sends.

use super::session::{Host, INPUT_BYTES_MAX};
use crate::socketmap::serve;
use mailstow_engine::octets;
use mailstow_engine::route::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest request that is answered, in bytes.
const REQUEST_BYTES_MAX: usize = 10_000;
/// Longest reply that Postfix takes, in bytes.
const REPLY_BYTES_MAX: usize = 100_000;

/// Sends `bytes` to the socketmap server and closes.
///
/// # Panics
/// Not every whole request before the first bad one is answered, or not by what the tables have.
pub fn check_socketmap(bytes: &[u8]) {
    thread_local! {
        static HOST: Host = Host::open();
    }
    let input = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    HOST.with(|host| {
        let output = talk(host, input);
        let mut replies = output.as_slice();
        for request in requests(input) {
            let (reply, rest) = netstring(replies, usize::MAX).expect("a reply to each request");
            replies = rest;
            assert!(reply.len() <= REPLY_BYTES_MAX, "{} bytes", reply.len());
            let expected = answer(host, request);
            assert_eq!(
                reply.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{}",
                request.escape_ascii()
            );
        }
        assert!(replies.is_empty(), "replies without a request");
    });
}

/// The netstrings up to the first that is none, or is too long, or ends early.
fn requests(mut input: &[u8]) -> Vec<&[u8]> {
    let mut requests = Vec::new();
    while let Some((request, rest)) = netstring(input, REQUEST_BYTES_MAX) {
        requests.push(request);
        input = rest;
    }
    requests
}

fn netstring(bytes: &[u8], most: usize) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(colon);
    let rest = rest.strip_prefix(b":")?;
    let digits = str::from_utf8(digits).ok()?.trim_start_matches('0');
    let length: usize = match digits {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let (text, rest) = rest.split_at_checked(length).filter(|_| length <= most)?;
    Some((text, rest.strip_prefix(b",")?))
}

/// What the tables have, as the server of another connection would say it.
fn answer(host: &Host, request: &[u8]) -> Vec<u8> {
    let text = octets::text(request);
    let Some((map, key)) = text.split_once(' ') else {
        return b"PERM the request is not a map, a blank and a key".to_vec();
    };
    // As plainly as can be.
    match (map, key) {
        ("virtual_mailbox_maps", "a@vm.example" | "A@VM.EXAMPLE" | "a+b@vm.example") => {
            return b"OK a/".to_vec();
        }
        ("virtual_mailbox_domains", "vm.example") => return b"OK vm.example".to_vec(),
        ("virtual_mailbox_domains", "example") => return b"NOTFOUND ".to_vec(),
        _ => {}
    }
    let names = Router::published_names();
    let found = host.server.shared().engine.snapshot().published(map, key);
    assert_eq!(found.is_some(), names.contains(&map), "{map}");
    let reply = match found {
        None => format!("PERM no map \"{map}\"; known are {}", names.join(", ")),
        Some(Ok(Some(value))) => format!("OK {value}"),
        Some(Ok(None)) => "NOTFOUND ".to_owned(),
        Some(Err(error)) => format!("TEMP {}", error.status().text),
    };
    octets::octets(&reply).to_vec()
}

fn talk(host: &Host, input: &[u8]) -> Vec<u8> {
    host.runtime.block_on(async {
        let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
        let served = tokio::spawn(serve(theirs, host.server.shared()));
        let mut output = Vec::new();
        let (mut read, mut write) = ours.split();
        let sending = async {
            // The server closes at the first request that is none.
            let _ = write.write_all(input).await;
            let _ = write.shutdown().await;
        };
        let _ = tokio::join!(sending, read.read_to_end(&mut output));
        served.await.expect("the server does not panic");
        output
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let map = proptest::sample::select(vec![
            "virtual_mailbox_maps",
            "virtual_alias_maps",
            "virtual_mailbox_domains",
            "no_such",
        ]);
        let key = prop_oneof![
            Just("a@vm.example".to_owned()),
            Just("vm.example".to_owned()),
            any::<String>(),
        ];
        let whole = (map, key).prop_map(|(map, key)| {
            let text = format!("{map} {key}");
            format!("{}:{text},", text.len()).into_bytes()
        });
        prop_oneof![
            9 => whole,
            1 => vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #[test]
        fn each_whole_request_is_answered_by_what_the_tables_have(
            requests in vec(request(), 0..8),
        ) {
            check_socketmap(&requests.concat());
        }
    }
}
