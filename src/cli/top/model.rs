//! What `top` shows and what keys do to it. Pure: keys, answers and moments in, wishes out.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;

use super::columns::{Sort, order};
use crate::admin::{Question, Token};
use crate::cli::told::{Comparison, Flipped, Route, Row, Table};
use crate::telemetry::{Latency, Window};

/// Events come every second: after so long without one, what is shown is old.
const STALE_SECONDS: i64 = 4;
/// What the port says of a wrong token is meant for programs.
const WRONG: &str = "The token is not right. Enter the present one.";
/// Rows that a page key goes.
const PAGE: usize = 10;

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    /// Whom it is asked.
    pub(super) address: String,
    pub(super) question: Question,
    pub(super) told: Option<Comparison>,
    heard: Option<Timestamp>,
    /// Why nothing is heard at present.
    pub(super) lost: Option<String>,
    /// The file, and what of the routes changes with it only.
    pub(super) file: String,
    pub(super) routes: HashMap<String, Route>,
    /// The rows listed, by their places in what was told.
    pub(super) order: Vec<usize>,
    pub(super) filter: String,
    pub(super) sort: Option<Sort>,
    /// The place of the chosen row among those listed, and its name, which it is found by when they change.
    pub(super) cursor: usize,
    chosen: Option<String>,
    pub(super) mode: Mode,
    /// What came of the last key, until the next one.
    pub(super) said: Option<String>,
    has_token: bool,
}

/// What keys mean at present.
#[derive(Debug)]
pub(super) enum Mode {
    /// The table.
    Table,
    /// Letters go to the filter.
    Filter,
    /// A flip waits for a yes.
    Flip(Flip),
    /// Reading takes a token here.
    Token {
        typed: String,
        why: String,
    },
    Help,
}

/// A flip as it is about to be done, to the file as it was seen when the question came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flip {
    pub(super) route: String,
    pub(super) from: String,
    pub(super) to: String,
    /// Who will serve then.
    pub(super) place: String,
    pub(super) seen: Option<String>,
    /// The token as far as it is typed; `None`: it is known.
    pub(super) token: Option<String>,
    /// Why it was not done.
    pub(super) problem: Option<String>,
    /// Whether it has been ordered.
    pub(super) ordered: bool,
}

/// What the keys want from the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// Something else is to be heard.
    Listen,
    /// This token is to be sent from now on.
    Token(Token),
    /// The flip of the mode is to be done, with this token if one was typed.
    Flip(Option<Token>),
}

impl Model {
    pub(super) fn new(address: String, question: Question, has_token: bool) -> Self {
        Self {
            address,
            question,
            told: None,
            heard: None,
            lost: None,
            file: String::new(),
            routes: HashMap::new(),
            order: Vec::new(),
            filter: String::new(),
            sort: None,
            cursor: 0,
            chosen: None,
            mode: Mode::Table,
            said: None,
            has_token,
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        self.told.as_ref().map_or(&[], |told| &told.routes)
    }

    /// The row of a place among those listed.
    pub(super) fn row(&self, place: usize) -> Option<&Row> {
        self.rows().get(*self.order.get(place)?)
    }

    /// How old the figures are, in seconds.
    pub(super) fn age(&self, now: Timestamp) -> Option<i64> {
        self.heard.map(|heard| now.duration_since(heard).as_secs().max(0))
    }

    /// Whether they are what is so now.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.lost.is_none() && self.age(now).is_some_and(|age| age < STALE_SECONDS)
    }

    // --- What is heard ---

    /// The comparison of this second.
    pub(super) fn heard(&mut self, told: Comparison, now: Timestamp) {
        self.told = Some(told);
        self.heard = Some(now);
        self.lost = None;
        if matches!(self.mode, Mode::Token { .. }) {
            self.mode = Mode::Table;
        }
        self.arrange();
    }

    /// The routes of a generation.
    pub(super) fn learned(&mut self, table: Table) {
        self.file = table.file;
        self.routes = table.routes.into_iter().map(|route| (route.name.clone(), route)).collect();
    }

