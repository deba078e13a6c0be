//! Several hosts that watch one shared folder: one of them runs for each version, whoever dies.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::{Dice, Keepwatch, sized, wait_for};

/// Instances with state directories and names of their own, and one folder, `shared`.
struct Hosts {
    all: Vec<Keepwatch>,
    dir: tempfile::TempDir,
}

/// Notes that it began, waits as it is told, and notes that it ended.
const NOTE: &str = r#"printf 'begin %s %s %s\n' "$1" "$2" "$KEEPWATCH_KEY" >> "$3"; eval "$4"; printf 'end %s %s %s\n' "$1" "$2" "$KEEPWATCH_KEY" >> "$3""#;

impl Hosts {
    fn new(count: usize, meanwhile: &str, more: &str) -> Hosts {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap().to_owned();
        fs::create_dir(dir.path().join("shared")).unwrap();
        fs::write(dir.path().join("note"), NOTE).unwrap();
        let host = |number: usize| {
            let name = ["a", "b", "c"][number];
            let toml = format!(
                "host = \"{name}\"\n[roots.shared]\npath = \"{at}/shared\"\n[[triggers]]\nname = \"once\"\nclaim = true\n\
                 claim_timeout = \"3s\"\nretries = 1000\nretry_delay = \"20ms\"\nconcurrency = 2\n\
                 command = [\"/bin/sh\", \"{at}/note\", \"{name}\", \"{{name}}\", \"{at}/noted\", \"{meanwhile}\"]\n{more}"
            );
            Keepwatch::configured(&dir.path().join(format!("state-{name}")), &toml)
        };
        Hosts { all: (0..count).map(host).collect(), dir }
    }

    fn shared(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("shared").join(name)
    }

    /// What the commands noted: `begin` or `end`, host, name and key.
    fn noted(&self) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.dir.path().join("noted")).unwrap_or_default();
        let lines = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        lines.map(|words| words.try_into().unwrap()).collect()
    }

    fn noted_of(&self, what: &str, name: &str) -> Vec<[String; 4]> {
        self.noted().into_iter().filter(|line| line[0] == what && line[2] == name).collect()
    }

    /// Of each file: whose success it is, and how many hosts know that it is done. A version that two have is a failure.
    fn winners(&self) -> BTreeMap<String, (Vec<usize>, usize)> {
        let mut winners: BTreeMap<String, (Vec<usize>, usize)> = BTreeMap::new();
        for (number, host) in self.all.iter().enumerate() {
            for record in host.records().iter().filter(|record| record["do"] == "ran") {
                let entry = winners.entry(record["path"].as_str().unwrap().to_owned()).or_default();
                entry.1 += 1;
                if record["why"].is_null() {
                    entry.0.push(number);
                } else {
                    assert!(record["why"].as_str().unwrap().starts_with("done by "), "{record}");
                }
            }
        }
        winners
    }

    /// Waits until every host knows that so many versions are done.
    fn wait_done(&self, count: usize) {
        for host in &self.all {
            wait_for(&format!("{count} versions are done"), || {
                host.json_lines(&["trigger", "list", "--json"])[0]["done"] == count
            });
        }
    }
}

fn write(path: &Path, content: &str) {
    let made = path.with_extension("part");
    fs::write(&made, content).unwrap();
    fs::rename(&made, path).unwrap();
}

