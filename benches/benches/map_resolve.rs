//! A whole resolution out of a warm recipient map: is it one of our domains, is it an alias, which
//! mailbox, whose. Recipients come with an extension that no table has, so that each table is
//! asked twice and more.
//!
//! `MAILSTOW_MAP_RECIPIENTS=1000000 cargo bench -p mailstow-benches --bench map_resolve`
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a bench may stop where it stands"
)]

#[allow(
    dead_code,
    reason = "the other stores are measured by the other benches"
)]
mod map_stores;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailstow_engine::address::{Address, fold_case};
use mailstow_engine::config::RoutingSettings;
use mailstow_engine::map::{BuildOptions, MapBuilder, MapView};
use mailstow_engine::route::{AddressClass, Mailboxes, Router, table_context};
use mailstow_engine::table::TableCache;
use map_stores::{Recipients, counts, directory};

const QUESTIONS: u64 = 200_000;

/// A map with all tables that a resolution asks, built unless it is there.
fn map(recipients: &Recipients) -> PathBuf {
    let path = directory(recipients.count()).join("whole.map");
    if path.exists() {
        return path;
    }
    let mut builder = MapBuilder::new(&path, BuildOptions::default()).expect("map is begun");
    let mut table = |name: &str| builder.table(name).expect("table is made");
    let tables = [
        table("virtual_mailbox_maps"),
        table("virtual_uid_maps"),
        table("virtual_gid_maps"),
    ];
    let (domains, aliases) = (
        table("virtual_mailbox_domains"),
        table("virtual_alias_maps"),
    );
    let mut last = String::new();
    for i in 0..recipients.count() {
        let key = recipients.key(i);
        for (table, value) in tables.iter().zip([&*recipients.value(i), "5000", "5000"]) {
            builder.add(*table, &key, value).expect("entry is taken");
        }
        let domain = key.rsplit_once('@').expect("an address").1;
        if domain != last {
            builder.add(domains, domain, "x").expect("entry is taken");
            let alias = format!("postmaster@{domain}");
            builder.add(aliases, &alias, &key).expect("entry is taken");
            domain.clone_into(&mut last);
        }
    }
    builder.finish().expect("map is built");
    path
}

fn resolutions(criterion: &mut Criterion) {
    for count in counts() {
        let recipients = Recipients::new(count);
        let path = map(&recipients);
        let named = format!("mailstow:{}", path.display());
        let settings = RoutingSettings {
            virtual_mailbox_domains: named.clone(),
            virtual_mailbox_maps: named.clone(),
            virtual_uid_maps: named.clone(),
            virtual_gid_maps: named.clone(),
            virtual_alias_maps: named,
            recipient_delimiter: "+".into(),
            ..RoutingSettings::default()
        };
        let cache = TableCache::new(table_context(&settings));
        let router = Router::open(&settings, &cache).expect("the map opens");
        let questions = recipients.questions(QUESTIONS.min(count * 20), true);
        let addresses: Vec<Address> = questions
            .iter()
            .map(|key| {
                let (user, domain) = key.rsplit_once('@').expect("an address");
                Address::new(format!("{user}+list"), Some(domain))
            })
            .collect();
        let mut group = criterion.benchmark_group("resolve");
        group
            .throughput(Throughput::Elements(addresses.len() as u64))
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3));
        group.bench_function(BenchmarkId::new("router", count), |b| {
            b.iter(|| {
                for address in &addresses {
                    let lookup = router.look_up(address);
                    let class = lookup.class().expect("it answers");
                    assert_eq!(class, AddressClass::VirtualMailbox);
                    let found = black_box(lookup.mailboxes().expect("it is known"));
                    assert!(matches!(found, Mailboxes::Own(_)));
                }
            });
        });
        let view = MapView::open(&path).expect("the map opens");
        group.bench_function(BenchmarkId::new("map", count), |b| {
            b.iter(|| addresses.iter().for_each(|address| by_map(&view, address)));
        });
        group.finish();
    }
}

/// The same answer straight out of the map, for programs that link to the engine.
fn by_map(view: &MapView, address: &Address) {
    let whole = address.internal();
    let whole = fold_case(&whole);
    let (user, domain) = whole.rsplit_once('@').expect("an address");
    let domains = view.get("virtual_mailbox_domains", domain);
    assert!(domains.expect("it answers").is_some());
    let (user, _) = user.split_once('+').expect("an extension");
    let plain = format!("{user}@{domain}");
    let catch_all = format!("@{domain}");
    for key in [&*whole, &*plain, &*catch_all] {
        let found = view.find(key).expect("it answers");
        assert!(found.text("virtual_alias_maps").expect("text").is_none());
        if key == plain {
            let number = |table| found.number(table).expect("it answers");
            black_box(found.text("virtual_mailbox_maps").expect("it answers"));
            black_box((number("virtual_uid_maps"), number("virtual_gid_maps")));
        }
    }
}

criterion_group!(benches, resolutions);
criterion_main!(benches);
