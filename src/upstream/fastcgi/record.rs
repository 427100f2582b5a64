//! FastCGI records: the bytes between the gateway and PHP-FPM.
//!
//! The lowest layer of a request to PHP: `params.rs` and `exchange.rs` write records with it, and
//! `exchange.rs` reads PHP's through [`Decoder`]. It is pure: bytes in, pieces out; no socket, no
//! clock. Payload is handed out as it comes, without a copy and without waiting for the end of a
//! record, so that what PHP flushes reaches the client at once. It does not know what a head is.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 8;
/// The most content one record can carry.
pub const MAX_CONTENT: usize = u16::MAX as usize;

const VERSION: u8 = 1;
/// FPM serves one request a connection at a time; every client of it uses 1.
const REQUEST_ID: [u8; 2] = [0, 1];

/// The kinds of record that a client of PHP-FPM sends or understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a request.
    Begin = 1,
    /// Ends the answer.
    End = 3,
    /// CGI parameters.
    Params = 4,
    /// The request's body.
    Stdin = 5,
    /// The answer: head and body.
    Stdout = 6,
    /// What PHP has to say to the log.
    Stderr = 7,
}

/// `BEGIN_REQUEST`: role responder, `KEEP_CONN`.
///
/// `KEEP_CONN` is set even when a connection serves one request only: without it
/// `fastcgi_finish_request()` closes the connection while the script runs on, and with it the
/// connection's end means that the process is free.
pub const BEGIN: [u8; 16] = [VERSION, Kind::Begin as u8, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
/// The empty PARAMS record that ends the parameters. FPM never skips padding here: there is none.
pub const END_OF_PARAMS: [u8; HEADER_BYTES] = header(Kind::Params, 0);
/// The empty STDIN record that ends the body.
pub const END_OF_STDIN: [u8; HEADER_BYTES] = header(Kind::Stdin, 0);

/// A record's header, without padding.
#[must_use]
pub const fn header(kind: Kind, content: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = content.to_be_bytes();
    [VERSION, kind as u8, REQUEST_ID[0], REQUEST_ID[1], high, low, 0, 0]
}

/// What the bytes from PHP add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the answer, never empty; not necessarily a whole record.
    Stdout(Bytes),
    /// Bytes for the log, never empty.
    Stderr(Bytes),
    /// The answer is complete.
    End(ProtocolStatus),
}

/// How the server says it fared. PHP-FPM only ever says `Complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolStatus {
    /// The request was answered.
    Complete,
    /// It does not multiplex connections; we never ask it to.
    CannotMultiplex,
    /// It has no room for the request.
    Overloaded,
    /// It is no responder.
    UnknownRole,
    /// A number the protocol does not know.
    Unknown(u8),
}

impl From<u8> for ProtocolStatus {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Complete,
            1 => Self::CannotMultiplex,
            2 => Self::Overloaded,
            3 => Self::UnknownRole,
            other => Self::Unknown(other),
        }
    }
}

/// Bytes that are not FastCGI as a responder speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.what())]
pub enum RecordFault {
    /// The version is not 1.
    Version,
    /// Another request's id.
    RequestId,
    /// A kind that a responder does not send.
    Kind,
    /// END_REQUEST that is not 8 bytes long.
    EndLength,
    /// STDOUT after its own end.
    AfterStdout,
}

impl RecordFault {
    /// The fault in words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Version => "a FastCGI record of another version than 1",
            Self::RequestId => "a FastCGI record for another request",
            Self::Kind => "a FastCGI record of a kind that is not an answer's",
            Self::EndLength => "a FastCGI END_REQUEST that is not 8 bytes long",
            Self::AfterStdout => "FastCGI STDOUT after its end",
        }
    }
}

/// Reads the records of one answer.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Where the content that is still to come goes.
    to_log: bool,
    content: usize,
    padding: usize,
    stdout_ended: bool,
}

