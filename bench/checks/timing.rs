//! Whether the comparison of signatures takes a time that says something: Welch's t over two classes of
//! given signatures, one equal to the right one but for its last byte, one unlike it from the first on
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?"). |t| below 4.5 says nothing leaks.
//!
//! A measurement, no test: `cargo run --release --example timing`, on a machine that does nothing else.
#![expect(clippy::print_stdout, clippy::indexing_slicing, reason = "it prints, and nobody sends it anything")]

use std::hint::black_box;
use std::time::Instant;

use strangler::protocol::algorithm::{Algorithm, Encoding, Mac, MacKey};

const SAMPLES: usize = 100_000;
/// Comparisons in one sample: one alone is shorter than the clock can tell.
const BATCH: usize = 64;

#[derive(Default)]
struct Class {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Class {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

fn main() {
    let algorithm = Algorithm::HmacSha256;
    let right = MacKey::new(algorithm, b"s3cret").mac(b"app=shop-app&nonce=n-1");
    let text = right.write(Encoding::Hex);
    let last = if text.ends_with('0') { '1' } else { '0' };
    let near = format!("{}{last}", &text[..text.len() - 1]);
    let far: String = text.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let given = [near, far].map(|text| Mac::read(text.as_bytes(), algorithm, Encoding::Hex));

    let mut samples = Vec::with_capacity(SAMPLES);
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..SAMPLES {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let class = usize::from(seed & 1 == 1);
        let mac = black_box(given[class]);
        let started = Instant::now();
        for _ in 0..BATCH {
            black_box(black_box(&right).equals(black_box(&mac)));
        }
        samples.push((class, started.elapsed().as_nanos() as f64));
    }
    // What the scheduler did is not the comparison's: the slowest tenth goes, whichever class it is of.
    let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
    sorted.sort_by(f64::total_cmp);
    let most = sorted[SAMPLES / 10 * 9];
    let mut classes = [Class::default(), Class::default()];
    for (class, nanoseconds) in samples.into_iter().filter(|sample| sample.1 <= most) {
        classes[class].add(nanoseconds / BATCH as f64);
    }
    let [near, far] = classes;
    let t = (near.mean - far.mean) / (near.variance() / near.count + far.variance() / far.count).sqrt();
    println!("near {:.3} ns, far {:.3} ns, t = {t:.2} over {SAMPLES} samples of {BATCH}", near.mean, far.mean);
    std::process::exit(i32::from(t.abs() >= 4.5));
}
