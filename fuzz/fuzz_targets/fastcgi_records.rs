//! Whatever PHP-FPM's socket gives: it adds up to the same answer however the bytes are cut, and a
//! fault stays a fault.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use strangler::protocol::record::{Decoder, Piece, RecordFault};

/// What an answer comes to: how pieces are cut says nothing.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ends: Vec<Piece>,
    fault: Option<RecordFault>,
}

fn read(chunks: &[&[u8]]) -> Sum {
    let (mut decoder, mut buffer, mut sum) = (Decoder::default(), BytesMut::new(), Sum::default());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Piece::Stdout(bytes))) => sum.stdout.extend_from_slice(&bytes),
                Ok(Some(Piece::Stderr(bytes))) => sum.stderr.extend_from_slice(&bytes),
                Ok(Some(end)) => {
                    sum.ends.push(end);
                    return sum;
                }
                Err(fault) => {
                    sum.fault = Some(fault);
                    return sum;
                }
            }
        }
    }
    sum
}

fuzz_target!(|input: (u16, &[u8])| {
    let (at, bytes) = input;
    let (front, back) = bytes.split_at(usize::from(at).min(bytes.len()));
    let whole = read(&[bytes]);
    assert!(whole.stdout.len() + whole.stderr.len() <= bytes.len());
    assert_eq!(whole, read(&[front, back]));
    if bytes.len() <= 512 {
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(whole, read(&single));
    }
});
