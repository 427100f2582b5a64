//! A server process of the tests: started in its own directory, its output kept, ended by its pid.
//!
//! It is started through `setpriv --pdeathsig`, so the kernel ends it when the test's thread dies
//! before it could say goodbye. It never ends anything it did not start.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use super::eventually::eventually_within;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
    farewell: Signal,
}

impl Process {
    /// Starts `program`; what it prints goes to `output` (`stdout` may be kept apart).
    /// `farewell` ends it at the end of the test.
    pub fn start(
        name: &'static str,
        program: &Command,
        output: &Path,
        stdout: Option<&Path>,
        farewell: Signal,
    ) -> Self {
        let log = File::options().create(true).append(true).open(output).expect("a log file");
        let stdout = match stdout {
            Some(path) => File::create(path).expect("a file for stdout"),
            None => log.try_clone().expect("a second handle of the log"),
        };
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(if farewell == Signal::KILL { "KILL" } else { "TERM" });
        command.arg("--").arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(directory) = program.get_current_dir() {
            command.current_dir(directory);
        }
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(log).spawn().expect("setpriv starts");
        Self { name, child, output: output.to_owned(), farewell }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that has ended already takes none.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: std::time::Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let child = std::cell::RefCell::new(&mut self.child);
        eventually_within(within, &what, || {
            let ended = child.borrow_mut().try_wait().expect("the child can be waited for");
            async move { ended }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended();
        if ended.is_none() {
            self.signal(self.farewell);
            // A stopped process takes no other signal.
            self.signal(Signal::CONT);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let from = output.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            let early = ended.map(|status| format!(", ended early with {:?}/{:?}", status.code(), status.signal()));
            eprintln!("--- output of {}{} ---\n{}", self.name, early.unwrap_or_default(), &output[from..]);
        }
    }
}

/// Sends `signal` to the process `pid`, which this test started itself or is a child of one it started.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, signal);
}

/// The living children of `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// How many descriptors `pid` holds open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// Resident memory of `pid`, in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}
