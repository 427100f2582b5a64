//! W3C trace context: the trace that a request belongs to, as it is sent in `traceparent`.
//!
//! Pure: fields in, ids out. Whose word is taken for what is not decided here.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// Where in which trace a request is, and whether that trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// Never 0.
    pub(crate) trace_id: u128,
    /// The span that is the parent of what happens next; never 0.
    pub(crate) span_id: u64,
    pub(crate) sampled: bool,
}

impl TraceParent {
    /// What a request says; `None` when it says nothing, or nothing valid.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        match (fields.next(), fields.next()) {
            (Some(field), None) => Self::parse(field.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (known, later) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let [version, trace_id, span_id, flags] =
            [(); 4].map(|()| parts.next().filter(|part| part.bytes().all(is_digit)).unwrap_or_default());
        let lengths = [version, trace_id, span_id, flags].map(str::len);
        // A later version may say more behind what is known; version 255 is forbidden.
        let ends = later.is_empty() || (version != "00" && later.starts_with('-'));
        if lengths != [2, 32, 16, 2] || version == "ff" || !ends {
            return None;
        }
        let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The field's value, in version 0.
    pub(crate) fn field(&self) -> HeaderValue {
        let Self { trace_id, span_id, sampled } = self;
        let text = format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled));
        // Digits and hyphens always are a field value; the empty one stands for what cannot happen.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Capitals are not allowed.
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sent(fields: &[&str]) -> Option<TraceParent> {
        TraceParent::of(&fields.iter().map(|field| (TRACEPARENT, HeaderValue::from_str(field).unwrap())).collect())
    }

    #[test]
    fn a_field_is_read_and_written_as_it_was() {
        let parent = sent(&[FIELD]).unwrap();
        assert_eq!((parent.trace_id >> 96, parent.span_id), (0x4bf9_2f35, 0x00f0_67aa_0ba9_02b7));
        assert!(parent.sampled && parent.field() == FIELD);
        assert!(!sent(&[&FIELD.replace("-01", "-00")]).unwrap().sampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert!(sent(&[&FIELD.replacen("00-", "cc-", 1)]).is_some());
        assert!(sent(&[&format!("{}-more", FIELD.replacen("00-", "cc-", 1))]).is_some());
        assert!(sent(&[&format!("{}x", FIELD.replacen("00-", "cc-", 1))]).is_none());
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        assert_eq!(sent(&[FIELD, FIELD]), None);
        let broken = [
            String::new(),
            FIELD.to_uppercase(),
            FIELD.replacen("00-", "ff-", 1),
            format!("{FIELD}-more"),
            FIELD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            FIELD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            FIELD.replace("00f067aa0ba902b7", "00f067aa0ba902b"),
            FIELD.replace('-', "_"),
            FIELD.replace("4b", "+b"),
            FIELD.replace("4b", "-b"),
        ];
        for field in broken {
            assert_eq!(sent(&[&field]), None, "{field}");
        }
    }
}
