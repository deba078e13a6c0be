//! Keepwatch keeps watch over files that nobody can afford to lose.

use std::process::ExitCode;

fn main() -> ExitCode {
    keepwatch::main()
}