    /// Nothing is heard, for this reason.
    pub(super) fn lost(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// Reading takes another token than is known.
    pub(super) fn turned_away(&mut self) {
        let why = if self.has_token { WRONG } else { "Who reads here from another machine has the admin token." };
        let why = why.to_owned();
        self.has_token = false;
        self.lost = Some(why.clone());
        if !matches!(self.mode, Mode::Token { .. }) {
            self.mode = Mode::Token { typed: String::new(), why };
        }
    }

    /// The flip is done.
    pub(super) fn flipped(&mut self, done: &Flipped) {
        let Flipped { route, from, to, place, changed } = done;
        let from = from.as_deref().unwrap_or("what it inherited");
        self.said = Some(match changed {
            true => format!("{route}: {from} → {to} ({place})"),
            false => format!("{route}: {to} already ({place})"),
        });
        if matches!(self.mode, Mode::Flip(_)) {
            self.mode = Mode::Table;
        }
    }

    /// The token that was sent with a flip is not the right one.
    pub(super) fn mistaken(&mut self) {
        self.has_token = false;
        if let Mode::Flip(flip) = &mut self.mode {
            flip.token = Some(String::new());
        }
        self.refused(WRONG.to_owned());
    }

    /// The flip is not done, for this reason.
    pub(super) fn refused(&mut self, why: String) {
        match &mut self.mode {
            Mode::Flip(flip) => {
                flip.ordered = false;
                flip.problem = Some(why);
            }
            _ => self.said = Some(why),
        }
    }

    /// Finds and sorts anew, and stays on the chosen route.
    pub(super) fn arrange(&mut self) {
        self.order = order(self.rows(), &self.filter, self.sort);
        let found = self.chosen.as_ref().and_then(|name| {
            let is_chosen = |place: &usize| self.rows().get(*place).is_some_and(|row| row.name == *name);
            self.order.iter().position(is_chosen)
        });
        self.cursor = found.unwrap_or(self.cursor).min(self.order.len().saturating_sub(1));
    }

    // --- What keys do ---

    pub(super) fn pressed(&mut self, key: KeyEvent) -> Option<Wish> {
        let control = key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        if control {
            return (key.code == KeyCode::Char('c')).then_some(Wish::Quit);
        }
        self.said = None;
        match &mut self.mode {
            Mode::Table => self.pressed_on_the_table(key.code),
            Mode::Filter => self.pressed_in_the_filter(key.code),
            Mode::Flip(flip) => match flip.pressed(key.code) {
                Answer::Waits => None,
                Answer::No => {
                    self.mode = Mode::Table;
                    None
                }
                Answer::Yes(token) => {
                    self.has_token |= token.is_some();
                    Some(Wish::Flip(token))
                }
            },
            Mode::Token { typed, why } => {
                if key.code == KeyCode::Esc {
                    return Some(Wish::Quit);
                }
                let token = typed_token(typed, why, key.code)?;
                self.has_token = true;
                self.mode = Mode::Table;
                Some(Wish::Token(token))
            }
            Mode::Help => {
                self.mode = Mode::Table;
                None
            }
        }
    }

    fn pressed_on_the_table(&mut self, key: KeyCode) -> Option<Wish> {
        match key {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Esc => self.find(String::new()),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('f') => self.ask_to_flip(),
            KeyCode::Char('w') => {
                return self.ask(Question { window: after(&Window::ALL, self.question.window), ..self.question });
            }
            KeyCode::Char('l') => {
                return self.ask(Question { latency: after(&Latency::ALL, self.question.latency), ..self.question });
            }
            KeyCode::Right => self.sort_by(Sort::next(self.sort, 1)),
            KeyCode::Left => self.sort_by(Sort::next(self.sort, -1)),
            KeyCode::Char('r') => self.sort_by(self.sort.map(|sort| Sort { down: !sort.down, ..sort })),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.cursor + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.cursor.saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.cursor + PAGE),
            KeyCode::PageUp => self.choose(self.cursor.saturating_sub(PAGE)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            _ => {}
        }
        None
    }

    fn pressed_in_the_filter(&mut self, key: KeyCode) -> Option<Wish> {
        let mut filter = self.filter.clone();
        match key {
            KeyCode::Char(letter) => filter.push(letter),
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Esc => filter.clear(),
            _ => {}
        }
        if matches!(key, KeyCode::Esc | KeyCode::Enter | KeyCode::Down | KeyCode::Up) {
            self.mode = Mode::Table;
        }
        self.find(filter);
        None
    }

    pub(super) fn find(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    pub(super) fn sort_by(&mut self, sort: Option<Sort>) {
        self.sort = sort;
        self.arrange();
    }

    fn ask(&mut self, question: Question) -> Option<Wish> {
        self.question = question;
        Some(Wish::Listen)
    }

    fn choose(&mut self, place: usize) {
        self.cursor = place.min(self.order.len().saturating_sub(1));
        self.chosen = self.row(self.cursor).map(|row| row.name.clone());
    }

    fn ask_to_flip(&mut self) {
        let Some(row) = self.row(self.cursor) else { return };
        let to = if row.serve == "new" { "legacy" } else { "new" };
        let sides = self.routes.get(&row.name).map(|route| (&route.legacy, &route.new));
        let place = match sides {
            Some((Some(legacy), Some(new))) => if to == "new" { new } else { legacy }.clone(),
            Some(_) => {
                self.said = Some(format!("{} has one side only; name the other in the file first", row.name));
                return;
            }
            None => {
                self.said = Some("the gateway has not told the sides of its routes yet; try again".to_owned());
                return;
            }
        };
        let flip = Flip {
            route: row.name.clone(),
            from: row.serve.clone(),
            to: to.to_owned(),
            place,
            seen: self.told.as_ref().and_then(|told| told.loaded.as_ref()).map(|loaded| loaded.hash.clone()),
            token: (!self.has_token).then(String::new),
            problem: None,
            ordered: false,
        };
        self.chosen = Some(flip.route.clone());
        self.mode = Mode::Flip(flip);
    }
}

/// What a key says to a question.
enum Answer {
    Waits,
    No,
    Yes(Option<Token>),
}

impl Flip {
    fn pressed(&mut self, key: KeyCode) -> Answer {
        if key == KeyCode::Esc {
            return Answer::No;
        }
        // It is on its way: whether it was done will be told.
        if self.ordered {
            return Answer::Waits;
        }
        let token = match (&mut self.token, key) {
            (None, KeyCode::Char('y')) => None,
            (None, KeyCode::Char('n' | 'q')) => return Answer::No,
            (None, _) => return Answer::Waits,
            (Some(typed), key) => {
                let mut why = String::new();
                let token = typed_token(typed, &mut why, key);
                if !why.is_empty() {
                    self.problem = Some(why);
                }
                if token.is_none() {
                    return Answer::Waits;
                }
                token
            }
        };
        (self.ordered, self.problem) = (true, None);
        if token.is_some() {
            self.token = None;
        }
        Answer::Yes(token)
    }
}

/// Takes a key into a token that is being typed; gives the token once it is whole.
fn typed_token(typed: &mut String, why: &mut String, key: KeyCode) -> Option<Token> {
    match key {
        KeyCode::Char(letter) => typed.push(letter),
        KeyCode::Backspace => drop(typed.pop()),
        KeyCode::Enter => {
            let token = Token::chosen(typed);
            if token.is_none() {
                *why = format!("A token has {} visible ASCII characters or more.", Token::SHORTEST);
                typed.clear();
            }
            return token;
        }
        _ => {}
    }
    None
}

/// The choice behind this one, and behind the last one the first.
fn after<T: Copy + PartialEq>(all: &[T], one: T) -> T {
    let place = all.iter().position(|other| *other == one).map_or(0, |place| place + 1);
    all.get(place).or(all.first()).copied().unwrap_or(one)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{comparison, model, now, press};
    use super::*;

    #[test]
    fn the_chosen_route_stays_chosen_while_the_rows_move() {
        let mut model = model();
        press(&mut model, KeyCode::Down);
        assert_eq!(model.row(model.cursor).unwrap().name, "Cart");
        press(&mut model, KeyCode::Right);
        assert_eq!((model.row(model.cursor).unwrap().name.as_str(), model.cursor), ("Cart", 0));
        let mut fewer = comparison();
        fewer.routes.remove(1);
        model.heard(fewer, now());
        assert_eq!(model.cursor, 0, "where it was, something else is chosen");
        press(&mut model, KeyCode::End);
        press(&mut model, KeyCode::PageDown);
        assert_eq!(model.cursor, 1);
    }

    #[test]
    fn the_filter_is_typed_corrected_kept_and_cleared() {
        let mut model = model();
        for key in "/qq".chars() {
            assert_eq!(press(&mut model, KeyCode::Char(key)), None, "q is a letter here");
        }
        assert!(model.order.is_empty());
        press(&mut model, KeyCode::Char('f'));
        assert!(matches!(model.mode, Mode::Filter), "and so is f");
        for _ in 0..3 {
            press(&mut model, KeyCode::Backspace);
        }
        "ord".chars().for_each(|key| drop(press(&mut model, KeyCode::Char(key))));
        press(&mut model, KeyCode::Enter);
        assert_eq!((model.order.len(), model.filter.as_str()), (1, "ord"));
        press(&mut model, KeyCode::Esc);
        assert_eq!((model.order.len(), model.filter.as_str()), (3, ""));
        assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Wish::Quit));
    }

