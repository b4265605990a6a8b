//! What a delivery costs besides the disk: reading the wire, a name for the file, quoting for mbox.
#![expect(missing_docs, reason = "criterion's macros write no docs")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailstow_engine::sim::maildir::NameMaker;
use mailstow_engine::sim::mbox::render;
use mailstow_lmtp::command::{Paths, parse};
use mailstow_lmtp::decode::DataDecoder;
use std::convert::Infallible;
use std::hint::black_box;

/// Lines of mail, with some that mbox quotes and some that the wire stuffs.
fn content(bytes: usize, line_end: &str) -> Vec<u8> {
    let lines = [
        "The quick brown fox jumps over the lazy dog, as it does in every message.",
        "From here on nothing changes.",
        "",
        "..and a line that begins with a dot",
    ];
    let mut text = String::with_capacity(bytes + 100);
    for line in lines.iter().cycle() {
        if text.len() >= bytes {
            break;
        }
        text.push_str(line);
        text.push_str(line_end);
    }
    text.into_bytes()
}

fn names(criterion: &mut Criterion) {
    let names = NameMaker::new("mx1.example.com");
    criterion.bench_function("maildir/name", |b| {
        b.iter(|| names.next(black_box(4321), black_box(4422)));
    });
}

fn quoting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mbox/quote");
    for bytes in [4096, 1 << 20] {
        let text = content(bytes, "\n");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &text, |b, text| {
            let mut out = Vec::with_capacity(2 * text.len());
            b.iter(|| {
                out.clear();
                let rendered = render((b"From a@example.org\n", false), &mut out, |take| {
                    take(black_box(text));
                    Ok::<(), Infallible>(())
                });
                rendered.unwrap();
                out.len()
            });
        });
    }
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lmtp/command");
    let lines: [(&str, &[u8]); 3] = [
        (
            "mail",
            b"MAIL FROM:<list-bounces@lists.example.org> SIZE=4321 BODY=8BITMIME",
        ),
        (
            "rcpt",
            b"RCPT TO:<jane.doe+news@example.com> ORCPT=rfc822;jane@example.net",
        ),
        ("data", b"DATA"),
    ];
    for (name, line) in lines {
        group.bench_function(name, |b| {
            b.iter(|| parse(black_box(line), Paths::Strict).is_ok());
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lmtp/data");
    for bytes in [4096, 1 << 20] {
        let mut wire = content(bytes, "\r\n");
        wire.extend_from_slice(b".\r\n");
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &wire, |b, wire| {
            b.iter_batched_ref(
                || wire.clone(),
                |buffer| DataDecoder::default().decode(black_box(buffer)).produced,
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, names, quoting, commands, decoding);
criterion_main!(benches);
