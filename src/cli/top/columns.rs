//! The columns of the table: what each shows, by what it sorts, and which of them fit; which routes are listed.
//!
//! Pure: rows in, order and texts out. The keys are those of the dashboard's address (`sort=-p99.new`).

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::cli::told::{Comparison, Figures, Row, Sure};
use crate::cli::words;

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) key: &'static str,
    /// What a pair of columns has in common; empty: it stands alone.
    pub(super) group: &'static str,
    pub(super) label: &'static str,
    pub(super) width: u16,
    /// A narrow terminal leaves out the highest.
    rank: u8,
    pub(super) of: Of,
}

/// What a column tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Name,
    Serve,
    Legacy(Figure),
    New(Figure),
    Ratio(fn(&Row) -> (Option<f64>, &Sure)),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    value: fn(&Figures) -> Option<f64>,
    words: fn(Option<f64>) -> String,
}

/// The route's own column takes what is left, and is never narrower than this.
const NARROWEST: u16 = 12;

const QPS: Figure = Figure { value: |side| side.qps, words: words::per_second };
const P50: Figure = Figure { value: |side| side.p50_ms, words: words::millis };
const P99: Figure = Figure { value: |side| side.p99_ms, words: words::millis };
const ERRORS: Figure = Figure { value: |side| Some(side.error_rate), words: words::share };

const fn column(key: &'static str, [group, label]: [&'static str; 2], width: u16, rank: u8, of: Of) -> Column {
    Column { key, group, label, width, rank, of }
}

/// All there are, as the dashboard has them.
pub(super) static COLUMNS: [Column; 12] = [
    column("name", ["", "Route"], NARROWEST, 0, Of::Name),
    column("serve", ["", "Serves"], 13, 0, Of::Serve),
    column("qps.legacy", ["Req/s", "legacy"], 7, 3, Of::Legacy(QPS)),
    column("qps.new", ["Req/s", "new"], 7, 3, Of::New(QPS)),
    column("p50.legacy", ["P50", "legacy"], 7, 4, Of::Legacy(P50)),
    column("p50.new", ["P50", "new"], 7, 4, Of::New(P50)),
    column("p99.legacy", ["P99", "legacy"], 7, 0, Of::Legacy(P99)),
    column("p99.new", ["P99", "new"], 7, 0, Of::New(P99)),
    column("errors.legacy", ["Errors", "legacy"], 7, 2, Of::Legacy(ERRORS)),
    column("errors.new", ["Errors", "new"], 7, 2, Of::New(ERRORS)),
    column("ratio50", ["P50", "new÷legacy"], 14, 5, Of::Ratio(p50)),
    column("ratio99", ["P99", "new÷legacy"], 14, 1, Of::Ratio(p99)),
];

fn p50(row: &Row) -> (Option<f64>, &Sure) {
    (row.compared.ratio.p50, &row.compared.confidence.p50)
}

fn p99(row: &Row) -> (Option<f64>, &Sure) {
    (row.compared.ratio.p99, &row.compared.confidence.p99)
}

impl Column {
    /// `P99 new`
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.group, self.label).trim_start().to_owned()
    }

    pub(super) fn shown(&self, row: &Row, now: Timestamp) -> String {
        let sides = &row.compared.sides;
        let figure = |side: &Option<Figures>, figure: Figure| (figure.words)(side.as_ref().and_then(figure.value));
        match self.of {
            Of::Name => row.name.clone(),
            Of::Serve => format!("{:6} {}", row.serve, words::ago(row.since, now)),
            Of::Legacy(of) => figure(&sides.legacy, of),
            Of::New(of) => figure(&sides.new, of),
            Of::Ratio(of) => {
                let (value, sure) = of(row);
                words::ratio(value, sure)
            }
        }
    }

    /// Whether it is a figure, which is looked at from the largest down.
    pub(super) fn is_figure(&self) -> bool {
        !matches!(self.of, Of::Name | Of::Serve)
    }

    fn value(&self, row: &Row) -> Option<f64> {
        let sides = &row.compared.sides;
        match self.of {
            Of::Name | Of::Serve => None,
            Of::Legacy(of) => sides.legacy.as_ref().and_then(of.value),
            Of::New(of) => sides.new.as_ref().and_then(of.value),
            Of::Ratio(of) => of(row).0,
        }
    }
}

/// The columns that fit: a pair is there or is not.
pub(super) fn fitting(width: u16) -> Vec<&'static Column> {
    let up_to = |most: u8| COLUMNS.iter().filter(move |column| column.rank <= most);
    let wanted = |most: &u8| up_to(*most).map(|column| column.width + 1).sum::<u16>() - 1;
    let most = (0..=5).rev().find(|most| wanted(most) <= width).unwrap_or(0);
    up_to(most).collect()
}

/// By what the table is sorted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sort {
    pub(super) column: &'static Column,
    /// The largest first.
    pub(super) down: bool,
}

