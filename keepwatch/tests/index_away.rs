//! The server goes away, hangs, is full, or its connection breaks at the worst moment: nothing waits for it, nothing is
//! lost, nothing is there twice.
#![allow(clippy::unwrap_used, missing_docs)]

mod postgres;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::{Postgres, assert_indexed, host, host_with, index_status, wait_trouble};
use support::{Dice, Keepwatch, is_root, sh, shake, sized, skipped, wait_for};

/// Passes every byte on.
const PASS: usize = 0;
/// Takes connections and never says a word.
const SILENT: usize = 1;
/// Passes the next COMMIT on, and breaks the connection before the answer.
const CUT_BEHIND_COMMIT: usize = 2;
/// Breaks the connection in place of the next COMMIT.
const CUT_BEFORE_COMMIT: usize = 3;

/// What stands between a host and the server.
struct Proxy {
    port: u16,
    mode: Arc<AtomicUsize>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, cuts) = (Arc::new(AtomicUsize::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (modes, count) = (Arc::clone(&mode), Arc::clone(&cuts));
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for client in listener.incoming().flatten() {
                if modes.load(Ordering::SeqCst) == SILENT {
                    silent.push(client);
                    continue;
                }
                silent.clear();
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                relay(client, server, &modes, &count);
            }
        });
        Proxy { port, mode, cuts }
    }

    fn set(&self, mode: usize) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn section(&self) -> String {
        format!("[postgres]\nurl = \"postgres://postgres@127.0.0.1:{}/postgres\"\ntimeout = \"2s\"\n", self.port)
    }
}

