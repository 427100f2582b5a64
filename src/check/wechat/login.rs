//! What a login leaves in the session: who the user is at WeChat, and how long the session lives.
//!
//! All of it stands under one name, `wechat`, beside what the application keeps: for PHP it is
//! `$_SESSION['wechat']['openid']` and so on.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use crate::check::session::format::{FieldPath, Format, Unreadable, Unwritable, Value, Wanted};

/// The fields, in the order in which [`Login`] has them.
const FIELDS: [&str; 7] = ["appid", "openid", "unionid", "session_key", "created", "expires", "idle"];

static PATHS: LazyLock<Vec<FieldPath>> =
    LazyLock::new(|| FIELDS.iter().filter_map(|name| FieldPath::dotted(&format!("wechat.{name}")).ok()).collect());

static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| Wanted::new(PATHS.clone()));

/// Who a caller is at WeChat. A handler gets it of its [`Identity`](crate::Identity); it was read from the store of
/// sessions, and is in no header.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub(super) appid: Box<str>,
    pub(super) openid: Box<str>,
    pub(super) unionid: Option<Box<str>>,
    pub(super) session_key: Box<str>,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The same: when it is over however much it is used.
    pub(super) expires: u64,
    /// Seconds that it lives unused.
    pub(super) idle: u64,
}

impl Login {
    /// The mini program of the user.
    #[must_use]
    pub fn appid(&self) -> &str {
        &self.appid
    }

    /// Who the user is in this mini program.
    #[must_use]
    pub fn openid(&self) -> &str {
        &self.openid
    }

    /// Who the user is in all applications of the same owner, where WeChat says so.
    #[must_use]
    pub fn unionid(&self) -> Option<&str> {
        self.unionid.as_deref()
    }

    /// The key of the last login. Never hand it out: whoever has it can sign in WeChat's name.
    #[must_use]
    pub fn session_key(&self) -> &str {
        &self.session_key
    }

    /// How long the store is to keep it from now on; `None`: it is over.
    pub(crate) fn left(&self, now: u64) -> Option<Duration> {
        self.life(now).map(|life| life.min(Duration::from_secs(self.idle)))
    }

    /// How long it lives from now on, however much it is used; `None`: it is over.
    pub(crate) fn life(&self, now: u64) -> Option<Duration> {
        self.expires.checked_sub(now).filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// The whole session as PHP reads it. `user` is where the check looks for who it is.
    pub(crate) fn write(&self, format: Format, user: &FieldPath, id: &str) -> Result<Vec<u8>, Unwritable> {
        let text = |text: &'_ str| Value::Text(Cow::Owned(text.as_bytes().to_vec()));
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let values = [
            text(&self.appid),
            text(&self.openid),
            self.unionid.as_deref().map_or(Value::Null, text),
            text(&self.session_key),
            number(self.created),
            number(self.expires),
            number(self.idle),
        ];
        let fields: Vec<_> = std::iter::once((user, text(id))).chain(PATHS.iter().zip(values)).collect();
        format.write(&fields)
    }

    /// Finds it in a session; `None`: nobody logged in here.
    pub(crate) fn read(format: Format, session: &[u8]) -> Result<Option<Self>, Unreadable> {
        let Some(wanted) = &*WANTED else { return Ok(None) };
        let fields = format.read(session, wanted)?;
        let text = |place: usize| match fields.get(place) {
            Some(Value::Text(text)) => std::str::from_utf8(text).ok().map(Box::from),
            _ => None,
        };
        let number = |place: usize| match fields.get(place) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let whole = || {
            Some(Self {
                appid: text(0)?,
                openid: text(1)?,
                unionid: text(2),
                session_key: text(3)?,
                created: number(4)?,
                expires: number(5)?,
                idle: number(6)?,
            })
        };
        Ok(whole())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("appid", &self.appid).field("openid", &self.openid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            appid: "wx1".into(),
            openid: "o-1".into(),
            unionid: None,
            session_key: "HyVFkGl5F5OQWJZZaNzBBg==".into(),
            created: 1000,
            expires: 5000,
            idle: 60,
        }
    }

    #[test]
    fn a_login_is_read_back_in_every_format_that_can_be_written() {
        let user = FieldPath::dotted("auth.user_id").unwrap();
        for (name, format) in Format::NAMES {
            let Ok(session) = login().write(format, &user, "o-1") else {
                assert_eq!(format, Format::Igbinary);
                continue;
            };
            assert_eq!(Login::read(format, &session).unwrap(), Some(login()), "{name}");
            let found = format.read(&session, &Wanted::one(user.clone())).unwrap();
            assert_eq!(found.get(0).unwrap().as_id().as_deref(), Some("o-1"), "{name}");
        }
        assert_eq!(Login::read(Format::Php, b"user_id|i:7;"), Ok(None));
        assert!(!format!("{:?}", login()).contains("HyVF"));
    }

    #[test]
    fn use_keeps_a_session_alive_but_not_for_ever() {
        let login = login();
        assert_eq!(login.left(1000), Some(Duration::from_secs(60)));
        assert_eq!(login.left(4990), Some(Duration::from_secs(10)));
        assert_eq!(login.left(5000), None);
        assert_eq!(login.left(9999), None);
    }
}
