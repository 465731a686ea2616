//! The store's contract, on every backend, and what only a disk can do.

mod crash;
mod disk;
mod replica;
mod suite;
