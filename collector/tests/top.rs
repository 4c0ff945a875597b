//! `tailor top`, in a real pseudo-terminal and without one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::{Collector, KEY};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use tailor_collector::clock::now_us;

fn measured() -> Collector {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 150, now_us()).encode().unwrap()).status, 200);
    }
    collector
}

/// `tailor top` in a terminal of 24 lines and 100 columns.
struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    seen: String,
    /// A second descriptor of the terminal, to read its settings.
    terminal: OwnedFd,
    before: Termios,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let open = || rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let terminal = open();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args(["top", "--interval", "0.2"])
            .args(arguments)
            .env("TAILOR_API_KEY", KEY)
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let mut reader = File::from(rustix::io::dup(&controller).unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys: File::from(controller), output, seen: String::new(), terminal, before }
    }

    /// Waits until a text was written after the texts that were waited for before.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = self.seen.find(text) {
                self.seen.drain(..found + text.len());
                return;
            }
            assert!(Instant::now() < deadline, "`{text}` was not written: {:?}", self.seen);
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, which is a success and leaves the terminal as it was.
    fn end(mut self) {
        // The alternate screen is left, and the cursor is shown.
        self.wait_for("\u{1b}[?25h");
        self.wait_for("\u{1b}[?1049l");
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{status:?}");
        let after = tcgetattr(self.terminal.as_fd()).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        assert!(after.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_view_sorts_by_keys_and_restores_the_terminal() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let server = format!("http://{}", collector.address);
    for (place, end) in [(["--data", folder], "q"), (["--server", &server], "\u{3}")] {
        let mut terminal = Terminal::start(&place);
        terminal.wait_for("\u{1b}[?1049h");
        terminal.wait_for("6 functions");
        terminal.wait_for("cost*");
        assert!(!tcgetattr(&terminal.terminal).unwrap().local_modes.contains(LocalModes::ECHO));
        terminal.press("n");
        terminal.wait_for("auth");
        terminal.wait_for("thumbnails");
        terminal.wait_for("name*");
        terminal.press("r");
        terminal.wait_for("thumbnails");
        terminal.wait_for("auth");
        terminal.press(end);
        terminal.end();
    }
}

#[test]
fn a_signal_restores_the_terminal() {
    let collector = measured();
    let mut terminal = Terminal::start(&["--data", collector.folder.path().to_str().unwrap()]);
    terminal.wait_for("6 functions");
    let id = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    terminal.end();
}

#[test]
fn a_collector_that_stops_is_shown_and_the_view_goes_on() {
    let collector = measured();
    let mut terminal = Terminal::start(&["--server", &format!("http://{}", collector.address)]);
    terminal.wait_for("6 functions");
    drop(collector);
    terminal.wait_for("cannot reach");
    terminal.press("q");
    terminal.end();
}

#[test]
fn without_a_terminal_it_prints_each_reading() {
    let collector = measured();
    let server = format!("http://{}", collector.address);
    let output = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["top", "--server", &server, "--format", "json", "--iterations", "2", "--interval", "0.1"])
        .env("TAILOR_API_KEY", KEY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let readings: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap).collect();
    assert_eq!(readings.len(), 2);
    for reading in &readings {
        assert_eq!(reading["total"]["functions"], KINDS.len());
        let functions = reading["functions"].as_array().unwrap();
        let sum = |field: &str| functions.iter().map(|row| row[field].as_f64().unwrap()).sum::<f64>();
        for field in ["cost_per_hour_usd", "invocations_per_second"] {
            let total = reading["total"][field].as_f64().unwrap();
            assert!(total > 0.0 && (sum(field) - total).abs() < total * 1e-6, "{reading}");
        }
    }
}

#[test]
fn plain_output_has_an_order_and_an_exit_code() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let top = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args([&["top", "--data", folder], arguments].concat())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = top(&["--sort", "name", "--limit", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = text.lines().skip(2).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(rows, ["auth", "checkout-price"], "{text}");
    assert!(!text.contains('\u{1b}'));
    assert_eq!(top(&["--name", "no-such-function"]).status.code(), Some(3));
    assert_eq!(top(&["--interval", "0"]).status.code(), Some(2));
}
