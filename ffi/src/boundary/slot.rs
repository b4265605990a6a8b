//! Slots for the objects behind handles. Their memory stays valid for ever, so that the use of a
//! closed handle, or of a handle of another kind, is an error and no corruption.
//!
//! A handle is the address of a slot. Slots are never freed; a closed slot is used again only after
//! [`QUARANTINE`] others were closed, so that an old handle is recognised for a long time.
//! Invariants: many threads use an object at once, or one that may change it, never both; the one
//! call that closed an object drops it; a child process uses no object of its parent.

use super::forever::Forever;
use super::fork;
use crate::result::{
    MAILSTOW_CLOSED, MAILSTOW_FORKED, MAILSTOW_IN_USE, MAILSTOW_NULL, MAILSTOW_POISONED,
    MAILSTOW_WRONG_HANDLE, mailstow_result,
};
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many closed slots of a kind are kept unused.
const QUARANTINE: usize = 256;

/// The first word of every slot, mixed with its kind.
const MAGIC: u64 = 0x6d61_696c_7374_6f77;

/// It is not open.
const CLOSED: u32 = 0;
/// Open and not in use; each user adds one.
const OPEN: u32 = 0x8000_0000;
/// One thread uses it exclusively.
const EXCLUSIVE: u32 = 0xffff_ffff;

/// A kind of objects with handles.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    /// What C calls it.
    type Handle;
    /// Differs from that of every other kind.
    const NUMBER: u64;
    /// The closed slots of this kind.
    fn pool() -> &'static Pool<Self>;
}

/// The common beginning of slots of all kinds.
#[repr(C)]
struct Header {
    magic: AtomicU64,
    generation: AtomicU64,
    state: AtomicU32,
    is_poisoned: AtomicBool,
}

/// One object.
#[repr(C)]
pub(crate) struct Slot<T> {
    header: Header,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is touched under the rules of `Header::state` alone: by threads that only read
// it, which `T: Sync` allows, or by one at a time, which `T: Send` allows.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// Slots that were closed.
pub(crate) struct Pool<T: 'static>(Forever<Resting<T>>);

struct Resting<T: 'static> {
    generation: u64,
    slots: Mutex<VecDeque<&'static Slot<T>>>,
}

impl<T: Send + Sync + 'static> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self(Forever::new())
    }

    /// The slots of this process. In a child the lock of its parent may be held for ever by a
    /// thread that does not exist there.
    fn slots(&self) -> &'static Mutex<VecDeque<&'static Slot<T>>> {
        let generation = fork::generation();
        loop {
            let current = self.0.get();
            if let Some(resting) = current
                && resting.generation == generation
            {
                return &resting.slots;
            }
            let new = Resting {
                generation,
                slots: Mutex::new(VecDeque::new()),
            };
            let is_old = |known: Option<&Resting<T>>| {
                known.is_none_or(|known| known.generation != generation)
            };
            self.0.replace_if(is_old, new);
        }
    }

    fn take(&self) -> Option<&'static Slot<T>> {
        let mut slots = self.slots().lock().unwrap_or_else(PoisonError::into_inner);
        match slots.len() > QUARANTINE {
            true => slots.pop_front(),
            false => None,
        }
    }

    fn put(&self, slot: &'static Slot<T>) {
        let mut slots = self.slots().lock().unwrap_or_else(PoisonError::into_inner);
        slots.push_back(slot);
    }
}

fn magic<T: Kind>() -> u64 {
    MAGIC ^ T::NUMBER
}

/// Makes a handle for `value`.
pub(crate) fn insert<T: Kind>(value: T) -> *mut T::Handle {
    let slot = T::pool().take().unwrap_or_else(|| {
        Box::leak(Box::new(Slot {
            header: Header {
                magic: AtomicU64::new(magic::<T>()),
                generation: AtomicU64::new(0),
                state: AtomicU32::new(CLOSED),
                is_poisoned: AtomicBool::new(false),
            },
            value: UnsafeCell::new(None),
        }))
    });
    // SAFETY: it is closed and in no pool, so that no other call touches its value.
    unsafe { *slot.value.get() = Some(value) };
    let header = &slot.header;
    header
        .generation
        .store(fork::generation(), Ordering::Relaxed);
    header.is_poisoned.store(false, Ordering::Relaxed);
    // Release: a thread that reads the open state also sees the value.
    header.state.store(OPEN, Ordering::Release);
    ptr::from_ref(slot).cast_mut().cast()
}

