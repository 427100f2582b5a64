//! `/api/routes`: the table in force, who serves since when, and the file that was refused.

use serde_json::{Map, Value, json};

use super::reload::{Flip, Good, Reloads};
use super::rfc3339;
use crate::route::{Condition, Place, Route, RouteTable};

/// The running table, and what became of the file's last versions.
pub(super) fn shown(table: &RouteTable, reloads: &Reloads) -> Value {
    let mut shown = json!({
        "generation": table.generation,
        "routes": table.routes.iter().map(|route| shown_route(route)).collect::<Vec<_>>(),
        "flips": flips(reloads, |_| true),
    });
    merge(&mut shown, reloads_shown(reloads));
    shown
}

/// What became of the file's last versions.
pub(super) fn reloads_shown(reloads: &Reloads) -> Value {
    let rejected = reloads.last_rejected.as_ref();
    let good = reloads.last_good.as_ref();
    let loaded = |good: &Good| {
        let hash = format!("{:016x}", good.hash);
        json!({ "when": rfc3339(good.when), "hash": hash, "warnings": good.warnings })
    };
    json!({
        "reloads": { "accepted": reloads.accepted, "rejected": reloads.rejected },
        "loaded": good.map(loaded),
        "rejected": rejected.map(|file| json!({ "when": rfc3339(file.when), "faults": file.faults })),
    })
}

/// Adds the members of one object to another.
pub(super) fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// The last changes of who serves, of those routes.
pub(super) fn flips(reloads: &Reloads, of: impl Fn(&str) -> bool) -> Vec<Value> {
    let shown = reloads.flips.iter().filter(|flip| of(&flip.route)).map(|Flip { route, from, to, when, generation }| {
        json!({ "route": route, "from": from, "to": to, "when": rfc3339(*when), "generation": generation })
    });
    shown.collect()
}

fn shown_route(route: &Route) -> Value {
    let name = |place: Option<&Place>| place.map(|place| place.target.name().to_owned());
    json!({
        "name": *route.name,
        "path": route.path(),
        "methods": route.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "host": route.host,
        "when": conditions(&route.when),
        "checks": route.checks.iter().map(|checked| checked.check.name()).collect::<Vec<_>>(),
        "legacy": name(route.legacy()),
        "new": name(route.new_side()),
        "serve": route.serve.word(),
        "since": rfc3339(route.since),
    })
}

/// As routes.toml has them: `{"header": {"accept": "…"}}`.
fn conditions(when: &[Condition]) -> Value {
    let mut kinds: Map<String, Value> = Map::new();
    for condition in when {
        let (kind, name, value) = match condition {
            Condition::Header { name, value } => ("header", name.as_str(), value),
            Condition::Query { name, value } => ("query", name.as_str(), value),
            Condition::Cookie { name, value } => ("cookie", name.as_str(), value),
        };
        if let Value::Object(of_kind) = kinds.entry(kind).or_insert_with(|| json!({})) {
            of_kind.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(kinds)
}

#[cfg(test)]
mod tests {
    use super::super::{Admin, ReloadStatus};
    use super::*;

    #[test]
    fn the_table_is_shown_with_the_file_that_was_refused() {
        let admin = Admin::for_test();
        let status = ReloadStatus::default();
        status.rejected("routes.toml:3:1: no".to_owned());
        let shown = shown(&admin.table.current(), &status.snapshot());
        assert_eq!(shown["generation"], 1);
        let route = json!({
            "name": "order", "path": "/api/v1/orders/{id}", "methods": [], "host": null, "when": {}, "checks": [],
            "legacy": "php", "new": "orders", "serve": "legacy", "since": "1970-01-01T00:00:00Z",
        });
        assert_eq!(shown["routes"], json!([route]));
        assert_eq!(
            (&shown["rejected"]["faults"], &shown["reloads"]["rejected"]),
            (&json!("routes.toml:3:1: no"), &json!(1))
        );
    }

    #[test]
    fn conditions_are_shown_as_the_file_has_them() {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (name, value) = named("beta", "1");
        let (other, yes) = named("v", "2");
        let when = [
            Condition::Header { name: ::http::header::ACCEPT, value: "text/css".to_owned() },
            Condition::Query { name, value },
            Condition::Query { name: other, value: yes },
        ];
        assert_eq!(
            conditions(&when),
            json!({ "header": { "accept": "text/css" }, "query": { "beta": "1", "v": "2" } })
        );
    }
}
