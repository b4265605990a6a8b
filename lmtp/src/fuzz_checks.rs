//! What must hold for any bytes that a client sends.
//!
//! Built for tests and with `--cfg fuzzing` only; see `engine/src/fuzz_checks.rs`. A session runs
//! over a socket pair with a real engine. A model that knows framing alone (RFC 5321 section
//! 4.1.1, RFC 2033 section 4.2, RFC 3030) follows the dialogue: it takes one reply for each
//! command, and after a message one for each accepted recipient. Where the server and the model
//! disagree about where a message ends, the replies no longer fit, or another content is stored
//! than the model read.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check fails by panicking"
)]

mod command;
mod content;
mod dialogue;
mod session;
mod socketmap;

pub use crate::relay::fuzz_check::check_relay;
pub use command::check_command;
pub use content::check_content;
pub use session::check_session;
pub use socketmap::check_socketmap;

#[cfg(test)]
mod tests {
    use super::dialogue::Model;
    use super::session::Host;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::path::Path;

    type Check = fn(&[u8]);

    /// Every check by the name of its fuzz target.
    const CHECKS: &[(&str, Check)] = &[
        ("command", check_command),
        ("content", check_content),
        ("relay", check_relay),
        ("session", check_session),
        ("socketmap", check_socketmap),
    ];

    #[test]
    fn inputs_that_are_kept_pass_every_check() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (target, check) in CHECKS {
            let inputs = std::fs::read_dir(corpus.join(target)).expect(target);
            let mut count = 0;
            for input in inputs {
                let path = input.expect("an entry").path();
                println!("{}", path.display());
                check(&std::fs::read(&path).expect("an input"));
                count += 1;
            }
            assert!(count > 0, "no input is kept for {target}");
        }
    }

    #[test]
    fn the_model_follows_a_dialogue_to_its_deliveries() {
        let input = b"LHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<a@vm.example>\r\n\
            RCPT TO:<nobody@vm.example>\r\nRCPT TO:<b@vm.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
        let host = Host::open();
        let output = host.talk(input);
        let model = Model::new(&output, host.line_bytes_max);
        let taken = model.follow(input);
        assert_eq!(taken.acknowledged, 2, "{}", output.escape_ascii());
        assert_eq!(taken.contents, [b"x\n"]);
        assert_eq!(host.take_stored().len(), 2);
    }

    fn dialogue() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "LHLO c\r\n",
            "MAIL FROM:<s@x>\r\n",
            "MAIL FROM:<> BODY=BINARYMIME\r\n",
            "RCPT TO:<a@vm.example>\r\n",
            "RCPT TO:<b@vm.example>\r\n",
            "RCPT TO:<c@vm.example>\r\n",
            "RCPT TO:<nobody@vm.example>\r\n",
            "DATA\r\n",
            "BDAT 5\r\nhello",
            "BDAT 7 LAST\r\n.\r\nBDAT",
            "BDAT 0 LAST\r\n",
            "Subject: s\r\n\r\nbody\r\n",
            ".\r\n",
            "\r\n.\r\n",
            "\n.\n",
            "\n.\r\n",
            "\r.\r",
            "..\r\n",
            "RSET\r\n",
            "NOOP\r\n",
            "QUIT\r\n",
            "XFORWARD NAME=x ADDR=1.2.3.4 IDENT=4XyZ\r\n",
            "odd\r\n",
            "\r\n",
        ];
        let piece = prop_oneof![
            16 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..6),
        ];
        let begins = vec(piece, 0..24).prop_map(|pieces| pieces.concat());
        begins.prop_map(|rest| [b"LHLO c\r\n".as_slice(), &rest].concat())
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "MAIL FROM:<s@x>",
            "MAIL FROM:<",
            "RCPT TO:<a@b>",
            "RCPT TO:<",
            "rcpt to: ",
            "XFORWARD NAME=",
            "BDAT ",
            "7 LAST",
            "s@x",
            "\"a b\"@x",
            "@r.example:u@x",
            ">",
            " SIZE=1",
            " BODY=8BITMIME",
            " SMTPUTF8",
            " ENVID=",
            " NOTIFY=SUCCESS",
            " ORCPT=",
            "rfc822;",
            "utf-8;",
            "\\x{10FEFC}",
            "\\x{5C}",
            "+0D+00",
            "+C3",
            "\u{fc}",
            "\"",
            "<",
            "\\",
            "=",
            " ",
        ];
        let piece = prop_oneof![
            8 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn commands_are_the_same_when_written_and_read_again(bytes in line()) {
            check_command(&bytes);
        }

        #[test]
        fn replies_fit_the_commands_of_any_dialogue(bytes in dialogue()) {
            check_session(&bytes);
        }

        #[test]
        fn content_in_pieces_is_the_content(bytes in vec(
            proptest::sample::select(b"\x00\x01\x02\r\n\r\n\r\n...ab".to_vec()), 0..60)) {
            check_content(&bytes);
        }
    }
}