#[test]
fn three_hosts_are_killed_at_random_and_each_file_has_one_winner() {
    let mut hosts = Hosts::new(3, "sleep 0.0$(( $$ % 10 ))", "");
    hosts.all.iter_mut().for_each(Keepwatch::start_and_settle);
    let mut dice = Dice::new(0xc1a1);
    let (files, every) = (sized(150, 3_000), 10);
    for number in 0..files {
        write(&hosts.shared(&format!("f{number}")), &format!("content {number}"));
        // People write, they do not flood.
        std::thread::sleep(Duration::from_millis(5));
        if number % every == 0 {
            let host = dice.below(3);
            hosts.all[host].kill();
            hosts.all[host].launch();
        }
    }
    for host in &hosts.all {
        wait_for("the service answers", || host.status().is_some_and(|status| !status["service"].is_null()));
    }
    hosts.wait_done(files);
    let winners = hosts.winners();
    assert_eq!(winners.len(), files);
    for (path, (won, known)) in &winners {
        assert_eq!((won.len(), *known), (1, 3), "{path}: {won:?}");
    }
    let all: BTreeSet<usize> = winners.values().flat_map(|(won, _)| won.clone()).collect();
    assert_eq!(all.len(), 3, "every host does its part");
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for [_, _, name, key] in hosts.noted() {
        keys.entry(name).or_default().insert(key);
    }
    assert!(keys.len() == files && keys.values().all(|keys| keys.len() == 1), "the key is the same on every host");
    // Nothing of the claims is recorded, and what is written again is another version.
    let known = hosts.all[0].listed();
    let own: Vec<_> =
        known.keys().filter(|path| path.starts_with(b".keepwatch")).map(|path| support::show(path)).collect();
    assert!(own.is_empty(), "{own:?}");
    write(&hosts.shared("f0"), "other content");
    hosts.wait_done(files + 1);
    assert_eq!(hosts.winners()["f0"].0.len(), 2);
    let ends = hosts.noted().iter().filter(|line| line[0] == "end").count();
    eprintln!("{files} files, {} commands ended", ends);
}

#[test]
fn when_the_winner_dies_another_takes_over_at_once() {
    let mut hosts = Hosts::new(2, "test -e $3.go || sleep 1000", "");
    hosts.all.iter_mut().for_each(Keepwatch::start_and_settle);
    write(&hosts.shared("f"), "x");
    wait_for("it runs", || hosts.noted_of("begin", "f").len() == 1);
    let [_, winner, _, key] = hosts.noted_of("begin", "f")[0].clone();
    fs::write(hosts.dir.path().join("noted.go"), "").unwrap();
    let dead = usize::from(winner == "b");
    hosts.all[dead].kill();
    wait_for("the other runs", || hosts.noted_of("end", "f").len() == 1);
    let [_, second, _, same] = hosts.noted_of("end", "f")[0].clone();
    assert!(second != winner && same == key, "{second} {same}, {winner} {key}");
    hosts.all[dead].start_and_settle();
    hosts.wait_done(1);
    let expected = BTreeMap::from([("f".to_owned(), (vec![1 - dead], 2))]);
    assert_eq!(hosts.winners(), expected, "who was dead knows whose success it is");
    assert_eq!(hosts.noted_of("begin", "f").len(), 2);
}

#[test]
fn whoever_is_silent_too_long_has_no_success_even_if_its_command_was_fine() {
    let mut hosts = Hosts::new(2, "while ! test -e $3.$1; do sleep 0.02; done", "");
    hosts.all.iter_mut().for_each(Keepwatch::start_and_settle);
    write(&hosts.shared("f"), "x");
    wait_for("it runs", || hosts.noted_of("begin", "f").len() == 1);
    let winner = hosts.noted_of("begin", "f")[0][1].clone();
    let silent = usize::from(winner == "b");
    let go = |host: usize| fs::write(hosts.dir.path().join(format!("noted.{}", ["a", "b"][host])), "").unwrap();
    // It stands still, its command does not: the process is there, and says nothing.
    hosts.all[silent].signal("STOP");
    go(silent);
    wait_for("the first ends", || hosts.noted_of("end", "f").len() == 1);
    wait_for("the other takes over", || hosts.noted_of("begin", "f").len() == 2);
    go(1 - silent);
    wait_for("the second ends", || hosts.noted_of("end", "f").len() == 2);
    hosts.all[silent].signal("CONT");
    hosts.wait_done(1);
    assert_eq!(hosts.winners()["f"], (vec![1 - silent], 2));
}

