//! The plug-in of the documentation and its lesser kin, through the suite; and plug-ins that die, hang or talk rubbish.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::target::conformance::{claim, conforms, meta, path};
use crate::target::{Claim, Content, Session};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/plugin.py");

fn little_patience() -> ExecPatience {
    ExecPatience { silence: Duration::from_secs(20), rate_min: 50_000 }
}

/// A target whose plug-in is the example, after a change of its text.
fn changed(dir: &Path, lead: &[u8], changes: &[(&str, &str)]) -> Arc<dyn Target> {
    let mut text = std::fs::read_to_string(EXAMPLE).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let program = dir.join("plugin.py");
    std::fs::write(&program, text).unwrap();
    run(&format!("python3 {} {}/kept", program.display(), dir.display()), dir, lead, little_patience())
}

fn run(command: &str, dir: &Path, lead: &[u8], patience: ExecPatience) -> Arc<dyn Target> {
    std::fs::create_dir_all(dir.join("kept")).unwrap();
    target(&ExecCommand::parse(command.as_bytes()).unwrap(), lead, patience, &dir.join("spool"))
}

#[test]
fn the_example_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&*changed(dir.path(), b"", &[]));
    let spooled = std::fs::read_dir(dir.path().join("spool")).unwrap().flatten();
    let files = spooled.flat_map(|dir| std::fs::read_dir(dir.path()).unwrap());
    assert_eq!(files.count(), 1, "nothing is left spooled but the lock");
}

#[test]
fn one_that_renames_nothing_and_lists_in_any_order_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let changes = [
        ("\"rename\", ", ""),
        ("\"sorted\": True, ", ""),
        ("in sorted(", "in backwards("),
        ("def names(", "def backwards(all): return sorted(all, reverse=True)\ndef names("),
        ("m.get(\"limit\")", "None"),
    ];
    conforms(&*changed(dir.path(), b"", &changes));
}

#[test]
fn one_that_takes_several_requests_keeps_whole_seconds_and_gets_slashes_in_front_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let changes = [
        ("\"mtime_step_ns\": 1,", "\"mtime_step_ns\": 1000000000, \"at_once\": 8,"),
        ("(m[\"mtime_ns\"], m[\"mtime_ns\"])", "(m[\"mtime_ns\"] // 10**9 * 10**9,) * 2"),
        (
            "def place(path): return",
            "def place(path):\n    assert path.startswith((b'/', b'.keepwatch-')) or not path, path\n    return",
        ),
    ];
    conforms(&*changed(dir.path(), b"/", &changes));
}

/// The least that a plug-in can do: no content comes back, nothing is renamed.
#[test]
fn the_least_of_plug_ins_holds_copies() {
    let dir = tempfile::tempdir().unwrap();
    let changes = [("\"read\", \"delete\", \"rename\", \"symlinks\"", "\"delete\""), (", \"checks\": \"sha256\"", "")];
    let target = changed(dir.path(), b"", &changes);
    let (session, identity) = target.open(&claim("one", None)).unwrap();
    assert_eq!(target.nature().proof, Proof::Presumed);
    assert_eq!(target.probe(&claim("one", Some(&identity))).unwrap().as_deref(), Some(&*identity));
    assert!(matches!(target.open(&claim("other", None)), Err(TargetError::Owned { .. })));
    put(&*session, "a/b").unwrap();
    assert_eq!(session.look(&path("a/b")).unwrap().unwrap().size, 7);
    let unable = |result: Result<()>| assert!(matches!(result, Err(TargetError::Unable { .. })));
    unable(session.can_set_aside());
    unable(session.rename(&path("a/b"), &path("c")));
    unable(session.link(&path("a/b"), &path("c")));
    unable(session.read(&path("a/b")).map(|_| ()));
    let link = session.stage(&path("l"), &meta(), Content::Symlink(b"x")).unwrap();
    assert!(matches!(session.publish(vec![link], None).pop().unwrap(), Err(TargetError::Refused { .. })));
    assert!(session.remove(&path("a/b")).unwrap() && !session.remove(&path("a/b")).unwrap());
}

fn put(session: &dyn Session, at: &str) -> Result<()> {
    let content = Content::File { bytes: &mut &b"content"[..], size: 7, is_sparse: false };
    let staged = session.stage(&path(at), &meta(), content)?;
    session.publish(vec![staged], None).pop().unwrap()
}

