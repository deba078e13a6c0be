//! Walks a directory and says what it took: `scan_speed DIR [--threads N] [--print]`.
//!
//! With `--print` it writes the lines of `find DIR -mindepth 1 -printf '%p %s %T@ %i\n'` to its output, in another
//! order. `bench/bench.py scan` runs it beside other walkers.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keepwatch_engine::model::{FileType, RelPath};
use keepwatch_engine::scan::{Chunk, Descend, Entry, OpenDir, Options, Outcome, Seen, Stat, Step, Visitor, walk};
use rustix::time::ClockId;

/// What is asked for.
struct Args {
    dir: OsString,
    options: Options<'static>,
    print: bool,
}

/// Uses every fact once, as a consumer would; prints if asked.
struct Consumer {
    /// What is printed before each path.
    prefix: Option<Vec<u8>>,
    bytes: AtomicU64,
    digest: AtomicU64,
}

impl Visitor for Consumer {
    type Token = ();

    fn enter(&self, _: &OpenDir<'_>, (): &mut ()) -> Step {
        Step::Read
    }

    fn entries(&self, dir: &OpenDir<'_>, (): &mut (), chunk: &Chunk<'_>, descend: &mut Descend<()>) {
        let (mut bytes, mut digest) = (0_u64, 0_u64);
        let mut lines = Vec::new();
        for entry in chunk.iter() {
            let Seen::There(stat) = entry.seen else { continue };
            if stat.kind == FileType::Dir {
                descend.walk(&entry, ());
            }
            bytes += stat.size;
            digest ^= stat.inode ^ stat.mtime_ns.unsigned_abs() ^ entry.name.len() as u64;
            if let Some(prefix) = &self.prefix {
                print_line(&mut lines, prefix, dir.path, &entry, &stat);
            }
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.digest.fetch_xor(digest, Ordering::Relaxed);
        if let Err(error) = io::stdout().lock().write_all(&lines) {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }

    fn leave(&self, dir: &OpenDir<'_>, (): (), outcome: Outcome) {
        if let Outcome::Failed(error) = outcome {
            eprintln!("{:?}: {error}", dir.path);
        }
    }

    fn failed(&self, path: &RelPath, (): (), error: io::Error) {
        eprintln!("{path:?}: {error}");
    }
}

fn print_line(lines: &mut Vec<u8>, prefix: &[u8], dir: &RelPath, entry: &Entry<'_>, stat: &Stat) {
    for part in [prefix, dir.as_bytes(), if dir.is_root() { b"" } else { b"/" }, entry.name] {
        lines.extend_from_slice(part);
    }
    let (seconds, rest) = (stat.mtime_ns.div_euclid(1_000_000_000), stat.mtime_ns.rem_euclid(1_000_000_000));
    // find writes ten digits of nanoseconds.
    writeln!(lines, " {} {seconds}.{rest:09}0 {}", stat.size, stat.inode).expect("a Vec takes all");
}

fn main() -> io::Result<()> {
    let Args { dir, options, print } = args()?;
    let root = std::fs::File::open(&dir)?;
    let prefix = print.then(|| [dir.as_bytes(), b"/"].concat());
    let consumer = Consumer { prefix, bytes: AtomicU64::new(0), digest: AtomicU64::new(0) };
    let start = Instant::now();
    let summary = walk(root.as_fd(), &RelPath::ROOT, (), &consumer, &options);
    let wall = start.elapsed();
    let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32);
    if !print {
        println!("entries {} directories {}", summary.entries, summary.directories);
        println!("vanished {} failed {}", summary.vanished, summary.failed);
        println!("bytes {} digest {:x}", consumer.bytes.into_inner(), consumer.digest.into_inner());
        println!("wall_s {:.3} cpu_s {:.3}", wall.as_secs_f64(), cpu.as_secs_f64());
        println!("rss_max_kib {}", rss_max_kib()?);
    }
    Ok(())
}

fn args() -> io::Result<Args> {
    let usage = || io::Error::other("usage: scan_speed DIR [--threads N] [--print]");
    let mut args = std::env::args_os().skip(1);
    let mut found = Args { dir: args.next().ok_or_else(usage)?, options: Options::default(), print: false };
    while let Some(arg) = args.next() {
        if arg == "--print" {
            found.print = true;
        } else if arg == "--threads" {
            let threads = args.next().and_then(|threads| threads.to_str()?.parse::<NonZeroUsize>().ok());
            found.options.threads = threads.ok_or_else(usage)?;
        } else {
            return Err(usage());
        }
    }
    Ok(found)
}

/// The most memory this process ever held (proc(5), `VmHWM`).
fn rss_max_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no VmHWM"))
}
