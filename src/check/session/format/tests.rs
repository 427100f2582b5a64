//! PHP itself is the judge: it writes the sessions that are read here, and reads those that are written here.

use std::borrow::Cow;
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

const FORMATS: [Format; 5] = [Format::Json, Format::Php, Format::PhpSerialize, Format::PhpBinary, Format::Igbinary];

/// A session that PHP wrote, and paths that lead into it.
struct Session {
    format: Format,
    data: Vec<u8>,
    paths: Vec<FieldPath>,
    /// The same as the judge is told them.
    asked: Json,
    /// No field of it is behind a reference.
    direct: bool,
}

/// Runs a script beside this file, with this on its standard input, and gives back what it prints.
fn run_php(script: &str, arguments: &[&str], input: String) -> String {
    let script = format!("{}/src/check/session/format/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut php = Command::new("php")
        .args(["-d", "display_errors=0", "-d", "log_errors=0", &script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("php runs");
    let mut stdin = php.stdin.take().unwrap();
    let written = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = php.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} ended with {}", output.status);
    written.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What PHP says of the fields of each session: `None` when it refuses the session.
fn judge<'s>(sessions: impl IntoIterator<Item = (Format, &'s [u8], &'s Json)>) -> Vec<Option<Vec<Json>>> {
    let mut input = String::new();
    for (format, data, paths) in sessions {
        let line = json!({"format": format.to_string(), "data": BASE64.encode(data), "paths": paths});
        input.push_str(&format!("{line}\n"));
    }
    run_php("judge.php", &[], input).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn generate(seed: &str, count: &str, classes: &str) -> Vec<Session> {
    let session = |line: &str| {
        let line: Json = serde_json::from_str(line).unwrap();
        let bytes = |text: &Json| BASE64.decode(text.as_str().unwrap()).unwrap();
        let path = |keys: &Json| {
            let keys: Vec<Vec<u8>> = keys.as_array().unwrap().iter().map(bytes).collect();
            field::path_of_bytes(&keys)
        };
        Session {
            format: Format::NAMES.iter().find(|(name, _)| line["format"] == *name).unwrap().1,
            data: bytes(&line["data"]),
            paths: line["paths"].as_array().unwrap().iter().map(path).collect(),
            asked: line["paths"].clone(),
            direct: line["references"] == false,
        }
    };
    run_php("generate.php", &[seed, count, classes], String::new()).lines().map(session).collect()
}

fn told(value: Option<&Value<'_>>) -> Json {
    match value {
        None => Json::Null,
        Some(Value::Null) => json!(["null"]),
        Some(Value::Bool(truth)) => json!(["bool", truth]),
        Some(Value::Int(number)) => json!(["int", number.to_string()]),
        Some(Value::Float(number)) if number.is_nan() => json!(["float", "nan"]),
        Some(Value::Float(number)) => json!(["float", format!("{:016x}", number.to_bits())]),
        Some(Value::Text(text)) => json!(["text", BASE64.encode(text)]),
        Some(Value::List(values)) => json!(["list", values.iter().map(|value| told(Some(value))).collect::<Vec<_>>()]),
    }
}

/// Equal, but for the last bits of a float in JSON: its library's parser is fast, not exact. It also gives `-0` as a
/// float, which PHP takes for the integer.
fn same(format: Format, ours: &Json, phps: &Json) -> bool {
    let float = |json: &Json| {
        (json[0] == "float" && json[1] != "nan").then(|| u64::from_str_radix(json[1].as_str().unwrap(), 16).unwrap())
    };
    match (float(ours), float(phps)) {
        (Some(ours), Some(phps)) if format == Format::Json => ours.abs_diff(phps) <= 2,
        (Some(ours), None) if format == Format::Json && ours == (-0.0f64).to_bits() => *phps == json!(["int", "0"]),
        _ if ours[0] == "list" && phps[0] == "list" => {
            let (ours, phps) = (ours[1].as_array().unwrap(), phps[1].as_array().unwrap());
            ours.len() == phps.len() && ours.iter().zip(phps).all(|(ours, phps)| same(format, ours, phps))
        }
        _ => ours == phps,
    }
}

fn read_one<'a>(format: Format, data: &'a [u8], path: &str) -> Result<Option<Value<'a>>, Unreadable> {
    let wanted = Wanted::one(FieldPath::dotted(path).unwrap());
    format.read(data, &wanted).map(|fields| fields.get(0).cloned())
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text.as_bytes()))
}

