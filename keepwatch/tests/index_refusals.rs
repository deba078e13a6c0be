//! What cannot go well with the shared index is said clearly, with the promised exit code; the watcher goes on, and a
//! password is shown nowhere.
#![allow(clippy::unwrap_used, missing_docs)]

mod disturb;
mod postgres;
mod support;

use std::fs;
use std::path::Path;

use disturb::copy;
use postgres::{Postgres, assert_indexed, host, host_with, index_status, wait_indexed, wait_trouble};
use support::{Dice, Keepwatch, sh, shake, walk};

const SECRET: &str = "s3cret-passphrase";

/// The service runs and watches, `status` gives the first of these words as the reason, asking all hosts ends with this code
/// and some of the words; the secret is nowhere.
fn assert_told(mut keepwatch: Keepwatch, tree: &Path, words: &[&str], code: i32) {
    keepwatch.start_and_settle();
    let reason = wait_trouble(&keepwatch);
    assert!(reason.contains(words[0]), "`{}` is not in: {reason}", words[0]);
    shake(tree, &mut Dice::new(9), 100);
    keepwatch.assert_same(tree);
    assert_eq!(keepwatch.ask(&["status"]).status.code(), Some(1));
    let output = keepwatch.ask(&["ls", "--all-hosts"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(words.iter().any(|word| told.contains(word)) && told.starts_with("error: "), "{told}");
    let shown = [keepwatch.ask(&["status", "--json"]), keepwatch.ask(&["config", "show"]), output];
    for shown in shown {
        let text = [shown.stdout, shown.stderr].concat();
        assert!(!String::from_utf8_lossy(&text).contains(SECRET));
    }
    assert!(!keepwatch.log_text().contains(SECRET));
    keepwatch.stop();
}

fn section(url: &str, more: &str) -> String {
    format!("[postgres]\nurl = \"{url}\"\ntimeout = \"5s\"\n{more}\n")
}

#[test]
fn wrong_passwords_databases_and_rights_are_told() {
    let Some(postgres) = Postgres::start("wrong_passwords_databases_and_rights_are_told") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("one");
    for statement in [
        &*format!("CREATE ROLE alice LOGIN PASSWORD '{SECRET}'"),
        "CREATE ROLE weak LOGIN",
        "CREATE DATABASE kept OWNER alice",
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    ] {
        postgres.sql(statement);
    }
    let hba = fs::read_to_string(postgres.data().join("pg_hba.conf")).unwrap();
    fs::write(postgres.data().join("pg_hba.conf"), format!("local all alice scram-sha-256\n{hba}")).unwrap();
    postgres.sql("SELECT pg_reload_conf()");
    let password = dir.path().join("password");

    // The right one, from a file, the environment, a systemd credential.
    let file = format!("password_file = {:?}", password.to_str().unwrap());
    let right = section(&postgres.url("alice", "kept"), &file);
    fs::write(&password, format!("{SECRET}\nnot this line\n")).unwrap();
    let mut keepwatch = host_with(dir.path(), "one", &right);
    keepwatch.start_and_settle();
    wait_indexed(&keepwatch);
    keepwatch.stop();
    assert_eq!(postgres.sql_in("kept", "SELECT count(*) FROM hosts"), "1");
    fs::write(dir.path().join("keepwatch.postgres"), SECRET).unwrap();
    let sources = [("KEEPWATCH_POSTGRES_PASSWORD", SECRET), ("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
    for source in sources {
        let mut keepwatch = host_with(dir.path(), "one", &section(&postgres.url("alice", "kept"), ""));
        keepwatch.env.push((source.0.into(), source.1.into()));
        assert_eq!(keepwatch.ask(&["status", "--all-hosts"]).status.code(), Some(0), "{source:?}");
        let shown = keepwatch.ask(&["config", "show"]);
        assert!(!String::from_utf8_lossy(&shown.stdout).contains(SECRET));
    }

    fs::write(&password, "wrong\n").unwrap();
    assert_told(host_with(dir.path(), "one", &right), &tree, &["password authentication failed", "28P01"], 2);
    fs::remove_file(&password).unwrap();
    assert_told(host_with(dir.path(), "one", &right), &tree, &["cannot read the password", "No such file"], 2);
    let no_database = section(&postgres.url("postgres", "nowhere"), "");
    assert_told(host_with(dir.path(), "one", &no_database), &tree, &["database \"nowhere\" does not exist"], 2);
    let no_rights = section(&postgres.url("weak", "template1"), "");
    let keepwatch = host_with(dir.path(), "one", &no_rights);
    assert_told(keepwatch, &tree, &["permission denied", "has schema 0"], 2);
    let latin = section(&postgres.url("postgres", "latin"), "");
    assert_told(host_with(dir.path(), "one", &latin), &tree, &["encoding is LATIN1", "has schema 0"], 2);
    let nobody_there = section("postgres://postgres@127.0.0.1:9/postgres", "");
    assert_told(host_with(dir.path(), "one", &nobody_there), &tree, &["cannot reach the shared index"], 4);

    // An address with a password in it, and nonsense, are refused before anything starts.
    for (url, word) in
        [(&*format!("postgres://a:{SECRET}@db/x"), "does not belong in the address"), ("http://db", "postgres.url")]
    {
        let output = host_with(dir.path(), "one", &section(url, "")).ask(&["run"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(word) && !told.contains(SECRET), "{told}");
    }
}

#[test]
fn a_newer_schema_and_a_name_that_is_taken_are_told() {
    let Some(postgres) = Postgres::start("a_newer_schema_and_a_name_that_is_taken_are_told") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("one");
    let mut keepwatch = host(dir.path(), "one", &postgres);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
    let rows = "SELECT count(*), max(seq) FROM changes";
    let before = postgres.sql(rows);

    postgres.sql("INSERT INTO keepwatch_schema VALUES (99)");
    assert_told(host(dir.path(), "one", &postgres), &tree, &["schema 99", "newer keepwatch"], 2);
    assert_eq!(postgres.sql(rows), before);
    postgres.sql("DELETE FROM keepwatch_schema WHERE version = 99");

    // Another state directory under the same name: whose rows would they be?
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = host(elsewhere.path(), "one", &postgres);
    other.start_and_settle();
    let reason = wait_trouble(&other);
    assert!(reason.contains("a host `one` that is another one"), "{reason}");
    assert_eq!(postgres.sql(rows), before);
    other.stop();
    let mut keepwatch = host(dir.path(), "one", &postgres);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
    // Once the first is gone for good, the other takes its place when it is told to.
    let first = format!("{rows} WHERE host_id = 1");
    let before = postgres.sql(&first);
    other.ok(&["replay", "--to", "postgres"]);
    other.start_and_settle();
    wait_indexed(&other);
    assert_eq!(postgres::originals(&postgres, "one"), walk(&elsewhere.path().join("one")));
    assert_eq!(postgres.sql("SELECT count(*) FROM hosts"), "2", "the history of the first stays");
    assert_eq!(postgres.sql(&first), before);
    other.stop();
}

#[test]
fn a_state_directory_that_was_rolled_back_stops_as_forked() {
    let Some(postgres) = Postgres::start("a_state_directory_that_was_rolled_back_stops_as_forked") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("one");
    let mut keepwatch = host(dir.path(), "one", &postgres);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
    let older = dir.path().join("older");
    copy(&keepwatch.state, &older);
    keepwatch.start_and_settle();
    shake(&tree, &mut Dice::new(1), 200);
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    keepwatch.stop();
    // All but the identity, which would give it away at once, is as it was.
    fs::copy(older.join("inventory.db"), keepwatch.state.join("inventory.db")).unwrap();
    let _ = fs::remove_file(keepwatch.state.join("inventory.db-wal"));
    let _ = fs::remove_file(keepwatch.state.join("inventory.db-shm"));
    fs::remove_dir_all(keepwatch.state.join("journal")).unwrap();
    copy(&older.join("journal"), &keepwatch.state.join("journal"));
    let rows = "SELECT count(*), max(seq), md5(string_agg(seq || path, '' ORDER BY seq)) FROM changes";
    let before = postgres.sql(rows);
    keepwatch.start_and_settle();
    let reason = wait_trouble(&keepwatch);
    assert!(reason.starts_with("forked: ") && reason.contains("replay --to postgres"), "{reason}");
    shake(&tree, &mut Dice::new(2), 200);
    keepwatch.assert_same(&tree);
    assert!(index_status(&keepwatch).unwrap()["stopped"].as_str().unwrap().starts_with("forked"));
    assert_eq!(postgres.sql(rows), before);
    keepwatch.stop();
    keepwatch.ok(&["replay", "--to", "postgres"]);
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);

    // A new epoch is no fork: its rows come in the place of those of the journal before it, whose history stays.
    keepwatch.stop();
    let told = postgres.number("SELECT count(*) FROM file_changes");
    keepwatch.ok(&["init", "--new-epoch"]);
    keepwatch.start_and_settle();
    wait_indexed(&keepwatch);
    assert_eq!(postgres.number("SELECT count(*) FROM originals"), walk(&tree).len() as u64);
    assert!(postgres.number("SELECT count(*) FROM file_changes") >= told + walk(&tree).len() as u64);
    keepwatch.stop();
}

/// A server that proves who it is: by an authority of its own in a file, and not by one that nobody knows.
#[test]
fn a_server_must_prove_its_name() {
    let Some(mut postgres) = Postgres::start("a_server_must_prove_its_name") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("one");
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let openssl = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        sh("openssl", &args)
    };
    fs::write(dir.path().join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=authority -keyout {} -out {}",
        path("ca.key"),
        path("ca.crt")
    ));
    openssl(&format!(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout {} -out {}",
        path("server.key"),
        path("server.csr")
    ));
    openssl(&format!(
        "x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -days 30 -extfile {} -out {}",
        path("server.csr"),
        path("ca.crt"),
        path("ca.key"),
        path("names"),
        path("server.crt")
    ));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    postgres.stop("fast");
    for name in ["server.key", "server.crt"] {
        postgres.install(&dir.path().join(name), name);
    }
    for setting in ["ssl=on", "listen_addresses=localhost"] {
        postgres.set(setting);
    }
    postgres.set_port(port);
    postgres.resume();
    fs::write(postgres.data().join("pg_hba.conf"), "local all all trust\nhostssl all all all trust\n").unwrap();
    postgres.sql("SELECT pg_reload_conf()");
    let section = |host: &str, more: &str| section(&format!("postgres://postgres@{host}:{port}/postgres"), more);
    let own = format!("ca_file = {:?}", path("ca.crt"));
    let mut keepwatch = host_with(dir.path(), "one", &section("localhost", &own));
    keepwatch.start_and_settle();
    assert_indexed(&keepwatch, &postgres, "one", &tree);
    let sealed = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND application_name = 'keepwatch'";
    assert!(postgres.number(sealed) > 0);
    keepwatch.stop();
    let unknown = host_with(dir.path(), "one", &section("localhost", "tls = true"));
    assert_told(unknown, &tree, &["certificate", "UnknownIssuer", "has no authorities"], 4);
    let other_name = host_with(dir.path(), "one", &section("127.0.0.1", &own));
    assert_told(other_name, &tree, &["certificate"], 4);
    let open = host_with(dir.path(), "one", &section("localhost", "tls = false"));
    assert_told(open, &tree, &["no pg_hba.conf entry"], 2);
}
