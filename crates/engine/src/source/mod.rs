//! What can be backed up. Each kind of source lists its entries; none of them
//! knows where they go.

mod attributes;
pub(crate) mod files;
mod item;
mod listing;
mod matcher;
pub(crate) mod roots;
