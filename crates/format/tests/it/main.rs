//! The integration tests of this crate, one binary.

mod capture;
mod damage;
mod fuzz;
