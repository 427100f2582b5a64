//! The parameters of a request as they are signed: decoded, sorted by name, joined `k=v&k=v`.
//!
//! Pure: a query and a form go in, the bytes that were signed come out. All parameters take part but
//! the signature itself. Names are signed as the client wrote them, in the order of their bytes
//! (PHP's `ksort($p, SORT_STRING)`). What PHP could read in two ways is refused as ambiguous, never
//! repaired: sorting takes the order away from the signature, so whoever copies a request may change
//! it, and PHP lets the last of two equal names win. Names count as equal as PHP sees them, where `.`
//! and a space are `_`.

use std::borrow::Cow;

use crate::http::urlencoded::{self, Plus, UNRESERVED};

/// PHP's own `max_input_vars`: it drops what comes after.
const MOST: usize = 1000;
/// As many as most requests have: there is room for them at once.
const USUAL: usize = 8;
/// PHP's own `max_input_nesting_level`.
const DEEPEST: usize = 64;

/// Why parameters have no one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// Two names that PHP takes for one.
    #[error("two parameters are one to PHP")]
    Twice,
    /// A name that PHP cuts, drops or rewrites beyond telling.
    #[error("a parameter's name is not one that PHP keeps")]
    Name,
    /// `&` in a decoded name or value, `=` in a decoded name, or the text that stands between two parts of the string.
    #[error("a decoded parameter holds a separator; only canonical = \"percent\" can sign it")]
    Separator,
    /// More than PHP reads.
    #[error("more parameters than PHP reads")]
    TooMany,
}

/// How names and values stand in the string that is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// As they are once decoded.
    Decoded,
    /// Encoded by RFC 3986: all but letters, digits and `-._~`, in upper case.
    Percent,
}

/// One parameter, decoded.
type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The parameters of one request, decoded, in the order they were sent until sorted.
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a>(Vec<Pair<'a>>);

impl<'a> Parameters<'a> {
    /// Adds those of a query or of a urlencoded body.
    ///
    /// # Errors
    /// There are more than PHP would read.
    pub fn read(&mut self, text: &'a [u8]) -> Result<(), Ambiguous> {
        // Most texts hold nothing to decode, which one look at the whole tells.
        let decode = if is_plain(text) { Cow::Borrowed } else { decode };
        if !text.is_empty() {
            self.0.reserve(USUAL);
        }
        for piece in text.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
            if self.0.len() >= MOST {
                return Err(Ambiguous::TooMany);
            }
            let at = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
            let (name, value) = piece.split_at_checked(at).unwrap_or((piece, b""));
            self.0.push((decode(name), decode(value.get(1..).unwrap_or_default())));
        }
        Ok(())
    }

    /// Every value of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |pair| &*pair.0 == name.as_bytes()).map(|pair| &*pair.1)
    }

    /// The string of all but the parameter `except`, and of `more` that came another way. `apart` are
    /// texts that no decoded value may hold.
    ///
    /// # Errors
    /// The parameters have no one reading.
    pub fn join(
        &self,
        except: &str,
        more: &[(&str, &[u8])],
        canonical: Canonical,
        apart: &[&[u8]],
    ) -> Result<Vec<u8>, Ambiguous> {
        let own = self.0.iter().map(|(name, value)| (&**name, &**value));
        let more = more.iter().map(|(name, value)| (name.as_bytes(), *value));
        let mut pairs: Vec<(&[u8], &[u8])> = own.chain(more).collect();
        pairs.sort_unstable();
        refuse_what_php_reads_differently(&pairs)?;
        let mut out = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
        for (name, value) in pairs.into_iter().filter(|(name, _)| *name != except.as_bytes()) {
            if !out.is_empty() {
                out.push(b'&');
            }
            match canonical {
                Canonical::Decoded => {
                    let holds = |text: &[u8]| apart.iter().any(|apart| memchr::memmem::find(text, apart).is_some());
                    let splits = name.contains(&b'=') || name.contains(&b'&') || value.contains(&b'&');
                    if splits || holds(name) || holds(value) {
                        return Err(Ambiguous::Separator);
                    }
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.extend_from_slice(value);
                }
                Canonical::Percent => {
                    encode(name, &mut out);
                    out.push(b'=');
                    encode(value, &mut out);
                }
            }
        }
        Ok(out)
    }
}

/// Whether every byte stands for itself.
fn is_plain(text: &[u8]) -> bool {
    memchr::memchr2(b'%', b'+', text).is_none()
}

