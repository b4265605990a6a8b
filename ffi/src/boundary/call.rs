//! One call from C: converts its arguments to Rust references, catches panics, returns its result.
//!
//! Memory borrowed from C is used only during the call. The rules of the header file make this
//! sound: a pointer is NULL or points to the documented object, and no other thread changes that
//! object during the call.

use super::cancel::Uncancelled;
use super::slot::{self, Exclusive, Kind, Shared};
use super::structs::Sized32;
use crate::failure::Failure;
use crate::result::{
    MAILSTOW_BAD_STRUCT, MAILSTOW_INVALID, MAILSTOW_NULL, MAILSTOW_OK, MAILSTOW_PANIC,
    MAILSTOW_TOO_SMALL, mailstow_result,
};
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

/// Most bytes of one argument; more is a mistake of the caller.
const BYTES_MAX: usize = isize::MAX as usize;

/// A call in progress.
#[derive(Debug)]
pub(crate) struct Call(());

/// Runs the body of a call. A panic in it becomes `MAILSTOW_PANIC`; the handles it had entered are
/// poisoned.
pub(crate) fn call(body: impl FnOnce(&Call) -> Result<(), Failure>) -> Result<(), Failure> {
    let _uncancelled = Uncancelled::new();
    let answer = catch_unwind(AssertUnwindSafe(|| body(&Call(()))));
    answer.unwrap_or_else(|_| Err(MAILSTOW_PANIC.into()))
}

impl Call {
    /// The object behind a handle that many threads may use at once.
    pub(crate) fn shared<T: Kind>(
        &self,
        handle: *const T::Handle,
    ) -> Result<Shared<T>, mailstow_result> {
        slot::shared(handle)
    }

    /// The object behind a handle that one thread may use at a time.
    pub(crate) fn exclusive<T: Kind>(
        &self,
        handle: *mut T::Handle,
    ) -> Result<Exclusive<T>, mailstow_result> {
        slot::exclusive(handle)
    }

    /// Bytes with their length; NULL is empty if the length is 0.
    pub(crate) fn bytes(&self, data: *const c_void, length: usize) -> Result<&[u8], Failure> {
        if length == 0 {
            return Ok(&[]);
        }
        if data.is_null() {
            return Err(MAILSTOW_NULL.into());
        }
        if length > BYTES_MAX {
            return Err(MAILSTOW_INVALID.into());
        }
        // SAFETY: the header says that so many bytes can be read there during the call.
        Ok(unsafe { slice::from_raw_parts(data.cast(), length) })
    }

    /// Text with its length.
    pub(crate) fn text(&self, text: *const c_char, length: usize) -> Result<&[u8], Failure> {
        self.bytes(text.cast(), length)
    }

    /// Text with its length; `None` for NULL.
    pub(crate) fn optional_text(
        &self,
        text: *const c_char,
        length: usize,
    ) -> Result<Option<&[u8]>, Failure> {
        match text.is_null() {
            true => Ok(None),
            false => self.text(text, length).map(Some),
        }
    }

    /// Text that ends with a NUL.
    pub(crate) fn string(&self, text: *const c_char) -> Result<&[u8], Failure> {
        if text.is_null() {
            return Err(MAILSTOW_NULL.into());
        }
        // SAFETY: the header says that the text ends with a NUL.
        Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
    }

