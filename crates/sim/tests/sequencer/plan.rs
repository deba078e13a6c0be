//! What happens in a run: made from a seed, done step by step, and cut down to what still fails.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use keepwatch_engine::clock::Clock as _;
use keepwatch_engine::watch::settle::Patience;
use keepwatch_sim::clock::SimClock;
use keepwatch_sim::kernel::{Flavour, Kernel};
use keepwatch_sim::service::{Service, Step};
use keepwatch_sim::tree::{Manners, Op, Path, World};

use crate::check::check;

/// Roots of a run.
pub(crate) const ROOTS: usize = 2;
/// How long it may take, once nobody has anything open, until all that was done is told of and has settled. Without losses and
/// where leases are granted nothing has to be waited for in vain.
pub(crate) const REST_MAX: Duration = Duration::from_secs(300);

/// Directories that are renamed all the time, and as many that they are renamed between.
const WANDERERS: u8 = 3;

/// How many: few by default, many when KEEPWATCH_FULL is set.
pub(crate) fn sized<T>(small: T, full: T) -> T {
    if std::env::var_os("KEEPWATCH_FULL").is_some() { full } else { small }
}

/// In what world the steps are done, and which kinds of step there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) flavour: Flavour,
    pub(crate) has_handles: bool,
    pub(crate) reuses_inodes: bool,
    /// Scans go on beside the events from the beginning.
    pub(crate) scans: bool,
    /// Queues run over, services end, file systems go away.
    pub(crate) losses: bool,
    /// Things change between two looks of the sequencer.
    pub(crate) races: bool,
    /// A few directories are renamed all the time, and none is removed.
    pub(crate) wanders: bool,
}

impl Setting {
    pub(crate) const FANOTIFY: Setting = Setting {
        flavour: Flavour::Fanotify,
        has_handles: true,
        reuses_inodes: true,
        scans: false,
        losses: false,
        races: false,
        wanders: false,
    };
    pub(crate) const INOTIFY: Setting = Setting { flavour: Flavour::Inotify, scans: true, ..Setting::FANOTIFY };
    pub(crate) const POLL: Setting = Setting { flavour: Flavour::Silent, scans: true, ..Setting::FANOTIFY };
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) setting: Setting,
    /// The step of time stamps.
    pub(crate) stamp_ns: i64,
    /// Whether leases say anything.
    pub(crate) lease: bool,
    pub(crate) steps: Vec<Step>,
    /// So many steps from the first on are what all others stand on.
    pub(crate) base: usize,
}

