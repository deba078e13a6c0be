//! The daemon: select what happened, decide, journal, perform.