    /// The pieces of an iovec.
    pub(crate) fn pieces(
        &self,
        pieces: *const libc::iovec,
        count: usize,
    ) -> Result<Vec<&[u8]>, Failure> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if pieces.is_null() {
            return Err(MAILSTOW_NULL.into());
        }
        if count > PIECES_MAX {
            return Err(MAILSTOW_INVALID.into());
        }
        // SAFETY: the header says that so many elements can be read there during the call.
        let pieces = unsafe { slice::from_raw_parts(pieces, count) };
        let bytes = |piece: &libc::iovec| self.bytes(piece.iov_base, piece.iov_len);
        pieces.iter().map(bytes).collect()
    }

    /// The place of a result. Nothing is written before it is set.
    pub(crate) fn out<T>(&self, place: *mut T) -> Result<Out<'_, T>, Failure> {
        match place.is_null() {
            true => Err(MAILSTOW_NULL.into()),
            false => Ok(Out {
                place,
                call: PhantomData,
            }),
        }
    }

    /// The same for a result that the caller may not want.
    pub(crate) fn optional_out<T>(&self, place: *mut T) -> Option<Out<'_, T>> {
        self.out(place).ok()
    }

    /// A struct of which the caller may know fewer or more members than this library; members that
    /// it does not know are 0.
    pub(crate) fn sized<T: Sized32>(&self, place: *const T) -> Result<T, Failure> {
        let bytes = self.size(place)?;
        let mut value = std::mem::MaybeUninit::<T>::zeroed();
        let known = bytes.min(size_of::<T>());
        // SAFETY: the first member, which was read, says that so many bytes are there; the other
        // place is as large as the struct.
        unsafe { ptr::copy_nonoverlapping(place.cast::<u8>(), value.as_mut_ptr().cast(), known) };
        // SAFETY: every pattern of bits is a value of such a struct.
        Ok(unsafe { value.assume_init() })
    }

    /// The place of such a struct to be written.
    pub(crate) fn sized_out<T: Sized32>(&self, place: *mut T) -> Result<SizedOut<'_, T>, Failure> {
        let bytes = self.size(place)?;
        Ok(SizedOut {
            place,
            bytes,
            call: PhantomData,
        })
    }

    /// The places of such structs in an array of `count`, whose first element holds their distance.
    pub(crate) fn sized_array<T: Sized32>(
        &self,
        first: *mut T,
        count: usize,
    ) -> Result<SizedArray<'_, T>, Failure> {
        let bytes = self.size(first)?;
        if count.checked_mul(bytes).is_none_or(|all| all > BYTES_MAX) {
            return Err(MAILSTOW_INVALID.into());
        }
        Ok(SizedArray {
            first,
            bytes,
            count,
            call: PhantomData,
        })
    }

    /// The elements of an array of such structs, each of which says its size.
    pub(crate) fn sized_elements<T: Sized32>(
        &self,
        first: *const T,
        count: usize,
    ) -> Result<Vec<T>, Failure> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let array = self.sized_array(first.cast_mut(), count)?;
        (0..count).map(|at| self.sized(array.place(at))).collect()
    }

    /// The first member of a struct that begins with its size.
    fn size<T: Sized32>(&self, place: *const T) -> Result<usize, Failure> {
        if place.is_null() {
            return Err(MAILSTOW_NULL.into());
        }
        if !place.is_aligned() {
            return Err(MAILSTOW_INVALID.into());
        }
        // SAFETY: the header says that the struct begins with this member.
        let bytes = unsafe { place.cast::<u32>().read() };
        match usize::try_from(bytes) {
            Ok(bytes) if (T::FIRST_BYTES..=STRUCT_BYTES_MAX).contains(&bytes) => Ok(bytes),
            _ => Err(MAILSTOW_BAD_STRUCT.into()),
        }
    }

    /// Copies `text` and a NUL to a buffer of `size` bytes, and its length, without the NUL, to
    /// `length`, if that is not NULL. Writes nothing to a buffer that is too small.
    pub(crate) fn copy(
        &self,
        text: &[u8],
        buffer: *mut c_char,
        size: usize,
        length: *mut usize,
    ) -> Result<(), Failure> {
        if let Some(out) = self.optional_out(length) {
            out.set(text.len());
        }
        if text.len() >= size {
            return Err(MAILSTOW_TOO_SMALL.into());
        }
        if buffer.is_null() {
            return Err(MAILSTOW_NULL.into());
        }
        // SAFETY: the header says that so many bytes can be written there; the text is shorter.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len()) };
        // SAFETY: the same bytes; the length of the text is less than their number.
        let end = unsafe { buffer.add(text.len()) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        Ok(())
    }
}

/// Most pieces of an iovec: what writev(2) takes.
const PIECES_MAX: usize = 1024;

/// A struct that claims to be larger was not initialized.
const STRUCT_BYTES_MAX: usize = 1 << 16;

/// A place in C's memory for a result.
#[derive(Debug)]
pub(crate) struct Out<'call, T> {
    place: *mut T,
    call: PhantomData<&'call Call>,
}

impl<T> Out<'_, T> {
    pub(crate) fn set(self, value: T) {
        // SAFETY: the header says that a value of this type can be written there.
        unsafe { self.place.write(value) };
    }
}

/// The same for a struct that begins with its size.
#[derive(Debug)]
pub(crate) struct SizedOut<'call, T> {
    place: *mut T,
    bytes: usize,
    call: PhantomData<&'call Call>,
}

impl<T: Sized32> SizedOut<'_, T> {
    pub(crate) fn set(self, mut value: T) {
        let known = self.bytes.min(size_of::<T>());
        // The size stays that of the caller.
        value.set_size(u32::try_from(self.bytes).unwrap_or(0));
        // SAFETY: the first member said that so many bytes are there.
        unsafe {
            ptr::copy_nonoverlapping(
                ptr::from_ref(&value).cast::<u8>(),
                self.place.cast::<u8>(),
                known,
            );
        }
    }
}

/// An array of such structs.
#[derive(Debug)]
pub(crate) struct SizedArray<'call, T> {
    first: *mut T,
    bytes: usize,
    count: usize,
    call: PhantomData<&'call Call>,
}

impl<'call, T: Sized32> SizedArray<'call, T> {
    /// The place of an element; of the last one if the index is past the end.
    fn place(&self, at: usize) -> *mut T {
        self.first
            .wrapping_byte_add(at.min(self.count) * self.bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Sets an element; ignores an index past the end.
    pub(crate) fn set(&self, at: usize, value: T) {
        if at < self.count {
            let out: SizedOut<'call, T> = SizedOut {
                place: self.place(at),
                bytes: self.bytes,
                call: PhantomData,
            };
            out.set(value);
        }
    }
}

/// The number of a result.
pub(crate) fn number(answer: Result<(), Failure>) -> mailstow_result {
    match answer {
        Ok(()) => MAILSTOW_OK,
        Err(failure) => failure.result,
    }
}
