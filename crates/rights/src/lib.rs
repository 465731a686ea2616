//! Rights as Kubernetes' RBAC has them: what a rule allows, whom a binding reaches, the least role for a request, and why a
//! request was refused. Pure: asks no server, reads no clock, knows only the roles and bindings that it is given.

pub mod asked;
pub mod binding;
pub mod difference;
pub mod explain;
pub mod impersonation;
pub mod least;
pub mod refusal;
pub mod rule;
pub mod token;
mod ways;
mod words;

pub use asked::Asked;
pub use binding::{Binding, GROUP, Role, RoleRef, Subject, account_of, user_of};
pub use difference::{Difference, Right};
pub use explain::{Cause, Explanation, Finding, Known, Part, Served, Unseen, Verdict, explain};
pub use least::{Recorded, Usage, binding_of, exact_roles, least_roles};
pub use refusal::Refusal;
pub use rule::{Rule, VERBS, Wanted, uncovered};
pub use words::distance;
