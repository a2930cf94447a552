//! [`HiddenInput`]: a terminal that does not show what is typed.

use nix::errno::Errno;
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use std::os::fd::OwnedFd;

/// A control character of this value is disabled, on Linux. macOS uses 0xFF.
const DISABLED: u8 = nix::libc::_POSIX_VDISABLE;

/// Keeps a terminal from echoing. When this is dropped, the terminal is as it was before.
#[derive(Debug)]
pub struct HiddenInput {
    terminal: OwnedFd,
    before: Termios,
}

impl HiddenInput {
    /// Stops the echo, and discards what was typed before. Only the end of a line is still shown. Ctrl-C and Ctrl-D work;
    /// Ctrl-Z and Ctrl-\ do not, since they would leave the terminal without its echo.
    ///
    /// # Errors
    /// It is not a terminal.
    pub fn begin(terminal: OwnedFd) -> Result<Self, Errno> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden
            .local_flags
            .insert(LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        for signal in [
            SpecialCharacterIndices::VSUSP,
            SpecialCharacterIndices::VQUIT,
        ] {
            if let Some(character) = hidden.control_chars.get_mut(signal as usize) {
                *character = DISABLED;
            }
        }
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // If this fails, the terminal is gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;

    #[test]
    fn the_echo_is_off_until_the_end() {
        let pty = openpty(None, None).expect("a terminal");
        let modes = || tcgetattr(&pty.slave).expect("a terminal");
        let before = modes();
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        let terminal = pty.slave.try_clone().expect("a descriptor");
        let hidden = HiddenInput::begin(terminal).expect("a terminal");
        assert!(!modes().local_flags.contains(LocalFlags::ECHO));
        assert!(modes().local_flags.contains(LocalFlags::ISIG));
        drop(hidden);
        assert_eq!(modes(), before);
    }
}
