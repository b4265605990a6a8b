//! Starts threads that take no signals: the handlers of the host run on its own threads.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack of these threads, in bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Starts a thread; `name` is what tools show, at most 15 bytes of it.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let builder = Builder::new().name(name.to_owned());
    let thread = builder.stack_size(STACK_BYTES).spawn(body);
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    thread
}
