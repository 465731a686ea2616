//! The façade and the binary against clusters of their own: controllers through the client, commands through a shell's eyes.

mod commands;
mod library;
mod promises;
mod remote;
