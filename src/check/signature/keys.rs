//! The keys of a check: one or two for each app, and how often each was used.
//!
//! The first key of `shop-app` has the id `shop-app`, the second `shop-app#2`. Every signature costs
//! the same number of macs, known app or not, so that time says nothing. A key whose count of uses
//! stands still is one that nobody signs with any more.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use ::http::HeaderName;

use super::algorithm::{Algorithm, Mac, MacKey};
use crate::check::Identity;
use crate::check::tally::Tally;

/// The app that signed, as both sides are told it.
const X_STRANGLER_APP: HeaderName = HeaderName::from_static("x-strangler-app");

/// Bytes that nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A key of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySettings {
    pub(crate) secret: Secret,
    /// Seconds since 1970 after which it opens nothing.
    pub(crate) not_after: Option<u64>,
}

/// Who signs, with the keys of each.
pub(crate) type Apps = BTreeMap<String, Vec<KeySettings>>;

/// How often a key was used.
#[derive(Debug, Default)]
pub(crate) struct Uses(Tally<1>);

impl Uses {
    pub(super) fn add(&self) {
        self.0.add(0, 1);
    }

    pub(crate) fn total(&self) -> u64 {
        let [total] = self.0.totals();
        total
    }
}

/// How often each key was used, by its id.
pub(crate) type KeyUses = BTreeMap<Arc<str>, Arc<Uses>>;

/// What every kind of key has.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) id: Arc<str>,
    /// Whose it is. What an app's keys sign is told apart by its nonces, whichever key it was and wherever that one
    /// stands in the file.
    pub(super) app: Arc<str>,
    /// The app, as both sides are told it; an id that no header can carry is not told.
    pub(super) identity: Option<Identity>,
    pub(super) not_after: Option<u64>,
    pub(super) uses: Arc<Uses>,
}

impl Named {
    pub(super) fn is_retired(&self, now: u64) -> bool {
        self.not_after.is_some_and(|not_after| now > not_after)
    }
}

/// Why no key opens a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyFault {
    /// There is no such app.
    Unknown,
    /// The key is no longer to be used.
    Retired,
    /// None of the app's keys made it.
    Wrong,
}

/// The id of an app's key.
pub(super) fn id(app: &str, index: usize) -> Arc<str> {
    if index == 0 { app.into() } else { format!("{app}#{}", index + 1).into() }
}

/// What was counted before, and of which keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'c> {
    pub(super) apps: &'c Apps,
    pub(super) uses: &'c KeyUses,
}

impl Counted<'_> {
    /// The uses of a key, by what it is and not by where it stands.
    fn of(&self, app: &str, key: &KeySettings) -> Option<Arc<Uses>> {
        let place = self.apps.get(app)?.iter().position(|known| known.secret == key.secret)?;
        self.uses.get(&id(app, place)).cloned()
    }
}

/// The names of all keys; uses already counted go on.
pub(super) fn named(
    app: &str,
    index: usize,
    key: &KeySettings,
    counted: Option<Counted<'_>>,
    uses: &mut KeyUses,
) -> Named {
    let id = id(app, index);
    let counter = counted.and_then(|counted| counted.of(app, key)).unwrap_or_default();
    uses.insert(Arc::clone(&id), Arc::clone(&counter));
    let identity = Identity::new(None, None, [(&X_STRANGLER_APP, app.as_bytes())]).ok();
    Named { id, app: app.into(), identity, not_after: key.not_after, uses: counter }
}

/// The keys of a scheme with shared secrets.
#[derive(Debug)]
pub(super) struct MacKeys {
    apps: HashMap<Box<[u8]>, Vec<(Named, MacKey)>>,
    /// Macs per signature: the most keys that an app has.
    width: usize,
    /// Does the work of a key that is not there.
    stand_in: MacKey,
}

impl MacKeys {
    pub(super) fn new(algorithm: Algorithm, apps: &Apps, counted: Option<Counted<'_>>, uses: &mut KeyUses) -> Self {
        let keys = |app: &String, keys: &Vec<KeySettings>, uses: &mut KeyUses| -> Vec<_> {
            let keys = keys.iter().enumerate();
            keys.map(|(at, key)| (named(app, at, key, counted, uses), MacKey::new(algorithm, key.secret.reveal())))
                .collect()
        };
        let apps: HashMap<Box<[u8]>, Vec<_>> =
            apps.iter().map(|(app, of)| (app.as_bytes().into(), keys(app, of, uses))).collect();
        let width = apps.values().map(Vec::len).max().unwrap_or(1).max(1);
        Self { apps, width, stand_in: MacKey::new(algorithm, b"nobody's") }
    }

