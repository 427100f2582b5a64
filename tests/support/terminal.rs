//! A terminal with somebody at it: a program on a pseudo-terminal, and an emulator that knows what is on the screen.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::process::send;
use super::{eventually, eventually_within};

/// A program on a terminal; it ends with the value.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Screen>>,
}

struct Screen(vt100::Parser);

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.screen().contents())
    }
}

/// Starts `program` on a terminal of so many columns and rows.
pub fn terminal(program: &Command, [columns, rows]: [u16; 2]) -> Terminal {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&controller).expect("its rights");
    unlockpt(&controller).expect("it is unlocked");
    let name = ptsname(&controller, Vec::new()).expect("its name");
    // The program's terminal, and not that of whoever tests.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let end = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("its other end");
    let keyboard = File::from(controller);
    // `setsid` makes it the program's own terminal, whose size the program is told when it changes.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "setsid", "--ctty", "--"]);
    command.arg(program.get_program()).args(program.get_args());
    for (key, value) in program.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let again = || end.try_clone().expect("its end again");
    let size = |length| NonZeroU16::new(length).expect("a size");
    let screen = Arc::new(Mutex::new(Screen(vt100::Parser::new(size(rows), size(columns), 0))));
    resize(&keyboard, [columns, rows]);
    let child = command.env("TERM", "xterm-256color").stdin(again()).stdout(again()).stderr(again()).spawn();
    let terminal = Terminal { child: child.expect("setpriv starts"), keyboard, screen };
    // Held by the program alone, so that reading ends with it.
    drop((end, command));
    terminal.watch();
    terminal
}

fn resize(terminal: &File, [columns, rows]: [u16; 2]) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("its size");
}

impl Terminal {
    fn watch(&self) {
        let mut output = self.keyboard.try_clone().expect("the terminal again");
        let screen = Arc::clone(&self.screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is how a terminal says that nobody is there any more.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                screen.lock().unwrap().0.process(&bytes[..read]);
            }
        });
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().0.screen().contents()
    }

    /// Waits until the screen says so; if it never does, what it says is told.
    pub async fn until(&self, text: &str) {
        let shown = Shown(self);
        eventually(&format!("the screen says {text:?}"), || async { self.text().contains(text).then_some(()) }).await;
        std::mem::forget(shown);
    }

    /// The line of the screen that begins with this.
    pub fn line(&self, start: &str) -> Option<String> {
        self.text().lines().find(|line| line.starts_with(start)).map(str::to_owned)
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("keys");
    }

    /// Makes the window another size.
    pub fn resize(&self, size: [u16; 2]) {
        self.screen.lock().unwrap().0.set_size(NonZeroU16::new(size[1]).unwrap(), NonZeroU16::new(size[0]).unwrap());
        resize(&self.keyboard, size);
    }

    pub fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Waits for the program's end, which must leave the terminal as it was.
    pub async fn end(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        let status = eventually_within(Duration::from_secs(10), "the program ends", || {
            let ended = child.borrow_mut().try_wait().expect("it can be waited for");
            async move { ended }
        })
        .await;
        let modes = tcgetattr(&self.keyboard).expect("its modes").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "lines are typed again, and seen");
        eventually("the screen is given back", || async {
            let screen = &self.screen.lock().unwrap().0;
            let screen = screen.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        })
        .await;
        status
    }
}

/// Tells what was on the screen when a test fails.
struct Shown<'t>(&'t Terminal);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("--- the screen ---\n{}", self.0.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
