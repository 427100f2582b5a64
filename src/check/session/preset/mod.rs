//! What frameworks make of sessions: their cookies, their keys, the layers around their data.
//!
//! Pure, as the formats are: keys, bytes and the time come in, and what is found goes out. Whoever calls knows the
//! store. A cookie's value is given as PHP has it, that is, urldecoded.

pub(crate) mod laravel;
pub(crate) mod symfony;
pub(crate) mod wordpress;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::format::{Fields, Format, Unreadable, Value, Wanted};
use super::{is_id_of_php, is_token};

/// Whose sessions they are: which session a token names, and whom the bytes of a session mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Application {
    /// One that keeps its fields itself, in `$_SESSION` or in JSON.
    Plain(Format),
    Laravel(laravel::Laravel),
    Symfony(symfony::Symfony),
    WordPress(wordpress::WordPress),
}

impl Application {
    /// The id of the session that a token names; `None`: the application would begin a new one.
    pub(super) fn id<'t>(&self, token: Cow<'t, str>) -> Option<Cow<'t, str>> {
        match self {
            Self::Plain(Format::Json) => Some(token).filter(|token| is_token(token)),
            Self::Plain(_) | Self::Symfony(_) => Some(token).filter(|token| is_id_of_php(token)),
            Self::Laravel(laravel) => laravel.session_id(&token).map(Cow::Owned),
            // The cookie itself: whom it is about is proved by all of it.
            Self::WordPress(_) => Some(token).filter(|token| wordpress::LoginCookie::is_one(token)),
        }
    }

    /// What a session of this id is found by in its store.
    pub(super) fn key<'i>(&self, id: &'i str) -> &'i str {
        match self {
            Self::WordPress(wordpress) => wordpress.login(id),
            Self::Plain(_) | Self::Laravel(_) | Self::Symfony(_) => id,
        }
    }

    /// What both sides are told of the session.
    pub(super) fn told<'i>(&self, id: &'i str) -> Cow<'i, str> {
        match self {
            Self::WordPress(wordpress) => Cow::Owned(wordpress.session(id)),
            Self::Plain(_) | Self::Laravel(_) | Self::Symfony(_) => Cow::Borrowed(id),
        }
    }

    /// Why nobody is logged in by what the store has under a key; `None`: nothing is to be said against it. `now` is
    /// in seconds since 1970.
    pub(super) fn objection(&self, id: &str, stored: &[u8], now: i64) -> Result<Option<&'static str>, Unreadable> {
        match self {
            Self::WordPress(wordpress) => wordpress.objection(id, stored, now),
            Self::Plain(_) | Self::Laravel(_) | Self::Symfony(_) => Ok(None),
        }
    }

    /// The wanted fields of a session as its store has it.
    pub(super) fn read<'a>(&self, stored: &'a [u8], wanted: &Wanted) -> Result<Fields<'a>, Unreadable> {
        match self {
            Self::Plain(format) => format.read(stored, wanted),
            Self::Symfony(symfony) => symfony.format.read(stored, wanted),
            Self::Laravel(laravel) => laravel.read(stored, wanted),
            Self::WordPress(_) => wordpress::WordPress::read(stored, wanted),
        }
    }

    /// Who is logged in, as the user's field of the session says.
    pub(super) fn user(&self, field: Option<&Value<'_>>) -> Result<Option<String>, Unreadable> {
        let user = |field: &Value<'_>| field.as_id().map(Cow::into_owned);
        match (self, field) {
            (Self::Symfony(symfony), Some(token)) => Ok(symfony.user(token)?.as_ref().and_then(user)),
            (_, field) => Ok(field.and_then(user)),
        }
    }

    /// The cookie with which the application itself logs somebody in who has no session.
    pub(super) fn remembering(&self) -> Option<&str> {
        match self {
            Self::Plain(_) | Self::WordPress(_) => None,
            Self::Laravel(laravel) => Some(&laravel.remembering),
            Self::Symfony(_) => Some(symfony::REMEMBERING),
        }
    }

    /// The format in which a login can begin a session; a framework begins its own itself.
    pub(crate) fn writes(&self) -> Option<Format> {
        match self {
            Self::Plain(format) => Some(*format).filter(|format| *format != Format::Igbinary),
            Self::Laravel(_) | Self::Symfony(_) | Self::WordPress(_) => None,
        }
    }
}
