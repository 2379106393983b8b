//! The integration tests of this crate, one binary.

mod env;
mod fidelity;
mod golden;
mod interop;
mod large;
mod tidy;
