//! The bounded way from a source to the sequencer.
