//! What must hold of every input, whatever bytes somebody sends: one property a target. The tests try each on a committed
//! corpus and a bounded number of variations; `cargo xtask fuzz` lets an engine look for inputs that break it, for minutes.
//! Never part of the product.

mod authn;
mod changes;
pub mod definitions;
pub mod generate;
mod layers;
pub mod patches;
pub mod requests;
mod streams;
pub mod tape;
pub mod texts;
pub mod values;

/// A property, held against any bytes.
pub struct Target {
    /// The name of its folder in `corpus`, and of its test.
    pub name: &'static str,
    /// Panics where the property does not hold. Bytes that are no input at all are passed over.
    pub check: fn(&[u8]),
}

/// Every target.
pub const ALL: &[Target] = &[
    Target { name: "paths", check: texts::paths },
    Target { name: "options", check: texts::options },
    Target { name: "selectors", check: texts::selectors },
    Target { name: "quantities", check: texts::quantities },
    Target { name: "times", check: texts::times },
    Target { name: "jsonpath", check: texts::jsonpath },
    Target { name: "json", check: values::json },
    Target { name: "yaml", check: values::yaml },
    Target { name: "protobuf", check: values::protobuf },
    Target { name: "fieldsets", check: values::fieldsets },
    Target { name: "objects", check: values::objects },
    Target { name: "strategic", check: patches::strategic },
    Target { name: "differences", check: patches::differences },
    Target { name: "apply", check: patches::apply },
    Target { name: "definitions", check: definitions::definitions },
    Target { name: "asks", check: texts::asks },
    Target { name: "refusals", check: texts::refusals },
    Target { name: "tokens", check: requests::tokens },
    Target { name: "changes", check: requests::changes },
    Target { name: "requests", check: requests::requests },
    Target { name: "spdy", check: streams::spdy },
    Target { name: "channels", check: streams::channels },
    Target { name: "expressions", check: authn::expressions },
    Target { name: "configurations", check: authn::configurations },
    Target { name: "layers", check: layers::layers },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
