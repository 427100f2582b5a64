//! How the model looks on a terminal. Pure: a model and a moment in, cells out.
//!
//! What does not fit is left out, the least telling first: columns on a narrow terminal, what is around the table on
//! a low one. Colour only adds to what signs and words say already, so that nothing is lost without it.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Padding, Paragraph, Row, Table, Wrap};

use super::columns::{Column, Of, Sort, fitting};
use super::model::{Flip, Mode, Model};
use crate::cli::told::{self, Figures, Rejected};
use crate::cli::words;

/// Lines of a refused file's faults.
const FAULTS: usize = 4;
/// Lines of the table's head.
const HEAD: u16 = 2;
/// Fewer rows of the table than this, and what is around it goes.
const FEW: u16 = 6;

const KEYS: &str = "f flip  / filter  ←→ sort  r reverse  w window  l latency  ? help  q quit";

const HELP: &str = "\
↑ ↓ k j PageUp PageDown Home End   choose a route
f          let the other side serve it, after asking
/          only routes with these words in name, path or side; Esc: all
← →        sort by another column
r          the other way round
w          window: 1m, 10m, 1h
l          latency: total, service (without waiting), queue
q          quit

▼ new is faster   ▲ new is slower   ≈ no difference beyond chance
The range holds the truth in 95 of 100 cases.";

/// The styles there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    legacy: Style,
    new: Style,
    bad: Style,
}

impl Look {
    pub(super) fn new(coloured: bool) -> Self {
        let colour = |colour: Color| if coloured { Style::new().fg(colour) } else { Style::new() };
        Self { legacy: colour(Color::Yellow), new: colour(Color::Green), bad: colour(Color::Red) }
    }

    fn side(&self, serve: &str) -> Style {
        if serve == "new" { self.new } else { self.legacy }
    }
}

const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws everything.
pub(super) fn render(frame: &mut Frame<'_>, model: &Model, look: Look, now: Timestamp) {
    let area = frame.area();
    let notes = notes(model, look, now);
    let room = area.height.saturating_sub(HEAD + FEW + 2);
    // However low the terminal is: that nothing is heard any more is told.
    let notes_height = u16::try_from(notes.len()).unwrap_or(u16::MAX).min(room.max(1));
    let detail = detail(model, look);
    let detail_height = u16::try_from(detail.len()).unwrap_or(u16::MAX);
    let detail_height = if detail_height + 1 + notes_height <= room { detail_height + 1 } else { 0 };
    let [title, counts, noted, table, about, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(notes_height),
        Constraint::Fill(1),
        Constraint::Length(detail_height),
        Constraint::Length(1),
    ])
    .areas(area);
    render_title(frame, title, model, look, now);
    frame.render_widget(Line::raw(counted(model)), counts);
    frame.render_widget(Text::from(notes), noted);
    render_table(frame, table, model, look, now);
    let [_, about] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(about);
    frame.render_widget(Text::from(detail), about);
    frame.render_widget(bottom(model), keys);
    if let Some((title, text)) = question(model, look) {
        render_dialog(frame, &title, text);
    }
}

fn render_title(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look, now: Timestamp) {
    let state = match model.age(now) {
        _ if model.is_live(now) => Span::styled("live", look.new),
        Some(age) => Span::styled(format!("{} old", words::span(age.unsigned_abs())), look.bad.patch(STRONG)),
        None => Span::styled("no figures yet", FAINT),
    };
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(14)]).areas(area);
    let about = match &model.told {
        // What is shown, which may be a moment behind what was asked for.
        Some(told::Comparison { window, latency, generation, .. }) => {
            format!("  {}  {window} {latency}  generation {generation}", model.address)
        }
        None => format!("  {}", model.address),
    };
    frame.render_widget(Line::from(vec![Span::styled("strangler", STRONG), Span::raw(about)]), left);
    frame.render_widget(Line::from(state).alignment(Alignment::Right), right);
}

