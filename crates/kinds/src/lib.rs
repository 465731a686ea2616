//! What a kind is, and every built-in kind: one engine that reads tables. Does no I/O and reads no clock.

pub mod kind;

pub mod builtin;
pub mod custom;
pub mod decode;
pub mod defaults;
mod gates;
pub mod openapi;
pub mod protobuf;
pub mod quantity;
pub mod scalar;
pub mod schema;
pub mod tables;
mod tidy;

pub mod apply;
pub mod fieldset;
pub mod managed;
pub mod strategic;
pub mod typed;
pub mod validate;

pub use custom::Custom;
pub use kind::{
    Behaviour, Cause, CauseReason, Column, Group, GroupVersion, Kept, Kind, NameRule, Registry, Subresource, pointers,
};
pub use tables::builtin;
