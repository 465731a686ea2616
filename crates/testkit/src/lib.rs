//! One harness for every test that talks to a server: it starts the built binary, asks it, runs real clients against it
//! and in its pods. For development only; knows the server by its command line and its wire, never by its code.

pub mod server;

pub mod clients;
pub mod command;
pub mod containerd;
pub mod faults;
pub mod follow;
pub mod golden;
mod h2;
pub mod image;
pub mod leftovers;
pub mod load;
pub mod many;
pub mod node;
pub mod pod;
pub mod speed;
pub mod transcripts;
pub mod wire;

pub use command::Finished;
pub use node::Node;
pub use pod::Pod;
pub use server::Server;
