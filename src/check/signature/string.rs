//! The scheme of a string: parameters and other parts of a request joined by a template, and a mac of that.
//!
//! Pure: what a request holds goes in, what it claims comes out. Who, when and nonce may come as
//! headers instead of parameters; they are signed all the same, as parameters of the names `app`,
//! `timestamp`, `nonce` and `body_sha256`, unless the template names them itself.

use http::{HeaderMap, HeaderName};

use super::Step;
use super::algorithm::{Algorithm, Encoding};
use super::fields::{FieldPlace, Fields, Found};
use super::parameters::{Canonical, Parameters};
use super::template::{Filling, Part, Template};

/// Longest id of an app, and longest nonce.
const LONGEST: usize = 256;

/// A scheme, as run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StringScheme {
    pub(crate) algorithm: Algorithm,
    pub(crate) encoding: Encoding,
    pub(crate) canonical: Canonical,
    pub(crate) template: Template,
    pub(crate) fields: Fields,
}

/// What a signature can be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'r> {
    pub(crate) method: &'r str,
    /// As sent, without the query.
    pub(crate) path: &'r str,
    pub(crate) query: &'r str,
    pub(crate) host: &'r str,
    pub(crate) headers: &'r HeaderMap,
}

/// What a request says of itself.
#[derive(Debug)]
pub(crate) struct Claim<'r> {
    pub(crate) app: &'r [u8],
    pub(crate) timestamp: u64,
    /// Absent only where none is asked for.
    pub(crate) nonce: &'r [u8],
    pub(crate) signature: &'r [u8],
    /// What was signed.
    pub(crate) string: Vec<u8>,
}

/// A body's SHA-256 in hex, where it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Digest<'r> {
    /// There is no body, or its parameters are signed.
    NotNeeded,
    /// Of the body that came.
    Of(&'r str),
}

impl StringScheme {
    /// The parameters of a request. `form` is a urlencoded body, else empty.
    pub(crate) fn parameters<'r>(&self, view: &View<'r>, form: &'r [u8]) -> Result<Parameters<'r>, Step> {
        let mut parameters = Parameters::default();
        parameters.read(view.query.as_bytes())?;
        parameters.read(form)?;
        Ok(parameters)
    }

    /// Whether the parameters of a urlencoded body are signed as such.
    pub(crate) fn signs_forms(&self) -> bool {
        self.template.has(&Part::Params)
    }

    /// Whether the body has to be read for its digest, even when it is a form.
    pub(crate) fn wants_digest(&self, parameters: &Parameters<'_>, headers: &HeaderMap) -> bool {
        let declared = self.fields.body_sha256.find(parameters, headers);
        self.template.has(&Part::BodySha256) || !matches!(declared, Ok(None))
    }