#[test]
fn what_php_wrote_is_read_as_php_reads_it() {
    let sessions = generate("7", "300", "person,std,enum,own,keeper,storage");
    assert!(sessions.len() > 1200, "only {} sessions", sessions.len());
    let verdicts = judge(sessions.iter().map(|session| (session.format, &*session.data, &session.asked)));
    let (mut values, mut refused) = (0, 0);
    for (session, verdict) in sessions.iter().zip(verdicts) {
        let Some(verdict) = verdict else { panic!("PHP does not read its own {}", session.format) };
        for (path, phps) in session.paths.iter().zip(&verdict) {
            match session.format.read(&session.data, &Wanted::one(path.clone())) {
                _ if phps[0] == "more" => {}
                Ok(fields) => {
                    let ours = told(fields.get(0));
                    assert!(
                        same(session.format, &ours, phps),
                        "{}: {path:?}: {ours} but {phps} in {}",
                        session.format,
                        session.data.escape_ascii()
                    );
                    values += 1;
                }
                Err(why) => {
                    assert!(
                        !session.direct || why.reason().contains("past an object"),
                        "{}: {path:?}: {why}: {}",
                        session.format,
                        session.data.escape_ascii()
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(values > 10_000 && refused < values / 4, "{values} values, {refused} refused");
}

#[test]
fn of_damaged_sessions_none_is_accepted_that_php_refuses() {
    let sessions = generate("11", "120", "person,std");
    let mut random = fastrand::Rng::with_seed(5);
    let damaged: Vec<(&Session, Vec<u8>)> = (0..20_000)
        .map(|_| {
            let session = random.choice(&sessions).unwrap();
            (session, damage(&session.data, &sessions, &mut random))
        })
        .collect();
    let verdicts = judge(damaged.iter().map(|(session, data)| (session.format, &**data, &session.asked)));
    let (mut accepted, mut refused) = (0, 0);
    for ((session, data), verdict) in damaged.iter().zip(verdicts) {
        let all = Wanted::new(session.paths.clone()).unwrap();
        let first = Wanted::new(session.paths[..3].to_vec()).unwrap();
        let Ok(fields) = session.format.read(data, &all).or_else(|_| session.format.read(data, &first)) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let shown = || format!("{}: {}", session.format, data.escape_ascii());
        let Some(verdict) = verdict else { panic!("accepted, but PHP refuses {}", shown()) };
        for (at, (ours, phps)) in fields.iter().zip(&verdict).enumerate() {
            let ours = told(ours);
            assert!(same(session.format, &ours, phps), "{:?}: {ours} but {phps} in {}", session.paths[at], shown());
        }
    }
    assert!(accepted > 1000 && refused > 5000, "{accepted} accepted, {refused} refused");
}

/// One to three small accidents.
fn damage(data: &[u8], others: &[Session], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..random.usize(1..=3) {
        let at = random.usize(..data.len().max(1));
        match random.u8(..8) {
            _ if data.is_empty() => {}
            0 => data.truncate(at),
            1 => data[at] ^= 1 << random.u8(..8),
            2 => data[at] = random.u8(..),
            3 => data[at] = *random.choice(b"0123456789:;{}\"|!-+.sSiadbNOrREC").unwrap(),
            4 => {
                data.remove(at);
            }
            5 => data.insert(at, *random.choice(b"0123456789:;{}\"|!-+").unwrap()),
            6 => {
                let end = (at + random.usize(..24)).min(data.len());
                let piece = data[at..end].to_vec();
                let to = random.usize(..data.len());
                data.splice(to..to, piece);
            }
            _ => {
                let other = &random.choice(others).unwrap().data;
                let from = random.usize(..other.len());
                let end = (from + random.usize(..24)).min(other.len());
                data.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    data
}

#[test]
fn what_is_written_php_reads() {
    let paths =
        ["user_id", "auth.name", "auth.admin", "auth.since", "auth.0", "nothing", "big", "low", "roles", "wide.7.x"];
    let paths: Vec<FieldPath> = paths.iter().map(|path| FieldPath::dotted(path).unwrap()).collect();
    let roles = Value::List(vec![text("admin"), Value::Int(7), Value::Null]);
    let values = [
        Value::Int(-42),
        text("用户 \"q\"; } \\ | !"),
        Value::Bool(true),
        Value::Float(0.1),
        Value::Bool(false),
        Value::Null,
        Value::Float(1e25),
        Value::Int(i64::MIN),
        roles,
        text(""),
    ];
    let fields: Vec<(&FieldPath, Value<'_>)> = paths.iter().zip(values.clone()).collect();
    let asked: Vec<Vec<String>> =
        ["user_id", "auth.name", "auth.admin", "auth.since", "auth.0", "nothing", "big", "low", "roles", "wide.7.x"]
            .iter()
            .map(|path| path.split('.').map(|key| BASE64.encode(key)).collect())
            .collect();
    let asked = json!(asked);
    let written: Vec<(Format, Vec<u8>)> =
        FORMATS[..4].iter().map(|format| (*format, format.write(&fields).unwrap())).collect();
    let verdicts = judge(written.iter().map(|(format, data)| (*format, &**data, &asked)));
    for ((format, data), verdict) in written.iter().zip(verdicts) {
        let expected: Vec<Json> = values.iter().map(|value| told(Some(value))).collect();
        assert_eq!(verdict.unwrap(), expected, "{format}");
        let back = format.read(data, &Wanted::new(paths.clone()).unwrap()).unwrap();
        assert_eq!(back.iter().map(|value| value.cloned().unwrap()).collect::<Vec<_>>(), values, "{format}");
    }
}

#[test]
fn what_a_format_cannot_hold_is_not_written() {
    let write = |format: Format, path: &str, value| format.write(&[(&FieldPath::dotted(path).unwrap(), value)]).is_ok();
    assert!(!write(Format::Igbinary, "user", Value::Int(1)));
    assert!(!write(Format::Php, "a|b", Value::Int(1)));
    assert!(!write(Format::Php, "!a", Value::Int(1)));
    assert!(!write(Format::Php, "7", Value::Int(1)));
    assert!(write(Format::PhpSerialize, "7", Value::Int(1)));
    assert!(!write(Format::PhpBinary, &"k".repeat(128), Value::Int(1)));
    assert!(!write(Format::Json, "a", Value::Float(f64::NAN)));
    assert!(!write(Format::Json, "a", Value::Text(Cow::Borrowed(b"\xff"))));
    let (inner, outer) = (FieldPath::dotted("a.b").unwrap(), FieldPath::dotted("a").unwrap());
    for pair in [[&inner, &outer], [&outer, &inner], [&outer, &outer]] {
        assert!(Format::Php.write(&pair.map(|path| (path, Value::Null))).is_err());
    }
}

#[test]
fn an_empty_session_has_no_fields() {
    for format in FORMATS {
        assert_eq!(read_one(format, b"", "user_id"), Ok(None));
    }
    assert_eq!(read_one(Format::Json, b"[]", "user_id"), Ok(None));
    assert_eq!(Format::Php.write(&[]).unwrap(), b"");
    assert_eq!(Format::PhpSerialize.write(&[]).unwrap(), b"a:0:{}");
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    assert_eq!(read_one(Format::Php, b"u|i:1;u|i:2;", "u"), Ok(Some(Value::Int(2))));
    assert_eq!(read_one(Format::Json, br#"{"u":1,"u":2}"#, "u"), Ok(Some(Value::Int(2))));
    assert_eq!(read_one(Format::Php, b"a|a:1:{s:1:\"u\";i:1;}a|a:0:{}", "a.u"), Ok(None));
    assert_eq!(read_one(Format::PhpSerialize, b"a:2:{s:1:\"7\";i:1;i:7;i:2;}", "7"), Ok(Some(Value::Int(2))));
    let list = Value::List(vec![text("b"), text("c")]);
    assert_eq!(read_one(Format::Php, b"r|a:3:{i:0;s:1:\"a\";i:1;s:1:\"c\";i:0;s:1:\"b\";}", "r"), Ok(Some(list)));
}

#[test]
fn a_variable_that_no_script_can_name_is_not_found() {
    assert_eq!(read_one(Format::Php, b"7|i:1;", "7"), Ok(None));
    assert_eq!(read_one(Format::Igbinary, b"\0\0\0\x02\x14\x01\x11\x017\x06\x01", "7"), Ok(None));
    assert_eq!(read_one(Format::Igbinary, b"\0\0\0\x02\x14\x01\x06\x07\x06\x01", "7"), Ok(Some(Value::Int(1))));
}

#[test]
fn a_field_behind_a_reference_is_left_to_php() {
    let behind = Err(Unreadable("a wanted field is behind a reference"));
    let data = b"u|i:5;v|R:1;o|O:8:\"stdClass\":1:{s:1:\"u\";i:6;}p|r:2;";
    assert_eq!(read_one(Format::Php, data, "u"), Ok(Some(Value::Int(5))));
    assert_eq!(read_one(Format::Php, data, "o.u"), Ok(Some(Value::Int(6))));
    assert_eq!(read_one(Format::Php, data, "v"), behind);
    assert_eq!(read_one(Format::Php, data, "p.u"), behind);
    let nowhere = Err(Unreadable("a reference leads nowhere"));
    assert_eq!(read_one(Format::Php, b"u|i:5;v|R:2;", "u"), nowhere);
    assert_eq!(read_one(Format::Php, b"u|i:5;v|r:1;", "u"), nowhere, "only objects are shared by r:");
}

#[test]
fn properties_are_found_whoever_may_see_them() {
    let object = b"p|O:6:\"Person\":3:{s:2:\"id\";i:1;s:7:\"\0*\0name\";s:3:\"Ann\";s:13:\"\0Person\0roles\";a:1:{i:0;s:5:\"admin\";}}";
    assert_eq!(read_one(Format::Php, object, "p.id"), Ok(Some(Value::Int(1))));
    assert_eq!(read_one(Format::Php, object, "p.name"), Ok(Some(text("Ann"))));
    assert_eq!(read_one(Format::Php, object, "p.roles"), Ok(Some(Value::List(vec![text("admin")]))));
    assert_eq!(read_one(Format::Php, object, "p"), Err(Unreadable("a wanted field is an object")));
    let twice = b"p|O:1:\"B\":2:{s:5:\"\0A\0id\";i:1;s:5:\"\0B\0id\";i:2;}";
    assert_eq!(read_one(Format::Php, twice, "p.id"), Err(Unreadable("an object has two properties of one name")));
}

#[test]
fn bounds_hold() {
    let nested = |depth: usize| format!("u|i:1;d|{}N;{}", "a:1:{i:0;".repeat(depth), "}".repeat(depth)).into_bytes();
    // The session itself is the first of the 64.
    assert_eq!(read_one(Format::Php, &nested(MAX_DEPTH - 1), "u"), Ok(Some(Value::Int(1))));
    assert_eq!(read_one(Format::Php, &nested(MAX_DEPTH), "u"), Err(Unreadable("it is nested more than 64 deep")));
    let nested = |depth: usize| [b"\0\0\0\x02".to_vec(), b"\x14\x01\x06\x00".repeat(depth), vec![0]].concat();
    assert_eq!(read_one(Format::Igbinary, &nested(MAX_DEPTH), "u"), Ok(None));
    assert_eq!(
        read_one(Format::Igbinary, &nested(MAX_DEPTH + 1), "u"),
        Err(Unreadable("it is nested more than 64 deep"))
    );
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    assert_eq!(read_one(Format::Json, &nested(MAX_DEPTH), "u"), Ok(None));
    assert_eq!(read_one(Format::Json, &nested(MAX_DEPTH + 1), "u"), Err(Unreadable("it is nested more than 64 deep")));
    assert!(read_one(Format::Json, &nested(100_000), "u").is_err());
    let many = format!("a:100001:{{{}}}", "i:0;N;".repeat(100_001)).into_bytes();
    assert_eq!(read_one(Format::PhpSerialize, &many, "u"), Err(Unreadable("it has more than 100,000 elements")));
    let list = format!("[{}0]", "0,".repeat(MAX_LIST)).into_bytes();
    let list = [b"{\"u\":".as_slice(), &list, b"}"].concat();
    assert_eq!(read_one(Format::Json, &list, "u"), Err(Unreadable("a wanted list has more than 256 elements")));
    assert_eq!(read_one(Format::Php, &vec![b'|'; MAX_BYTES + 1], "u"), Err(Unreadable("it is larger than 1 MiB")));
}

#[test]
fn however_deep_a_session_is_nested_no_reader_goes_after_it() {
    const DEPTH: usize = 100_000;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(DEPTH), close.repeat(DEPTH));
    let arrays = nested("a:1:{i:0;", "}");
    let objects = nested("O:1:\"A\":1:{s:1:\"a\";", "}");
    let igbinary = |open: &[u8]| [b"\0\0\0\x02", &*open.repeat(DEPTH), b"\0"].concat();
    let sessions: [(Format, Vec<u8>); 11] = [
        (Format::Json, nested("[", "]").into()),
        (Format::Json, nested("{\"u\":", "}").into()),
        (Format::Json, "[".repeat(DEPTH).into()),
        (Format::Php, format!("u|{arrays}").into()),
        (Format::Php, format!("u|{}", "a:1:{i:0;".repeat(DEPTH)).into()),
        (Format::Php, format!("u|{}", objects.get(..MAX_BYTES - 2).unwrap()).into()),
        (Format::PhpSerialize, arrays.clone().into()),
        (Format::PhpSerialize, format!("a:1:{{s:1:\"u\";{}", objects.get(..MAX_BYTES - 20).unwrap()).into()),
        (Format::PhpBinary, format!("\x01u{arrays}").into()),
        (Format::Igbinary, igbinary(b"\x14\x01\x06\x00")),
        (Format::Igbinary, igbinary(b"\x14\x01\x11\x01u")),
    ];
    // A stack on which a reader that went down with the data would not come far.
    let reader = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
        for (format, data) in &sessions {
            for path in ["x", "u.x", "0.x", "u.u.u.x", "u.0.0.x"] {
                let read = read_one(*format, data, path);
                let why = read.expect_err("it is too deep").reason();
                assert!(why.contains("deep"), "{format}, {} bytes: {why}", data.len());
            }
        }
    });
    reader.unwrap().join().unwrap();
}

#[test]
fn what_only_some_versions_of_php_read_is_left_to_them() {
    assert!(read_one(Format::Php, b"!a|u|i:1;", "u").is_err());
    assert!(read_one(Format::PhpBinary, b"\x81ai:1;", "a").is_err());
    assert!(read_one(Format::Php, b"u|i:+1;", "u").is_err());
    assert!(read_one(Format::Php, b"u|i:9223372036854775808;", "u").is_err());
    assert!(read_one(Format::Php, b"u|i:1;rest", "u").is_err());
    assert!(read_one(Format::PhpSerialize, b"a:0:{}rest", "u").is_err());
    assert!(read_one(Format::PhpSerialize, b"O:1:\"A\":0:{}", "u").is_err());
    assert!(read_one(Format::PhpSerialize, b"i:1;", "u").is_err());
    let asked = json!([[BASE64.encode("u")]]);
    assert_eq!(judge([(Format::PhpSerialize, &b"i:1;"[..], &asked)]), [None], "the judge outlives it");
    assert!(read_one(Format::Json, b"1", "u").is_err());
}

#[test]
fn only_texts_and_integers_say_who_somebody_is() {
    assert_eq!(Value::Int(7).as_id().as_deref(), Some("7"));
    assert_eq!(text("ann").as_id().as_deref(), Some("ann"));
    for nobody in [
        text(""),
        text("0"),
        Value::Int(0),
        Value::Null,
        Value::Bool(true),
        Value::Float(1.0),
        Value::List(vec![]),
        Value::Text(Cow::Borrowed(b"\xff")),
    ] {
        assert_eq!(nobody.as_id(), None);
    }
}

#[test]
fn a_path_has_no_empty_key() {
    assert_eq!(FieldPath::dotted(""), Err(PathFault::EmptyKey));
    assert_eq!(FieldPath::dotted("a..b"), Err(PathFault::EmptyKey));
    assert_eq!(FieldPath::dotted(&"a.".repeat(16)), Err(PathFault::TooDeep));
    assert_eq!(format!("{:?}", FieldPath::dotted("auth.7.id").unwrap()), "auth.7.id");
}

#[test]
fn debug_tells_nothing_of_a_text() {
    let fields = Format::Php.read(b"u|s:6:\"secret\";", &Wanted::one(FieldPath::dotted("u").unwrap())).unwrap();
    assert!(!format!("{fields:?}").contains("secret"), "{fields:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for format in FORMATS {
            let _ = read_one(format, &bytes, "a.b");
        }
        let _ = read_one(Format::Igbinary, &[b"\0\0\0\x02\x14", &*bytes].concat(), "a.b");
    }

    #[test]
    fn no_text_of_its_grammar_makes_a_reader_panic(bytes in "(a\\|)?([abdisSOCErRN]:?-?[0-9]{0,4}[:;]?[\"{}]{0,2}[a-z.]{0,3};?){0,30}") {
        for format in [Format::Php, Format::PhpSerialize] {
            let _ = read_one(format, bytes.as_bytes(), "a.b");
        }
    }
}
