//! The integration tests of this crate, one binary.

mod aegis;
mod apps;
mod bare_host;
mod changes;
mod cli;
mod configuration;
mod damage;
mod encryption;
mod env;
mod faults;
mod fidelity;
mod freeze;
mod golden;
mod in_place;
mod interop;
mod keys;
mod large;
mod mariadb;
mod nefia;
mod postgres;
mod printed;
mod sqlite;
mod tidy;
mod tomo;