/// How many routes are listed, and why so many.
fn counted(model: &Model) -> String {
    if model.told.is_none() {
        return String::new();
    }
    let (all, found) = (model.rows().len(), model.order.len());
    let counted = |count: usize| words::count(count as u64);
    let of = if found == all { counted(all) } else { format!("{} of {}", counted(found), counted(all)) };
    let serving =
        |side: &str| counted((0..found).filter_map(|place| model.row(place)).filter(|row| row.serve == side).count());
    let routes = if all == 1 { "route" } else { "routes" };
    let mut text = format!("{of} {routes}: {} on new, {} on legacy", serving("new"), serving("legacy"));
    if let Some(Sort { column, down }) = &model.sort {
        text.push_str(&format!("  sorted by {}{}", column.title(), if *down { ", largest first" } else { "" }));
    }
    if !model.filter.is_empty() {
        text.push_str(&format!("  with \"{}\"", model.filter));
    }
    text
}

/// What an operator has to know first.
fn notes<'m>(model: &'m Model, look: Look, now: Timestamp) -> Vec<Line<'m>> {
    let mut notes = Vec::new();
    if let Some(why) = &model.lost {
        let age = model.age(now).map(|age| format!("; these figures are {} old", words::span(age.unsigned_abs())));
        let told = if matches!(model.mode, Mode::Token { .. }) {
            why.clone()
        } else {
            format!("{why}{}. Trying again.", age.unwrap_or_default())
        };
        notes.push(Line::styled(told, look.bad.patch(STRONG)));
    }
    if let Some(Rejected { faults }) = model.told.as_ref().and_then(|told| told.rejected.as_ref()) {
        let kept = "The file was refused; the table before it stays in force.";
        notes.push(Line::styled(kept, look.bad.patch(STRONG)));
        notes.extend(faults.lines().take(FAULTS).map(Line::raw));
        if faults.lines().count() > FAULTS {
            notes.push(Line::styled("… `strangler check` shows all of it", FAINT));
        }
    }
    notes
}

fn render_table(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look, now: Timestamp) {
    let columns = fitting(area.width);
    let height = usize::from(area.height.saturating_sub(HEAD));
    // The chosen row in the middle, but nothing above the first row and nothing below the last.
    let first = model.cursor.saturating_sub(height / 2).min(model.order.len().saturating_sub(height));
    let shown = (first..first + height).map_while(|place| Some((place, model.row(place)?)));
    let faded = if model.is_live(now) { Style::new() } else { FAINT };
    let rows = shown.map(|(place, row)| {
        let chosen = if place == model.cursor { Style::new().add_modifier(Modifier::REVERSED) } else { faded };
        Row::new(columns.iter().map(|column| cell(column, row, look, now))).style(chosen)
    });
    let head = Row::new(columns.iter().map(|column| head(column, model.sort))).height(HEAD).style(STRONG);
    let widths = columns.iter().map(|column| match column.of {
        Of::Name => Constraint::Fill(1),
        _ => Constraint::Length(column.width),
    });
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
}

fn head(column: &Column, sort: Option<Sort>) -> Cell<'static> {
    let arrow = match sort {
        Some(sort) if sort.column.key == column.key => {
            if sort.down {
                "↓"
            } else {
                "↑"
            }
        }
        _ => "",
    };
    let text = Text::raw(format!("{}\n{arrow}{}", column.group, column.label));
    Cell::new(if column.is_figure() { text.alignment(Alignment::Right) } else { text })
}

fn cell<'m>(column: &Column, row: &'m told::Row, look: Look, now: Timestamp) -> Cell<'m> {
    let shown = column.shown(row, now);
    let style = match column.of {
        Of::Serve => look.side(&row.serve),
        Of::Legacy(_) | Of::New(_) if column.key.starts_with("errors") && shown != "0 %" && shown != words::NONE => {
            look.bad
        }
        Of::Ratio(_) if shown.starts_with('▼') => look.new,
        Of::Ratio(_) if shown.starts_with('▲') => look.bad,
        Of::Ratio(_) if shown == words::NOT_ENOUGH => FAINT,
        _ => Style::new(),
    };
    let line = Line::styled(shown, style);
    Cell::new(if column.is_figure() { line.alignment(Alignment::Right) } else { line })
}

