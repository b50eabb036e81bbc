//! A write that fails ends the engine's process, before anything is made of what is missing.
//!
//! The library gives up a write that fails without a word: its `WriteBufferFromFileDescriptor` has
//! the exception commented out. On a full disk it would acknowledge an insert whose rows are
//! nowhere, and put an empty part in the place of those it was to merge. A process that has ended
//! acknowledges nothing, and the next one finds what the last whole write left.
//!
//! So this program brings a `write` of its own, which the dynamic linker gives to the library
//! before that of the C library. Outside the engine's process it is the plain system call.
#![expect(unsafe_code, reason = "it takes the place of a function of the C library")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, size_t, ssize_t};
use rustix::fs::{FileType, fstat};

/// How the engine's process ends when its disk takes no more: `EX_IOERR` of sysexits.h.
pub(super) const DISK_FAILED: i32 = 74;

static GUARDED: AtomicBool = AtomicBool::new(false);

/// From now on a write to a file that fails ends this process.
pub(super) fn guard() {
    // A limit on the size of files is a full disk like any other.
    // SAFETY: nothing is called when the signal comes.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    GUARDED.store(true, Ordering::Relaxed);
}

/// `write(2)`.
///
/// # Safety
/// As for `write(2)`: `bytes` points to `length` bytes that can be read.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller's promise is that of the system call, which sets `errno` as well.
    let written = unsafe { libc::syscall(libc::SYS_write, file, bytes, length) };
    if written < 0 && GUARDED.load(Ordering::Relaxed) {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted && is_file(file) {
            end(&error);
        }
    }
    ssize_t::try_from(written).unwrap_or(-1)
}

/// Whether it is a file of the engine's. A pipe or a socket fails when the other side goes, and a log
/// that is not written is no loss.
fn is_file(file: c_int) -> bool {
    if file <= libc::STDERR_FILENO {
        return false;
    }
    // SAFETY: whoever writes to it keeps it open meanwhile.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

fn end(error: &io::Error) -> ! {
    let line = format!("cannot write to the disk: {error}; ending, so that nothing gets lost\n");
    // The lock of standard error may be held by the thread that is interrupted here for good.
    // SAFETY: the line lives until the process ends, which runs nothing of anybody's.
    unsafe {
        libc::syscall(libc::SYS_write, libc::STDERR_FILENO, line.as_ptr(), line.len());
        libc::_exit(DISK_FAILED)
    }
}
