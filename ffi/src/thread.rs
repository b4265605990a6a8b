//! Starts threads that block all signals: the handlers of the host run on the host's threads.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack of these threads, in bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Starts a thread; tools show the first 15 bytes of `name`.
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