/// The slot that a handle is the address of.
fn find<T: Kind>(handle: *const T::Handle) -> Result<&'static Slot<T>, mailstow_result> {
    if handle.is_null() {
        return Err(MAILSTOW_NULL);
    }
    let header: *const Header = handle.cast();
    if !header.is_aligned() {
        return Err(MAILSTOW_WRONG_HANDLE);
    }
    // SAFETY: by the rules of the header file, a handle came from a call of this library; slots of
    // all kinds begin like this and are never freed.
    let header = unsafe { &*header };
    if header.magic.load(Ordering::Relaxed) != magic::<T>() {
        return Err(MAILSTOW_WRONG_HANDLE);
    }
    let slot: *const Slot<T> = handle.cast();
    // SAFETY: the magic word proves that it is a slot of this kind.
    let slot = unsafe { &*slot };
    if header.state.load(Ordering::Relaxed) == CLOSED {
        return Err(MAILSTOW_CLOSED);
    }
    if header.generation.load(Ordering::Relaxed) != fork::generation() {
        return Err(MAILSTOW_FORKED);
    }
    Ok(slot)
}

impl Header {
    fn check_sound(&self) -> Result<(), mailstow_result> {
        match self.is_poisoned.load(Ordering::Relaxed) {
            true => Err(MAILSTOW_POISONED),
            false => Ok(()),
        }
    }

    /// One user more.
    fn enter(&self) -> Result<(), mailstow_result> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            match state {
                CLOSED => return Err(MAILSTOW_CLOSED),
                EXCLUSIVE => return Err(MAILSTOW_IN_USE),
                _ => {}
            }
            // Acquire: pairs with the Release of the thread that made or last used it.
            let entered = self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match entered {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
    }

    /// From open and unused to `next`.
    fn seize(&self, next: u32) -> Result<(), mailstow_result> {
        let order = Ordering::Acquire;
        match self
            .state
            .compare_exchange(OPEN, next, order, Ordering::Relaxed)
        {
            Ok(_) => Ok(()),
            Err(CLOSED) => Err(MAILSTOW_CLOSED),
            Err(_) => Err(MAILSTOW_IN_USE),
        }
    }

    fn poison_if_panicking(&self) {
        if std::thread::panicking() {
            self.is_poisoned.store(true, Ordering::Relaxed);
        }
    }
}

/// An object in use by this call, and possibly by others.
pub(crate) struct Shared<T: Kind>(&'static Slot<T>);

/// An object in use by this call alone.
pub(crate) struct Exclusive<T: Kind>(&'static Slot<T>);

/// Enters an object that many threads may use at once.
pub(crate) fn shared<T: Kind>(handle: *const T::Handle) -> Result<Shared<T>, mailstow_result> {
    let slot = find::<T>(handle)?;
    slot.header.enter()?;
    let entered = Shared(slot);
    slot.header.check_sound()?;
    Ok(entered)
}

/// Enters an object that one thread may use at a time.
pub(crate) fn exclusive<T: Kind>(handle: *mut T::Handle) -> Result<Exclusive<T>, mailstow_result> {
    let slot = find::<T>(handle)?;
    slot.header.seize(EXCLUSIVE)?;
    let entered = Exclusive(slot);
    slot.header.check_sound()?;
    Ok(entered)
}

/// Closes a handle and returns its object, also when it is poisoned.
pub(crate) fn take<T: Kind>(handle: *mut T::Handle) -> Result<T, mailstow_result> {
    let slot = find::<T>(handle)?;
    slot.header.seize(CLOSED)?;
    // SAFETY: it was open and unused, and is closed now: no other call touches its value, and it is
    // in no pool yet.
    let value = unsafe { (*slot.value.get()).take() };
    T::pool().put(slot);
    value.ok_or(MAILSTOW_CLOSED)
}

impl<T: Kind> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        value(self.0)
    }
}

impl<T: Kind> Deref for Exclusive<T> {
    type Target = T;

    fn deref(&self) -> &T {
        value(self.0)
    }
}

impl<T: Kind> DerefMut for Exclusive<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the state keeps all other calls out.
        let value = unsafe { &mut *self.0.value.get() };
        match value {
            Some(value) => value,
            None => absent(),
        }
    }
}

/// The value of a slot that the caller has entered.
fn value<T: Kind>(slot: &Slot<T>) -> &T {
    // SAFETY: the caller has entered the slot, and no call changes its value meanwhile.
    let value = unsafe { &*slot.value.get() };
    match value {
        Some(value) => value,
        None => absent(),
    }
}

#[cold]
#[allow(
    clippy::panic,
    reason = "a broken invariant; the guard answers with MAILSTOW_PANIC"
)]
fn absent() -> ! {
    panic!("an open slot has no value")
}

impl<T: Kind> Drop for Shared<T> {
    fn drop(&mut self) {
        self.0.header.poison_if_panicking();
        // Release: what this call did comes before the drop of the value.
        self.0.header.state.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Kind> Drop for Exclusive<T> {
    fn drop(&mut self) {
        self.0.header.poison_if_panicking();
        self.0.header.state.store(OPEN, Ordering::Release);
    }
}
