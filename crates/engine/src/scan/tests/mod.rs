//! On real trees.