impl Decoder {
    /// Takes the next piece off the front of `input`, or nothing when more bytes are needed.
    ///
    /// # Errors
    /// What follows in `input` is then without meaning, and so is the connection.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, RecordFault> {
        loop {
            if self.content > 0 {
                return Ok(self.take_content(input));
            }
            let skipped = self.padding.min(input.len());
            input.advance(skipped);
            self.padding -= skipped;
            let Some(&[version, kind, id_high, id_low, high, low, padding, _]) = input.first_chunk() else {
                return Ok(None);
            };
            if version != VERSION {
                return Err(RecordFault::Version);
            }
            if [id_high, id_low] != REQUEST_ID {
                return Err(RecordFault::RequestId);
            }
            let content = usize::from(u16::from_be_bytes([high, low]));
            match kind {
                _ if kind == Kind::End as u8 => return Self::take_end(input, content, usize::from(padding)),
                _ if kind == Kind::Stdout as u8 => {
                    if self.stdout_ended {
                        return Err(RecordFault::AfterStdout);
                    }
                    self.stdout_ended = content == 0;
                    self.to_log = false;
                }
                _ if kind == Kind::Stderr as u8 => self.to_log = true,
                _ => return Err(RecordFault::Kind),
            }
            input.advance(HEADER_BYTES);
            (self.content, self.padding) = (content, usize::from(padding));
        }
    }

    fn take_content(&mut self, input: &mut BytesMut) -> Option<Piece> {
        let taken = self.content.min(input.len());
        if taken == 0 {
            return None;
        }
        self.content -= taken;
        let bytes = input.split_to(taken).freeze();
        Some(if self.to_log { Piece::Stderr(bytes) } else { Piece::Stdout(bytes) })
    }

    /// END_REQUEST is taken whole, padding included: what is left in `input` then is not the answer's.
    fn take_end(input: &mut BytesMut, content: usize, padding: usize) -> Result<Option<Piece>, RecordFault> {
        if content != 8 {
            return Err(RecordFault::EndLength);
        }
        if input.len() < HEADER_BYTES + content + padding {
            return Ok(None);
        }
        // Four bytes of the script's exit code, which FPM never fills in, come first.
        let status = input.get(HEADER_BYTES + 4).copied().unwrap_or_default();
        input.advance(HEADER_BYTES + content + padding);
        Ok(Some(Piece::End(status.into())))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One record as another server might write it, with padding.
    pub(in super::super) fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let mut bytes = vec![1, kind, 0, 1, high, low, padding, 0];
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + usize::from(padding), 0xff);
        bytes
    }

    /// STDOUT, STDERR, how it ended, and how many bytes are left over.
    type Decoded = (Vec<u8>, Vec<u8>, Option<ProtocolStatus>, usize);

    fn decode_all(chunks: &[&[u8]]) -> Result<Decoded, RecordFault> {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
        let (mut out, mut log, mut end) = (Vec::new(), Vec::new(), None);
        for chunk in chunks {
            input.extend_from_slice(chunk);
            while end.is_none() {
                match decoder.decode(&mut input)? {
                    Some(Piece::Stdout(bytes)) => out.extend_from_slice(&bytes),
                    Some(Piece::Stderr(bytes)) => log.extend_from_slice(&bytes),
                    Some(Piece::End(status)) => end = Some(status),
                    None => break,
                }
            }
        }
        Ok((out, log, end, input.len()))
    }

    #[test]
    fn the_constants_are_records() {
        assert_eq!(BEGIN.to_vec(), record(1, &[0, 1, 1, 0, 0, 0, 0, 0], 0));
        assert_eq!(END_OF_PARAMS.to_vec(), record(4, b"", 0));
        assert_eq!(END_OF_STDIN.to_vec(), record(5, b"", 0));
    }

    #[test]
    fn foreign_records_are_refused() {
        let fault = |bytes: &[u8]| decode_all(&[bytes]).unwrap_err();
        assert_eq!(fault(&[2, 6, 0, 1, 0, 0, 0, 0]), RecordFault::Version);
        assert_eq!(fault(&[1, 6, 0, 2, 0, 0, 0, 0]), RecordFault::RequestId);
        assert_eq!(fault(&[1, 11, 0, 1, 0, 0, 0, 0]), RecordFault::Kind);
        assert_eq!(fault(&record(3, &[0; 9], 0)), RecordFault::EndLength);
        assert_eq!(fault(&[record(6, b"", 0), record(6, b"", 0)].concat()), RecordFault::AfterStdout);
    }

    #[test]
    fn bytes_behind_the_end_are_left_over() {
        let bytes = [record(6, b"hi", 6), record(3, &[0; 8], 0), record(6, b"?", 0)].concat();
        assert_eq!(decode_all(&[&bytes]).unwrap(), (b"hi".to_vec(), vec![], Some(ProtocolStatus::Complete), 9));
    }

    #[test]
    fn the_protocol_status_is_the_fifth_byte() {
        let bytes = record(3, &[0, 0, 0, 1, 2, 0, 0, 0], 0);
        assert_eq!(decode_all(&[&bytes]).unwrap().2, Some(ProtocolStatus::Overloaded));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_answer(
            records in prop::collection::vec((6u8..=7, prop::collection::vec(any::<u8>(), 1..300), any::<u8>()), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut bytes: Vec<u8> = records.iter().flat_map(|(kind, content, pad)| record(*kind, content, *pad)).collect();
            bytes.extend(record(3, &[0; 8], 3));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let joined = |kind| records.iter().filter(|r| r.0 == kind).flat_map(|r| r.1.clone()).collect::<Vec<u8>>();
            prop_assert_eq!(decode_all(&chunks).unwrap(), (joined(6), joined(7), Some(ProtocolStatus::Complete), 0));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&[&bytes]);
        }
    }
}