impl Sort {
    /// `p99.new`, or `-p99.new` for the largest first.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (key, down) = text.strip_prefix('-').map_or((text, false), |key| (key, true));
        let column = COLUMNS.iter().find(|column| column.key == key).ok_or_else(|| {
            let keys: Vec<&str> = COLUMNS.iter().map(|column| column.key).collect();
            format!("the columns are {}", keys.join(", "))
        })?;
        Ok(Self { column, down })
    }

    /// By the column that is `step` further, as it is looked at first.
    pub(super) fn next(sort: Option<Self>, step: isize) -> Option<Self> {
        let place = sort.and_then(|sort| COLUMNS.iter().position(|column| column.key == sort.column.key));
        let place = match (place, step) {
            (Some(place), _) => place.checked_add_signed(step),
            (None, 1..) => Some(0),
            (None, _) => Some(COLUMNS.len() - 1),
        };
        place.and_then(|place| COLUMNS.get(place)).map(|column| Self { column, down: column.is_figure() })
    }

    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let ordered = match self.column.of {
            Of::Name => one.name.to_lowercase().cmp(&other.name.to_lowercase()),
            Of::Serve => one.serve.cmp(&other.serve),
            _ => match (self.column.value(one), self.column.value(other)) {
                (Some(one), Some(other)) => one.total_cmp(&other),
                // What has no figure is last, whichever way it is sorted.
                (one, other) => return other.is_some().cmp(&one.is_some()),
            },
        };
        if self.down { ordered.reverse() } else { ordered }
    }
}

/// The rows that have all words of the filter, in their order: the file's, if nothing else is asked for.
pub(super) fn order(rows: &[Row], filter: &str, sort: Option<Sort>) -> Vec<usize> {
    let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
    let mut found: Vec<(usize, &Row)> = rows.iter().enumerate().filter(|(_, row)| has_all(row, &words)).collect();
    if let Some(sort) = sort {
        found.sort_by(|(_, one), (_, other)| sort.compare(one, other));
    }
    found.into_iter().map(|(place, _)| place).collect()
}

fn has_all(row: &Row, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let text = format!("{} {} {}", row.name, row.path, row.serve).to_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}

/// The whole table as text, for scripts and pipes; above it what it is of.
pub(super) fn as_text(told: &Comparison, order: &[usize], now: Timestamp) -> String {
    let Comparison { window, latency, generation, routes: rows, .. } = told;
    let mut lines = vec![COLUMNS.iter().map(Column::title).collect::<Vec<_>>()];
    let listed = order.iter().filter_map(|place| rows.get(*place));
    lines.extend(listed.map(|row| COLUMNS.iter().map(|column| column.shown(row, now)).collect()));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!("window {window}  latency {latency}  generation {generation}\n");
    for line in lines {
        let cells = line.iter().zip(&COLUMNS).zip(&widths).map(|((cell, column), width)| {
            if column.is_figure() { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{comparison, now};
    use super::*;

    fn names(filter: &str, sort: Option<&str>) -> Vec<String> {
        let rows = comparison().routes;
        let sort = sort.map(|sort| Sort::parse(sort).unwrap());
        order(&rows, filter, sort).into_iter().map(|place| rows[place].name.clone()).collect()
    }

    #[test]
    fn rows_are_found_by_all_words_and_sorted_with_what_has_no_figure_last() {
        assert_eq!(names("", None), ["order", "Cart", "idle"]);
        assert_eq!(names("", Some("name")), ["Cart", "idle", "order"]);
        assert_eq!(names("API order", None), ["order"]);
        assert_eq!(names("new", None), ["Cart"], "who serves is found, too");
        assert_eq!(names("", Some("p99.legacy")), ["Cart", "order", "idle"]);
        assert_eq!(names("", Some("-p99.legacy")), ["order", "Cart", "idle"]);
        assert!(Sort::parse("p98").unwrap_err().contains("ratio99"));
    }

    #[test]
    fn arrows_walk_over_the_columns_and_out_of_them() {
        let step = |from: Option<&str>, step| {
            let from = from.map(|from| Sort::parse(from).unwrap());
            Sort::next(from, step).map(|sort| (sort.column.key, sort.down))
        };
        assert_eq!(step(None, 1), Some(("name", false)));
        assert_eq!(step(None, -1), Some(("ratio99", true)));
        assert_eq!(step(Some("serve"), 1), Some(("qps.legacy", true)));
        assert_eq!((step(Some("name"), -1), step(Some("-ratio99"), 1)), (None, None));
    }

    #[test]
    fn a_narrow_terminal_keeps_the_route_who_serves_and_the_slowest() {
        let keys = |width| fitting(width).iter().map(|column| column.key).collect::<Vec<_>>();
        assert_eq!(keys(200).len(), COLUMNS.len());
        assert_eq!(keys(20), ["name", "serve", "p99.legacy", "p99.new"]);
        assert_eq!(keys(80).len(), 7, "{:?}", keys(80));
        assert!(keys(80).contains(&"ratio99") && keys(80).contains(&"errors.new"));
    }

    #[test]
    fn as_text_the_columns_stand_under_their_titles() {
        let text = as_text(&comparison(), &[0, 2], now());
        let expected = "\
window 1m  latency total  generation 7
Route  Serves        Req/s legacy  Req/s new  P50 legacy  P50 new  P99 legacy  P99 new  Errors legacy  Errors new  P50 new÷legacy  P99 new÷legacy
order  legacy 5 min          26.7       10.0     20.1 ms  5.00 ms      200 ms  60.0 ms            0 %      1.25 %         ▼ 0.25×  not enough yet
idle   legacy 5 min             –          –           –        –           –        –              –           –               –               –
";
        assert_eq!(text, expected);
    }
}
