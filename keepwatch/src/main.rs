//! Keepwatch keeps watch over files that nobody can afford to lose.

fn main() {}