    #[test]
    fn a_flip_waits_for_a_yes_and_is_for_the_file_that_was_seen() {
        let mut model = model();
        press(&mut model, KeyCode::Char('f'));
        let mut newer = comparison();
        newer.loaded.as_mut().unwrap().hash = "ffff".to_owned();
        model.heard(newer, now());
        for key in [KeyCode::Enter, KeyCode::Char('x'), KeyCode::Down] {
            assert_eq!(press(&mut model, key), None);
        }
        assert_eq!(press(&mut model, KeyCode::Char('y')), Some(Wish::Flip(None)));
        let Mode::Flip(flip) = &model.mode else { panic!("it is under way") };
        assert_eq!((flip.to.as_str(), flip.place.as_str(), flip.seen.as_deref()), ("new", "orders", Some("1f")));
        assert_eq!(press(&mut model, KeyCode::Char('y')), None, "it is ordered once");

        model.refused("routes.toml has changed".to_owned());
        let Mode::Flip(flip) = &model.mode else { panic!("the reason is shown") };
        assert_eq!(flip.problem.as_deref(), Some("routes.toml has changed"));
        press(&mut model, KeyCode::Char('n'));
        assert!(matches!(model.mode, Mode::Table));
    }

    #[test]
    fn a_token_is_asked_for_when_none_is_known_or_the_known_one_is_wrong() {
        let mut model = model();
        model.has_token = false;
        press(&mut model, KeyCode::Char('f'));
        "short".chars().for_each(|key| drop(press(&mut model, KeyCode::Char(key))));
        assert_eq!(press(&mut model, KeyCode::Enter), None);
        let Mode::Flip(Flip { problem, .. }) = &model.mode else { panic!() };
        assert!(problem.as_ref().unwrap().contains("16 visible"));
        "0123456789abcdef".chars().for_each(|key| drop(press(&mut model, KeyCode::Char(key))));
        let wish = press(&mut model, KeyCode::Enter);
        assert_eq!(wish, Some(Wish::Flip(Token::chosen("0123456789abcdef"))));
        model.mistaken();
        let Mode::Flip(Flip { token, .. }) = &model.mode else { panic!() };
        assert_eq!(token.as_deref(), Some(""), "the right one is asked for");
        press(&mut model, KeyCode::Esc);

        model.turned_away();
        "0123456789abcdef".chars().for_each(|key| drop(press(&mut model, KeyCode::Char(key))));
        assert!(matches!(press(&mut model, KeyCode::Enter), Some(Wish::Token(_))));
    }