    /// What the request claims, and the string it must have signed for that.
    pub(crate) fn claim<'r>(
        &self,
        view: &View<'r>,
        parameters: &'r Parameters<'_>,
        digest: Digest<'_>,
        with_nonce: bool,
    ) -> Result<Claim<'r>, Step> {
        let fields = &self.fields;
        let [app, timestamp, nonce, signature, declared] =
            [&fields.app, &fields.timestamp, &fields.nonce, &fields.signature, &fields.body_sha256]
                .map(|place| place.find(parameters, view.headers));
        let app = app?.ok_or(Step::Missing)?;
        let timestamp = timestamp?.ok_or(Step::Missing)?;
        let signature = signature?.ok_or(Step::Missing)?;
        let nonce = nonce?;
        if with_nonce && nonce.is_none() {
            return Err(Step::Missing);
        }
        let declared = declared?.filter(|found| self.is_covered(&fields.body_sha256, found));
        let nonce_value = nonce.map(|nonce| nonce.value).unwrap_or_default();
        if app.value.len() > LONGEST || nonce_value.len() > LONGEST || with_nonce && nonce_value.is_empty() {
            return Err(Step::Malformed);
        }
        let seconds = seconds(timestamp.value)?;
        let digest = self.digest(digest, declared)?;
        let named = [("app", Some(app)), ("timestamp", Some(timestamp)), ("nonce", nonce), ("body_sha256", declared)];
        let join = |(name, found): (&'static str, Option<Found<'r>>)| {
            found.filter(|found| found.in_header).map(|found| (name, found.value))
        };
        let more: Vec<_> =
            if self.headers_join_parameters() { named.into_iter().filter_map(join).collect() } else { Vec::new() };
        let except = fields.signature.parameter().unwrap_or_default();
        let params = parameters.join(except, &more, self.canonical, &self.template.beside_params())?;
        let string = self.template.fill(&Filling {
            params: &params,
            method: view.method,
            path: view.path,
            query: view.query,
            host: view.host,
            body_sha256: digest,
            app: app.value,
            timestamp: timestamp.value,
            nonce: nonce_value,
            headers: view.headers,
        });
        Ok(Claim { app: app.value, timestamp: seconds, nonce: nonce_value, signature: signature.value, string })
    }

    /// The digest to be signed. What is declared must be that of the body, and a body that is signed in no other way
    /// must be declared.
    fn digest<'r>(&self, digest: Digest<'r>, declared: Option<Found<'_>>) -> Result<&'r str, Step> {
        match (digest, declared) {
            (Digest::NotNeeded, _) => Ok(""),
            (Digest::Of(body), Some(declared)) if declared.value.eq_ignore_ascii_case(body.as_bytes()) => Ok(body),
            (Digest::Of(body), None) if self.template.has(&Part::BodySha256) => Ok(body),
            (Digest::Of(_), _) => Err(Step::Digest),
        }
    }

    /// Whether a body that is no form has to say its digest: the template does not take it from the body.
    pub(crate) fn digest_is_declared(&self) -> bool {
        !self.template.has(&Part::BodySha256)
    }

    /// Whether fields that come as headers are signed as parameters: the template names none of them.
    fn headers_join_parameters(&self) -> bool {
        let Fields { app, timestamp, nonce, .. } = &self.fields;
        let named = |place: &FieldPlace| place.header().is_some_and(|name| self.names_header(name));
        let parts = [Part::App, Part::Timestamp, Part::Nonce];
        self.template.has(&Part::Params)
            && !parts.iter().any(|part| self.template.has(part))
            && ![app, timestamp, nonce].into_iter().any(named)
    }

    fn names_header(&self, name: &HeaderName) -> bool {
        self.template.has_header(name)
    }

    fn is_covered(&self, place: &FieldPlace, found: &Found<'_>) -> bool {
        if found.in_header {
            self.headers_join_parameters() || place.header().is_some_and(|name| self.names_header(name))
        } else {
            self.template.has(&Part::Params)
        }
    }

    /// The first of timestamp and nonce that could be changed without the signature noticing.
    pub(crate) fn uncovered(&self, with_nonce: bool) -> Option<&'static str> {
        let covered = |part: Part, place: &FieldPlace| {
            let parameter = place.parameter().is_none() || self.template.has(&Part::Params);
            let header = place.header().is_none_or(|name| self.headers_join_parameters() || self.names_header(name));
            self.template.has(&part) || parameter && header
        };
        if !covered(Part::Timestamp, &self.fields.timestamp) {
            return Some("timestamp");
        }
        (with_nonce && !covered(Part::Nonce, &self.fields.nonce)).then_some("nonce")
    }
}

