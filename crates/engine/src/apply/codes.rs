//! The numbers that the tables hold. They are part of the schema: never renumber.

use crate::model::{FileType, Op, Proof, Via};

/// A word that the tables hold as a number.
pub(crate) trait Code: Sized {
    /// The number held for this word.
    fn code(self) -> i64;
    /// The word for a number; `None` for what no version ever wrote.
    fn decode(held: i64) -> Option<Self>;
}

macro_rules! codes {
    ($type:ty, $($word:ident = $code:literal),+ $(,)?) => {
        impl Code for $type {
            fn code(self) -> i64 {
                match self { $(<$type>::$word => $code),+ }
            }
            fn decode(held: i64) -> Option<Self> {
                match held { $($code => Some(<$type>::$word),)+ _ => None }
            }
        }
    };
}

codes!(FileType, File = 1, Dir = 2, Symlink = 3, Fifo = 4, Socket = 5, Block = 6, Char = 7);
codes!(Op, Create = 1, Modify = 2, Attrib = 3, Move = 4, Delete = 5);
codes!(Via, Fanotify = 1, Inotify = 2, Poll = 3, Scan = 4);
codes!(Proof, Presumed = 1, Written = 2, Proved = 3);
