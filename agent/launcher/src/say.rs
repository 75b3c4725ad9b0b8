//! Words for the unit's journal, which hold nobody up.

use std::io::{Write, stderr};
use std::os::fd::{AsFd, AsRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// Longest text, in bytes: so much is written whole or not at all.
const TEXT_LEN_MAX: usize = 2_000;

/// Writes a line to stderr if there is room for it. The hypervisor shares what is behind stderr: a guest that
/// floods its console must not hold up the supervisor, and QEMU makes it non-blocking
/// (`findings/qemu-console-nonblocking.sh`).
pub(crate) fn say(text: &str) {
    let line = format!("{}\n", &text[..text.floor_char_boundary(TEXT_LEN_MAX)]);
    let sent = send(stderr().as_raw_fd(), line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    if sent == Err(nix::Error::ENOTSOCK) && has_room() {
        // There is nobody to tell that it failed.
        let _ = stderr().write_all(line.as_bytes());
    }
}

fn has_room() -> bool {
    let stderr = stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
