//! Tests of the kinds through their public interface: data in, text out.

mod decode;
mod fixtures;
mod golden;
mod openapi;
mod ownership;