/// A small generator (xorshift64*): the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn byte(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).unwrap()
    }

    /// Somewhere; more often near the top, and in the first root.
    fn path(&mut self) -> Path {
        let top = [0, 0, 0, 0, 1, 1, 2][usize::try_from(self.below(7)).unwrap()];
        let depth = [1, 1, 2, 2, 2, 3][usize::try_from(self.below(6)).unwrap()];
        Path(top, (0..depth).map(|_| self.byte(3)).collect())
    }

    /// Where a wandering directory may be, and another place of the same: two never have the same name.
    fn spots(&mut self) -> [Path; 2] {
        let one = self.byte(WANDERERS.into());
        [(); 2].map(|()| Path(0, vec![self.byte(WANDERERS.into()), one + WANDERERS * self.byte(2)]))
    }

    fn wander(&mut self) -> Op {
        let [from, to] = self.spots();
        let below = |Path(top, mut names): Path, name| {
            names.push(name);
            Path(top, names)
        };
        match self.below(12) {
            0 => Op::Write(below(from, 1), self.byte(9)),
            1 => Op::Unlink(below(from, 1)),
            2 => Op::Mkdir(below(from, 2)),
            3 => Op::Rmdir(below(from, 2)),
            _ => Op::Rename(from, to),
        }
    }

    fn op(&mut self, setting: Setting) -> Op {
        if setting.wanders {
            return self.wander();
        }
        match self.below(30) {
            0..=4 => Op::Write(self.path(), self.byte(9)),
            5 => Op::Append(self.path()),
            6 => Op::Open(self.path()),
            7 => Op::WriteOpen(self.byte(4)),
            8 => Op::Close(self.byte(4)),
            9 => Op::Truncate(self.path(), self.byte(9)),
            10 if self.below(4) == 0 => Op::Chmod(Path(self.byte(3), Vec::new()), self.byte(8)),
            10 => Op::Chmod(self.path(), self.byte(8)),
            11..=13 => Op::Unlink(self.path()),
            14..=17 => Op::Mkdir(self.path()),
            18 => Op::Rmdir(self.path()),
            19 => Op::RemoveAll(self.path()),
            20..=24 => Op::Rename(self.path(), self.path()),
            25 => Op::Exchange(self.path(), self.path()),
            26..=27 => Op::Link(self.path(), self.path()),
            28 => Op::Symlink(self.path()),
            _ => Op::Rename(self.path(), self.path()),
        }
    }

    fn step(&mut self, setting: Setting, steps: &mut Vec<Step>) {
        let pid = u32::from(self.byte(2)) + 1;
        match self.below(40) {
            0..=15 => steps.push(Step::Do(pid, self.op(setting))),
            // Several at once on one name.
            16 if !setting.wanders => {
                let at = self.path();
                for op in [Op::Write(at.clone(), 1), Op::Unlink(at.clone()), Op::Mkdir(at.clone()), Op::RemoveAll(at)] {
                    if self.below(4) > 0 {
                        steps.push(Step::Do(pid, op));
                    }
                }
            }
            17 => {
                let [one, other] = if setting.wanders { self.spots() } else { [self.path(), self.path()] };
                for _ in 0..3 {
                    steps.push(Step::Do(pid, Op::Rename(one.clone(), other.clone())));
                    steps.push(Step::Do(pid, Op::Rename(other.clone(), one.clone())));
                }
            }
            18..=19 if setting.races => steps.push(Step::Arm(self.byte(6), pid, self.op(setting))),
            18..=21 => steps.push(Step::Pass([1, 5, 35, 250, 1_100, 2_500][usize::try_from(self.below(6)).unwrap()])),
            22..=24 => steps.push(Step::Drain([1, 2, 4, 50][usize::try_from(self.below(4)).unwrap()])),
            25..=28 => steps.push(Step::Hear),
            29..=30 => steps.push(Step::KeepUp),
            31 => steps.push(if self.below(3) == 0 { Step::Flush } else { Step::Commit }),
            32 => steps.push(Step::Apply(self.byte(6))),
            33..=35 if setting.scans => steps.push(Step::Scan(self.byte(6) + 1)),
            36..=37 if setting.scans => steps.push(Step::HearScan),
            38 if setting.scans => steps.push(Step::Rescan(self.byte(2))),
            39 if setting.losses => steps.push(match self.below(6) {
                0 | 1 => Step::Overflow,
                2 => Step::Restart(self.below(2) == 0),
                3 => Step::Away(self.byte(2), true),
                4 => Step::Away(self.byte(2), false),
                _ => Step::Refuse(self.byte(3)),
            }),
            _ => steps.push(Step::KeepUp),
        }
    }
}

impl Plan {
    pub(crate) fn from_seed(seed: u64, setting: Setting) -> Plan {
        let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut steps = Vec::new();
        // Something is there already.
        for _ in 0..dice.below(8) {
            steps.push(Step::Do(1, dice.op(setting)));
        }
        if setting.wanders {
            // All are known before the first is renamed.
            for place in 0..WANDERERS {
                let dir = vec![place, place];
                let made =
                    [&dir[..1], &dir, &[place, place, 0], &[place, place, 0, 0]].map(|dir| Path(0, dir.to_vec()));
                steps.extend(made.map(|dir| Step::Do(1, Op::Mkdir(dir))));
            }
            steps.extend([Step::Drain(200), Step::Hear, Step::Commit, Step::Apply(200)]);
        }
        if !setting.scans || setting.wanders {
            // The first scan is over before the rest begins.
            steps.extend((0..4).flat_map(|_| {
                [vec![Step::Scan(200)], (0..30).map(|_| Step::HearScan).collect(), vec![Step::Apply(200)]].concat()
            }));
        }
        let base = if setting.wanders { steps.len() } else { 0 };
        for _ in 0..10 + dice.below(if setting.wanders { 190 } else { 90 }) {
            dice.step(setting, &mut steps);
        }
        let stamp_ns = if dice.below(2) == 0 { 1 } else { 4_000_000 };
        Plan { setting, stamp_ns, lease: dice.below(4) > 0, steps, base }
    }

