//! Records as JSON lines: [`render`] writes them, [`parse`] reads them, [`text`] knows the characters.

mod parse;
mod render;
pub(crate) mod text;

pub use parse::ParseError;
