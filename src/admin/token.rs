//! The secret that lets an operator change something, and read from another machine.
//!
//! It is compared in constant time and never shown but where the gateway says that it serves. Who
//! has to have it is [`super::guard`]'s to say.

use std::fmt;
use std::io;

use subtle::ConstantTimeEq as _;

/// The admin port's token.
#[derive(Clone)]
pub(crate) struct Token(Box<str>);

impl Token {
    /// Fewer characters than this can be guessed.
    pub(crate) const SHORTEST: usize = 16;

    /// One that the operator chose; `None`: it is too short, or no header could carry it.
    pub(crate) fn chosen(text: &str) -> Option<Self> {
        (text.len() >= Self::SHORTEST && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// One that lives as long as the process: 128 bits of the system's randomness.
    ///
    /// # Errors
    /// The system has none.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(format!("{:032x}", u128::from_le_bytes(bytes)).into()))
    }

    /// Whether this is it.
    pub(super) fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }

    /// The secret itself, to be told to who started the gateway and to nobody else.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Token {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_made_here_is_long_never_the_same_and_never_shown() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(one.reveal().len(), 32);
        assert_ne!(one, other);
        assert!(one.is(one.reveal().as_bytes()) && !one.is(b"") && !one.is(&one.reveal().as_bytes()[1..]));
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[test]
    fn a_token_that_is_short_or_that_no_header_carries_is_not_taken() {
        assert!(Token::chosen("0123456789abcdef").is_some());
        for text in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdéf"] {
            assert!(Token::chosen(text).is_none(), "{text}");
        }
    }
}
