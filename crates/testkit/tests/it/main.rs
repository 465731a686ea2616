//! Tests of the whole, in one binary: the built server, real clients, the recordings, and the rules of the source tree.

mod tour;
mod tutorial;

mod adoption;
mod attacks;
mod audit;
mod authn;
mod authz;
mod bad_input;
mod certificates;
mod clients;
mod crash;
mod cri;
mod doctor;
mod ending;
mod faults;
mod flood;
mod golden;
mod https;
mod images;
mod kube_rs;
mod library;
mod network;
mod node_rights;
mod nodes;
mod record;
mod rotation;
mod small;
mod streams;
mod tidy;
mod transcripts;
mod unread;
mod volumes;
mod why;

mod ratchet;