/// PHP's `urldecode`: `+` is a space, a broken escape stays as it is.
pub(super) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend(urlencoded::decoded(text, Plus::IsSpace));
    Cow::Owned(decoded)
}

/// RFC 3986 as PHP's `rawurlencode`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    out.extend(urlencoded::encoded(text, UNRESERVED));
}

/// Two names for one variable, `a` beside `a[x]`, `a[x]` beside `a[x][y]`, `a[]` beside any: the last one sent wins.
fn refuse_what_php_reads_differently(sorted: &[(&[u8], &[u8])]) -> Result<(), Ambiguous> {
    // Plain names, which nearly all are, differ for PHP as they do here.
    if sorted.iter().all(|(name, _)| is_plain_name(name)) {
        let twice = sorted.windows(2).any(|pair| matches!(pair, [(one, _), (next, _)] if one == next));
        return if twice { Err(Ambiguous::Twice) } else { Ok(()) };
    }
    let mut names = sorted.iter().map(|(name, _)| php_name(name)).collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    for pair in names.windows(2) {
        let [one, next] = pair else { continue };
        if next.strip_prefix(&**one).is_some_and(|rest| matches!(rest.first(), None | Some(b'['))) {
            return Err(Ambiguous::Twice);
        }
    }
    for name in &names {
        let Some(at) = memchr::memchr(b'[', name) else { continue };
        // Strangers such as `a!` sort between `a` and `a[x]`.
        let base = name.get(..at).unwrap_or_default();
        if names.binary_search_by(|other| (**other).cmp(base)).is_ok() || is_a_list_beside_others(name, &names) {
            return Err(Ambiguous::Twice);
        }
    }
    Ok(())
}

/// Whether `a[]` stands beside another element of `a`.
fn is_a_list_beside_others(name: &[u8], sorted: &[Cow<'_, [u8]>]) -> bool {
    let Some(prefix) = name.strip_suffix(b"]").filter(|prefix| prefix.ends_with(b"[")) else { return false };
    let first = sorted.partition_point(|other| &**other < prefix);
    sorted.get(first + 1).is_some_and(|second| second.starts_with(prefix))
}

/// Whether PHP knows the variable by this very name, and not as an element of an array.
fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A name as PHP knows the variable.
fn php_name(name: &[u8]) -> Result<Cow<'_, [u8]>, Ambiguous> {
    let outside = memchr::memchr(b'[', name).unwrap_or(name.len());
    let (base, keys) = name.split_at_checked(outside).unwrap_or((name, b""));
    let cut = name.iter().any(|byte| byte.is_ascii_control()) || base.first().is_none_or(|first| *first == b' ');
    if cut || !keys.is_empty() && !are_keys(keys) {
        return Err(Ambiguous::Name);
    }
    if !base.iter().any(|byte| matches!(byte, b' ' | b'.')) {
        return Ok(Cow::Borrowed(name));
    }
    let mut seen = name.to_vec();
    for byte in seen.iter_mut().take(outside).filter(|byte| matches!(byte, b' ' | b'.')) {
        *byte = b'_';
    }
    Ok(Cow::Owned(seen))
}

