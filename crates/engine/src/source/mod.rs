//! What can be backed up. Each kind of source lists its entries; none of them
//! knows where they go.

pub(crate) mod attributes;
pub(crate) mod copied;
mod database;
pub(crate) mod files;
mod item;
mod listing;
pub(crate) mod matcher;
pub(crate) mod merged;
pub(crate) mod roots;
pub(crate) mod streamed;