/// All there is to say of the chosen route.
fn detail<'m>(model: &'m Model, look: Look) -> Vec<Line<'m>> {
    let Some(row) = model.row(model.cursor) else { return Vec::new() };
    let route = model.routes.get(&row.name);
    let methods = route.map(|route| route.methods.join(" ")).filter(|methods| !methods.is_empty());
    let about = [Some(row.name.clone()), methods, Some(row.path.clone())].into_iter().flatten();
    let mut lines = vec![Line::styled(about.collect::<Vec<_>>().join("  "), STRONG)];
    let places = [("legacy", &row.compared.sides.legacy), ("new", &row.compared.sides.new)];
    for (side, figures) in places {
        let place = route.and_then(|route| if side == "new" { route.new.as_ref() } else { route.legacy.as_ref() });
        let name = format!("{side:6} {}  ", place.map_or(words::NONE, |place| place.as_str()));
        let (counts, times) = figures.as_ref().map(at_length).unzip();
        let counts = counts.unwrap_or_else(|| "no requests".to_owned());
        lines.push(Line::from(vec![Span::styled(name, look.side(side)), Span::raw(counts)]));
        lines.extend(times.map(|times| Line::raw(format!("       {times}"))));
    }
    let (ratio, sure) = (&row.compared.ratio, &row.compared.confidence);
    for (figure, value, sure) in [("P50", ratio.p50, &sure.p50), ("P99", ratio.p99, &sure.p99)] {
        lines.push(Line::raw(format!("{figure} new÷legacy  {}", words::ratio_with_range(value, sure))));
        let few = value.zip(sure.reason.as_ref());
        lines.extend(few.map(|(value, reason)| Line::raw(format!("       {}, but {reason}", words::times(value)))));
    }
    lines
}

/// One side's counts, and its times with what they are of.
fn at_length(side: &Figures) -> (String, String) {
    let counts = format!(
        "{} requests  {}/s  errors {} ({})",
        words::count(side.requests),
        words::per_second(side.qps),
        words::count(side.errors),
        words::share(Some(side.error_rate)),
    );
    let times = format!(
        "P50 {}  P90 {}  P99 {}  mean {}  of {}",
        words::millis(side.p50_ms),
        words::millis(side.p90_ms),
        words::millis(side.p99_ms),
        words::millis(side.mean_ms),
        words::count(side.measured),
    );
    let apart = words::apart(&side.apart);
    (counts, if apart == words::NONE { times } else { format!("{times}; apart {apart}") })
}

fn bottom(model: &Model) -> Line<'_> {
    match (&model.mode, &model.said) {
        (Mode::Filter, _) => Line::raw(format!("/{}▏  Enter keeps it, Esc shows all", model.filter)),
        (_, Some(said)) => Line::styled(said.as_str(), STRONG),
        _ => Line::styled(KEYS, FAINT),
    }
}

/// The title and the text of what waits for an answer.
fn question<'m>(model: &'m Model, look: Look) -> Option<(String, Vec<Line<'m>>)> {
    match &model.mode {
        Mode::Table | Mode::Filter => None,
        Mode::Help => Some(("Keys".to_owned(), HELP.lines().map(Line::raw).collect())),
        Mode::Token { typed, why } => {
            let told = "The gateway shows it when it starts, unless the file says where it is (admin_token).";
            let lines = vec![Line::raw(why.as_str()), Line::raw(told), Line::default(), hidden(typed)];
            Some(("Admin token".to_owned(), lines))
        }
        Mode::Flip(flip) => Some((format!("Let {} serve {}?", flip.to, flip.route), ask(flip, &model.file, look))),
    }
}