/// `[key][key]`: each with a text of its own. `[]` counts by the order sent, which is not signed, but one
/// of them alone, at the end, is a list of one.
fn are_keys(keys: &[u8]) -> bool {
    let Some(keys) = keys.strip_prefix(b"[").and_then(|keys| keys.strip_suffix(b"]")) else { return false };
    let mut depth = 0;
    let mut rest = keys;
    loop {
        depth += 1;
        let (key, behind) = match memchr::memmem::find(rest, b"][") {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 2..)),
            None => (rest, None),
        };
        let whole = !key.iter().any(|byte| matches!(byte, b'[' | b']')) && key.first() != Some(&b' ');
        if !whole || depth > DEEPEST || key.is_empty() && behind.is_some() {
            return false;
        }
        match behind {
            Some(behind) => rest = behind,
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(query: &str, form: &str, canonical: Canonical) -> Result<String, Ambiguous> {
        let mut parameters = Parameters::default();
        parameters.read(query.as_bytes())?;
        parameters.read(form.as_bytes())?;
        parameters.join("signature", &[], canonical, &[]).map(|joined| String::from_utf8_lossy(&joined).into_owned())
    }

    fn decoded(query: &str) -> Result<String, Ambiguous> {
        joined(query, "", Canonical::Decoded)
    }

    #[test]
    fn parameters_are_decoded_sorted_and_joined_without_the_signature() {
        let sent = "timestamp=1700000000&sku=A+1%2Fb&nonce=n-1&signature=00&app=shop-app";
        assert_eq!(decoded(sent).unwrap(), "app=shop-app&nonce=n-1&sku=A 1/b&timestamp=1700000000");
        assert_eq!(joined("b=2", "a=1&c", Canonical::Decoded).unwrap(), "a=1&b=2&c=");
        assert_eq!(decoded("10=a&9=b&B=c&a=d").unwrap(), "10=a&9=b&B=c&a=d");
        assert_eq!(decoded("a=%zz%4&b=100%").unwrap(), "a=%zz%4&b=100%");
        assert_eq!(decoded("&&a=b=c&").unwrap(), "a=b=c");
    }

    #[test]
    fn the_percent_form_signs_what_the_decoded_one_cannot() {
        for query in ["a=1%262", "a%26b=1", "a%3Db=1"] {
            assert_eq!(decoded(query), Err(Ambiguous::Separator), "{query}");
        }
        let percent = |query| joined(query, "", Canonical::Percent).unwrap();
        assert_eq!(percent("a=1%262&b%26=%3d"), "a=1%262&b%26=%3D");
        assert_eq!(percent("a=x+y~z%c3%a9"), "a=x%20y~z%C3%A9");
    }

    #[test]
    fn what_php_would_read_by_the_order_sent_is_ambiguous() {
        for query in
            ["a=1&a=2", "a.b=1&a_b=2", "a b=1&a_b=2", "a=1&a[x]=2", "a[x]=1&a[x][y]=2", "a[]=1&a[]=2", "a[]=1&a[0]=2"]
        {
            assert_eq!(decoded(query), Err(Ambiguous::Twice), "{query}");
        }
        // `a!` and `a-b` sort between `a` and `a[x]`.
        assert_eq!(decoded("a=1&a-b=2&a!=3&a[x]=4"), Err(Ambiguous::Twice));
        assert_eq!(joined("a=1", "a=1", Canonical::Decoded), Err(Ambiguous::Twice));
    }

    #[test]
    fn names_that_php_cuts_or_drops_are_ambiguous() {
        for query in ["=1", " a=1", "a%00b=1", "[a]=1", "a[=1", "a[x]y=1", "a[][x]=1", "a[%20x]=1", "a%0a=1"] {
            assert_eq!(decoded(query), Err(Ambiguous::Name), "{query}");
        }
        let deep = format!("a{}=1", "[x]".repeat(65));
        assert_eq!(decoded(&deep), Err(Ambiguous::Name));
        let many = "a&".repeat(1001);
        assert_eq!(decoded(&many), Err(Ambiguous::TooMany));
    }

    #[test]
    fn arrays_with_keys_of_their_own_are_signed_as_written() {
        assert_eq!(
            decoded("items[1][id]=7&items[0][id]=5&tag[]=x&a.b=1").unwrap(),
            "a.b=1&items[0][id]=5&items[1][id]=7&tag[]=x"
        );
    }

    #[test]
    fn text_that_keeps_two_parts_of_the_string_apart_is_not_part_of_a_value() {
        let mut parameters = Parameters::default();
        parameters.read(b"a=1%0aGET").unwrap();
        assert_eq!(parameters.join("signature", &[], Canonical::Decoded, &[b"\n"]), Err(Ambiguous::Separator));
        assert!(parameters.join("signature", &[], Canonical::Percent, &[b"\n"]).is_ok());
    }

    proptest! {
        #[test]
        fn the_order_sent_never_matters(mut names in proptest::collection::hash_set("[a-z]{1,4}", 1..8)) {
            let forth: Vec<_> = names.iter().map(|name| format!("{name}=1")).collect();
            let back: Vec<_> = forth.iter().rev().cloned().collect();
            names.clear();
            prop_assert_eq!(decoded(&forth.join("&")), decoded(&back.join("&")));
        }

        #[test]
        fn two_requests_that_php_reads_differently_never_sign_alike(one in "[a&=.%+\\[\\]]{0,9}", other in "[a&=.%+\\[\\]]{0,9}") {
            let pairs = |text: &str| {
                let mut parameters = Parameters::default();
                parameters.read(text.as_bytes()).unwrap();
                let mut pairs: Vec<_> = parameters.0.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
                pairs.sort();
                pairs
            };
            for canonical in [Canonical::Decoded, Canonical::Percent] {
                if let (Ok(a), Ok(b)) = (joined(&one, "", canonical), joined(&other, "", canonical)) && a == b {
                    prop_assert_eq!(pairs(&one), pairs(&other));
                }
            }
        }
    }
}
