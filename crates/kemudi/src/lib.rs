//! The kemudi façade library.
