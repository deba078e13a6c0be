//! `keepwatch verify`: reads originals or copies again and holds them against what is recorded.

use std::path::{Path, PathBuf};

use keepwatch_engine::daemon::fixity::{Event, Sum};
use keepwatch_engine::inventory::{Verdict, View};
use keepwatch_journal::json::text::{push_bytes_field, push_name, push_string, push_u64};
use keepwatch_journal::{RelPath, Repaired, ReplicaName, RootName, Unsound};

use super::{Context, manifest, place};
use crate::config::Settings;
use crate::control::client::Client;
use crate::control::{Request, VerifyRequest};
use crate::error::{CommandError, Kind, Outcome};
use crate::logging::{self, Talk};
use crate::show::log::words;
use crate::show::progress::VerifyBar;
use crate::show::safe::Safe;
use crate::units::{self, count, human_size};
use crate::{engine, verifying};

/// Flags of `keepwatch verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 1 if something is not what was recorded. A file of which no hash is known yet is hashed. A running service does
it; without one this command does.

Examples:
  keepwatch verify
  keepwatch verify /srv/records/2024 --max-age 30d
  keepwatch verify --replica vault --repair
  keepwatch verify --export /srv/records > records.sha256; keepwatch verify --against records.sha256
  keepwatch verify --repair /srv/records/2024/a.tif")]
pub struct Args {
    /// What to verify, with all below it; everything unless it is said
    pub paths: Vec<PathBuf>,
    /// The copies at this replica, rather than the originals
    #[arg(long, value_name = "NAME")]
    pub replica: Option<String>,
    /// Mend what is not what it was, from a copy that is; the bad bytes are kept. Originals only where a PATH is given
    #[arg(long)]
    pub repair: bool,
    /// Leave out what was verified within this time: so a verification that was interrupted goes on
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// Hold files against this manifest, as sha256sum, b3sum, md5sum, sha1sum or sha512sum write it (`-`: from standard input)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "replica", "repair", "max_age", "export"])]
    pub against: Option<PathBuf>,
    /// Print what is recorded, as sha256sum writes it. Nothing is read
    #[arg(long, conflicts_with_all = ["replica", "repair", "max_age", "from_medium"])]
    pub export: bool,
    /// Read from the medium, not from the page cache
    #[arg(long)]
    pub from_medium: bool,
}

/// Verifies.
///
/// # Errors
/// If what is named is in no root, a root is absent, or it cannot be done.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    if let Some(path) = &args.against {
        return manifest::against(path, context);
    }
    if args.export {
        return manifest::export(&args.paths, context);
    }
    let instead = "without --repair it changes no file; what it finds is always recorded";
    super::refuse_dry_run(context, "verify", instead)?;
    if args.repair && args.replica.is_none() && args.paths.is_empty() {
        return Err(CommandError::usage("an original is replaced only when it is named")
            .hint("give the paths that are to be repaired, or --replica NAME to repair the copies there"));
    }
    let settings = settings(context)?;
    logging::start(settings.log, &context.globals, Talk::Command);
    let view = engine::view(&settings.state_dir)?;
    let asked = request(args, context, &view)?;
    let bar = VerifyBar::new(context.globals.quiet, to_read(&view, &asked)?);
    let mut show = |event: Event| match event {
        Event::Progress(sum) => {
            bar.show(&sum);
            Ok(())
        }
        Event::Finding(found) => bar.aside(|| show_finding(&found, &view, context)),
        Event::Repaired(act) => bar.aside(|| show_repaired(&act, &view, context)),
        Event::NotRepaired { replica, root, path, why } => {
            let path = absolute(&view, &root, &path)?;
            let at = at(replica.as_ref());
            bar.aside(|| {
                use std::io::Write as _;
                let _ = writeln!(std::io::stderr(), "not repaired: {}{at}: {}", Safe(&path), Safe::text(&why));
            });
            Ok(())
        }
    };
    let client = Client::new(&settings.state_dir);
    let answer = client.call(&Request::Verify(asked.clone()), |data| match verifying::from_value(&data) {
        Some(event) => show(event),
        None => Ok(()),
    });
    let sum = match answer {
        Ok(answer) => serde_json::from_value(answer)
            .map_err(|error| CommandError::failed(format!("the service's answer cannot be understood: {error}")))?,
        Err(error) if error.kind == Kind::Unreachable && crate::lock::holder(&settings.state_dir).is_none() => {
            verifying::alone(&engine::settings(&settings), &asked, &mut show)?
        }
        Err(error) => return Err(error),
    };
    bar.end();
    show_sum(&sum, context)?;
    if sum.unmended > 0 {
        return Ok(Outcome::Partly);
    }
    Ok(if sum.findings() > 0 { Outcome::Findings } else { Outcome::Fine })
}

/// The configuration; where that names no roots, those that a service watched here last.
fn settings(context: &Context) -> Result<Settings, CommandError> {
    let settings = context.settings(&[])?.settings;
    if !settings.roots.is_empty() {
        return Ok(settings);
    }
    use std::os::unix::ffi::OsStrExt as _;
    let roots = engine::view(&settings.state_dir)?.roots()?;
    let dirs: Vec<PathBuf> = roots
        .iter()
        .filter(|root| root.watched)
        .filter_map(|root| root.dir.as_deref())
        .map(|dir| Path::new(std::ffi::OsStr::from_bytes(dir)).to_owned())
        .collect();
    Ok(context.settings(&dirs)?.settings)
}

