//! What can go wrong with the shared index, by what the caller can do about it.

use std::path::PathBuf;

use tokio_postgres::error::SqlState;

use crate::model::{Cursor, Seq};

/// The result of an operation on the shared index.
pub type Result<T> = std::result::Result<T, IndexError>;

/// Why the shared index cannot be reached, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The server or the way to it: tried again for ever.
    #[error("cannot {doing} the shared index: {}", server_words(source))]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What the server or the connection says.
        source: tokio_postgres::Error,
    },
    /// The server does not answer.
    #[error("the shared index does not answer within {seconds} s")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The password's file cannot be read.
    #[error("cannot read the password for the shared index from {}: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Certificates cannot be had.
    #[error("cannot prepare TLS for the shared index: {0}")]
    Tls(String),
    /// The database is not one that can hold an index.
    #[error("the shared index cannot be kept there: {0}")]
    Unfit(String),
    /// A newer version made the tables.
    #[error("the shared index has schema {found}, this program knows {known}: use the newer keepwatch")]
    Newer {
        /// The schema there.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// There are no tables yet, or older ones, and whoever only reads cannot make them.
    #[error("the shared index has schema {found}, {known} is needed: a host's `keepwatch run` brings it up to date")]
    Older {
        /// The schema there.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// Another state directory writes under this host's name.
    #[error(
        "the shared index has a host `{name}` that is another one: give each host its own name (`host` in the \
         configuration, before its first start); if that one is gone for good, run `keepwatch replay --to postgres`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The journal does not hold what was applied.
    #[error(
        "forked: the shared index has {cursor}, which the journal does not hold: this state directory was rolled back or \
         copied; compare with `keepwatch journal head`, then run `keepwatch replay --to postgres`"
    )]
    Forked {
        /// Where the index stands.
        cursor: Box<Cursor>,
    },
    /// Another transaction of this host came first: what is there has to be read again.
    #[error("the shared index has moved on from record {from} meanwhile")]
    Moved {
        /// Where it was thought to be.
        from: Seq,
    },
    /// It was told to end.
    #[error("stopped")]
    Stopped,
}

impl IndexError {
    /// Wraps an error of the server with what was being done.
    pub(super) fn server(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| IndexError::Server { doing, source }
    }

    fn state(&self) -> Option<&SqlState> {
        match self {
            IndexError::Server { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether a value or a constraint is at fault (SQLSTATE classes 22 and 23), and with it some row.
    #[must_use]
    pub fn is_of_the_row(&self) -> bool {
        self.state().is_some_and(|state| state.code().starts_with("22") || state.code().starts_with("23"))
    }

    /// Whether it is worth trying again at once: a conflict with another transaction, a statement that must be prepared
    /// again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let passing = ["40001", "40P01", "0A000", "26000"];
        matches!(self, IndexError::Moved { .. }) || self.state().is_some_and(|state| passing.contains(&state.code()))
    }

    /// Whether trying again cannot help before a person has done something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, IndexError::Forked { .. })
    }

    /// Whether the server cannot be reached, or does not answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            IndexError::Silent { .. } | IndexError::Stopped => true,
            // Class 08: the connection; 57P: the server is going down or coming up.
            IndexError::Server { source, .. } => {
                source.code().is_none_or(|code| code.code().starts_with("08") || code.code().starts_with("57P"))
            }
            _ => false,
        }
    }

    /// Whether it is about settings: address, user, password, rights, tables.
    #[must_use]
    pub fn is_of_settings(&self) -> bool {
        match self {
            IndexError::Password { .. }
            | IndexError::Tls(_)
            | IndexError::Unfit(_)
            | IndexError::Newer { .. }
            | IndexError::Older { .. }
            | IndexError::NameTaken { .. } => true,
            // Class 28: who it is; 3D and 3F: which database; 42501: not allowed.
            IndexError::Server { .. } => self.state().is_some_and(|state| {
                let code = state.code();
                code.starts_with("28") || code.starts_with("3D") || code.starts_with("3F") || code == "42501"
            }),
            _ => false,
        }
    }
}

/// What the server says, in one line: the driver's own words name only the kind of an error.
pub(super) fn server_words(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            let said = source.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = source.source();
        }
        return text;
    };
    let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint} [{}]", db.message(), db.code().code())
}
