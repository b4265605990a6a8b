//! What `speed calls` measures from C, from Rust: nanoseconds of a map lookup and of a resolution.
//!
//!     lookups CONFIG MAP

#![allow(clippy::print_stdout, reason = "a program that prints its figures")]

use mailstow_engine::address::fold_case;
use mailstow_engine::map::MapHandle;
use mailstow_engine::{Configuration, Routing, Sources, octets, parse_mailbox};
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Prints the best of a hundred rounds, which other programs disturbed least.
fn each(what: &str, times: u32, mut call: impl FnMut()) {
    let round = |_| {
        let begun = Instant::now();
        for _ in 0..times {
            call();
        }
        begun.elapsed().as_nanos() / u128::from(times)
    };
    let best = (0..100).map(round).min().unwrap_or(0);
    println!("Rust {what}: {best} ns");
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(config), Some(map)) = (arguments.next(), arguments.next()) else {
        return Err("usage: lookups CONFIG MAP".into());
    };
    let map = MapHandle::open(&map)?;
    let key = b"u7@example.com";
    let mut value = [0_u8; 256];
    each("map lookup", 50_000, || {
        let view = map.view();
        let key = octets::text(black_box(key));
        if let Ok(Some(found)) = view.get("virtual_mailbox_maps", &fold_case(&key)) {
            let found = octets::octets(&found);
            if let Some(place) = value.get_mut(..found.len()) {
                place.copy_from_slice(&found);
            }
        }
        black_box(&value);
    });
    let routing = routing(&config)?;
    each("resolution", 4_000, || {
        let text = octets::text(black_box(key));
        if let Ok(address) = parse_mailbox(&text) {
            black_box(routing.snapshot().resolve(&address));
        }
    });
    Ok(())
}

fn routing(config: &Path) -> Result<Routing, Box<dyn Error>> {
    let sources = Sources {
        config: Some(config.to_owned()),
        ..Sources::default()
    };
    Ok(Routing::open(&Configuration::load(&sources)?.settings)?)
}
