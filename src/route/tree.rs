//! The paths of one host as a tree of segments, and the routes of each path by rank.
//!
//! A walk visits the shapes of paths that match a request from the most to the least specific, and
//! goes on for as long as none of the routes met serves the request. So a route for `GET /a/{id}`
//! leaves `POST /a/1` to `/{*rest}`. (The routers there are give one match only, and refuse `/{x}`
//! beside `/{*rest}`, the very table a migration begins with.) A node is visited at most once a walk,
//! and a path without the table's segments ends it early.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::Method;

use super::pattern::{Pattern, Segment, split_segment};
use super::{Asked, Route};

/// What may follow a path's beginning.
#[derive(Debug, Default)]
pub(super) struct Tree {
    // Not by hash: a comparison or two find a segment sooner than a hash that no client can attack is made.
    fixed: BTreeMap<Box<str>, Self>,
    one: Option<Box<Self>>,
    rest: Shape,
    here: Shape,
}

impl Tree {
    /// The place of all routes with a pattern of this shape.
    pub(super) fn shape(&mut self, pattern: &Pattern) -> &mut Shape {
        let mut tree = self;
        for segment in pattern.segments() {
            tree = match segment {
                Segment::Fixed(text) => tree.fixed.entry(text.clone()).or_default(),
                Segment::One(_) => tree.one.get_or_insert_default(),
                Segment::Rest(_) => return &mut tree.rest,
            };
        }
        &mut tree.here
    }

    /// Shows `visit` every shape that a canonical path matches, the most specific first, until it finds
    /// what it looks for.
    pub(super) fn walk<'t, T>(&'t self, path: &str, visit: &mut impl FnMut(&'t Shape) -> Option<T>) -> Option<T> {
        self.walk_on(path.strip_prefix('/'), visit)
    }

    /// `left` is what stands behind the last slash passed; `None` at the path's end.
    fn walk_on<'t, T>(&'t self, left: Option<&str>, visit: &mut impl FnMut(&'t Shape) -> Option<T>) -> Option<T> {
        let Some(left) = left else { return visit(&self.here) };
        let (segment, behind) = split_segment(left);
        if let Some(found) = self.fixed.get(segment).and_then(|tree| tree.walk_on(behind, visit)) {
            return Some(found);
        }
        if let Some(tree) = &self.one
            && !segment.is_empty()
            && let Some(found) = tree.walk_on(behind, visit)
        {
            return Some(found);
        }
        visit(&self.rest)
    }
}

/// All routes of one host whose patterns match the same paths, in the order in which they win.
#[derive(Debug, Default)]
pub(super) struct Shape {
    listed: Vec<Ranked>,
    any: Vec<Ranked>,
}

/// A route, and where it stood in the list the table was built from.
#[derive(Debug)]
struct Ranked {
    index: usize,
    route: Arc<Route>,
}

impl Shape {
    /// Takes a route in; gives back the index of a route that it cannot be told from, if there is one.
    pub(super) fn add(&mut self, index: usize, route: &Arc<Route>) -> Option<usize> {
        let rank = if route.methods.is_empty() { &mut self.any } else { &mut self.listed };
        // The name settles the order of routes that exclude each other, so that it is always the same.
        let key = |route: &Route| (Reverse(route.when.len()), route.name.clone());
        let tied = rank.iter().filter(|other| indistinct(&other.route, route)).map(|other| other.index).min();
        let place = rank.partition_point(|other| key(&other.route) < key(route));
        rank.insert(place, Ranked { index, route: route.clone() });
        tied
    }

    /// The route that serves the request, if one of these does.
    pub(super) fn best(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        let meets = |ranked: &&Ranked| ranked.route.unmet(asked).is_none();
        let listing = |method| self.listed.iter().filter(|ranked| ranked.route.lists(method)).find(meets);
        listing(asked.method)
            .or_else(|| if asked.method == Method::HEAD { listing(&Method::GET) } else { None })
            .or_else(|| self.any.iter().find(meets))
            .map(|ranked| &ranked.route)
    }

    /// The methods with which the request would have been served by one of these.
    pub(super) fn allowed(&self, asked: &Asked<'_>) -> impl Iterator<Item = &Method> {
        self.listed.iter().filter(|ranked| ranked.route.unmet(asked).is_none()).flat_map(|ranked| &ranked.route.methods)
    }
}

/// Whether a request could match both of two routes of one rank and one shape, and nothing decides.
fn indistinct(one: &Route, other: &Route) -> bool {
    let methods_overlap = one.methods.is_empty() || one.methods.iter().any(|method| other.lists(method));
    let excluded = || one.when.iter().any(|condition| other.when.iter().any(|unlike| condition.excludes(unlike)));
    one.when.len() == other.when.len() && methods_overlap && !excluded()
}
