//! Triggers while everything around them is killed: in the end every version has one recorded success, and none is run after it.
#![allow(clippy::unwrap_used)]

mod handoff;
mod support;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use handoff::{House, sha256};
use support::{Dice, sized, wait_for};

/// Kills one of the commands that the service runs, if there is one.
fn kill_a_command(service: u32, dice: &mut Dice) {
    let mut commands = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&service.to_string()) && !line.is_empty() {
            commands.push(pid);
        }
    }
    if !commands.is_empty() {
        let pid = commands[dice.below(commands.len())];
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
    }
}

/// So many files are written before their runs are waited for.
const AHEAD_MAX: usize = 200;

#[test]
fn whatever_is_killed_every_version_is_done_once_and_none_after_it() {
    let mut house = House::noting("concurrency = 3\nretries = 1000\nretry_delay = \"20ms\"");
    // It takes a while, so that kills meet it.
    let script = fs::read_to_string(house.at("note")).unwrap();
    fs::write(house.at("note"), format!("sleep 0.0$(( $$ % 8 ))\n{script}")).unwrap();
    let mut dice = Dice::new(0x7716);
    house.keepwatch.start_and_settle();
    let rounds = sized(25, 1_000);
    let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let inside = house.at("in");
    let (mut written, mut kills) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                if number < seen.load(Ordering::Acquire) + AHEAD_MAX {
                    fs::write(inside.join(format!("f{number}")), format!("content {number}")).unwrap();
                    number += 1;
                }
                // People write, they do not flood.
                std::thread::sleep(Duration::from_millis(10));
            }
            number
        });
        for _ in 0..rounds {
            // Some kills meet a start, some what follows it.
            let noted = house.noted().len() + dice.below(4);
            let until = Instant::now() + Duration::from_millis(dice.below(1_500) as u64);
            while house.noted().len() < noted && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(dice.below(100) as u64));
            seen.store(house.noted().len(), Ordering::Release);
            if dice.below(3) == 0 {
                kill_a_command(house.keepwatch.pid(), &mut dice);
            } else {
                house.keepwatch.kill();
                kills += 1;
                house.keepwatch.launch();
            }
        }
        stop.store(true, Ordering::Release);
        written = writer.join().unwrap();
    });
    wait_for("the service answers", || house.keepwatch.status().is_some_and(|status| !status["service"].is_null()));
    house.wait_idle("note", written as u64);
    let runs = house.assert_recorded();
    assert_eq!(runs.len(), written);
    assert!(runs.values().all(|(_, ran)| *ran == 1), "{runs:?}");
    let again: usize = runs.values().map(|(started, _)| started - 1).sum();
    assert!(again <= rounds * 3, "{again} runs were begun again in {rounds} kills");
    let noted = house.noted();
    for number in 0..written {
        let path = inside.join(format!("f{number}")).into_os_string().into_encoded_bytes();
        let sums: Vec<_> = noted.iter().filter(|(_, of, _)| *of == path).collect();
        let sum = sha256(format!("content {number}").as_bytes());
        assert!(!sums.is_empty() && sums.iter().all(|(_, _, seen)| *seen == sum), "f{number}: {sums:?}");
    }
    house.keepwatch.stop();
    house.told(&["replay"], 0);
    assert_eq!(house.trigger("note")["done"], written as u64, "a replay brings the same");
    eprintln!("{written} files, {kills} kills of the service, {again} runs begun again");
}

#[test]
fn what_outlives_a_kill_is_ended_before_another_run() {
    let mut house = House::new(
        "[[triggers]]\nname = \"long\"\ncommand = [\"/bin/sh\", \"-c\", \"echo $$ >> AT/pids; sleep 30; exit 0\"]\n",
    );
    house.keepwatch.start_and_settle();
    fs::write(house.at("in/a"), "x").unwrap();
    let pids = |house: &House| -> Vec<u32> {
        let text = fs::read_to_string(house.at("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    wait_for("it runs", || pids(&house).len() == 1);
    // The leader of its group cannot end it: it is stopped, until the kernel wakes it, for its parent is gone.
    let record = house.keepwatch.records().into_iter().find(|record| record["do"] == "started").unwrap();
    let group = record["group"].as_u64().unwrap();
    assert!(Command::new("kill").args(["-STOP", &group.to_string()]).status().unwrap().success());
    house.keepwatch.kill();
    let first = pids(&house)[0];
    house.keepwatch.start_and_settle();
    wait_for("it runs again", || pids(&house).len() == 2);
    assert!(!is_there(first), "the first was ended before the second began");
    let second = pids(&house)[1];
    house.keepwatch.kill();
    wait_for("without its service a command ends", || !is_there(second));
}

/// Whether there is a process that is not only waited for.
fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
