//! The sequencer against a simulated machine: whatever happens, in whatever order it is heard of, what it journals in
//! the end is what is there.
#![allow(clippy::unwrap_used)]

mod cases;
mod check;
mod plan;

use plan::{Plan, Setting, sized};

/// After so many failures of one setting the others are not looked for.
const FAILURES_MAX: usize = 8;

/// Runs so many seeds of a setting; the first that fails is made as short as it gets and shown.
fn hold(name: &str, setting: Setting, small: u64, full: u64) {
    let only = std::env::var("KEEPWATCH_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..sized(small, full), |seed| seed..seed + 1);
    let mut failed = Vec::new();
    for seed in seeds {
        let plan = Plan::from_seed(seed, setting);
        if let Err(why) = plan.run(seed % 16 == 0) {
            let plan = plan.shrunk();
            let why = plan.run(true).err().unwrap_or(why);
            let told = format!("seed {seed} of {name}:\n{plan}\n{why}\n");
            eprintln!("{told}");
            failed.push(told);
            if failed.len() >= FAILURES_MAX {
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn events_alone_by_fanotify() {
    hold("events_alone_by_fanotify", Setting::FANOTIFY, 800, 40_000);
}

#[test]
fn events_and_scans_by_fanotify() {
    hold("events_and_scans_by_fanotify", Setting { scans: true, ..Setting::FANOTIFY }, 800, 40_000);
}

#[test]
fn with_losses_and_restarts_by_fanotify() {
    let setting = Setting { scans: true, losses: true, reuses_inodes: false, ..Setting::FANOTIFY };
    hold("with_losses_and_restarts_by_fanotify", setting, 500, 20_000);
}

#[test]
fn while_things_change_under_its_eyes_by_fanotify() {
    let setting = Setting { scans: true, races: true, losses: true, ..Setting::FANOTIFY };
    hold("while_things_change_under_its_eyes_by_fanotify", setting, 500, 20_000);
}

#[test]
fn while_directories_wander_by_fanotify() {
    let setting = Setting { scans: true, races: true, wanders: true, reuses_inodes: false, ..Setting::FANOTIFY };
    hold("while_directories_wander_by_fanotify", setting, 500, 20_000);
}

#[test]
fn while_directories_wander_by_inotify() {
    let setting = Setting { scans: true, races: true, wanders: true, ..Setting::INOTIFY };
    hold("while_directories_wander_by_inotify", setting, 500, 20_000);
}

#[test]
fn by_inotify() {
    let setting = Setting { losses: true, ..Setting::INOTIFY };
    hold("by_inotify", setting, 500, 20_000);
}

#[test]
fn by_inotify_without_handles() {
    let setting = Setting { has_handles: false, races: true, losses: true, ..Setting::INOTIFY };
    hold("by_inotify_without_handles", setting, 500, 20_000);
}

#[test]
fn by_scans_alone() {
    let setting = Setting { losses: true, races: true, ..Setting::POLL };
    hold("by_scans_alone", setting, 400, 10_000);
}