fn why(error: &TargetError) -> String {
    assert!(matches!(error, TargetError::Away { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn one_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let patience = ExecPatience { silence: Duration::from_millis(300), rate_min: 50_000 };
    let refused = |command: &str| {
        let begun = Instant::now();
        let error = why(&run(command, dir.path(), b"", patience).open(&claim("one", None)).map(|_| ()).unwrap_err());
        assert!(begun.elapsed() < Duration::from_secs(5), "{command}: {:?}", begun.elapsed());
        error
    };
    assert!(refused("/no/such/program x").contains("`/no/such/program` does not run"));
    assert!(refused("sh -c 'echo cannot go on >&2; exit 3'").contains("status 3: cannot go on"));
    assert!(refused("sh -c 'kill -9 $$'").contains("signal 9"));
    assert!(refused("echo Welcome!").contains("rubbish (it is no JSON"));
    assert!(refused("sh -c 'exec cat'").contains("rubbish"), "its own words are no answer");
    assert!(refused("sleep 100").contains("said nothing for 0.3 s"));
    assert!(refused("sh -c 'sleep 100 | cat'").contains("said nothing"), "what it started is ended too");
    assert!(refused("sh -c 'head -c 3000000 /dev/zero'").contains("longer than"));
    let two = r#"sh -c 'echo "{\"id\":0,\"ok\":true,\"version\":2}"; cat >/dev/null'"#;
    assert!(refused(two).contains("version 2"));
}

/// Trouble in the middle is told, and the next time it is started anew.
#[test]
fn one_that_dies_hangs_or_talks_rubbish_is_started_again() {
    let patience = ExecPatience { silence: Duration::from_secs(2), rate_min: 50_000 };
    let trouble = [
        ("os._exit(7)", "status 7"),
        ("import time; time.sleep(100)", "said nothing for 2 s"),
        ("print('what?')", "rubbish"),
        ("say({\"id\": 10**6}, ok=True)", "nothing with the id"),
        ("say(m, item={\"path\": \"x\", \"size\": 1})", "nothing was to be listed"),
    ];
    for (what, told) in trouble {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().display();
        let once = format!(
            "if m[\"do\"] == \"upload\":\n        if m[\"path\"] == \"x/y\" and not os.path.exists(\"{kept}/once\"):\n            \
             open(\"{kept}/once\", \"w\"); {what}; sys.stdout.flush()\n        #"
        );
        let text = std::fs::read_to_string(EXAMPLE).unwrap().replace("if m[\"do\"] == \"upload\":", &once);
        std::fs::write(dir.path().join("plugin.py"), text).unwrap();
        let target = run(&format!("python3 {kept}/plugin.py {kept}/kept"), dir.path(), b"", patience);
        let (session, identity) = target.open(&claim("one", None)).unwrap();
        let error = why(&put(&*session, "x/y").unwrap_err());
        assert!(error.contains(told), "{what}: {error}");
        assert!(put(&*session, "x/y").is_err(), "{what}: it is of no use any more");
        let (session, _) = target.open(&Claim { identity: Some(identity), ..claim("one", None) }).unwrap();
        put(&*session, "x/y").unwrap();
        assert_eq!(session.look(&path("x/y")).unwrap().unwrap().size, 7, "{what}");
    }
}

#[test]
fn one_that_is_slow_may_say_that_it_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let slow = "if m[\"do\"] == \"upload\":\n        import time\n        for _ in range(20):\n            \
                time.sleep(0.1); say(m, alive=True)\n        #";
    std::fs::write(dir.path().join("plugin.py"), text.replace("if m[\"do\"] == \"upload\":", slow)).unwrap();
    let patience = ExecPatience { silence: Duration::from_millis(1500), rate_min: 50_000 };
    let command = format!("python3 {0}/plugin.py {0}/kept", dir.path().display());
    run(&command, dir.path(), b"", patience).open(&claim("one", None)).unwrap();
}

#[test]
fn what_is_stored_wrong_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let target = changed(dir.path(), b"", &[(".hexdigest()}", ".hexdigest()[::-1]}")]);
    let error = target.open(&claim("one", None)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another hash"), "{error}");
}

/// What was done and not answered, or begun and not finished, is taken back: nothing of it was journaled.
#[test]
fn what_is_in_doubt_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().display();
    // It dies once at the third object of a directory that is renamed, and once after it has put an object.
    let die = format!(
        "move(path, place(name(m, \"to\")) if m[\"do\"] == \"rename\" else new)\n        if m[\"path\"] == \"a/2\" and not os.path.exists(\"{kept}/one\"):\n            \
         open(\"{kept}/one\", \"w\"); os._exit(9)"
    );
    let after = format!(
        "move(new, path)\n        if m[\"path\"] == \"x\" and not os.path.exists(\"{kept}/two\"):\n            \
         open(\"{kept}/two\", \"w\"); os._exit(9)"
    );
    let target = changed(
        dir.path(),
        b"",
        &[
            ("move(path, place(name(m, \"to\")) if m[\"do\"] == \"rename\" else new)", &die),
            ("move(new, path)", &after),
        ],
    );
    let names = |session: &dyn Session| {
        let mut names = Vec::new();
        session
            .list(&RelPath::ROOT, &mut |path, _| {
                names.push(String::from_utf8(path.as_bytes().to_vec()).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        names
    };
    let (session, _) = target.open(&claim("one", None)).unwrap();
    for name in ["a/1", "a/2", "a/3"] {
        put(&*session, name).unwrap();
    }
    why(&session.rename(&path("a"), &path("b")).unwrap_err());
    let (session, _) = target.open(&claim("one", None)).unwrap();
    assert_eq!(names(&*session), ["a", "a/1", "a/2", "a/3"], "all is moved back");
    why(&put(&*session, "x").unwrap_err());
    let (session, _) = target.open(&claim("one", None)).unwrap();
    assert_eq!(names(&*session), ["a", "a/1", "a/2", "a/3"], "what was put is taken away");
    session.rename(&path("a"), &path("b")).unwrap();
    assert_eq!(names(&*session), ["b", "b/1", "b/2", "b/3"]);
}

/// It is short enough to be read at one go.
#[test]
fn the_example_has_forty_lines() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    // Behind the line that names the interpreter and the one that says what it is.
    assert!(text.lines().skip(2).filter(|line| !line.is_empty()).count() <= 40);
}
