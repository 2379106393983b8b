//! The integration tests of this crate, one binary.

mod age_vectors;
mod capture;
mod damage;
mod fuzz;
mod stock;
