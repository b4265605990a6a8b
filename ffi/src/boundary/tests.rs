//! Handles under panics, reuse and several threads, and what is read and written of C's memory:
//! what C programs cannot show by themselves.

use super::forever::Forever;
use super::slot::{Kind, Pool, insert, take};
use super::structs::{Sized32 as _, mailstow_completion};
use super::{Call, call};
use crate::failure::Failure;
use crate::result::{
    MAILSTOW_BAD_STRUCT, MAILSTOW_CLOSED, MAILSTOW_IN_USE, MAILSTOW_INVALID, MAILSTOW_NULL,
    MAILSTOW_PANIC, MAILSTOW_POISONED, MAILSTOW_TOO_SMALL, MAILSTOW_WRONG_HANDLE, mailstow_result,
};
use std::ffi::c_char;
use std::sync::Barrier;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

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

/// Numbers with separate slots, which one test uses up.
struct Panicking(usize);

impl Kind for Panicking {
    type Handle = Handle;
    const NUMBER: u64 = 1003;

    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<Panicking> = Pool::new();
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
    let (one, two) = (insert(Panicking(1)), insert(Panicking(2)));
    let read = |handle: *mut Handle| {
        answer(|call| {
            call.shared::<Panicking>(handle)?;
            Ok(())
        })
    };
    let shared = answer(|call| {
        let _entered = call.shared::<Panicking>(one)?;
        panic!("on purpose");
    });
    assert_eq!(shared, Some(MAILSTOW_PANIC));
    assert_eq!(read(one), Some(MAILSTOW_POISONED));
    assert_eq!(read(two), None);
    let exclusive = answer(|call| {
        call.exclusive::<Panicking>(two)?.0 += 1;
        let _entered = call.exclusive::<Panicking>(two)?;
        panic!("on purpose");
    });
    assert_eq!(exclusive, Some(MAILSTOW_PANIC));
    assert_eq!(read(two), Some(MAILSTOW_POISONED));
    // Both can still be closed, once.
    for handle in [one, two] {
        assert!(take::<Panicking>(handle).is_ok());
        assert_eq!(take::<Panicking>(handle).err(), Some(MAILSTOW_CLOSED));
        assert_eq!(read(handle), Some(MAILSTOW_CLOSED));
    }
    // Their slots are used again after 256 others were closed, and are sound then.
    let again = (0..300).any(|number| {
        let handle = insert(Panicking(number));
        assert_eq!(read(handle), None);
        assert!(take::<Panicking>(handle).is_ok());
        handle == one
    });
    assert!(again);
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
    const CALLS: usize = if cfg!(miri) { 20 } else { 2000 };
    let handle = AtomicPtr::new(insert(Number(0)));
    let (start, busy) = (Barrier::new(THREADS), AtomicUsize::new(0));
    let counted: usize = std::thread::scope(|scope| {
        let work = || {
            start.wait();
            let handle = handle.load(Ordering::Relaxed);
            let mut counted = 0;
            for _ in 0..CALLS {
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
    let handle = handle.into_inner();
    assert_eq!(take::<Number>(handle).unwrap_or(Number(0)).0, counted);
    assert_eq!(counted + busy.into_inner(), THREADS * CALLS);
}

/// The first members of a struct of C, as a program built against an older header has them:
/// memory of just that size.
fn older(struct_size: u32, members: &[u64]) -> Box<[u64]> {
    let first = u64::from(struct_size) | 7 << 32;
    std::iter::once(first)
        .chain(members.iter().copied())
        .collect()
}

#[test]
fn a_struct_is_read_and_written_as_far_as_its_size_says() {
    // As large as the first version, which is the only one so far, and one of a later header.
    let first = u32::try_from(mailstow_completion::FIRST_BYTES).unwrap();
    for (struct_size, members) in [(first, &[5, 0][..]), (first + 8, &[5, 0, 99][..])] {
        let mut memory = older(struct_size, members);
        let place: *mut mailstow_completion = memory.as_mut_ptr().cast();
        let done = call(|call| {
            let read = call.sized(place.cast_const())?;
            assert_eq!(
                (read.struct_size, read.reserved, read.token),
                (struct_size, 7, 5)
            );
            call.sized_out(place)?.set(mailstow_completion {
                struct_size: 0,
                reserved: 8,
                token: 6,
                results: std::ptr::null_mut(),
            });
            Ok(())
        });
        assert!(done.is_ok());
        assert_eq!(memory[0], u64::from(struct_size) | 8 << 32);
        assert_eq!(memory[1..3], [6, 0]);
        assert_eq!(
            memory.get(3),
            members.get(2),
            "a member that we do not know"
        );
    }
    let wrong = |struct_size: u32| {
        let memory = older(struct_size, &[]);
        let place: *const mailstow_completion = memory.as_ptr().cast();
        answer(|call| call.sized(place).map(|_| ()))
    };
    for struct_size in [0, first - 1, 1 << 20, u32::MAX] {
        assert_eq!(
            wrong(struct_size),
            Some(MAILSTOW_BAD_STRUCT),
            "{struct_size}"
        );
    }
}

#[test]
fn elements_of_an_array_lie_as_far_apart_as_the_first_one_says() {
    const STRIDE: u32 = 32;
    let element = [u64::from(STRIDE), 1, 0, 99];
    let mut memory = [element, element].concat();
    let first: *mut mailstow_completion = memory.as_mut_ptr().cast();
    let done = call(|call| {
        let tokens = call.sized_elements(first.cast_const(), 2)?;
        assert_eq!(tokens.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 1]);
        let array = call.sized_array(first, 2)?;
        assert_eq!(array.len(), 2);
        // There is no third.
        for at in 0..3 {
            let (token, results) = (10 + u64::try_from(at).unwrap(), std::ptr::null_mut());
            array.set(
                at,
                mailstow_completion {
                    struct_size: 0,
                    reserved: 0,
                    token,
                    results,
                },
            );
        }
        Ok(())
    });
    assert!(done.is_ok());
    assert_eq!(memory, [32, 10, 0, 99, 32, 11, 0, 99]);
    let too_many = |count| answer(|call| call.sized_array(first, count).map(|_| ()));
    assert_eq!(too_many(usize::MAX / 8), Some(MAILSTOW_INVALID));
}

#[test]
fn a_text_is_copied_whole_with_its_nul_or_not_at_all() {
    let copied = |text: &[u8], size: usize| {
        let mut buffer = vec![c_char::MAX; size];
        let mut length = 0;
        let result = answer(|call| call.copy(text, buffer.as_mut_ptr(), size, &raw mut length));
        (result, buffer, length)
    };
    assert_eq!(copied(b"", 1), (None, vec![0], 0));
    assert_eq!(copied(b"ab", 3), (None, vec![97, 98, 0], 2));
    for size in 0..3 {
        let untouched = vec![c_char::MAX; size];
        assert_eq!(
            copied(b"abc", size),
            (Some(MAILSTOW_TOO_SMALL), untouched, 3)
        );
    }
    let null = std::ptr::null_mut();
    assert_eq!(
        answer(|call| call.copy(b"a", null, 9, std::ptr::null_mut())),
        Some(MAILSTOW_NULL)
    );
}

#[test]
fn pieces_and_texts_are_read_where_they_lie() {
    let (one, two) = (b"one".to_vec(), b"two\0".to_vec());
    let piece = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let empty = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let pieces = [piece(&one), empty, piece(&two[..3])];
    let done = call(|call| {
        assert_eq!(call.pieces(pieces.as_ptr(), 3)?, [&b"one"[..], b"", b"two"]);
        assert_eq!(call.pieces(std::ptr::null(), 0)?, [b""; 0]);
        assert_eq!(call.string(two.as_ptr().cast())?, b"two");
        assert_eq!(call.text(one.as_ptr().cast(), 2)?, b"on");
        assert_eq!(call.optional_text(std::ptr::null(), 5)?, None);
        Ok(())
    });
    assert!(done.is_ok());
    let missing = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 1,
    };
    let read = |pieces: &[libc::iovec], count| {
        answer(|call| call.pieces(pieces.as_ptr(), count).map(|_| ()))
    };
    assert_eq!(read(&[missing], 1), Some(MAILSTOW_NULL));
    assert_eq!(read(&pieces, 1025), Some(MAILSTOW_INVALID));
}

#[test]
fn a_value_that_is_replaced_stays_readable() {
    static CURRENT: Forever<String> = Forever::new();
    assert_eq!(CURRENT.get(), None);
    CURRENT.set("0".to_owned());
    let first = CURRENT.get();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 1..20 {
                    let is_less = |now: Option<&String>| {
                        now.is_some_and(|now| now.parse().is_ok_and(|now: i32| now < number))
                    };
                    CURRENT.replace_if(is_less, number.to_string());
                }
            });
        }
        scope.spawn(|| {
            let numbers: Vec<i32> = (0..20)
                .filter_map(|_| CURRENT.get()?.parse().ok())
                .collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        });
    });
    assert_eq!(first.map(String::as_str), Some("0"));
    assert_eq!(CURRENT.get().map(String::as_str), Some("19"));
}