    /// The key that made the signature.
    pub(super) fn opened_by(&self, app: &[u8], string: &[u8], given: &Mac, now: u64) -> Result<&Named, KeyFault> {
        let known = self.apps.get(app);
        let mut opened = None;
        for place in 0..self.width {
            let key = known.and_then(|keys| keys.get(place));
            let mac = key.map_or(&self.stand_in, |(_, key)| key).mac(string);
            let same = mac.equals(given);
            opened = key.filter(|_| same).map(|(named, _)| named).or(opened);
        }
        match (known, opened) {
            (None, _) => Err(KeyFault::Unknown),
            (_, None) => Err(KeyFault::Wrong),
            (_, Some(key)) if key.is_retired(now) => Err(KeyFault::Retired),
            (_, Some(key)) => Ok(key),
        }
    }

    /// Signs with the first key of an app.
    pub(super) fn sign(&self, app: &[u8], string: &[u8]) -> Option<(Mac, &Named)> {
        let (named, key) = self.apps.get(app)?.first()?;
        Some((key.mac(string), named))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::algorithm::macs_of_this_thread;
    use super::*;

    pub(crate) fn key(secret: &str, not_after: Option<u64>) -> KeySettings {
        KeySettings { secret: Secret::new(secret.as_bytes()), not_after }
    }

    fn keys(uses: &mut KeyUses) -> MacKeys {
        let apps = Apps::from([
            ("shop-app".to_owned(), vec![key("new", None), key("old", Some(1000))]),
            ("till".to_owned(), vec![key("till", None)]),
        ]);
        MacKeys::new(Algorithm::HmacSha256, &apps, None, uses)
    }

    fn mac(secret: &str) -> Mac {
        MacKey::new(Algorithm::HmacSha256, secret.as_bytes()).mac(b"string")
    }

    #[test]
    fn either_live_key_opens_and_a_retired_one_does_not() {
        let keys = keys(&mut KeyUses::new());
        let opened = |secret, now| keys.opened_by(b"shop-app", b"string", &mac(secret), now).map(|key| &*key.id);
        assert_eq!(opened("new", 2000), Ok("shop-app"));
        assert_eq!(opened("old", 1000), Ok("shop-app#2"));
        assert_eq!(opened("old", 1001), Err(KeyFault::Retired));
        assert_eq!(opened("till", 1000), Err(KeyFault::Wrong));
        assert_eq!(keys.opened_by(b"nobody", b"string", &mac("new"), 1).unwrap_err(), KeyFault::Unknown);
    }

    #[test]
    fn every_signature_costs_the_same_number_of_macs() {
        let keys = keys(&mut KeyUses::new());
        for (app, secret) in
            [("shop-app", "new"), ("shop-app", "old"), ("till", "till"), ("till", "x"), ("nobody", "x")]
        {
            let given = mac(secret);
            let before = macs_of_this_thread();
            let _ = keys.opened_by(app.as_bytes(), b"string", &given, 5000);
            assert_eq!(macs_of_this_thread() - before, 2, "{app} {secret}");
        }
    }

    #[test]
    fn uses_are_counted_by_key_wherever_it_stands() {
        let (mut uses, mut later) = (KeyUses::new(), KeyUses::new());
        let before = Apps::from([("till".to_owned(), vec![key("till", None)])]);
        let keys = MacKeys::new(Algorithm::HmacSha256, &before, None, &mut uses);
        keys.opened_by(b"till", b"string", &mac("till"), 1).unwrap().uses.add();
        let after = Apps::from([("till".to_owned(), vec![key("fresh", None), key("till", None)])]);
        let counted = Counted { apps: &before, uses: &uses };
        let keys = MacKeys::new(Algorithm::HmacSha256, &after, Some(counted), &mut later);
        keys.opened_by(b"till", b"string", &mac("till"), 1).unwrap().uses.add();
        assert_eq!(
            later.iter().map(|(id, uses)| (&**id, uses.total())).collect::<Vec<_>>(),
            [("till", 0), ("till#2", 2)]
        );
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", key("s3cret", None)), "KeySettings { secret: Secret, not_after: None }");
    }
}
