//! Handles under panics, reuse and several threads, which C programs cannot show by themselves.

use super::slot::{Kind, Pool, insert, take};
use super::{Call, call};
use crate::failure::Failure;
use crate::result::{
    MAILSTOW_CLOSED, MAILSTOW_IN_USE, MAILSTOW_PANIC, MAILSTOW_POISONED, MAILSTOW_WRONG_HANDLE,
    mailstow_result,
};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Number(usize);

enum Handle {}

impl Kind for Number {
    type Handle = Handle;
    const NUMBER: u64 = 1001;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Number> = Pool::new();
        &POOL
    }
}

struct Other;

impl Kind for Other {
    type Handle = Handle;
    const NUMBER: u64 = 1002;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Other> = Pool::new();
        &POOL
    }
}

/// What a call answers, if it does anything but succeed.
fn answer(body: impl FnOnce(&Call) -> Result<(), Failure>) -> Option<mailstow_result> {
    call(body).err().map(|failure| failure.result)
}

#[test]
fn a_panic_is_answered_and_poisons_only_the_handles_it_had_entered() {
    let (one, two) = (insert(Number(1)), insert(Number(2)));
    let read = |handle: *mut Handle| {
        answer(|call| {
            call.shared::<Number>(handle)?;
            Ok(())
        })
    };
    let shared = answer(|call| {
        let _entered = call.shared::<Number>(one)?;
        panic!("on purpose");
    });
    assert_eq!(shared, Some(MAILSTOW_PANIC));
    assert_eq!(read(one), Some(MAILSTOW_POISONED));
    assert_eq!(read(two), None);
    let exclusive = answer(|call| {
        call.exclusive::<Number>(two)?.0 += 1;
        let _entered = call.exclusive::<Number>(two)?;
        panic!("on purpose");
    });
    assert_eq!(exclusive, Some(MAILSTOW_PANIC));
    assert_eq!(read(two), Some(MAILSTOW_POISONED));
    // Both can still be closed, once.
    for handle in [one, two] {
        assert!(take::<Number>(handle).is_ok());
        assert_eq!(take::<Number>(handle).err(), Some(MAILSTOW_CLOSED));
        assert_eq!(read(handle), Some(MAILSTOW_CLOSED));
    }
    // A slot that is used again is sound.
    let many: Vec<*mut Handle> = (0..600).map(|number| insert(Number(number))).collect();
    assert!(many.iter().all(|handle| read(*handle).is_none()));
    for handle in many {
        assert!(take::<Number>(handle).is_ok());
    }
}

#[test]
fn a_closed_handle_is_known_for_what_it_is_while_hundreds_of_others_come_and_go() {
    let old = insert(Number(1));
    assert!(take::<Number>(old).is_ok());
    for number in 0..200 {
        let new = insert(Number(number));
        assert_ne!(new, old, "after {number} others");
        assert_eq!(take::<Number>(old).err(), Some(MAILSTOW_CLOSED));
        assert!(take::<Number>(new).is_ok_and(|value| value.0 == number));
    }
}

#[test]
fn a_handle_of_another_kind_is_an_error() {
    let other = insert(Other);
    assert_eq!(take::<Number>(other).err(), Some(MAILSTOW_WRONG_HANDLE));
    assert!(take::<Other>(other).is_ok());
}

#[test]
fn of_threads_that_want_a_handle_for_themselves_one_gets_it() {
    const THREADS: usize = 4;
    let address = insert(Number(0)).expose_provenance();
    let (start, busy) = (Barrier::new(THREADS), AtomicUsize::new(0));
    let counted: usize = std::thread::scope(|scope| {
        let work = || {
            start.wait();
            let handle: *mut Handle = std::ptr::with_exposed_provenance_mut(address);
            let mut counted = 0;
            for _ in 0..2000 {
                match answer(|call| {
                    call.exclusive::<Number>(handle)?.0 += 1;
                    Ok(())
                }) {
                    None => counted += 1,
                    Some(result) => {
                        assert_eq!(result, MAILSTOW_IN_USE);
                        busy.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            counted
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let handle: *mut Handle = std::ptr::with_exposed_provenance_mut(address);
    assert_eq!(take::<Number>(handle).unwrap_or(Number(0)).0, counted);
    assert_eq!(counted + busy.into_inner(), THREADS * 2000);
}
