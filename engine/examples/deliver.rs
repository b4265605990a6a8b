//! Delivers a message to a recipient: `cargo run -p mailstow-engine --example deliver --
//! mailstow.toml RECIPIENT`.

use mailstow_engine::config::{Configuration, Sources};
use mailstow_engine::{Engine, Mail, Recipient, ReversePath, parse_mailbox};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: deliver mailstow.toml RECIPIENT".into());
    };
    let sources = Sources {
        config: Some(file.into()),
        ..Sources::default()
    };
    let engine = Engine::open(&Configuration::load(&sources)?.settings)?;
    let address = parse_mailbox(&to)?;
    let mailbox = engine.snapshot().mailbox(&address)?; // or why there is none
    let mut message = engine.new_message();
    message.write(b"Subject: hello\n\nIt works.\n")?;
    let mail = Mail {
        reverse_path: ReversePath::Address(parse_mailbox("me@example.org")?),
        queue_id: None,
        client: Default::default(),
        dsn: Default::default(),
        message: message.finish()?,
    };
    let original = None;
    let to = vec![(Recipient { address, original }, mailbox)];
    for outcome in engine.deliver(Arc::new(mail), to) {
        println!("{}", outcome.status); // 2xx: the message is durable
    }
    engine.close();
    Ok(())
}
