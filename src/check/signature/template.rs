//! `string`: which parts of a request are signed, and what stands between them.
//!
//! Parsed once, with the file; a request only fills it in. Pure.

use http::{HeaderMap, HeaderName};

/// A part of the string that a request fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text of the template's own.
    Text(String),
    /// `{params}`: see `parameters.rs`.
    Params,
    /// `{method}`, as sent.
    Method,
    /// `{path}`, as sent: not decoded, without the query.
    Path,
    /// `{query}`, as sent, without the question mark.
    Query,
    /// `{host}`, in lower case, without a port.
    Host,
    /// `{body_sha256}`: of the body that came, in lower-case hex.
    BodySha256,
    /// `{app}`
    App,
    /// `{timestamp}`, as sent.
    Timestamp,
    /// `{nonce}`
    Nonce,
    /// `{header:name}`: its value, several joined by `, `; nothing when it is not there.
    Header(HeaderName),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TemplateFault {
    /// `{` without `}`, or `}` alone.
    Brace,
    /// There is no such part.
    Unknown(String),
    /// Not a name that a header can have.
    Header(String),
}

/// The names of all parts, for remedies.
pub(crate) const PARTS: [&str; 9] =
    ["params", "method", "path", "query", "host", "body_sha256", "app", "timestamp", "nonce"];

/// The string to be signed, with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

/// What a request puts into the holes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling<'a> {
    /// Joined parameters.
    pub(crate) params: &'a [u8],
    /// The method.
    pub(crate) method: &'a str,
    /// The raw path.
    pub(crate) path: &'a str,
    /// The raw query.
    pub(crate) query: &'a str,
    /// The host.
    pub(crate) host: &'a str,
    /// Of the body, in hex.
    pub(crate) body_sha256: &'a str,
    /// Who signs.
    pub(crate) app: &'a [u8],
    /// When.
    pub(crate) timestamp: &'a [u8],
    /// Once.
    pub(crate) nonce: &'a [u8],
    /// The header fields.
    pub(crate) headers: &'a HeaderMap,
}

impl Template {
    /// Reads `{method}\n{params}`; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// A brace too many, or a part that there is not.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateFault> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(from.get(..1).unwrap_or_default());
                rest = after;
                continue;
            }
            let inside = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (name, after) = inside.ok_or(TemplateFault::Brace)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Whether it has this part.
    #[must_use]
    pub(crate) fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
    }

    /// Whether it has this header.
    pub(super) fn has_header(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Header(named) if named == name))
    }

    /// Two parts with nothing between them, so that the end of one can pass for the beginning of the other.
    #[must_use]
    pub(crate) fn touching(&self) -> bool {
        self.0.windows(2).any(|pair| !pair.iter().any(|part| matches!(part, Part::Text(_))))
    }

    /// The texts beside `{params}`, which decoded parameters may not hold.
    pub(super) fn beside_params(&self) -> Vec<&[u8]> {
        let place = |at: usize| match self.0.get(at) {
            Some(Part::Text(text)) => Some(text.as_bytes()),
            _ => None,
        };
        let places = self.0.iter().enumerate().filter(|(_, part)| **part == Part::Params).map(|(at, _)| at);
        // A text at the very end or beginning keeps nothing apart.
        let parts = 1..self.0.len().saturating_sub(1);
        places
            .flat_map(|at| [at.checked_sub(1), Some(at + 1)])
            .flatten()
            .filter(|at| parts.contains(at))
            .filter_map(place)
            .collect()
    }

    /// The string that was signed.
    #[must_use]
    pub(crate) fn fill(&self, filling: &Filling<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(filling.params.len() + 128);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Params => out.extend_from_slice(filling.params),
                Part::Method => out.extend_from_slice(filling.method.as_bytes()),
                Part::Path => out.extend_from_slice(filling.path.as_bytes()),
                Part::Query => out.extend_from_slice(filling.query.as_bytes()),
                Part::Host => out.extend_from_slice(filling.host.as_bytes()),
                Part::BodySha256 => out.extend_from_slice(filling.body_sha256.as_bytes()),
                Part::App => out.extend_from_slice(filling.app),
                Part::Timestamp => out.extend_from_slice(filling.timestamp),
                Part::Nonce => out.extend_from_slice(filling.nonce),
                Part::Header(name) => {
                    for (at, value) in filling.headers.get_all(name).iter().enumerate() {
                        out.extend_from_slice(if at == 0 { b"" } else { b", " });
                        out.extend_from_slice(value.as_bytes());
                    }
                }
            }
        }
        out
    }
}

fn part(name: &str) -> Result<Part, TemplateFault> {
    if let Some(header) = name.strip_prefix("header:") {
        return header.parse().map(Part::Header).map_err(|_| TemplateFault::Header(header.to_owned()));
    }
    Ok(match name {
        "params" => Part::Params,
        "method" => Part::Method,
        "path" => Part::Path,
        "query" => Part::Query,
        "host" => Part::Host,
        "body_sha256" => Part::BodySha256,
        "app" => Part::App,
        "timestamp" => Part::Timestamp,
        "nonce" => Part::Nonce,
        other => return Err(TemplateFault::Unknown(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        let filling = Filling {
            params: b"a=1",
            method: "GET",
            path: "/p%20q",
            query: "a=1",
            host: "shop.example",
            body_sha256: "e3b0",
            app: b"shop",
            timestamp: b"17",
            nonce: b"n",
            headers: &headers,
        };
        String::from_utf8(Template::parse(template).unwrap().fill(&filling)).unwrap()
    }

    #[test]
    fn a_template_is_filled_in_with_what_was_sent() {
        assert_eq!(filled("{params}"), "a=1");
        assert_eq!(filled("{method}\n{host}{path}?{query}\n{timestamp}"), "GET\nshop.example/p%20q?a=1\n17");
        assert_eq!(filled("{header:X-A}|{header:x-b}|{body_sha256}"), "1, 2||e3b0");
        assert_eq!(filled("{{{app}}}:{nonce}"), "{shop}:n");
    }

    #[test]
    fn a_template_that_cannot_be_meant_is_refused() {
        let fault = |text| Template::parse(text).unwrap_err();
        assert_eq!(fault("{param}"), TemplateFault::Unknown("param".to_owned()));
        assert_eq!(fault("{params"), TemplateFault::Brace);
        assert_eq!(fault("params}"), TemplateFault::Brace);
        assert_eq!(fault("{header:a b}"), TemplateFault::Header("a b".to_owned()));
    }

    #[test]
    fn parts_that_touch_are_told_and_texts_beside_parameters_known() {
        assert!(Template::parse("{method}{path}").unwrap().touching());
        let template = Template::parse("a{method}\n{params}::{nonce}z").unwrap();
        assert!(!template.touching());
        assert_eq!(template.beside_params(), [b"\n".as_slice(), b"::"]);
        assert!(Template::parse("{params}&key").unwrap().beside_params().is_empty());
    }
}
