//! Reads what `/metrics` says, strictly enough that a malformed line fails the test.

use std::collections::BTreeMap;

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// One reading of `/metrics`.
#[derive(Debug, Default)]
pub struct Metrics {
    samples: Vec<(String, Labels, f64)>,
    /// Name to type, as the `# TYPE` lines say.
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses the Prometheus text format.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                let before = metrics.types.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} is declared twice");
            } else if !line.starts_with('#') {
                metrics.samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        metrics
    }

    /// The sum over all samples of `name` whose labels include `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// Whether there is any such sample.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// All samples of `name` whose labels include `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> + 'a {
        self.samples
            .iter()
            .filter(move |(found, has, _)| {
                found == name && labels.iter().all(|(key, value)| has.get(*key).is_some_and(|found| found == value))
            })
            .map(|(_, labels, value)| (labels, *value))
    }

    /// Every name that has a sample.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|(name, _, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let Some(open) = line.find('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some((name.to_owned(), Labels::new(), value.trim().parse().ok()?));
    };
    let (name, mut rest) = (&line[..open], &line[open + 1..]);
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            return Some((name.to_owned(), labels, value.trim().split(' ').next()?.parse().ok()?));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut end = None;
        let mut letters = quoted.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    end = Some(at);
                    break;
                }
                '\\' => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        rest = &quoted[end? + 1..];
        assert!(labels.insert(key.to_owned(), value).is_none(), "label twice: {line}");
    }
}
