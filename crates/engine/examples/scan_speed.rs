//! Walks a directory and prints what it took: `scan_speed DIR [THREADS]`.
//!
//! `bench/bench.py scan` runs it beside other walkers.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keepwatch_engine::model::{FileType, RelPath};
use keepwatch_engine::scan::{Chunk, Descend, OpenDir, Options, Outcome, Seen, Step, Visitor, walk};
use rustix::time::ClockId;

/// Uses every fact once, as a consumer would, and counts.
#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    digest: AtomicU64,
}

impl Visitor for Count {
    type Token = ();

    fn enter(&self, _: &OpenDir<'_>, (): &mut ()) -> Step {
        Step::Read
    }

    fn entries(&self, _: &OpenDir<'_>, (): &mut (), chunk: &Chunk<'_>, descend: &mut Descend<()>) {
        let (mut bytes, mut digest) = (0_u64, 0_u64);
        for entry in chunk.iter() {
            if let Seen::There(stat) = entry.seen {
                if stat.kind == FileType::Dir {
                    descend.walk(&entry, ());
                }
                bytes += stat.size;
                digest ^= stat.inode ^ stat.mtime_ns.unsigned_abs() ^ entry.name.len() as u64;
            }
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.digest.fetch_xor(digest, Ordering::Relaxed);
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

fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or_else(|| io::Error::other("usage: scan_speed DIR [THREADS]"))?;
    let mut options = Options::default();
    if let Some(threads) = args.next() {
        let threads = threads.to_str().and_then(|threads| threads.parse::<NonZeroUsize>().ok());
        options.threads = threads.ok_or_else(|| io::Error::other("THREADS is a number from 1"))?;
    }
    let root = std::fs::File::open(dir)?;
    let count = Count::default();
    let start = Instant::now();
    let summary = walk(root.as_fd(), &RelPath::ROOT, (), &count, &options);
    let wall = start.elapsed();
    let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32);
    println!("entries {}", summary.entries);
    println!("directories {}", summary.directories);
    println!("vanished {} failed {}", summary.vanished, summary.failed);
    println!("bytes {} digest {:x}", count.bytes.into_inner(), count.digest.into_inner());
    println!("wall_s {:.3}", wall.as_secs_f64());
    println!("cpu_s {:.3}", cpu.as_secs_f64());
    println!("rss_max_kib {}", rss_max_kib()?);
    Ok(())
}

/// The most memory this process ever held (proc(5), `VmHWM`).
fn rss_max_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no VmHWM"))
}
