//! Which entries a list or watch takes: label selector, field selector, or the one name.

use api::selector::Op;
use api::{FieldSelector, LabelSelector, ListOptions, Status, go};
use kinds::Kind;

use crate::objects::{self, Collection, Entry};

/// A compiled selection of one collection.
pub struct Selection {
    labels: LabelSelector,
    /// Of the labels that must be there.
    signature: u64,
    fields: Vec<Term>,
}

struct Term {
    of: Of,
    equal: bool,
    value: String,
}

enum Of {
    Name,
    Namespace,
    Field(usize),
    /// The first of them that is not empty; nothing where there are none.
    First(Vec<usize>),
}

impl Selection {
    /// `name`: the path names one object, as old watch paths do.
    pub fn new(kind: &Kind, collection: &Collection, options: &ListOptions, name: &str) -> Result<Selection, Status> {
        let mut fields = compile(kind, collection, &options.fields)?;
        if !name.is_empty() && !fields.is_empty() && options.fields.exact("metadata.name") != Some(name) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        if !name.is_empty() && fields.is_empty() {
            fields.push(Term { of: Of::Name, equal: true, value: name.to_string() });
        }
        let given = options.labels.0.iter().filter(|term| matches!(term.op, Op::Equals | Op::In));
        // Of several values any will do.
        let single = given.filter_map(|term| Some((&term.key, <&[String; 1]>::try_from(&*term.values).ok()?)));
        let signature = single.fold(0, |all, (key, [value])| all | objects::signature(key, value));
        Ok(Selection { labels: options.labels.clone(), signature, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.fields.is_empty() && self.labels.is_everything()
    }

    pub fn takes(&self, entry: &Entry) -> bool {
        entry.may_have(self.signature)
            && self.fields.iter().all(|term| {
                let value = match term.of {
                    Of::Name => entry.name(),
                    Of::Namespace => entry.namespace(),
                    Of::Field(index) => entry.field(index),
                    Of::First(ref indices) => {
                        indices.iter().map(|index| entry.field(*index)).find(|text| !text.is_empty()).unwrap_or("")
                    }
                };
                (value == term.value) == term.equal
            })
            && self.labels.matches(|key| entry.label(key))
    }
}

/// Whether all fields of a selector can be selected by, for a kind that has no collection.
pub fn check(kind: &Kind, selector: &FieldSelector) -> Result<(), Status> {
    selector.0.iter().try_for_each(|term| match term.field.as_str() {
        "metadata.name" => Ok(()),
        "metadata.namespace" if has_namespace(kind) => Ok(()),
        field => selectable(kind, field).map(drop),
    })
}

/// Kinds of the cluster that say what can be selected do not say the namespace.
fn has_namespace(kind: &Kind) -> bool {
    kind.namespaced || (!kind.is_custom() && kind.behaviour.selectable.is_empty())
}

/// Where a field is to be found in an object, as JSON pointers.
fn selectable<'k>(kind: &'k Kind, field: &str) -> Result<&'k str, Status> {
    let known = match &kind.custom {
        None => kind.behaviour.selectable.iter().find(|(label, _)| *label == field).map(|(_, at)| *at),
        Some(custom) => custom.selectable.iter().find(|(label, _)| **label == *field).map(|(_, at)| &**at),
    };
    known.ok_or_else(|| unknown_field(kind, field))
}

fn compile(kind: &Kind, collection: &Collection, selector: &FieldSelector) -> Result<Vec<Term>, Status> {
    let term = |term: &api::selector::FieldTerm| {
        let of = match term.field.as_str() {
            "metadata.name" => Of::Name,
            "metadata.namespace" if has_namespace(kind) => Of::Namespace,
            field => {
                let pointers = kinds::pointers(selectable(kind, field)?);
                let indices: Vec<usize> = pointers.filter_map(|pointer| collection.field_index(pointer)).collect();
                match indices[..] {
                    [index] => Of::Field(index),
                    _ => Of::First(indices),
                }
            }
        };
        Ok(Term { of, equal: term.equal, value: term.value.clone() })
    };
    selector.0.iter().map(term).collect()
}

fn unknown_field(kind: &Kind, field: &str) -> Status {
    Status::bad_request(match kind.behaviour.selectable {
        [] if !kind.is_custom() => {
            format!(r#"{} is not a known field selector: only "metadata.name", "metadata.namespace""#, go::quote(field))
        }
        _ => (kind.behaviour.not_selectable)(field),
    })
}