/// What a flip will do, as the dashboard says it.
fn ask<'m>(flip: &'m Flip, file: &'m str, look: Look) -> Vec<Line<'m>> {
    let Flip { from, to, place, token, problem, ordered, .. } = flip;
    let mut lines = vec![
        Line::raw(format!("Edits     {file}")),
        Line::from(vec![
            Span::raw("Changes   serve = "),
            Span::styled(format!("\"{from}\""), look.side(from)),
            Span::raw(" → "),
            Span::styled(format!("\"{to}\""), look.side(to)),
        ]),
        Line::raw(format!(
            "Then      New requests go to {place} within a second. Those under way end where they began."
        )),
        Line::raw("Back      The same way, at any time."),
        Line::default(),
    ];
    if let Some(problem) = problem {
        lines.extend(problem.lines().map(|line| Line::styled(line, look.bad.patch(STRONG))));
        lines.push(Line::default());
    }
    match token {
        _ if *ordered => lines.push(Line::raw("Under way…")),
        None => lines.push(Line::styled("y  flip     n  leave it as it is", STRONG)),
        Some(typed) => {
            lines.push(Line::raw(
                "Admin token: the gateway shows it when it starts. Enter flips, Esc leaves it as it is.",
            ));
            lines.push(hidden(typed));
        }
    }
    lines
}

fn hidden(typed: &str) -> Line<'static> {
    Line::raw(format!("{}▏", "•".repeat(typed.chars().count())))
}

