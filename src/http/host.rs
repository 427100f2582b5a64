//! The one host a request is for, found once and used by routes and as the server's name.
//!
//! hyper lets through requests without `Host`, with several, or with anything in it; this is where
//! they end. The name comes out in lower case, without port and without the root's dot, so that a
//! comparison of bytes is a comparison of hosts. The `Host` field itself goes to the sides as sent.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};

use super::Answer;

/// Longest name DNS can carry; brackets of an IPv6 address fit too.
const NAME_BYTES_MAX: usize = 253;

/// A request's host: lower case, without port; empty when an HTTP/1.0 client named none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    // Shares the bytes of the request's own field when that is in lower case, as it nearly always is.
    value: HeaderValue,
    /// The name is this long; a dot or a port may stand behind it.
    length: usize,
}

impl Host {
    /// Finds the host of a request, by its target if that names one, else by its `Host`.
    pub(crate) fn of(version: Version, target: &Uri, headers: &HeaderMap) -> Result<Self, Answer> {
        let mut lines = headers.get_all(HOST).iter();
        let line = lines.next();
        let field = match (line, lines.next()) {
            (Some(line), None) => Some(Parts::parse(line.as_bytes())?),
            // HTTP/2 has `:authority` instead, HTTP/1.0 nothing.
            (None, _) if version != Version::HTTP_11 => None,
            _ => return Err(Answer::BadHost),
        };
        let authority = target.authority().map(|authority| Parts::parse(authority.as_str().as_bytes())).transpose()?;
        if let (Some(field), Some(authority)) = (field, authority)
            && !field.same(authority)
        {
            return Err(Answer::BadHost);
        }
        match (authority, field) {
            (None, None) => Ok(Self { value: HeaderValue::from_static(""), length: 0 }),
            (Some(parts), _) => parts.lower(None),
            (None, Some(parts)) => parts.lower(line),
        }
    }

    /// Reads a host as an operator writes it, without port; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = Parts::parse(text.as_bytes()).ok()?;
        if parts.port.is_some() { None } else { parts.lower(None).ok() }
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        self.value.as_bytes().get(..self.length).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

/// `name[:port]`, of valid syntax.
#[derive(Clone, Copy)]
struct Parts<'h> {
    name: &'h [u8],
    port: Option<&'h [u8]>,
}

impl<'h> Parts<'h> {
    fn parse(text: &'h [u8]) -> Result<Self, Answer> {
        let name_end = match text.first() {
            Some(b'[') => memchr::memchr(b']', text).map_or(text.len(), |bracket| bracket + 1),
            _ => memchr::memchr(b':', text).unwrap_or(text.len()),
        };
        let (name, behind) = text.split_at_checked(name_end).ok_or(Answer::BadHost)?;
        let port = match behind {
            [] => None,
            [b':', port @ ..] if is_port(port) => Some(port),
            _ => return Err(Answer::BadHost),
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        if is_name(name) { Ok(Self { name, port }) } else { Err(Answer::BadHost) }
    }

    fn same(self, other: Self) -> bool {
        self.name.eq_ignore_ascii_case(other.name) && self.port == other.port
    }

    /// The name in lower case; `line` is shared if it begins with just that.
    fn lower(self, line: Option<&HeaderValue>) -> Result<Host, Answer> {
        let value = match line {
            Some(line) if !self.name.iter().any(u8::is_ascii_uppercase) => line.clone(),
            _ => HeaderValue::from_bytes(&self.name.to_ascii_lowercase()).map_err(|_| Answer::BadHost)?,
        };
        Ok(Host { value, length: self.name.len() })
    }
}

/// A name or address as resolvers and parsers take it: an IPv6 address without its brackets.
pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_port(digits: &[u8]) -> bool {
    // RFC 3986 lets a port be empty.
    digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit)
}

fn is_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return false;
    }
    if let [b'[', address @ .., b']'] = name {
        return str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    }
    // No label between two dots is empty. The underscore is no part of a host's name, but people have such hosts.
    let mut before = b'.';
    for byte in name {
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || *byte == b'.' && before != b'.') {
            return false;
        }
        before = *byte;
    }
    before != b'.'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(version: Version, target: &str, lines: &[&str]) -> Result<String, Answer> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HOST, HeaderValue::from_str(line).unwrap());
        }
        Host::of(version, &target.parse().unwrap(), &headers).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn one_host_has_one_form() {
        for (line, wanted) in [
            ("shop.example", "shop.example"),
            ("Shop.EXAMPLE:8080", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example.:80", "shop.example"),
            ("shop.example:", "shop.example"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("my_shop", "my_shop"),
        ] {
            assert_eq!(host(Version::HTTP_11, "/", &[line]).as_deref(), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let long = "a".repeat(254);
        for line in [
            "", ".", "a..b", ".a", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[::1]x", "[x]", "a,b", "%61", &long,
        ] {
            assert_eq!(host(Version::HTTP_11, "/", &[line]), Err(Answer::BadHost), "{line}");
        }
    }

    #[test]
    fn exactly_one_host_is_needed_but_by_http_1_0() {
        assert_eq!(host(Version::HTTP_11, "/", &[]), Err(Answer::BadHost));
        assert_eq!(host(Version::HTTP_11, "/", &["a", "a"]), Err(Answer::BadHost));
        assert_eq!(host(Version::HTTP_10, "/", &["a", "b"]), Err(Answer::BadHost));
        assert_eq!(host(Version::HTTP_10, "/", &[]).as_deref(), Ok(""));
        assert_eq!(host(Version::HTTP_2, "https://Shop.example/x", &[]).as_deref(), Ok("shop.example"));
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        let ask = |target, line| host(Version::HTTP_11, target, &[line]);
        assert_eq!(ask("http://A.example:81/", "a.example:81").as_deref(), Ok("a.example"));
        assert_eq!(ask("http://a.example/", "b.example"), Err(Answer::BadHost));
        assert_eq!(ask("http://a.example:81/", "a.example:82"), Err(Answer::BadHost));
        assert_eq!(ask("http://user@a.example/", "a.example"), Err(Answer::BadHost));
        assert_eq!(host(Version::HTTP_11, "http://a.example/", &[]), Err(Answer::BadHost));
    }

    #[test]
    fn an_operators_host_has_no_port() {
        assert_eq!(Host::parse("Shop.Example").unwrap().as_str(), "shop.example");
        assert_eq!(Host::parse("shop.example:80"), None);
        assert_eq!(Host::parse("*.example"), None);
    }

    proptest! {
        #[test]
        fn no_host_panics_and_its_form_is_stable(line in "[!-~]{0,40}") {
            if let Ok(name) = host(Version::HTTP_11, "/", &[&line]) {
                prop_assert_eq!(host(Version::HTTP_11, "/", &[&name]), Ok(name.clone()));
                prop_assert_eq!(name.to_ascii_lowercase(), name);
            }
        }
    }
}
