//! Manifests, for `keepwatch verify`: files held against one, and one written of what is recorded.

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use keepwatch_engine::fixity::against::{Held, hold};
use keepwatch_engine::fixity::manifest::{Line, parse, push_line};
use keepwatch_engine::inventory::ListQuery;
use keepwatch_journal::FileType;

use super::{Context, place};
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::show::safe::Safe;
use crate::units::{count, human_size};

/// Lines are printed in blocks of this size.
const BLOCK_BYTES: usize = 1 << 16;

/// Holds files against a manifest; names in it are taken from the current directory.
///
/// # Errors
/// If it cannot be read, or holds a line that is none: then nothing was compared.
pub fn against(path: &Path, context: &Context) -> Result<Outcome, CommandError> {
    let lines = read(path, context)?;
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (mut fits, mut bytes, mut findings) = (0_u64, 0, 0_u64);
    super::print(|out| {
        let mut written = Ok(());
        hold(&lines, &context.environment.current_dir, threads, &mut |line, held| {
            let (word, why) = match held {
                Held::Fits(length) => {
                    fits += 1;
                    bytes += length;
                    return;
                }
                Held::Differs => ("differs", "the content is another".to_owned()),
                Held::Missing => ("missing", "it is not there".to_owned()),
                Held::Unreadable(why) => ("unreadable", why),
            };
            findings += 1;
            if written.is_ok() {
                written = if context.globals.json {
                    let path = String::from_utf8_lossy(&line.name);
                    writeln!(out, "{}", serde_json::json!({"finding": word, "path": path, "why": why}))
                } else {
                    writeln!(out, "{word:<10} {}: {}", Safe(&line.name), Safe::text(&why))
                };
            }
        });
        written?;
        if context.globals.json {
            return writeln!(out, "{}", serde_json::json!({"verified": fits, "bytes": bytes, "findings": findings}));
        }
        if context.globals.quiet {
            return Ok(());
        }
        writeln!(out, "{}, {} are what the manifest says, {findings} are not", count(fits, "file"), human_size(bytes))
    })?;
    Ok(if findings > 0 { Outcome::Findings } else { Outcome::Fine })
}

fn read(path: &Path, context: &Context) -> Result<Vec<Line>, CommandError> {
    let mut text = Vec::new();
    let shown = Safe::path(path);
    let done = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).map(|_| ())
    } else {
        std::fs::read(context.environment.current_dir.join(path)).map(|bytes| text = bytes)
    };
    done.map_err(|error| CommandError::usage(format!("the manifest {shown} cannot be read: {error}")))?;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = parse(line).map_err(|error| {
            CommandError::usage(format!("line {number} of the manifest {shown}: {error}"))
                .hint("nothing was compared; mend or remove the line")
        })?;
        lines.extend(line);
    }
    if lines.is_empty() {
        return Err(CommandError::usage(format!("the manifest {shown} names no file")));
    }
    Ok(lines)
}

/// Prints the recorded SHA-256 of files under their absolute paths.
///
/// # Errors
/// If there is no inventory, or a path lies in no root.
pub fn export(paths: &[PathBuf], context: &Context) -> Result<Outcome, CommandError> {
    let settings = context.settings(&[])?.settings;
    engine::catch_up(&settings.state_dir);
    let view = engine::view(&settings.state_dir)?;
    let mut queries = Vec::new();
    for path in paths {
        let place = place::find(path, &context.environment.current_dir, &view)?;
        queries.push(ListQuery { root: Some(place.root), path: place.path, at: None });
    }
    if paths.is_empty() {
        queries.push(ListQuery::default());
    }
    let roots = view.roots()?;
    let mut unknown = 0_u64;
    super::print(|out| {
        let mut lines = Vec::new();
        let mut written = Ok(());
        for query in &queries {
            let listed = view.list(query, |name| {
                if name.kind != Some(FileType::File) {
                    return ControlFlow::Continue(());
                }
                let Some(sha256) = name.sha256 else {
                    unknown += 1;
                    return ControlFlow::Continue(());
                };
                let root = roots.iter().find(|root| root.name == name.root);
                let dir = root.and_then(|root| root.dir.as_deref()).unwrap_or(b"");
                push_line(&mut lines, &sha256, &[dir, b"/", name.path.as_bytes()].concat());
                if lines.len() > BLOCK_BYTES {
                    written = out.write_all(&lines);
                    lines.clear();
                }
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            listed.map_err(std::io::Error::other)?;
        }
        written?;
        out.write_all(&lines)
    })?;
    if unknown > 0 {
        use std::io::Write as _;
        let files = count(unknown, "file");
        let _ = writeln!(std::io::stderr(), "of {files} no hash is known yet; `keepwatch verify` finds them out");
        return Ok(Outcome::Partly);
    }
    Ok(Outcome::Fine)
}