fn render_dialog(frame: &mut Frame<'_>, title: &str, text: Vec<Line<'_>>) {
    let area = frame.area();
    let width = area.width.saturating_sub(4).min(84).max(area.width.min(40));
    let inside = usize::from(width.saturating_sub(4)).max(1);
    // A line that is wrapped between words may take one more than its length asks for.
    let lines =
        text.iter().map(|line| line.width()).map(|wide| wide.div_ceil(inside).max(1) + usize::from(wide > inside));
    let height = u16::try_from(lines.sum::<usize>() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    let block = Block::bordered().title(Span::styled(format!(" {title} "), STRONG)).padding(Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), place);
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyCode;
    use jiff::SignedDuration;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::Value;

    use super::super::fixture::{event, model, now, press, row};
    use super::*;

    fn drawn(model: &Model, [width, height]: [u16; 2], coloured: bool, now: Timestamp) -> TestBackend {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, model, Look::new(coloured), now)).unwrap();
        terminal.backend().clone()
    }

    fn lines(model: &Model, size: [u16; 2]) -> Vec<String> {
        let backend = drawn(model, size, true, now());
        let text = backend.to_string();
        text.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
    }

    #[test]
    fn both_sides_stand_next_to_each_other_and_the_chosen_route_is_told_at_length() {
        let expected = "\
strangler  127.0.0.1:9901  1m total  generation 7                                                                   live
3 routes: 1 on new, 2 on legacy
                             Req/s   Req/s     P50     P50     P99     P99  Errors  Errors            P50            P99
Route        Serves         legacy     new  legacy     new  legacy     new  legacy     new     new÷legacy     new÷legacy
order        legacy 5 min     26.7    10.0 20.1 ms 5.00 ms  200 ms 60.0 ms     0 %  1.25 %        ▼ 0.25× not enough yet
Cart         new    5 min     0.17       – 1.00 ms       – 2.00 ms       –     0 %       –              –              –
idle         legacy 5 min        –       –       –       –       –       –       –       –              –              –




order  GET  /api/v1/orders/{id}
legacy php  1,600 requests  26.7/s  errors 0 (0 %)
       P50 20.1 ms  P90 200 ms  P99 200 ms  mean 20.1 ms  of 1,592; apart 8 unasked
new    orders  600 requests  10.0/s  errors 0 (1.25 %)
       P50 5.00 ms  P90 60.0 ms  P99 60.0 ms  mean 5.00 ms  of 592; apart 8 unasked
P50 new÷legacy  ▼ 0.25× (0.24 to 0.26×)
P99 new÷legacy  not enough yet
       0.30×, but needs 368 requests on each side; legacy has 200, new has 100
f flip  / filter  ←→ sort  r reverse  w window  l latency  ? help  q quit";
        assert_eq!(lines(&model(), [120, 20]).join("\n"), expected);
    }

    #[test]
    fn of_a_side_without_requests_no_times_are_told() {
        let mut model = model();
        press(&mut model, KeyCode::Down);
        let shown = lines(&model, [120, 20]).join("\n");
        assert!(shown.contains("new    carts  no requests\nP50 new÷legacy  –\nP99 new÷legacy  –\n"), "{shown}");
    }

    #[test]
    fn a_small_terminal_keeps_the_table_and_none_is_too_small() {
        let shown = lines(&model(), [56, 8]).join("\n");
        assert!(shown.contains("order") && shown.contains("200 ms"), "{shown}");
        assert!(!shown.contains("requests"), "what is around it goes: {shown}");
        for size in [[1, 1], [3, 2], [20, 4], [300, 2]] {
            let mut model = model();
            lines(&model, size);
            press(&mut model, KeyCode::Char('f'));
            lines(&model, size);
        }
    }

    #[test]
    fn of_a_thousand_routes_those_around_the_chosen_one_are_drawn() {
        let mut model = model();
        let routes = (0..1000).map(|n| row(&format!("route-{n:03}"), "/x", "legacy", [Value::Null, Value::Null]));
        model.heard(serde_json::from_value(event(&routes.collect::<Vec<_>>())).unwrap(), now());
        model
            .learned(serde_json::from_value(serde_json::json!({ "file": "", "generation": 8, "routes": [] })).unwrap());
        assert!(lines(&model, [80, 24])[4].starts_with("route-000"));
        for _ in 0..50 {
            press(&mut model, KeyCode::PageDown);
        }
        let shown = lines(&model, [80, 24]).join("\n");
        assert!(shown.contains("route-500") && shown.contains("1,000 routes: 0 on new, 1,000 on legacy"), "{shown}");
        press(&mut model, KeyCode::End);
        let shown = lines(&model, [80, 24]).join("\n");
        assert!(shown.contains("route-999") && !shown.contains("route-900"), "{shown}");
    }

    #[test]
    fn a_flip_says_what_will_happen_and_why_it_did_not() {
        let mut model = model();
        press(&mut model, KeyCode::Char('f'));
        let shown = lines(&model, [100, 24]).join("\n");
        for part in [
            "Let new serve order?",
            "Edits     /srv/routes.toml",
            "Changes   serve = \"legacy\" → \"new\"",
            "New requests go to orders within a second.",
            "y  flip     n  leave it as it is",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        press(&mut model, KeyCode::Char('y'));
        assert!(lines(&model, [100, 24]).join("\n").contains("Under way…"));
        model.refused("the file would not load\nroutes.toml:3:1: no\n    ^^^".to_owned());
        let shown = lines(&model, [100, 24]).join("\n");
        assert!(
            ["the file would not load", "routes.toml:3:1: no", "    ^^^"].iter().all(|line| shown.contains(line)),
            "{shown}"
        );
    }

    #[test]
    fn a_token_is_never_shown() {
        let mut model = model();
        model.turned_away();
        "secret-0123456789".chars().for_each(|key| drop(press(&mut model, KeyCode::Char(key))));
        let shown = lines(&model, [100, 24]).join("\n");
        assert!(shown.contains("The token is not right.") && shown.contains("•••••"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_gateway_that_is_gone_and_a_file_that_was_refused_are_told() {
        let mut model = model();
        let mut told = event(&[]);
        told["rejected"] = serde_json::json!({ "when": "2026-01-02T03:04:05Z", "faults": "routes.toml:3:1: no\n    x\u{1b}[2J\n    ^\n1\n2" });
        model.heard(serde_json::from_value(told).unwrap(), now());
        model.lost("no gateway answers at 127.0.0.1:9901: Connection refused".to_owned());
        let later = now() + SignedDuration::from_secs(12);
        let shown = drawn(&model, [100, 24], true, later).to_string();
        for part in [
            "12 s old",
            "no gateway answers at 127.0.0.1:9901: Connection refused; these figures are 12 s old. Trying again.",
            "The file was refused; the table before it stays in force.",
            "routes.toml:3:1: no",
            "x\u{fffd}[2J",
            "… `strangler check` shows all of it",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert!(drawn(&model, [60, 6], true, later).to_string().contains("no gateway answers at"));
    }

    #[test]
    fn without_colour_nothing_is_coloured() {
        let mut model = model();
        model.lost("gone".to_owned());
        press(&mut model, KeyCode::Char('f'));
        let coloured = |wanted| {
            let backend = drawn(&model, [120, 24], wanted, now());
            backend.buffer().content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(coloured(true));
        assert!(!coloured(false));
    }
}
