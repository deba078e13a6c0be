//! The inventory of this host: SQLite, written only by applying journal records.
