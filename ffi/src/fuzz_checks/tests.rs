//! Sequences of calls that are kept, and random ones.

use super::steps::Content;
use super::*;
use std::path::Path;

#[test]
fn inputs_that_are_kept_pass_every_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/c_calls");
    let mut count = 0;
    for input in std::fs::read_dir(corpus).expect("inputs are kept") {
        let path = input.expect("an entry").path();
        println!("{}", path.display());
        check_calls(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "no input is kept");
}

#[test]
fn sequences_of_calls_are_answered_as_the_model_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..60 {
        let bytes: Vec<u8> = (0..400).map(|_| random.u8(..)).collect();
        check_calls(&bytes);
    }
}

#[test]
fn the_model_follows_messages_to_their_results() {
    let mut model = Model::new(Site::new());
    let (handle, first, second) = (1, 2, 3);
    for step in [
        Step::NewMessage(handle),
        Step::Add(first, To::Maildir, Size::Right),
        Step::Add(first, To::Unknown, Size::Grown),
        Step::Form(first, 1),
        Step::Write(first, Content::Line),
        Step::Write(first, Content::End),
        Step::Write(first, Content::Line),
        Step::NewMessage(handle),
        Step::Add(second, To::Mbox, Size::Right),
        Step::Deliver(handle, first),
        Step::Deliver(handle, first),
        Step::Outcome(4, 0, Size::Grown),
        Step::Figures(handle, Size::Right),
        Step::Submit(handle, second),
        Step::Confirm(4),
        Step::Free(Kind::Results, 4),
    ] {
        model.make(step);
    }
    assert_eq!(model.objects[4].kind, Kind::Results);
    assert_eq!(model.objects[handle as usize].flying.len(), 1);
    model.end();
}