fn request(args: &Args, context: &Context, view: &View) -> Result<VerifyRequest, CommandError> {
    let scope = |path: &PathBuf| {
        let place = place::find(path, &context.environment.current_dir, view)?;
        Ok((place.root.to_string(), place.path.as_bytes().to_vec()))
    };
    let max_age = args.max_age.as_deref().map(units::parse_duration).transpose();
    let max_age = max_age.map_err(|error| CommandError::usage(format!("--max-age: {error}")))?;
    Ok(VerifyRequest {
        scopes: args.paths.iter().map(scope).collect::<Result<_, CommandError>>()?,
        replica: args.replica.clone(),
        repair: args.repair,
        origins: None,
        import: None,
        max_age_ms: max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        from_medium: args.from_medium,
    })
}

/// How many bytes there are to read, where that is known without counting.
fn to_read(view: &View, asked: &VerifyRequest) -> Result<Option<u64>, CommandError> {
    if let Some(name) = &asked.replica {
        let row = view.replica(&ReplicaName::new(name.as_str()))?;
        return Ok(row.map(|row| row.counts.bytes).filter(|_| asked.scopes.is_empty() && asked.max_age_ms.is_none()));
    }
    if !asked.scopes.is_empty() || asked.max_age_ms.is_some() {
        return Ok(None);
    }
    Ok(Some(view.roots()?.iter().filter(|root| root.watched).map(|root| root.counts.bytes).sum()))
}

fn show_finding(found: &Unsound, view: &View, context: &Context) -> Result<(), CommandError> {
    let word = Verdict::of(&found.what).as_str();
    if context.globals.json {
        return super::print(|out| out.write_all(&json_line(found, word)));
    }
    let (path, at) = (absolute(view, &found.root, &found.path)?, at(found.replica.as_ref()));
    super::print(|out| writeln!(out, "{word:<10} {}{at}: {}", Safe(&path), words(&found.what)))
}

fn show_repaired(act: &Repaired, view: &View, context: &Context) -> Result<(), CommandError> {
    if context.globals.json {
        let mut line = b"{\"repaired\":true,\"root\":".to_vec();
        push_string(&mut line, act.root.as_str());
        push_bytes_field(&mut line, "path", act.path.as_bytes());
        line.extend_from_slice(b"}\n");
        return super::print(|out| out.write_all(&line));
    }
    let (path, at) = (absolute(view, &act.root, &act.path)?, at(act.replica.as_ref()));
    let from = act.from.as_ref().map_or("the original", |from| from.as_str());
    super::print(|out| {
        write!(out, "repaired   {}{at}: from {}", Safe(&path), Safe::text(from))?;
        act.kept.iter().try_for_each(|kept| write!(out, "; the bad bytes are kept as {}", Safe(kept)))?;
        writeln!(out)
    })
}

/// ` at REPLICA`, of a copy.
fn at(replica: Option<&ReplicaName>) -> String {
    replica.map(|replica| format!(" at {}", Safe::text(replica.as_str()))).unwrap_or_default()
}

fn absolute(view: &View, root: &RootName, path: &RelPath) -> Result<Vec<u8>, CommandError> {
    let roots = view.roots()?;
    let dir = roots.iter().find(|known| known.name == *root).and_then(|root| root.dir.as_deref()).unwrap_or(b"");
    Ok([dir, b"/", path.as_bytes()].concat())
}

fn json_line(found: &Unsound, word: &str) -> Vec<u8> {
    let mut line = b"{\"finding\":".to_vec();
    push_string(&mut line, word);
    if let Some(replica) = &found.replica {
        push_name(&mut line, "replica");
        push_string(&mut line, replica.as_str());
    }
    push_name(&mut line, "root");
    push_string(&mut line, found.root.as_str());
    push_bytes_field(&mut line, "path", found.path.as_bytes());
    if let Some((size, _)) = found.seen {
        push_name(&mut line, "size");
        push_u64(&mut line, size);
    }
    push_name(&mut line, "why");
    push_string(&mut line, &words(&found.what));
    line.extend_from_slice(b"}\n");
    line
}

fn show_sum(sum: &Sum, context: &Context) -> Result<(), CommandError> {
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", serde_json::to_string(sum)?);
        }
        if context.globals.quiet {
            return Ok(());
        }
        write!(out, "{}, {} read: {} verified", count(sum.files, "file"), human_size(sum.bytes), sum.verified)?;
        for (number, what) in [
            (sum.hashed, "hashed for the first time"),
            (sum.rot, "rotten"),
            (sum.changed, "changed unnoticed"),
            (sum.missing, "missing"),
            (sum.foreign, "foreign"),
            (sum.unreadable, "unreadable"),
            (sum.repaired, "repaired"),
            (sum.unmended, "not repaired"),
            (sum.busy, "being written"),
            (sum.unknown, "with nothing to compare with"),
        ] {
            if number > 0 {
                write!(out, ", {number} {what}")?;
            }
        }
        writeln!(out)
    })
}
