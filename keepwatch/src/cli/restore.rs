//! `keepwatch restore`: files back from a replica, verified on the way.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use keepwatch_engine::daemon::fixity::restore::{Aim, Event, Job, STAGED_IN, Sum, restore};
use keepwatch_engine::daemon::fixity::{FixityTrouble, Surroundings};
use keepwatch_engine::daemon::state::inventory_of;
use keepwatch_engine::inventory::{View, copy_key};
use keepwatch_journal::{FileType, ReplicaName, RootName};

use super::{Context, moment, place};
use crate::config::replicas;
use crate::engine;
use crate::error::{CommandError, Outcome};
use crate::logging::{self, Talk};
use crate::show::progress::RestoreBar;
use crate::show::safe::Safe;
use crate::telling::Teller;
use crate::units::{count, human_size};

/// Flags of `keepwatch restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What is named goes below DIR under its own name; of a root, what it holds. What is there already is verified and not
fetched again; something else in its place stays as it is. Ends with 3 if something could not be restored.

Examples:
  keepwatch restore /srv/records --from vault --to /srv/back
  keepwatch restore /srv/records/2024/a.tif --from vault --to /tmp --at '2 days ago'
  keepwatch restore --from vault --drill 100")]
pub struct Args {
    /// What to restore, with all below it: a root, or a path in one, whether it is there still or not
    #[arg(required_unless_present = "drill")]
    pub paths: Vec<PathBuf>,
    /// From this replica
    #[arg(long, value_name = "NAME")]
    pub from: String,
    /// Into this directory, which is made if need be
    #[arg(long, value_name = "DIR", required_unless_present = "drill")]
    pub to: Option<PathBuf>,
    /// As it was at this moment, where the replica or its trash still has it: RFC 3339, a date, or `2h ago`
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Fetch so many files, chosen by chance, verify them, and throw them away
    #[arg(long, value_name = "N", conflicts_with_all = ["to", "at"])]
    pub drill: Option<usize>,
}

/// Restores.
///
/// # Errors
/// If there is no such replica, it cannot be reached, or it holds nothing of what is named.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, CommandError> {
    super::refuse_dry_run(context, "restore", "`--drill N` fetches and verifies a sample, and keeps nothing")?;
    let settings = context.settings(&[])?.settings;
    logging::start(settings.log, &context.globals, Talk::Command);
    replicas::known(&settings.replicas, &args.from)?;
    let view = engine::view(&settings.state_dir)?;
    let job = job(args, context, &view)?;
    if let Aim::Dir(dir) = &job.to {
        let made = std::fs::create_dir_all(dir);
        made.map_err(|error| CommandError::usage(format!("cannot make {}: {error}", Safe::path(dir))))?;
    }
    let told = engine::settings(&settings);
    let teller = Teller::open(&told)?;
    let stop = AtomicBool::new(false);
    let around = Surroundings {
        settings: &told,
        inventory: inventory_of(&settings.state_dir),
        host: view.host()?,
        state: view.host_id()?,
        tag: "restore",
        tell: teller.tell(),
        stop: &stop,
        limit: None,
    };
    let bar = RestoreBar::new(context.globals.quiet, to_restore(&job, &view)?);
    let restored = restore(&job, &around, &mut |event| {
        match event {
            Event::Progress(sum) => bar.show(&sum),
            Event::Failed { root, path, why } => bar.aside(|| {
                use std::io::Write as _;
                let place = format!("{root}/{}", Safe(path.as_bytes()));
                let _ = writeln!(std::io::stderr(), "not restored: {place}: {}", Safe::text(&why));
            }),
        }
        Ok(())
    });
    bar.end();
    if let Aim::Dir(dir) = &job.to {
        use std::os::unix::ffi::OsStrExt as _;
        // What another restore stages there stays.
        let _ = std::fs::remove_dir(dir.join(std::ffi::OsStr::from_bytes(STAGED_IN)));
    }
    let sum = restored.map_err(|error| CommandError::from(FixityTrouble::from(error)))?;
    teller.close()?;
    show(&sum, context)?;
    Ok(if sum.failed > 0 { Outcome::Partly } else { Outcome::Fine })
}

fn job(args: &Args, context: &Context, view: &View) -> Result<Job, CommandError> {
    let now = jiff::Zoned::now();
    let scope = |path: &PathBuf| {
        let place = place::find(path, &context.environment.current_dir, view)?;
        Ok((RootName::new(place.root.as_str()), place.path))
    };
    let to = match (&args.to, args.drill) {
        (_, Some(count)) => Aim::Drill(count),
        (Some(dir), None) => Aim::Dir(context.environment.current_dir.join(dir)),
        (None, None) => return Err(CommandError::usage("say where to: `--to DIR`, or `--drill N`")),
    };
    Ok(Job {
        scopes: args.paths.iter().map(scope).collect::<Result<_, CommandError>>()?,
        from: ReplicaName::new(args.from.as_str()),
        at: args.at.as_deref().map(|at| moment(at, &now)).transpose()?,
        to,
    })
}

/// How many files there are to restore, where that is known without counting the past.
fn to_restore(job: &Job, view: &View) -> Result<Option<u64>, CommandError> {
    let Some(replica) = view.replica(&job.from)? else { return Ok(None) };
    let mut sum = 0;
    match (&job.to, job.at) {
        (Aim::Drill(count), _) => return Ok(u64::try_from(*count).ok()),
        (Aim::Dir(_), Some(_)) => return Ok(None),
        (Aim::Dir(_), None) if job.scopes.is_empty() => return Ok(Some(replica.counts.files)),
        (Aim::Dir(_), None) => {}
    }
    for (root, path) in &job.scopes {
        let Some(dir) = view.root_dir(root)? else { continue };
        sum += match path.is_root() {
            true => view.count_copies(replica.id, dir)?,
            false => view.count_copies_within(replica.id, dir, &copy_key(path, FileType::Dir))?.max(1),
        };
    }
    Ok(Some(sum))
}

fn show(sum: &Sum, context: &Context) -> Result<(), CommandError> {
    super::print(|out| {
        if context.globals.json {
            return writeln!(out, "{}", serde_json::to_string(sum)?);
        }
        if context.globals.quiet {
            return Ok(());
        }
        write!(out, "{}, {} restored and verified", count(sum.files, "file"), human_size(sum.bytes))?;
        for (number, what) in [
            (sum.others, "directories, links and others"),
            (sum.there, "there already"),
            (sum.unverified, "without a hash to verify them by"),
            (sum.failed, "not restored"),
        ] {
            if number > 0 {
                write!(out, ", {number} {what}")?;
            }
        }
        writeln!(out)
    })
}
