//! Who owns whom: what the garbage collector has seen of all objects. Pure; says what should be looked at after a change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kemudi_client::{ApiResource, ObjectMeta, OwnerReference};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

pub type Uid = Arc<str>;

/// One object.
#[derive(Clone, Debug)]
pub struct Node {
    pub resource: Arc<ApiResource>,
    /// `""` where the resource has none.
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub owners: Box<[OwnerReference]>,
    pub deletion: Deletion,
}

/// Whether an object is on its way out, and what becomes of its dependents first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deletion {
    None,
    Plain,
    /// They go before it.
    Foreground,
    /// They lose it.
    Orphan,
}

/// All objects, and the dependents of each.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&Uid, &Node)> {
        let all = self.dependents.get(uid).into_iter().flatten();
        all.filter_map(|uid| self.nodes.get_key_value(uid))
    }

    /// Those that keep their owner from going in the foreground.
    pub fn blocking(&self, uid: &str) -> Vec<Uid> {
        let blocks = |owner: &OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
        let all = self.dependents(uid).filter(|(_, node)| node.owners.iter().any(blocks));
        all.map(|(uid, _)| uid.clone()).collect()
    }

    /// Whether all owners are there as the references say, as far as was seen.
    pub fn is_owned(&self, node: &Node) -> bool {
        node.owners.iter().all(|owner| {
            self.nodes.get(&*owner.uid).is_some_and(|there| {
                (there.namespace.is_empty() || there.namespace == node.namespace)
                    && *there.name == *owner.name
                    && there.resource.kind == owner.kind
                    && there.resource.group == api::meta::group_of(&owner.api_version)
                    && there.deletion != Deletion::Foreground
            })
        })
    }

    /// An object was made or changed. Gives the objects to be looked at.
    pub fn put(&mut self, resource: &Arc<ApiResource>, meta: &ObjectMeta) -> Vec<Uid> {
        let uid: Uid = match self.nodes.get_key_value(&*meta.uid) {
            Some((uid, _)) => uid.clone(),
            None => meta.uid.as_str().into(),
        };
        let node = Node {
            resource: resource.clone(),
            namespace: meta.namespace.as_str().into(),
            name: meta.name.as_str().into(),
            owners: meta.owner_references.clone().into(),
            deletion: deletion(meta),
        };
        let (owners, deletion) = (node.owners.clone(), node.deletion);
        let old = self.nodes.insert(uid.clone(), node);
        let mut look = Vec::new();
        let before: &[OwnerReference] = old.as_ref().map_or(&[], |old| &old.owners);
        if *before != *owners {
            self.unlink(&uid, before);
            for owner in &owners {
                self.dependents.entry(owner.uid.as_str().into()).or_default().insert(uid.clone());
            }
            // An owner may have waited for this one.
            look.extend(self.waiting(before));
            look.push(uid.clone());
        }
        if old.is_none_or(|old| old.deletion != deletion) {
            match deletion {
                Deletion::Foreground => {
                    look.extend(self.dependents(&uid).map(|(uid, _)| uid.clone()));
                    look.push(uid);
                }
                Deletion::Orphan => look.push(uid),
                Deletion::None | Deletion::Plain => {}
            }
        }
        look
    }

    /// An object is gone. Gives the objects to be looked at.
    pub fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some((uid, old)) = self.nodes.remove_entry(uid) else { return Vec::new() };
        self.unlink(&uid, &old.owners);
        let mut look = self.waiting(&old.owners);
        look.extend(self.dependents(&uid).map(|(uid, _)| uid.clone()));
        look
    }

    /// All objects of a resource were told: those not among them are gone.
    pub fn listed(&mut self, resource: &ApiResource, told: &HashSet<String>) -> Vec<Uid> {
        let gone = |(uid, node): &(&Uid, &Node)| *node.resource == *resource && !told.contains(&***uid);
        let gone: Vec<Uid> = self.nodes.iter().filter(gone).map(|(uid, _)| uid.clone()).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn unlink(&mut self, uid: &str, owners: &[OwnerReference]) {
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&*owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&*owner.uid);
                }
            }
        }
    }

    /// The owners that wait for their dependents.
    fn waiting(&self, owners: &[OwnerReference]) -> Vec<Uid> {
        let all = owners.iter().filter_map(|owner| self.nodes.get_key_value(&*owner.uid));
        all.filter(|(_, node)| node.deletion == Deletion::Foreground).map(|(uid, _)| uid.clone()).collect()
    }
}

/// What an object's finalizers say about its dependents.
pub fn deletion(meta: &ObjectMeta) -> Deletion {
    let has = |finalizer: &str| meta.finalizers.iter().any(|other| other == finalizer);
    match meta.deletion_timestamp {
        None => Deletion::None,
        Some(_) if has(ORPHAN) => Deletion::Orphan,
        Some(_) if has(FOREGROUND) => Deletion::Foreground,
        Some(_) => Deletion::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::PODS;

    struct Seen(Graph, Arc<ApiResource>);

    impl Seen {
        /// `name`, its owners (`+` before one that it blocks), its deletion finalizer.
        #[track_caller]
        fn put(&mut self, name: &str, owners: &str, deletion: &str, want: &str) {
            let owners = owners.split_whitespace().map(|owner| OwnerReference {
                uid: owner.trim_start_matches('+').into(),
                block_owner_deletion: Some(owner.starts_with('+')),
                ..OwnerReference::default()
            });
            let mut meta =
                ObjectMeta { uid: name.into(), owner_references: owners.collect(), ..ObjectMeta::named(name) };
            if !deletion.is_empty() {
                meta.deletion_timestamp = Some("T".into());
                meta.finalizers = vec![deletion.into()];
            }
            let look = self.0.put(&self.1.clone(), &meta);
            check(look, want);
        }
    }

    #[track_caller]
    fn check(look: Vec<Uid>, want: &str) {
        let mut look: Vec<&str> = look.iter().map(|uid| &**uid).collect();
        look.sort_unstable();
        look.dedup();
        assert_eq!(look.join(" "), want);
    }

    #[test]
    fn what_is_to_be_looked_at() {
        let mut seen = Seen(Graph::default(), Arc::new(PODS));
        seen.put("owner", "", "", "");
        seen.put("a", "+owner", "", "a");
        seen.put("b", "owner", "", "b");
        seen.put("a", "+owner", "", "");
        check(seen.0.blocking("owner"), "a");
        seen.put("owner", "", "other", "");
        seen.put("owner", "", FOREGROUND, "a b owner");
        seen.put("owner", "", FOREGROUND, "");
        seen.put("a", "owner", "", "a owner");
        check(seen.0.blocking("owner"), "");
        check(seen.0.remove("b"), "owner");
        check(seen.0.remove("owner"), "a");
        check(seen.0.remove("owner"), "");
        seen.put("o", "", ORPHAN, "o");
        check(seen.0.listed(&PODS, &HashSet::from(["a".to_string()])), "");
        assert!(seen.0.get("o").is_none() && seen.0.get("a").is_some());
    }
}
