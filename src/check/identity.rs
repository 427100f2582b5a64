//! Who a caller is: what the checks of a route found out, in the form both sides are told it.

use std::fmt;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue};

use super::wechat::Login;

pub(crate) const X_STRANGLER_USER: HeaderName = HeaderName::from_static("x-strangler-user");
pub(crate) const X_STRANGLER_SESSION: HeaderName = HeaderName::from_static("x-strangler-session");

/// Who the checks of a route found the caller to be.
///
/// A handler finds it among the request's extensions; upstreams are told the same in the headers
/// `X-Strangler-User`, `X-Strangler-Session` and `X-Strangler-<Field>`, PHP therefore in
/// `$_SERVER['HTTP_X_STRANGLER_USER']` and so on. Nobody else can set these: what a client sends
/// under such a name, in any spelling, never gets past the edge.
///
/// ```
/// use axum::Extension;
/// use strangler::Identity;
///
/// async fn hello(Extension(identity): Extension<Identity>) -> String {
///     format!("hello, {}", identity.user().unwrap_or("stranger"))
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Known>);

#[derive(Clone, Default, PartialEq, Eq)]
struct Known {
    user: Option<HeaderValue>,
    session: Option<HeaderValue>,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Told to handlers only.
    wechat: Option<Login>,
}

/// What was found cannot be told in a header: a control character in a value, a space around it, or an unheard-of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value that no header can carry")]
pub(crate) struct Untellable;

/// Most bytes of one value.
const LONGEST: usize = 4096;

impl Identity {
    /// The user's id, as the session, token or key names it.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_ref().and_then(text)
    }

    /// The id of the session. Whoever has it, is the user: treat it as a password.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_ref().and_then(text)
    }

    /// A field by the name that `fields` gives it in the check. Several values are joined by `,`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let header = field_header(name)?;
        self.0.fields.iter().find(|(known, _)| *known == header).and_then(|(_, value)| text(value))
    }

    /// The values of a field that holds several, like roles.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.field(name).into_iter().flat_map(|joined| joined.split(','))
    }

    /// Who the caller is at WeChat, and the `session_key`: of a caller who logged in by the handler `wechat-login`.
    ///
    /// It was read from the store of sessions, together with the session itself; upstreams are not told.
    #[must_use]
    pub fn wechat(&self) -> Option<&Login> {
        self.0.wechat.as_ref()
    }

    /// An identity of a user, a session and further fields by name.
    pub(crate) fn new<'f>(
        user: Option<&[u8]>,
        session: Option<&[u8]>,
        fields: impl IntoIterator<Item = (&'f HeaderName, &'f [u8])>,
    ) -> Result<Self, Untellable> {
        let fields = fields.into_iter().map(|(name, value)| Ok((name.clone(), header(value)?)));
        Ok(Self(Arc::new(Known {
            user: user.map(header).transpose()?,
            session: session.map(secret).transpose()?,
            fields: fields.collect::<Result<_, Untellable>>()?,
            wechat: None,
        })))
    }

    /// The same, known at WeChat as well.
    pub(crate) fn known_at_wechat(self, login: Login) -> Self {
        let mut known = Arc::unwrap_or_clone(self.0);
        known.wechat = Some(login);
        Self(Arc::new(known))
    }

    /// What two checks found: of what both know, the first one's.
    pub(crate) fn and(self, other: &Self) -> Self {
        let mut known = Arc::unwrap_or_clone(self.0);
        known.user = known.user.or_else(|| other.0.user.clone());
        known.session = known.session.or_else(|| other.0.session.clone());
        known.wechat = known.wechat.or_else(|| other.0.wechat.clone());
        for field in &other.0.fields {
            if !known.fields.iter().any(|(held, _)| *held == field.0) {
                known.fields.push(field.clone());
            }
        }
        Self(Arc::new(known))
    }

    /// The user as the access log has it.
    pub(crate) fn user_header(&self) -> Option<&HeaderValue> {
        self.0.user.as_ref()
    }

    /// Tells an upstream.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(user) = &self.0.user {
            headers.insert(X_STRANGLER_USER, user.clone());
        }
        if let Some(session) = &self.0.session {
            headers.insert(X_STRANGLER_SESSION, session.clone());
        }
        for (name, value) in &self.0.fields {
            headers.insert(name, value.clone());
        }
    }
}

/// The header that a field's name stands for; `None`: it cannot be one, or has a meaning of its own.
pub(crate) fn field_header(name: &str) -> Option<HeaderName> {
    let good = !name.is_empty() && name.len() <= 64;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let word = name.to_ascii_lowercase().replace('_', "-");
    if !good || !plain || matches!(&*word, "user" | "session" | "side") {
        return None;
    }
    HeaderName::try_from(format!("x-strangler-{word}")).ok()
}

fn header(value: &[u8]) -> Result<HeaderValue, Untellable> {
    // Whoever reads a header drops the spaces around its value (RFC 9110 section 5.5): `admin ` would become `admin`.
    if value.len() > LONGEST || value.trim_ascii().len() < value.len() {
        return Err(Untellable);
    }
    HeaderValue::from_bytes(value).map_err(|_| Untellable)
}

fn secret(value: &[u8]) -> Result<HeaderValue, Untellable> {
    let mut value = header(value)?;
    value.set_sensitive(true);
    Ok(value)
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The session's id is as good as a password: it is not shown.
        f.debug_struct("Identity").field("user", &self.0.user).field("fields", &self.0.fields).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(user: &str, session: &str, roles: &str) -> Identity {
        let header = field_header("roles").unwrap();
        Identity::new(Some(user.as_bytes()), Some(session.as_bytes()), [(&header, roles.as_bytes())]).unwrap()
    }

    #[test]
    fn both_sides_are_told_the_same() {
        let identity = named("7", "s3cret", "admin,editor");
        assert_eq!((identity.user(), identity.session()), (Some("7"), Some("s3cret")));
        assert_eq!(identity.values("roles").collect::<Vec<_>>(), ["admin", "editor"]);
        let mut headers = HeaderMap::new();
        identity.tell(&mut headers);
        assert_eq!(headers["x-strangler-user"], "7");
        assert_eq!(headers["x-strangler-roles"], "admin,editor");
        assert!(!format!("{identity:?}{headers:?}").contains("s3cret"));
    }

    #[test]
    fn the_first_check_decides_and_the_second_adds() {
        let both = named("7", "a", "admin").and(&named("8", "b", "none"));
        assert_eq!((both.user(), both.session(), both.field("roles")), (Some("7"), Some("a"), Some("admin")));
        let app = Identity::new(None, None, []).unwrap().and(&named("8", "b", "none"));
        assert_eq!((app.user(), app.field("roles")), (Some("8"), Some("none")));
    }

    #[test]
    fn what_no_header_can_carry_is_no_identity() {
        assert_eq!(Identity::new(Some(b"7\r\nX-Admin: 1"), None, []), Err(Untellable));
        assert_eq!(Identity::new(Some(&[b'x'; 5000]), None, []), Err(Untellable));
        for padded in ["admin ", " admin", "admin\t", " "] {
            assert_eq!(Identity::new(Some(padded.as_bytes()), None, []), Err(Untellable), "{padded:?}");
        }
        assert_eq!(field_header("user"), None);
        assert_eq!(field_header("a:b"), None);
        assert_eq!(field_header("user_name").unwrap(), "x-strangler-user-name");
    }
}
