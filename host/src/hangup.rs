//! SIGHUP before the program can act on it.

#![expect(unsafe_code, reason = "the standard library knows no signals")]

/// What a hangup did before it was ignored.
#[derive(Debug)]
pub struct Before(libc::sighandler_t);

/// From now on a hangup ends nothing, nor does it in a program that takes this one's place.
#[must_use]
pub fn ignore() -> Before {
    // SAFETY: no code of ours runs when the signal comes.
    Before(unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) })
}

impl Before {
    /// Lets it do that again.
    pub fn restore(self) {
        // SAFETY: a program begins with the default or with a signal that is ignored: handlers end with the
        // program before it.
        unsafe { libc::signal(libc::SIGHUP, self.0) };
    }
}
