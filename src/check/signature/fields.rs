//! Where a request carries who signed it, when, its nonce and the signature: as parameters, or as headers.
//!
//! Pure. A field that is there twice, in whatever places, is refused: two readers could take two
//! different ones.

use http::{HeaderMap, HeaderName};

use super::parameters::Parameters;

/// Where one field is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldPlace {
    /// A parameter of the query or of a urlencoded body.
    Parameter(String),
    /// A header.
    Header(HeaderName),
    /// Either, but not both.
    Either(String, HeaderName),
}

/// Where all of them are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Who signs.
    pub(crate) app: FieldPlace,
    /// When, in seconds since 1970.
    pub(crate) timestamp: FieldPlace,
    /// What is accepted once.
    pub(crate) nonce: FieldPlace,
    /// The signature.
    pub(crate) signature: FieldPlace,
    /// SHA-256 of a body that is no form, in hex.
    pub(crate) body_sha256: FieldPlace,
}

/// A field as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'r> {
    /// Its value; parameters are decoded.
    pub(crate) value: &'r [u8],
    /// Not a parameter: the parameters do not cover it by themselves.
    pub(crate) in_header: bool,
}

/// It is there more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Twice;

impl FieldPlace {
    /// A parameter's name, and the header's that may stand for it.
    #[must_use]
    pub(crate) fn either(parameter: &str, header: &'static str) -> Self {
        Self::Either(parameter.to_owned(), HeaderName::from_static(header))
    }

    /// The parameter that it may be.
    #[must_use]
    pub(crate) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Parameter(name) | Self::Either(name, _) => Some(name),
            Self::Header(_) => None,
        }
    }

    /// The header that it may be.
    #[must_use]
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) | Self::Either(_, name) => Some(name),
            Self::Parameter(_) => None,
        }
    }

    /// Looks for it.
    ///
    /// # Errors
    /// It is there more than once.
    pub(crate) fn find<'r>(
        &self,
        parameters: &'r Parameters<'_>,
        headers: &'r HeaderMap,
    ) -> Result<Option<Found<'r>>, Twice> {
        let mut found = None;
        if let Some(name) = self.parameter() {
            for value in parameters.all(name) {
                note(&mut found, Found { value, in_header: false })?;
            }
        }
        if let Some(name) = self.header() {
            for value in headers.get_all(name) {
                note(&mut found, Found { value: value.as_bytes(), in_header: true })?;
            }
        }
        Ok(found)
    }
}

/// Notes what was found; an error where something was found before.
fn note<'r>(found: &mut Option<Found<'r>>, next: Found<'r>) -> Result<(), Twice> {
    if found.replace(next).is_some() { Err(Twice) } else { Ok(()) }
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            app: FieldPlace::either("app", "x-app"),
            timestamp: FieldPlace::either("timestamp", "x-timestamp"),
            nonce: FieldPlace::either("nonce", "x-nonce"),
            signature: FieldPlace::either("signature", "x-signature"),
            body_sha256: FieldPlace::either("body_sha256", "x-body-sha256"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_it_may_be_and_refused_when_it_is_there_twice() {
        let mut headers = HeaderMap::new();
        headers.append("x-app", "of-header".parse().unwrap());
        headers.append("x-nonce", "1".parse().unwrap());
        headers.append("x-nonce", "2".parse().unwrap());
        let mut parameters = Parameters::default();
        parameters.read(b"timestamp=17&signature=a&signature=b&app2=of+query").unwrap();
        let fields = Fields::default();
        let find = |place: &FieldPlace| {
            let found = place.find(&parameters, &headers);
            found.map(|found| found.map(|found| (String::from_utf8_lossy(found.value).into_owned(), found.in_header)))
        };
        assert_eq!(find(&fields.app), Ok(Some(("of-header".to_owned(), true))));
        assert_eq!(find(&fields.timestamp), Ok(Some(("17".to_owned(), false))));
        assert_eq!(find(&fields.nonce), Err(Twice));
        assert_eq!(find(&fields.signature), Err(Twice));
        assert_eq!(find(&fields.body_sha256), Ok(None));
        assert_eq!(find(&FieldPlace::either("app2", "x-app")), Err(Twice));
        assert_eq!(find(&FieldPlace::Parameter("app2".to_owned())), Ok(Some(("of query".to_owned(), false))));
        assert_eq!(find(&FieldPlace::Header(HeaderName::from_static("x-app2"))), Ok(None));
    }
}