    #[test]
    fn a_route_with_one_side_cannot_be_flipped() {
        let mut model = model();
        press(&mut model, KeyCode::End);
        press(&mut model, KeyCode::Char('f'));
        assert!(matches!(model.mode, Mode::Table));
        assert_eq!(model.said.as_deref(), Some("idle has one side only; name the other in the file first"));
    }

    #[test]
    fn another_window_or_latency_is_listened_to() {
        let mut model = model();
        assert_eq!(press(&mut model, KeyCode::Char('w')), Some(Wish::Listen));
        assert_eq!(press(&mut model, KeyCode::Char('l')), Some(Wish::Listen));
        assert_eq!(model.question, Question { window: Window::TenMinutes, latency: Latency::Service });
        press(&mut model, KeyCode::Char('w'));
        press(&mut model, KeyCode::Char('w'));
        assert_eq!(model.question.window, Window::Minute);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(model.pressed(control_c), Some(Wish::Quit));
    }

    #[test]
    fn figures_are_live_until_nothing_is_heard_any_more() {
        let mut model = model();
        assert!(model.is_live(now()));
        let later = now() + jiff::SignedDuration::from_secs(12);
        assert_eq!((model.is_live(later), model.age(later)), (false, Some(12)));
        model.heard(comparison(), later);
        model.lost("no gateway answers".to_owned());
        assert!(!model.is_live(later));
        model.heard(comparison(), later);
        assert!(model.is_live(later));
    }
}
