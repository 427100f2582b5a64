//! The terminal and the clock: keys, answers and seconds are given to the model, and what it wishes is done.
//!
//! However it ends (a key, a signal, a panic, a terminal that is gone), the terminal is given back as it was.

use std::io;
use std::time::Duration;

use ::http::StatusCode;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::model::{Mode, Model, Wish};
use super::view::{Look, render};
use crate::admin::Question;
use crate::cli::port::{Port, Unheard};
use crate::cli::told::{Comparison, Flipped, Table};
use crate::cli::with_causes;

/// How often ages are shown anew.
const SECOND: Duration = Duration::from_secs(1);
/// How long after the end of an answer the next one is asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// What comes from the gateway.
enum Heard {
    Event(Box<Comparison>),
    Table(Box<Table>),
    Lost(Unheard),
    Flipped(Result<Flipped, Unheard>),
}

/// Shows the model until somebody quits.
pub(super) async fn run(port: Port, model: Model, coloured: bool) -> io::Result<()> {
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let terminal = Restored(ratatui::try_init()?);
    let ended = futures_util::future::select_all(ends.iter_mut().map(|end| Box::pin(end.recv())));
    tokio::select! {
        shown = show(terminal, port, model, Look::new(coloured)) => shown,
        _ = ended => Ok(()),
    }
}

/// A terminal that is given back when it is dropped; panics are ratatui's hook's.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        // Of a terminal that is gone nothing can be restored.
        let _ = ratatui::try_restore();
    }
}

async fn show(mut terminal: Restored, port: Port, mut model: Model, look: Look) -> io::Result<()> {
    let (tell, mut told) = mpsc::channel(2);
    let mut ear = Ear { port, tell, listening: None };
    ear.listen(model.question);
    let (mut keys, mut seconds) = (EventStream::new(), interval(SECOND));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.0.draw(|frame| render(frame, &model, look, Timestamp::now()))?;
        let wish = tokio::select! {
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => model.pressed(key),
                // Drawn anew as a whole: what was on it may be in disorder, even where the size is the same again.
                Some(Ok(Event::Resize(width, height))) => {
                    terminal.0.resize(Rect::new(0, 0, width, height))?;
                    None
                }
                Some(Ok(_)) => None,
                // Whoever typed has gone.
                Some(Err(_)) | None => return Ok(()),
            },
            Some(heard) = told.recv() => {
                hear(&mut model, heard);
                None
            }
            _ = seconds.tick() => None,
        };
        match wish {
            None => {}
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Listen) => ear.listen(model.question),
            Some(Wish::Token(token)) => {
                ear.port = ear.port.with_token(token);
                ear.listen(model.question);
            }
            Some(Wish::Flip(token)) => {
                if let Some(token) = token {
                    ear.port = ear.port.with_token(token);
                }
                ear.order(&model);
            }
        }
    }
}

fn hear(model: &mut Model, heard: Heard) {
    match heard {
        Heard::Event(told) => model.heard(*told, Timestamp::now()),
        Heard::Table(table) => model.learned(*table),
        Heard::Lost(why) if is_for_want_of_the_token(&why) => model.turned_away(),
        Heard::Lost(why) => model.lost(with_causes(&why)),
        Heard::Flipped(Ok(done)) => model.flipped(&done),
        Heard::Flipped(Err(why)) if is_for_want_of_the_token(&why) => model.mistaken(),
        Heard::Flipped(Err(why)) => model.refused(with_causes(&why)),
    }
}

fn is_for_want_of_the_token(unheard: &Unheard) -> bool {
    matches!(unheard, Unheard::Refused { status: StatusCode::UNAUTHORIZED, .. })
}

/// The way to the gateway and back.
struct Ear {
    port: Port,
    tell: mpsc::Sender<Heard>,
    listening: Option<JoinHandle<()>>,
}

impl Ear {
    /// Listens to what is asked now, and to nothing else.
    fn listen(&mut self, question: Question) {
        let next = tokio::task::spawn_local(listen(self.port.clone(), question, self.tell.clone()));
        if let Some(before) = self.listening.replace(next) {
            before.abort();
        }
    }

    /// Has the flip done that the model asked about.
    fn order(&self, model: &Model) {
        let Mode::Flip(flip) = &model.mode else { return };
        let (port, flip, tell) = (self.port.clone(), flip.clone(), self.tell.clone());
        tokio::task::spawn_local(async move {
            let outcome = port.flip(&flip.route, &flip.to, flip.seen.as_deref()).await;
            let _ = tell.send(Heard::Flipped(outcome)).await;
        });
    }
}

/// Tells what is heard, for as long as somebody is there to be told.
async fn listen(port: Port, question: Question, tell: mpsc::Sender<Heard>) {
    loop {
        if let Err(why) = listen_once(&port, question, &tell).await {
            // Without the right token nothing will be heard, however often it is tried.
            let hopeless = is_for_want_of_the_token(&why);
            if tell.send(Heard::Lost(why)).await.is_err() || hopeless {
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Listens until the port ends its answer. The routes themselves change with the generation only.
async fn listen_once(port: &Port, question: Question, tell: &mpsc::Sender<Heard>) -> Result<(), Unheard> {
    let mut events = port.events(question).await?;
    let mut generation = None;
    while let Some(event) = events.next().await? {
        if generation != Some(event.generation) {
            let table: Table = port.get("/api/routes").await?;
            generation = Some(table.generation);
            if tell.send(Heard::Table(Box::new(table))).await.is_err() {
                return Ok(());
            }
        }
        if tell.send(Heard::Event(Box::new(event))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