#[test]
fn what_one_gave_up_all_give_up_and_a_person_may_ask_anywhere() {
    let mut hosts = Hosts::new(2, "test -e $3.go", "");
    for host in &mut hosts.all {
        let config = host.config.clone().unwrap();
        let toml = fs::read_to_string(&config).unwrap();
        fs::write(&config, toml.replace("retries = 1000", "retries = 2")).unwrap();
        host.start_and_settle();
    }
    fs::write(hosts.dir.path().join("note"), "test -e \"$3.go\"").unwrap();
    write(&hosts.shared("f"), "x");
    let dead = |host: &Keepwatch| host.json_lines(&["trigger", "list", "--json"])[0]["dead"] == 1;
    for host in &hosts.all {
        wait_for("it is given up", || dead(host));
    }
    let started = |host: &Keepwatch| host.records().iter().filter(|record| record["do"] == "started").count();
    assert_eq!(hosts.all.iter().map(started).sum::<usize>(), 3, "by the one that had it");
    fs::write(hosts.dir.path().join("noted.go"), "").unwrap();
    let asked = hosts.all.iter().position(|host| started(host) == 0).unwrap();
    hosts.all[asked].ok(&["trigger", "retry", "once"]);
    wait_for("it is done", || hosts.winners().contains_key("f"));
    assert_eq!(hosts.winners()["f"].0, [asked]);
    assert_eq!(hosts.all.iter().map(started).sum::<usize>(), 4);
}

#[test]
fn a_mount_and_the_folder_itself_are_one_to_the_claims() {
    const TEST: &str = "a_mount_and_the_folder_itself_are_one_to_the_claims";
    let mut hosts = Hosts::new(2, "true", "");
    let mounted = hosts.dir.path().join("mnt");
    fs::create_dir(&mounted).unwrap();
    let script = hosts.dir.path().join("ssh");
    fs::write(&script, "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let sshfs = Command::new("sshfs")
        .args(["-o", &format!("ssh_command={},dcache_timeout=3", script.display())])
        .arg(format!("b:{}", hosts.shared("").display()))
        .arg(&mounted)
        .output();
    match &sshfs {
        Ok(output) if output.status.success() => {}
        Ok(output) => return support::skipped(TEST, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => return support::skipped(TEST, &format!("sshfs: {error}")),
    }
    let far = hosts.all[1].config.clone().unwrap();
    let toml = fs::read_to_string(&far).unwrap();
    let settle = format!("path = {mounted:?}\npoll = \"1s\"\nsettle = \"1s\"");
    let near = format!("path = {:?}", hosts.dir.path().join("shared"));
    fs::write(&far, toml.replace(&near, &settle).replace("claim_timeout = \"3s\"", "claim_timeout = \"30s\"")).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        hosts.all.iter_mut().for_each(Keepwatch::start_and_settle);
        let files = sized(60, 2_000);
        for number in 0..files {
            write(&hosts.shared(&format!("f{number}")), &format!("content {number}"));
        }
        hosts.wait_done(files);
        let winners = hosts.winners();
        assert!(winners.values().all(|(won, known)| (won.len(), *known) == (1, 2)), "{winners:?}");
        assert_eq!(hosts.noted().iter().filter(|line| line[0] == "begin").count(), files);
        // And the other way round: the near one looks on.
        hosts.all[0].signal("STOP");
        write(&hosts.shared("far"), "x");
        wait_for("the far one runs", || !hosts.noted_of("end", "far").is_empty());
        hosts.all[0].signal("CONT");
        hosts.wait_done(files + 1);
        assert_eq!(hosts.winners()["far"], (vec![1], 2));
    }));
    hosts.all.iter_mut().for_each(Keepwatch::kill);
    let _ = Command::new("fusermount3").arg("-u").arg(&mounted).status();
    result.unwrap();
}
