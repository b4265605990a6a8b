//! Messages by BDAT (RFC 3030), with the replies of RFC 2033 section 4.3.

mod support;

use support::TestServer;

#[test]
fn chunks_make_one_message_wherever_they_are_cut() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let message = "Subject: x\r\n\r\n.\r\n..\r\nlast\r\n";
    for cut in 0..=message.len() {
        client.envelope(&["u1", "u2"]);
        let (first, second) = message.split_at(cut);
        client.send(format!("BDAT {}\r\n{first}", first.len()));
        client.expect(&format!("250 2.0.0 {cut} octets received"));
        client.send(format!("BDAT {} LAST\r\n{second}", second.len()));
        client.expect("250 2.0.0 <u1@example.com> ");
        client.expect("250 2.0.0 <u2@example.com> ");
    }
    let messages = server.messages("u2");
    assert_eq!(messages.len(), message.len() + 1);
    for found in messages {
        assert!(found.ends_with("Subject: x\n\n.\n..\nlast\n"), "{found:?}");
    }
}

#[test]
fn binary_content_needs_bdat_and_keeps_its_bytes() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.ask("MAIL FROM:<a@example.org> BODY=BINARYMIME", "250");
    client.ask("RCPT TO:<u1@example.com>", "250");
    client.ask("DATA", "503 5.5.1");
    client.send("BDAT 10 LAST\r\n\0a\nb\rc\r\r\nd");
    client.expect("250 2.0.0");
    assert!(
        server.messages("u1")[0].ends_with("\0a\nb\rc\r\nd"),
        "{:?}",
        server.messages("u1")
    );
}

#[test]
fn a_pipeline_of_chunks_is_worked_off_in_order() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send(
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<u1@example.com>\r\nRCPT TO:<nobody@example.com>\r\n\
         BDAT 5\r\nQUIT\nBDAT 0\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\n",
    );
    for reply in [
        "250 2.1.0",
        "250 2.1.5",
        "550 5.1.1",
        "250 2.0.0 5 octets",
        "250 2.0.0 0 octets",
        "250 2.0.0 <u1@example.com> ",
        "250 2.0.0 Ok",
    ] {
        client.expect(reply);
    }
    client.expect_in_step();
}

#[test]
fn without_valid_recipients_the_last_chunk_gets_no_reply() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send(
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<nobody@example.com>\r\nBDAT 6 LAST\r\nNOOP\r\n\
         MAIL FROM:<a@example.org>\r\nRCPT TO:<nobody@example.com>\r\nBDAT 6\r\nNOOP\r\n\
         BDAT 0 LAST\r\n",
    );
    for reply in [
        "250 2.1.0",
        "550 5.1.1",
        "250 2.1.0",
        "550 5.1.1",
        "503 5.5.1",
    ] {
        client.expect(reply);
    }
    client.expect_in_step();
    client.envelope(&["u1"]);
}

#[test]
fn octets_out_of_order_are_never_taken_for_commands() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.send("BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n");
    client.expect("503 5.5.1");
    client.expect("503 5.5.1");
    client.envelope(&["u1"]);
    client.send("BDAT 3\r\nx\r\n");
    client.expect("250 2.0.0");
    client.ask("DATA", "503 5.5.1");
    client.ask("RCPT TO:<u2@example.com>", "503 5.5.1");
    client.ask("MAIL FROM:<a@example.org>", "503 5.5.1");
    client.ask("RSET", "250 2.0.0");
    client.ask("BDAT six LAST", "501 5.5.4");
    client.expect_closed();
    assert_eq!(server.message_count(), 0);
}

#[test]
fn an_oversize_message_in_chunks_is_refused_for_each_recipient() {
    let server = TestServer::with(|s| s.routing.message_size_limit = 1000);
    let mut client = server.greeted();
    client.envelope(&["u1", "u2"]);
    let chunk = "x".repeat(600);
    client.send(format!(
        "BDAT 600\r\n{chunk}BDAT 600\r\n{chunk}BDAT 600 LAST\r\n{chunk}"
    ));
    client.expect("250 2.0.0");
    client.expect("552 5.3.4");
    client.expect("552 5.3.4 <u1@example.com>");
    client.expect("552 5.3.4 <u2@example.com>");
    client.expect_in_step();
    client.envelope(&["u1"]);
    assert_eq!(server.message_count(), 0);
}

#[test]
fn a_client_that_vanishes_between_chunks_leaves_nothing() {
    let server = TestServer::start();
    let mut client = server.greeted();
    client.envelope(&["u1"]);
    client.send("BDAT 3\r\nx\r\n");
    client.expect("250");
    client.send("BDAT 10 LAST\r\nx\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_closed();
    assert_eq!(server.message_count(), 0);
}
