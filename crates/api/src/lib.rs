//! What a Kubernetes client and a Kubernetes server both say: requests, options, selectors, `Status`, encodings.
//! Never does I/O, never reads a clock, knows no kind by name.

pub mod ask;
pub mod codec;
pub mod fields;
pub mod go;
pub mod jsonpath;
pub mod meta;
pub mod options;
pub mod pem;
pub mod protobuf;
pub mod refusal;
pub mod selector;
pub mod skim;
pub mod status;
pub mod token;
pub mod watch;
#[cfg(feature = "yaml")]
pub mod yaml;

pub use ask::{Ask, Query, Target, Verb};
pub use options::{ApplyOptions, DeleteOptions, GetOptions, ListOptions, Preconditions, WriteOptions};
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Details, Reason, Status};
pub use watch::{EventType, WatchEvent};

/// A Kubernetes object (or any JSON object) as clients and server pass it on. Keys keep their order.
pub type Object = serde_json::Map<String, serde_json::Value>;
