//! The live view of `tailor top` on a terminal.

use std::io::{self, Write, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use tokio::signal::unix::{SignalKind, signal};

use super::sample::{TopSort, sort};
use super::{Snapshot, TopArgs, read_in_background};
use crate::cli::runtime::single_threaded;
use crate::query::TableStyle;
use crate::render::output::Output as _;
use crate::render::units::shorten;

/// How long a key may wait.
const POLL: Duration = Duration::from_millis(100);

/// The terminal in the state of the view. It is restored when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(stdout(), EnterAlternateScreen, DisableLineWrap, Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done when the terminal is gone.
        let _ = execute!(stdout(), Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// What the person chose.
struct Choice {
    sort: TopSort,
    is_reversed: bool,
}

pub(super) fn run(args: TopArgs) -> anyhow::Result<ExitCode> {
    let ended = end_on_signals()?;
    let args = Arc::new(args);
    let mut choice = Choice { sort: args.sort, is_reversed: args.reverse };
    let order = Arc::new(Mutex::new(args.sort));
    let readings = read_in_background(&args, &order);
    let screen = Screen::enter().context("cannot use the terminal")?;
    let mut latest: Option<Snapshot> = None;
    let mut failure = None;
    let mut is_changed = true;
    loop {
        loop {
            match readings.try_recv() {
                Ok(Ok(snapshot)) => (latest, failure) = (Some(snapshot), None),
                Ok(Err(error)) => failure = Some(error),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    drop(screen);
                    return end(failure);
                }
            }
            is_changed = true;
        }
        if is_changed {
            draw(latest.as_ref(), failure.as_deref(), &choice, &args)
                .context("cannot write to the terminal")?;
        }
        is_changed = event::poll(POLL).context("cannot read the keys")?;
        if is_changed && handle(&event::read().context("cannot read the keys")?, &mut choice) {
            break;
        }
        *order.lock().unwrap_or_else(PoisonError::into_inner) = choice.sort;
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    drop(screen);
    Ok(ExitCode::SUCCESS)
}

/// All readings were made: it failed when the last one did.
fn end(failure: Option<String>) -> anyhow::Result<ExitCode> {
    match failure {
        Some(error) => Err(anyhow::anyhow!(error)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Whether a signal requested the end of the process. The terminal is restored first.
fn end_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let runtime = single_threaded()?;
    let guard = runtime.enter();
    let listen = |kind| signal(kind).context("cannot wait for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
    });
    Ok(ended)
}

/// Handles a key. Returns whether the view ends.
fn handle(event: &Event, choice: &mut Choice) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('r') => choice.is_reversed = !choice.is_reversed,
        KeyCode::Char(pressed) => {
            let known = TopSort::KEYS.into_iter().find(|(key, ..)| *key == pressed);
            if let Some((_, sort, _)) = known {
                choice.sort = sort;
            }
        }
        _ => {}
    }
    false
}

fn draw(
    snapshot: Option<&Snapshot>,
    failure: Option<&str>,
    choice: &Choice,
    args: &TopArgs,
) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    let (width, height) = (usize::from(width).max(1), usize::from(height).max(1));
    let mut out = io::BufWriter::new(stdout().lock());
    queue!(out, MoveTo(0, 0))?;
    let text = content(snapshot, failure, choice, args, width, height);
    let last = text.len().saturating_sub(1);
    for (index, (line, attribute)) in text.iter().enumerate() {
        let line = shorten_end(line, width);
        queue!(out, SetAttribute(*attribute), Print(line), SetAttribute(Attribute::Reset))?;
        queue!(out, Clear(ClearType::UntilNewLine))?;
        if index < last {
            queue!(out, Print("\r\n"))?;
        }
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
    out.flush()
}

/// The lines of the view, at most `height`.
fn content(
    snapshot: Option<&Snapshot>,
    failure: Option<&str>,
    choice: &Choice,
    args: &TopArgs,
    width: usize,
    height: usize,
) -> Vec<(String, Attribute)> {
    let mut text = Vec::new();
    match snapshot {
        Some(snapshot) => {
            text.push((snapshot.summary(), Attribute::Bold));
            let mut snapshot = snapshot.clone();
            sort(&mut snapshot.rows, choice.sort, choice.is_reversed);
            snapshot.rows.truncate(args.limit());
            let table = snapshot.table(TableStyle { colour: false, width, indents: false });
            text.extend(table.lines().skip(1).map(|line| (line.to_owned(), Attribute::Reset)));
        }
        None => text.push(("reading".to_owned(), Attribute::Reset)),
    }
    if let Some(header) = text.get_mut(1) {
        header.1 = Attribute::Reverse;
        header.0 = format!("{:<width$}", header.0);
    }
    let mut end = Vec::new();
    if let Some(failure) = failure {
        end.push((shorten(failure, width), Attribute::Bold));
    }
    let keys: Vec<String> = TopSort::KEYS
        .into_iter()
        .map(|(key, sort, name)| format!("{key} {name}{}", if sort == choice.sort { "*" } else { "" }))
        .collect();
    end.push((format!("sort: {}   r reverse   q quit", keys.join("  ")), Attribute::Dim));
    text.truncate(height.saturating_sub(end.len()));
    text.extend(end);
    text.truncate(height);
    text
}

/// The first characters of a line.
fn shorten_end(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}
