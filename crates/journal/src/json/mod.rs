//! JSON lines: `render` writes records, `parse` reads them, [`text`] knows the characters.

mod enrolled;
mod fixity;
mod parse;
mod render;
pub mod text;

pub use parse::ParseError;