fn relay(mut client: TcpStream, mut server: UnixStream, modes: &Arc<AtomicUsize>, cuts: &Arc<AtomicUsize>) {
    let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (up, down) = (Arc::clone(modes), Arc::clone(modes));
    let cuts = Arc::clone(cuts);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let part = &buffer[..count];
            let mode = up.load(Ordering::SeqCst);
            let commits = part.windows(6).any(|word| word == b"COMMIT");
            if commits && (mode == CUT_BEHIND_COMMIT || mode == CUT_BEFORE_COMMIT) {
                if mode == CUT_BEHIND_COMMIT {
                    // The answer gets no further.
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.write_all(part);
                    std::thread::sleep(Duration::from_millis(20));
                }
                up.store(PASS, Ordering::SeqCst);
                cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
            while up.load(Ordering::SeqCst) == SILENT {
                std::thread::sleep(Duration::from_millis(20));
            }
            if server.write_all(part).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            while down.load(Ordering::SeqCst) == SILENT {
                std::thread::sleep(Duration::from_millis(20));
            }
            if to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

/// What the service holds in memory.
fn resident_bytes(keepwatch: &Keepwatch) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", keepwatch.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn tree_of(dir: &Path) -> PathBuf {
    dir.join("one")
}

#[test]
fn a_server_that_is_away_costs_only_lag() {
    let Some(postgres) = Postgres::start("a_server_that_is_away_costs_only_lag") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = tree_of(dir.path());
    shake(&tree, &mut Dice::new(1), 200);
    keepwatch.start_and_settle();
    // As many changes with the server there: what the inventory and the watcher keep in memory has its size.
    let wanted = sized(3_000, 200_000) as u64;
    churn_for(&keepwatch, &tree, wanted);
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    postgres.stop("fast");
    let before = resident_bytes(&keepwatch);
    churn_for(&keepwatch, &tree, wanted);
    let grown = resident_bytes(&keepwatch).saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes more than before");
    let reason = wait_trouble(&keepwatch);
    assert!(reason.contains("cannot reach the shared index"), "{reason}");
    let index = index_status(&keepwatch).unwrap();
    assert!(index["lag_records"].as_u64().unwrap() >= wanted, "{index}");
    let shown = String::from_utf8(keepwatch.ask(&["status"]).stdout).unwrap();
    assert!(shown.contains("index at") && shown.contains("cannot reach the shared index"), "{shown}");
    postgres.resume();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    // And what is at rest is not asked for again.
    keepwatch.stop();
}

/// Rounds of churn that must be enough for all changes that are wanted.
const ROUNDS_MAX: usize = 100;

/// Makes at least so many changes, all of them in the inventory at the end.
fn churn_for(keepwatch: &Keepwatch, tree: &Path, wanted: u64) {
    let from = keepwatch.caught_up();
    let mut round = 0;
    while changes_from(keepwatch, from) < wanted {
        assert!(round < ROUNDS_MAX, "too few changes after {ROUNDS_MAX} rounds");
        churn(tree, round, sized(1_500, 20_000));
        keepwatch.caught_up();
        round += 1;
    }
}

/// Changes that the host's own inventory has from a record on.
fn changes_from(keepwatch: &Keepwatch, seq: u64) -> u64 {
    let script = "import sqlite3, sys; db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True); \
                  print(db.execute('SELECT count(*) FROM changes WHERE seq >= ?', (int(sys.argv[2]),)).fetchone()[0])";
    let inventory = keepwatch.state.join("inventory.db");
    sh("python3", &["-c", script, inventory.to_str().unwrap(), &seq.to_string()]).trim().parse().unwrap()
}

/// So many changes: files made, written again, removed.
fn churn(tree: &Path, round: usize, count: usize) {
    let dir = tree.join(format!("r{}", round % 3));
    fs::create_dir_all(&dir).unwrap();
    for number in 0..count {
        let file = dir.join(format!("f{}", number % 500));
        if number % 7 == 6 {
            let _ = fs::remove_file(&file);
        } else {
            fs::write(&file, format!("{round} {number}")).unwrap();
        }
    }
}

#[test]
fn a_server_that_dies_again_and_again_has_everything_once() {
    let Some(postgres) = Postgres::start("a_server_that_dies_again_and_again_has_everything_once") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = tree_of(dir.path());
    keepwatch.start_and_settle();
    let mut dice = Dice::new(5);
    for turn in 0..sized(3, 50) {
        let end = Instant::now() + Duration::from_millis(200 + dice.below(700) as u64);
        let mut round = 0;
        while Instant::now() < end {
            shake(&tree, &mut Dice::new((turn * 100 + round) as u64), 40);
            round += 1;
        }
        postgres.stop("immediate");
        shake(&tree, &mut Dice::new(turn as u64), 40);
        postgres.resume();
    }
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
}

#[test]
fn a_connection_that_breaks_in_mid_commit_is_resolved_by_the_cursor() {
    let Some(postgres) = Postgres::start("a_connection_that_breaks_in_mid_commit_is_resolved_by_the_cursor") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(postgres.socket());
    let mut keepwatch = host_with(dir.path(), "one", &proxy.section());
    let tree = tree_of(dir.path());
    keepwatch.start_and_settle();
    for turn in 0..sized(6, 100) {
        let cuts = proxy.cuts.load(Ordering::SeqCst);
        proxy.set(if turn % 2 == 0 { CUT_BEHIND_COMMIT } else { CUT_BEFORE_COMMIT });
        shake(&tree, &mut Dice::new(turn as u64), 60);
        fs::write(tree.join("one more"), turn.to_string()).unwrap();
        wait_for("a commit was cut", || proxy.cuts.load(Ordering::SeqCst) > cuts);
    }
    proxy.set(PASS);
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
}

#[test]
fn a_server_that_takes_connections_and_never_answers_is_noticed() {
    let Some(postgres) = Postgres::start("a_server_that_takes_connections_and_never_answers_is_noticed") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(postgres.socket());
    let mut keepwatch = host_with(dir.path(), "one", &proxy.section());
    let tree = tree_of(dir.path());
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    proxy.set(SILENT);
    shake(&tree, &mut Dice::new(3), 300);
    let reason = wait_trouble(&keepwatch);
    assert!(reason.contains("does not answer"), "{reason}");
    // The watcher goes on, and so does whoever asks it.
    keepwatch.assert_same(&tree);
    let start = Instant::now();
    keepwatch.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "it hangs with the server: {:?}", start.elapsed());
    proxy.set(PASS);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
}

#[test]
fn a_server_whose_disk_is_full_gets_the_rest_later() {
    let test = "a_server_whose_disk_is_full_gets_the_rest_later";
    if !is_root() {
        return skipped(test, "only root can mount a small disk");
    }
    let Some(small) = SmallDisk::mount() else { return skipped(test, "no tmpfs can be mounted") };
    let Some(postgres) = Postgres::start_in(test, &small.0) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    let tree = tree_of(dir.path());
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    // Fill it to the last byte.
    let ballast = small.0.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    let block = vec![1; 1 << 20];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&block[..512]).is_ok() {}
    drop(file);
    let mut round = 0;
    let start = Instant::now();
    while index_status(&keepwatch).is_none_or(|index| index["stopped"].is_null()) {
        assert!(start.elapsed() < Duration::from_secs(60), "a full disk was not noticed");
        churn(&tree, round, 500);
        round += 1;
    }
    keepwatch.assert_same(&tree);
    fs::remove_file(&ballast).unwrap();
    // A server that could not write its log has ended itself.
    postgres.revive();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
}

/// A file system of a few MiB, unmounted and removed with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("kwsmall").tempdir_in("/tmp").unwrap().keep();
        let status =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"]).arg(&dir).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(dir));
        }
        let _ = fs::remove_dir(&dir);
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
