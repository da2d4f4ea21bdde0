//! What is in the databases of a stack: all of them are one set. A verb that changes data works on targets that were
//! opened here, each proven to be the database that it takes it for.

pub mod address;
pub mod backup;
pub mod checks;
pub mod hold;
pub mod locale;
pub mod merge;
pub mod migrate;
pub mod others;
pub mod references;
pub mod restore;
pub mod seed;
pub mod side;
pub mod space;
pub mod stamp;
pub mod target;
