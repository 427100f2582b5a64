//! Symfony: who is logged in, as the firewall's token in a native PHP session says.
//!
//! `_security_<firewall>`, an attribute like the application's own, holds `serialize($token)` as a text. A token writes
//! itself as a list of what its class adds and, last, what all tokens have: the user, a flag, nothing, attributes,
//! roles. Some classes add the firewall's name alone, most something before it, so the user is looked for at the two
//! places where it can be. The user is an object of the application: the property that identifies it is configured.
//! `_sf2_attributes` holds all attributes.

use crate::check::session::format::{FieldPath, Format, PathFault, Unreadable, Value, Wanted, php};

/// The cookie of the authenticator `remember_me`, unless the application calls it otherwise.
pub(super) const REMEMBERING: &str = "REMEMBERME";

/// An application of Symfony's, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symfony {
    /// PHP's `session.serialize_handler`.
    pub(crate) format: Format,
    /// The property of its users that identifies one.
    pub(crate) property: String,
}

/// Where the session keeps the token of a firewall.
pub(crate) fn token_path(firewall: &str) -> FieldPath {
    FieldPath::of(&["_sf2_attributes", &format!("_security_{firewall}")])
}

/// Where the session keeps what the application put there under a name.
pub(crate) fn attribute_path(path: &str) -> Result<FieldPath, PathFault> {
    FieldPath::dotted(&format!("_sf2_attributes.{path}"))
}

impl Symfony {
    /// What identifies the user of a token: its property.
    ///
    /// # Errors
    /// The token is not understood. One without a user, or whose user has no such property, is no error and no user.
    pub(super) fn user(&self, token: &Value<'_>) -> Result<Option<Value<'static>>, Unreadable> {
        let token = match token {
            Value::Text(token) if token.starts_with(b"O:") => token,
            _ => return Err(Unreadable("it is not a token")),
        };
        let places = ["2", "1"].map(|at| FieldPath::of(&[at, "0", &self.property]));
        let wanted = Wanted::new(places.into()).ok_or(Unreadable("there are too many fields"))?;
        let fields = php::unserialize(token, &wanted)?;
        match (fields.get(0), fields.get(1)) {
            (Some(_), Some(_)) => Err(Unreadable("a token has two users")),
            (user, None) | (None, user) => Ok(user.cloned().map(Value::into_owned)),
        }
    }
}
