//! Finds out whether a message comes from a mail queue, which sends it again until it is answered.
//!
//! A client with a queue names each message: by XFORWARD, or in the `Received:` field that it
//! prepends. Two messages sent on purpose differ in that name. Sources: RFC 5321 section 4.4, RFC
//! 5322 section 3.6.7.

/// Returns true if the first `Received:` field names a queue id. `head` is the beginning of a
/// message with lines that end with LF; an end of `head` within the field ends the field.
pub(in crate::delivery) fn received_names_id(head: &[u8]) -> bool {
    first_received(head).is_some_and(|body| has_id(&without_comments(body)))
}

/// Returns the body of the first `Received:` field.
fn first_received(head: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"received:";
    let mut rest = head;
    loop {
        let end = field_end(rest);
        let (field, after) = rest.split_at(end);
        // The empty line, or the end of the known part.
        if matches!(field, [] | b"\n") {
            return None;
        }
        if let Some((name, body)) = field.split_at_checked(NAME.len())
            && name.eq_ignore_ascii_case(NAME)
        {
            return Some(body);
        }
        rest = after;
    }
}

/// Returns the end of the field at the start of `rest`: after the line end that no blank follows.
fn field_end(rest: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', rest)
        .map(|at| at + 1)
        .find(|next| !matches!(rest.get(*next), Some(b' ' | b'\t')))
        .unwrap_or(rest.len())
}

/// Returns the body up to its date, with a blank for each comment.
fn without_comments(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(body.len());
    let mut depth = 0_usize;
    let mut bytes = body.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => {
                // The next character is quoted.
                let quoted = bytes.next();
                if depth == 0 {
                    plain.extend(quoted);
                }
            }
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                plain.push(b' ');
            }
            b';' if depth == 0 => break,
            _ if depth == 0 => plain.push(byte),
            _ => {}
        }
    }
    plain
}

/// Returns true if there is a clause `id` with a value.
fn has_id(plain: &[u8]) -> bool {
    const OTHERS: [&[u8]; 5] = [b"from", b"by", b"via", b"with", b"for"];
    let mut words = plain
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"id") {
            return words.next().is_some();
        }
        if OTHERS.iter().any(|other| word.eq_ignore_ascii_case(other)) {
            // The value of that clause, whatever it is.
            words.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_received_field_names_the_id_of_the_queue() {
        for head in [
            "Received: from a.example (b.example [192.0.2.1])\n\tby mx.example (Postfix) with ESMTP \
             id 4F2B1\n\tfor <info@example.com>; Mon, 23 Nov 2026 09:11:36 +0000 (UTC)\nSubject: x\n\n",
            "Received: by mx.example (Postfix, from userid 1000)\n\tid 4F2B1; Mon, 23 Nov 2026\n\n",
            "RECEIVED: (from me@localhost) by mx (8.17) ID 4F2B1; now\n\n",
            "Return-Path: <a@b>\nDelivered-To: x@example.com\nReceived: by mx id 4F\n\nbody\n",
            "Received-SPF: pass\nReceived: from a by b\n with esmtp (Exim 4.96)\n id 1x-0y-2z\n for c; d",
        ] {
            assert!(received_names_id(head.as_bytes()), "{head}");
        }
    }

    #[test]
    fn other_messages_name_none() {
        for head in [
            "",
            "\n",
            "Subject: x\n\nReceived: by mx id 4F\n",
            "Subject: id 4F\nX-Received: by mx id 4F\n\n",
            "Received: from a by b; Mon, 23 id 4F\n\n",
            "Received: from id by b (id 4F)\n\n",
            "Received: by mx id\n\n",
            "Received: by mx id (none); now\n\n",
            // Only the first field counts, which is the client's.
            "Received: from a by b; now\nReceived: by c id 4F; then\n\n",
            "Received: (qmail 4711 invoked by uid 0); now\n\n",
        ] {
            assert!(!received_names_id(head.as_bytes()), "{head}");
        }
    }
}
