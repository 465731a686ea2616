//! The client against answers from a table, and against a real TLS server in the same process.

mod calls;
mod config;
mod discovery;
mod https;
mod table;
mod watches;