    /// Does it all, and holds what came of it against what is there.
    pub(crate) fn run(&self, replays: bool) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.play(replays)));
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        })
    }

    fn play(&self, replays: bool) -> Result<(), String> {
        let Setting { flavour, has_handles, reuses_inodes, .. } = self.setting;
        let clock = SimClock::default();
        let manners = Manners { reuses_inodes, has_handles, stamp_ns: self.stamp_ns };
        let world = World::new(clock.clone(), manners, Kernel::new(flavour), ROOTS);
        let world = Rc::new(RefCell::new(world));
        let patience = Patience {
            settle: Duration::from_secs(60),
            settle_closed: Duration::from_secs(2),
            settle_min: Duration::ZERO,
            open_max: Duration::from_secs(3600),
            lease: self.lease,
        };
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let mut service = Service::new(&clock, &world, ROOTS, patience, dir.path());
        for step in &self.steps {
            service.step(step);
        }
        let since = clock.instant();
        service.come_to_rest()?;
        let took = clock.instant().duration_since(since);
        if took > REST_MAX {
            return Err(format!("it rests only after {took:?}"));
        }
        let strays = check(&service, self, replays.then(|| dir.path()));
        if strays.is_empty() { Ok(()) } else { Err(strays.join("\n")) }
    }

    /// The same failure with as few steps as can be found by leaving some out.
    pub(crate) fn shrunk(&self) -> Plan {
        let mut plan = self.clone();
        let mut size = plan.steps.len().div_ceil(2);
        while size > 0 {
            let before = plan.steps.len();
            let mut at = self.base;
            while at < plan.steps.len() {
                let mut less = plan.clone();
                less.steps.drain(at..(at + size).min(less.steps.len()));
                if less.run(true).is_err() { plan = less } else { at += size }
            }
            if size == 1 && plan.steps.len() == before {
                break;
            }
            size = if size == 1 { 1 } else { size / 2 };
        }
        for simpler in [Plan { lease: true, ..plan.clone() }, Plan { stamp_ns: 1, ..plan.clone() }] {
            if simpler.run(true).is_err() {
                plan = simpler;
            }
        }
        plan
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, stamps every {} ns, leases {}", self.setting, self.stamp_ns, self.lease)?;
        for step in &self.steps[self.base..] {
            match step {
                Step::Do(pid, op) => writeln!(f, "  {pid}: {}", shown(op))?,
                Step::Arm(looks, pid, op) => writeln!(f, "  after {looks} looks {pid}: {}", shown(op))?,
                other => writeln!(f, "  {other:?}")?,
            }
        }
        Ok(())
    }
}

fn shown(op: &Op) -> String {
    match op {
        Op::Write(at, size) => format!("write {at} {size}"),
        Op::Append(at) => format!("append {at}"),
        Op::Open(at) => format!("open {at}"),
        Op::Truncate(at, size) => format!("truncate {at} {size}"),
        Op::Chmod(at, mode) => format!("chmod {at} {mode}"),
        Op::Unlink(at) => format!("unlink {at}"),
        Op::Mkdir(at) => format!("mkdir {at}"),
        Op::Rmdir(at) => format!("rmdir {at}"),
        Op::RemoveAll(at) => format!("rm -rf {at}"),
        Op::Rename(from, to) => format!("rename {from} {to}"),
        Op::Exchange(one, other) => format!("exchange {one} {other}"),
        Op::Link(from, to) => format!("link {from} {to}"),
        Op::Symlink(at) => format!("symlink {at}"),
        Op::WriteOpen(_) | Op::Close(_) => format!("{op:?}"),
    }
}