/// Seconds since 1970, in decimal digits and nothing else, and in one way: a zero before them could have been the end
/// of what stands before the timestamp in the string.
fn seconds(text: &[u8]) -> Result<u64, Step> {
    let digits = matches!(text.len(), 1..=12) && text.iter().all(u8::is_ascii_digit) && !text.starts_with(b"0");
    let number = str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or(Step::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn scheme(string: &str) -> StringScheme {
        StringScheme {
            algorithm: Algorithm::HmacSha256,
            encoding: Encoding::Hex,
            canonical: Canonical::Decoded,
            template: Template::parse(string).unwrap(),
            fields: Fields::default(),
        }
    }

    /// When it was signed, and what.
    fn claim(
        string: &str,
        query: &str,
        headers: &[(&'static str, &str)],
        digest: Digest<'_>,
    ) -> Result<(u64, String), Step> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        let view = View { method: "POST", path: "/p", query, host: "shop.example", headers: &headers };
        let scheme = scheme(string);
        let parameters = scheme.parameters(&view, b"")?;
        let claim = scheme.claim(&view, &parameters, digest, true)?;
        Ok((claim.timestamp, String::from_utf8(claim.string).unwrap()))
    }

    fn string(template: &str, query: &str, headers: &[(&'static str, &str)]) -> String {
        claim(template, query, headers, Digest::NotNeeded).unwrap().1
    }

    const QUERY: &str = "app=a&nonce=n&timestamp=17&signature=s&z=1";
    const HEADERS: [(&str, &str); 4] = [("x-app", "a"), ("x-nonce", "n"), ("x-timestamp", "17"), ("x-signature", "s")];

    #[test]
    fn fields_sign_alike_as_parameters_and_as_headers() {
        let expected = "app=a&nonce=n&timestamp=17&z=1";
        assert_eq!(string("{params}", QUERY, &[]), expected);
        assert_eq!(string("{params}", "z=1", &HEADERS), expected);
        assert_eq!(string("{method} {params}", "z=1", &HEADERS), format!("POST {expected}"));
    }

    #[test]
    fn a_template_that_names_a_field_takes_it_out_of_the_parameters() {
        let template = "{method}\n{path}\n{params}\n{header:x-timestamp}\n{nonce}";
        assert_eq!(string(template, "z=1", &HEADERS), "POST\n/p\nz=1\n17\nn");
    }

    #[test]
    fn what_is_missing_or_malformed_is_told_apart() {
        let step = |query: &str| claim("{params}", query, &[], Digest::NotNeeded).unwrap_err();
        assert_eq!(step("app=a&nonce=n&timestamp=17"), Step::Missing);
        assert_eq!(step("app=a&timestamp=17&signature=s"), Step::Missing);
        for bad in
            ["nonce=", "nonce=n&timestamp=-1", "nonce=n&timestamp=1e3", "nonce=n&timestamp=+17", "nonce=n&timestamp="]
        {
            let query =
                format!("app=a&signature=s&{bad}{}", if bad.contains("timestamp") { "" } else { "&timestamp=17" });
            assert_eq!(step(&query), Step::Malformed, "{query}");
        }
        assert_eq!(step(&format!("{QUERY}&signature=t")), Step::Malformed);
        assert_eq!(step(&format!("{QUERY}&z=2")), Step::Ambiguous);
    }

    #[test]
    fn a_body_that_is_no_form_is_signed_by_its_digest() {
        let with = |query: &str, digest| claim("{params}", query, &[], digest).map(|(timestamp, _)| timestamp);
        let declared = format!("{QUERY}&body_sha256=E3B0");
        assert_eq!(with(&declared, Digest::Of("e3b0")), Ok(17));
        assert_eq!(with(&declared, Digest::Of("e3b1")), Err(Step::Digest));
        assert_eq!(with(QUERY, Digest::Of("e3b0")), Err(Step::Digest));
        let (_, string) = claim("{params}|{body_sha256}", QUERY, &[], Digest::Of("e3b0")).unwrap();
        assert!(string.ends_with("|e3b0"));
    }

    #[test]
    fn a_digest_that_nothing_covers_is_not_believed() {
        let mut headers = HEADERS.to_vec();
        headers.push(("x-body-sha256", "e3b0"));
        let with = |template| claim(template, "", &headers, Digest::Of("e3b0")).map(|(timestamp, _)| timestamp);
        assert_eq!(with("{params}"), Ok(17));
        assert_eq!(with("{params}|{timestamp}|{nonce}"), Err(Step::Digest));
        assert_eq!(with("{params}|{timestamp}|{nonce}|{header:x-body-sha256}"), Ok(17));
    }

    #[test]
    fn a_string_that_leaves_nonce_or_timestamp_open_is_known() {
        assert_eq!(scheme("{params}").uncovered(true), None);
        assert_eq!(scheme("{method}\n{timestamp}\n{nonce}").uncovered(true), None);
        assert_eq!(scheme("{params}{nonce}").uncovered(true), Some("timestamp"));
        assert_eq!(scheme("{params}{timestamp}").uncovered(true), Some("nonce"));
        assert_eq!(scheme("{params}{timestamp}").uncovered(false), None);
        assert_eq!(scheme("{method}{path}").uncovered(true), Some("timestamp"));
    }
}
