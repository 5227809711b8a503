//! Which module of a crate needs which, and the circles in that.
//!
//! A module needs the one that *defines* what it names: what a module hands on (`use`) belongs to
//! where it comes from, so a parent that only re-exports its children needs none of them. A parent
//! that uses a child in code of its own does need it, and then the child may not need the parent.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{ModPath, Sources};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A module of this crate itself.
    Module(ModPath),
    /// An item that is defined in this module.
    In(ModPath),
    /// A path into another crate.
    Outside(Vec<String>),
    /// Something local: a variable, a type parameter, what the prelude has.
    Unknown,
}

/// Hops over `use` that are followed.
const HOPS: usize = 16;

/// Where `path`, written in `module`, leads.
pub(super) fn resolve(sources: &Sources, module: &[String], path: &[String]) -> Target {
    start(sources, module, path, HOPS)
}

fn start(sources: &Sources, module: &[String], path: &[String], hops: usize) -> Target {
    let [first, rest @ ..] = path else { return Target::Module(module.to_vec()) };
    match first.as_str() {
        "crate" => walk(sources, &[], rest, hops),
        "self" => walk(sources, module, rest, hops),
        "super" => match module {
            [up @ .., _] => match rest.first().is_some_and(|next| next == "super") {
                true => start(sources, up, rest, hops),
                false => walk(sources, up, rest, hops),
            },
            [] => Target::Unknown,
        },
        _ => match walk(sources, module, path, hops) {
            // No item of this crate begins so, so it is the name of a crate, or a local one.
            Target::Unknown if rest.is_empty() => Target::Unknown,
            Target::Unknown => Target::Outside(path.to_vec()),
            found => found,
        },
    }
}

/// Where `path` leads from `module` on.
fn walk(sources: &Sources, module: &[String], path: &[String], hops: usize) -> Target {
    let [first, rest @ ..] = path else { return Target::Module(module.to_vec()) };
    let below = [module, std::slice::from_ref(first)].concat();
    let Some(known) = sources.modules.get(module) else { return Target::Unknown };
    let import = known.uses.iter().find(|import| import.name.as_ref() == Some(first));
    // At the end of a path an item that is called as a module is the one that is meant.
    let is_item = rest.is_empty() && (known.items.contains(first) || import.is_some());
    if !is_item && sources.modules.contains_key(&below) {
        return walk(sources, &below, rest, hops);
    }
    if known.items.contains(first) {
        return Target::In(module.to_vec());
    }
    let Some(hops) = hops.checked_sub(1) else { return Target::Unknown };
    if let Some(import) = import {
        // `use serde;` and the like lead nowhere but to themselves.
        if import.from.path.first() == Some(first) && import.from.path.len() == 1 {
            return Target::Outside([import.from.path.as_slice(), rest].concat());
        }
        return start(sources, module, &[import.from.path.as_slice(), rest].concat(), hops);
    }
    // Of another module only those that it hands on, which also bounds the search.
    let own = hops + 1 == HOPS;
    let globs = known.uses.iter().filter(|import| import.name.is_none());
    for glob in globs.filter(|glob| own || glob.handed_on) {
        if let Target::Module(there) = start(sources, module, &glob.from.path, hops)
            && there != module
        {
            match walk(sources, &there, path, hops) {
                Target::Unknown => {}
                found => return found,
            }
        }
    }
    Target::Unknown
}

/// For each module those that it needs, and where it says so.
pub(super) type Needs = BTreeMap<ModPath, BTreeMap<ModPath, String>>;

/// Who needs whom in a crate.
pub(super) fn needs(sources: &Sources) -> Needs {
    let mut needs = Needs::new();
    for (at, module) in &sources.modules {
        let mine = needs.entry(at.clone()).or_default();
        let mut need = |path: &[String], line: usize| {
            let Target::In(there) = resolve(sources, at, path) else { return };
            if there != *at {
                let place = format!("{}:{line}", module.file.display());
                mine.entry(there).or_insert(place);
            }
        };
        module.paths.iter().for_each(|(path, line)| need(path, *line));
        // An import that is not handed on is used, or the compiler warns.
        let own = module.uses.iter().filter(|import| !import.handed_on && import.name.is_some());
        own.for_each(|import| need(&import.from.path, import.from.line));
    }
    needs
}

/// The circles: modules each of which needs, over others, itself. Sorted; each with its shortest
/// way around, as places.
pub(super) fn circles(needs: &Needs) -> Vec<(BTreeSet<ModPath>, Vec<String>)> {
    let reach: BTreeMap<&ModPath, BTreeSet<&ModPath>> =
        needs.keys().map(|from| (from, reached(needs, from))).collect();
    let mut circles = BTreeMap::new();
    for (from, there) in &reach {
        if !there.contains(from) {
            continue;
        }
        let circle: BTreeSet<ModPath> = there
            .iter()
            .filter(|other| reach[*other].contains(from))
            .map(|other| (*other).clone())
            .collect();
        circles.entry(circle).or_insert_with(|| way_around(needs, from));
    }
    circles.into_iter().collect()
}

/// What `from` needs, also over others.
fn reached<'a>(needs: &'a Needs, from: &ModPath) -> BTreeSet<&'a ModPath> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&ModPath> = needs[from].keys().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(needs.get(next).into_iter().flat_map(BTreeMap::keys));
        }
    }
    reached
}

/// The shortest way from `from` back to it, one line a step.
fn way_around(needs: &Needs, from: &ModPath) -> Vec<String> {
    let mut came: BTreeMap<&ModPath, &ModPath> = BTreeMap::new();
    let mut open = std::collections::VecDeque::from([from]);
    while let Some(at) = open.pop_front() {
        for next in needs.get(at).into_iter().flat_map(BTreeMap::keys) {
            if !came.contains_key(next) {
                came.insert(next, at);
                open.push_back(next);
            }
        }
    }
    let mut steps = Vec::new();
    let mut to = from;
    while let Some(at) = came.get(to).copied() {
        steps.push(format!("{} needs {} ({})", shown(at), shown(to), needs[at][to]));
        to = at;
        if to == from {
            break;
        }
    }
    steps.reverse();
    steps
}

/// A module as written.
pub(super) fn shown(module: &[String]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}
