//! What developers of Keepwatch repeat. `cargo xtask` alone says what there is.
//!
//! `steps` runs commands one after the other and adds up what they came to, `needs` installs what is missing,
//! `leftovers` looks for what tests left behind, `python` tests the Python package; `test` and `prove` are lists of steps.

mod leftovers;
mod needs;
mod prove;
mod python;
mod steps;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask test          all that must hold before a change lands; installs what it needs
cargo xtask prove         the tests at full size on the release build, one after the other
cargo xtask python        the Python package alone: builds, installs and tests it
cargo xtask bench NAME …  a comparison with other programs (bench/README.md); without NAME: which there are
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(true)
        }
        ["test"] => test::run(),
        ["prove"] => prove::run(),
        ["python"] => leftovers::TempDir::new().and_then(|temp| python::test(&temp, python::Size::Small)),
        ["bench", ref rest @ ..] => prove::bench(rest),
        _ => {
            eprint!("xtask: there is no such task\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository that this was built in")
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), |dir| top().join(dir))
}

/// The cargo that runs us, in the repository.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(top());
    command
}
