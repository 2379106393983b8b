//! The integration tests of this crate, one binary.

mod env;
mod fidelity;
mod interop;
mod tidy;
