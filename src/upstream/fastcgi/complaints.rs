//! What PHP writes to STDERR: warnings, stack traces, whatever `error_log` is given.
//!
//! `exchange.rs` collects it beside the answer, and it becomes one line of the gateway's log a
//! request. Nothing in it can be trusted: it may hold a client's bytes, so control characters are
//! escaped; a loop in a script writes without end, so its size and its rate have bounds.

use http::HeaderValue;

use crate::upstream::warnings::Limit;

/// The most of one request's STDERR that is logged.
const LOGGED_BYTES: usize = 8 << 10;
/// Lines a second from one pool.
pub(super) const LINES_A_SECOND: u64 = 20;

/// One request's STDERR so far.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    text: Vec<u8>,
    /// Bytes that were thrown away.
    beyond: usize,
}

impl Complaints {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = LOGGED_BYTES - self.text.len().min(LOGGED_BYTES);
        let (kept, beyond) = bytes.split_at(room.min(bytes.len()));
        self.text.extend_from_slice(kept);
        self.beyond += beyond.len();
    }

    /// Writes it to the log, if there is any and the pool has not written too much of late.
    pub(super) fn report(&mut self, upstream: &str, request_id: &HeaderValue, limit: &Limit) {
        let (text, beyond) = (std::mem::take(&mut self.text), std::mem::take(&mut self.beyond));
        if text.is_empty() {
            return;
        }
        let Some(unsaid) = limit.admit() else { return };
        let request_id = request_id.to_str().unwrap_or_default();
        tracing::warn!(upstream, request_id, beyond, unsaid, "PHP: {}", printable(&text));
    }
}

/// The text on one line, without anything a terminal or a log reader would act on.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.trim_ascii());
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_control_characters() {
        assert_eq!(printable(b"a\n\x1b[31mb\0\xffc\r\n"), "a\\n\\u{1b}[31mb\\u{0}\u{fffd}c");
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut complaints = Complaints::default();
        for _ in 0..3 {
            complaints.push(&[b'x'; 5000]);
        }
        assert_eq!((complaints.text.len(), complaints.beyond), (LOGGED_BYTES, 15_000 - LOGGED_BYTES));
    }
}
