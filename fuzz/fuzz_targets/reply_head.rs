//! Whatever a script prints as its head: however it is cut it reads the same, and nothing that could
//! split a client's answer gets through.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strangler::protocol::reply::{MAX_HEAD, Reply, ReplyFault, ReplyParser};

fn read<'b>(chunks: impl Iterator<Item = &'b [u8]>) -> Result<Option<(Reply, Vec<u8>)>, ReplyFault> {
    let mut parser = ReplyParser::default();
    let mut whole: Option<(Reply, Vec<u8>)> = None;
    for chunk in chunks {
        match &mut whole {
            Some((_, body)) => body.extend_from_slice(chunk),
            None => whole = parser.push(Bytes::copy_from_slice(chunk))?.map(|(reply, body)| (reply, body.to_vec())),
        }
    }
    Ok(whole)
}

fuzz_target!(|input: (u16, &[u8])| {
    let (at, bytes) = input;
    let (front, back) = bytes.split_at(usize::from(at).min(bytes.len()));
    let whole = read([bytes].into_iter());
    // A head over the limit may be refused before it is whole, or once it is: both are refusals.
    if bytes.len() <= MAX_HEAD {
        assert_eq!(whole, read([front, back].into_iter()));
        assert_eq!(whole, read(bytes.chunks(1)));
    }
    if let Ok(Some((reply, _))) = whole {
        assert!((200..=599).contains(&reply.status.as_u16()));
        for (name, value) in &reply.headers {
            assert!(!matches!(
                name.as_str(),
                "status" | "connection" | "transfer-encoding" | "x-accel-redirect" | "x-sendfile"
            ));
            assert!(!value.as_bytes().iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
        }
    }
});
