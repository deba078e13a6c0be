//! Triggers under the service: each finished version is run for once, complete; what fails is tried again and given up; what is
//! asked for is done.
#![allow(clippy::unwrap_used)]

mod handoff;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use handoff::{House, sha256};
use support::{sized, skipped, wait_for};

#[test]
fn what_was_there_and_what_comes_is_run_for_once() {
    let mut house = House::noting("match = [\"*.csv\"]");
    fs::write(house.at("in/before.csv"), "1").unwrap();
    fs::write(house.at("in/other.txt"), "1").unwrap();
    house.keepwatch.start_and_settle();
    fs::write(house.at("in/after.csv"), "22").unwrap();
    house.wait_noted(2);
    house.wait_idle("note", 2);
    // A start, and an inventory that is made anew, run nothing again; what came meanwhile counts.
    house.keepwatch.stop();
    house.told(&["replay"], 0);
    assert_eq!(house.trigger("note")["done"], 2);
    fs::write(house.at("in/meanwhile.csv"), "333").unwrap();
    house.keepwatch.start_and_settle();
    house.wait_noted(3);
    fs::write(house.at("in/after.csv"), "4444").unwrap();
    fs::rename(house.at("in/before.csv"), house.at("in/renamed.csv")).unwrap();
    house.wait_noted(4);
    house.wait_idle("note", 4);
    let noted = house.noted();
    let sums: Vec<_> = noted.iter().map(|(_, _, sum)| sum.clone()).collect();
    for content in ["1", "22", "333", "4444"] {
        assert!(sums.contains(&sha256(content.as_bytes())), "{content}: {noted:?}");
    }
    assert_eq!(noted.len(), 4);
    let keys: std::collections::BTreeSet<_> = noted.iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys.len(), 4, "each version has a key of its own");
    let runs = house.assert_recorded();
    assert!(runs.values().all(|counts| *counts == (1, 1)), "{runs:?}");
    let shown = house.told(&["trigger", "show", "note"], 0);
    assert!(shown.contains("following, 4 done"), "{shown}");
    assert!(house.told(&["status"], 0).contains("trigger note"));
    house.keepwatch.stop();
    house.keepwatch.assert_verifies();
}

#[test]
fn however_a_file_is_written_each_finished_version_is_seen_once_and_whole() {
    let mut house = House::noting("concurrency = 8");
    fs::create_dir(house.at("aside")).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    house.keepwatch.start_and_settle();
    let has_rsync = Command::new("rsync").arg("--version").output().is_ok_and(|output| output.status.success());
    // The other side of a connection that there is not: what a copy over the network is, without the network.
    let server = Path::new("/usr/lib/openssh/sftp-server");
    let connect = house.at("connect");
    fs::write(&connect, format!("#!/bin/sh\nexec {}\n", server.display())).unwrap();
    fs::set_permissions(&connect, fs::Permissions::from_mode(0o755)).unwrap();
    let has_scp = server.exists() && Command::new("scp").output().is_ok();
    if !has_rsync || !has_scp {
        let why = "there is no rsync, no scp or no sftp-server";
        skipped("however_a_file_is_written_each_finished_version_is_seen_once_and_whole", why);
    }
    let (inside, aside) = (house.at("in"), house.at("aside"));
    let each = sized(40, 11_111);
    let tool = |words: &[&OsStr]| {
        let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
        assert!(status.success(), "{words:?}");
    };
    let ways = if has_rsync && has_scp { 9 } else { 7 };
    let slow = "a line of what is written slowly\n".repeat(60);
    std::thread::scope(|scope| {
        scope.spawn(|| write_in_bursts(&inside.join("slow"), slow.as_bytes(), 20, sized(3_000, 60_000) / 20));
        for writer in 0..4 {
            let (inside, aside, connect, elsewhere) = (&inside, &aside, &connect, elsewhere.path());
            scope.spawn(move || {
                for number in (0..each * ways).filter(|number| number % 4 == writer) {
                    let name = format!("f{number}");
                    let content = format!("content of {number}\n").repeat(1 + number % 50);
                    let (place, made) = (inside.join(&name), aside.join(&name));
                    match number % ways {
                        0 => fs::write(&place, content).unwrap(),
                        1 => write_in_bursts(&place, content.as_bytes(), 4, 15),
                        2 => {
                            fs::write(inside.join(format!("{name}.tmp")), content).unwrap();
                            fs::rename(inside.join(format!("{name}.tmp")), &place).unwrap();
                        }
                        3 => {
                            fs::write(&made, content).unwrap();
                            tool(&["cp".as_ref(), made.as_ref(), place.as_ref()]);
                        }
                        4 => {
                            fs::write(elsewhere.join(&name), content).unwrap();
                            tool(&["mv".as_ref(), elsewhere.join(&name).as_ref(), place.as_ref()]);
                        }
                        5 => {
                            fs::write(&made, content).unwrap();
                            fs::hard_link(&made, &place).unwrap();
                        }
                        6 => {
                            fs::write(&made, content).unwrap();
                            fs::rename(&made, &place).unwrap();
                        }
                        7 => {
                            fs::write(&made, content).unwrap();
                            let to = [OsStr::new("there:"), place.as_ref()].into_iter().collect::<std::ffi::OsString>();
                            tool(&["scp".as_ref(), "-qS".as_ref(), connect.as_ref(), made.as_ref(), &to]);
                        }
                        _ => {
                            fs::write(&made, content).unwrap();
                            tool(&["rsync".as_ref(), "-a".as_ref(), made.as_ref(), place.as_ref()]);
                        }
                    }
                }
            });
        }
    });
    let count = each * ways;
    house.wait_noted(count + 1);
    // Appended to later, each is one version more.
    for number in 0..each {
        use std::io::Write as _;
        let mut file = fs::File::options().append(true).open(inside.join(format!("f{number}"))).unwrap();
        file.write_all(b"more\n").unwrap();
    }
    house.wait_noted(count + 1 + each);
    house.wait_idle("note", (count + 1 + each) as u64);
    let mut seen = house.noted();
    assert_eq!(seen.len(), count + 1 + each, "no version was seen twice");
    let slow_one: Vec<_> = seen.iter().filter(|(_, path, _)| path.ends_with(b"/slow")).collect();
    assert!(slow_one.len() == 1 && slow_one[0].2 == sha256(slow.as_bytes()), "{slow_one:?}");
    for number in 0..count {
        let content = format!("content of {number}\n").repeat(1 + number % 50);
        let path = inside.join(format!("f{number}")).into_os_string().into_encoded_bytes();
        let sums: Vec<Vec<u8>> = seen.iter().filter(|(_, of, _)| *of == path).map(|(_, _, sum)| sum.clone()).collect();
        let mut expected = vec![sha256(content.as_bytes())];
        if number < each {
            expected.push(sha256(format!("{content}more\n").as_bytes()));
        }
        assert_eq!(sums, expected, "f{number}");
    }
    seen.retain(|(_, path, _)| path.ends_with(b".tmp"));
    assert!(seen.is_empty(), "{seen:?}");
    assert!(house.assert_recorded().values().all(|counts| *counts == (1, 1)));
}

/// Slowly, held open all the while: so many pieces, and so many milliseconds behind each.
fn write_in_bursts(place: &Path, content: &[u8], pieces: usize, wait_ms: usize) {
    use std::io::Write as _;
    let mut file = fs::File::create(place).unwrap();
    for piece in content.chunks(content.len() / pieces + 1) {
        file.write_all(piece).unwrap();
        file.flush().unwrap();
        // How people write: this is no wait for anything.
        std::thread::sleep(Duration::from_millis(wait_ms as u64));
    }
}

#[test]
fn a_hidden_file_that_gets_its_name_a_moment_after_its_close_is_seen_under_that_name() {
    let mut house = House::noting("");
    house.keepwatch.start_and_settle();
    for number in 0..20 {
        let hidden = house.at("in").join(format!(".f{number}.Xy{number:02}zZ"));
        fs::write(&hidden, format!("{number}")).unwrap();
        // As long as `rsync` may take on a busy machine: this is no wait for anything.
        std::thread::sleep(Duration::from_millis(25 * number));
        fs::rename(&hidden, house.at("in").join(format!("f{number}"))).unwrap();
    }
    fs::write(house.at("in/.stays"), "hidden").unwrap();
    house.wait_idle("note", 21);
    let mut paths: Vec<_> = house.noted().into_iter().map(|(_, path, _)| path).collect();
    paths.sort();
    let mut expected: Vec<_> = (0..20).map(|number| format!("in/f{number}")).collect();
    expected.push("in/.stays".to_owned());
    let mut expected: Vec<_> =
        expected.iter().map(|name| house.at(name).into_os_string().into_encoded_bytes()).collect();
    expected.sort();
    assert_eq!(paths, expected);
}

#[test]
fn names_that_try_to_inject_arrive_as_they_are() {
    let mut house = House::noting("");
    let names: [&[u8]; 9] =
        [b"; rm -rf .", b"$(touch pwned)", b"a\nb", b"-rf", b"'", b"\"`id`\"", b"\xff\xfe", b"{path}", b"*"];
    house.keepwatch.start_and_settle();
    for name in names {
        fs::write(house.at("in").join(OsStr::from_bytes(name)), name).unwrap();
    }
    house.wait_idle("note", names.len() as u64);
    let noted = house.noted();
    for name in names {
        let path = house.at("in").join(OsStr::from_bytes(name)).into_os_string().into_encoded_bytes();
        let seen: Vec<_> = noted.iter().filter(|(_, of, _)| *of == path).collect();
        assert_eq!(seen.len(), 1, "{}: {noted:?}", String::from_utf8_lossy(name));
        assert_eq!(seen[0].2, sha256(name));
    }
    let test = house.told(&["trigger", "test", house.at("in/-rf").to_str().unwrap()], 0);
    assert!(test.contains("note: done: /bin/sh"), "{test}");
}

#[test]
fn what_goes_wrong_is_bounded_tried_again_and_given_up() {
    let more = "retries = 1\nretry_delay = \"10ms\"\nconcurrency = 1\n";
    let one = |name: &str, command: &str, more: &str| {
        format!("[[triggers]]\nname = \"{name}\"\nmatch = [\"{name}*\"]\ncommand = {command}\n{more}")
    };
    let mut house = House::new(
        &[
            one("hang", r#"["/bin/sleep", "1000"]"#, &format!("{more}timeout = \"200ms\"")),
            one("fork", r#"["/bin/sh", "-c", "sleep 1001 & sleep 1002"]"#, &format!("{more}timeout = \"200ms\"")),
            one(
                "stubborn",
                r#"["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]"#,
                &format!("{more}timeout = \"200ms\""),
            ),
            one(
                "flood",
                r#"["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo the end >&2; exit 3"]"#,
                more,
            ),
            one("signal", r#"["/bin/sh", "-c", "kill -USR1 $$"]"#, more),
            one("gone", r#"["AT/tool"]"#, more),
        ]
        .join("\n"),
    );
    let tool = house.at("tool");
    fs::write(&tool, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    house.keepwatch.start_and_settle();
    // It was there when the configuration was read, and is not now.
    fs::remove_file(&tool).unwrap();
    let names = ["hang", "fork", "stubborn", "flood", "signal", "gone"];
    for name in names {
        fs::write(house.at("in").join(format!("{name}-1")), "x").unwrap();
    }
    for name in names {
        wait_for(&format!("`{name}` gives up"), || house.trigger(name)["dead"] == 1);
    }
    let records = house.keepwatch.records();
    for (name, why) in [
        ("hang", "longer than"),
        ("fork", "longer than"),
        ("stubborn", "longer than"),
        ("flood", "exit code 3: the end"),
        ("signal", "signal 10"),
        ("gone", "cannot be started"),
    ] {
        let of =
            |word: &str| records.iter().filter(|one| one["trigger"] == name && one["do"] == word).collect::<Vec<_>>();
        assert_eq!((of("started").len(), of("dead").len(), of("ran").len()), (2, 1, 0), "{name}");
        assert!(of("dead")[0]["why"].as_str().unwrap().contains(why), "{name}: {}", of("dead")[0]);
    }
    // Nothing is left running of what was ended.
    for seconds in ["1000", "1001", "1002"] {
        assert!(!is_sleeping(seconds), "sleep {seconds} runs still");
    }
    let status = house.told(&["status"], 1);
    assert!(status.contains("given up by trigger `hang`: keepwatch trigger show hang"), "{status}");
    let shown = house.told(&["trigger", "show", "flood"], 1);
    assert!(shown.contains("given up after 2 attempts: in/flood-1: exit code 3: the end"), "{shown}");
    let said = house.told(&["trigger", "show", "flood", house.at("in/flood-1").to_str().unwrap(), "--json"], 0);
    let said: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(said["stdout"].as_str().unwrap().len(), 64 * 1024);
    // A restart runs nothing of it again; a person does, or lets it be.
    house.keepwatch.stop();
    assert!(house.told(&["run"], 2).contains("tool`: No such file"));
    fs::write(&tool, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let before = house.keepwatch.records().len();
    house.keepwatch.start_and_settle();
    wait_for("it follows", || house.trigger("gone")["state"] == "following");
    assert!(house.keepwatch.records().iter().skip(before).all(|record| record["do"] != "started"));
    assert!(house.told(&["trigger", "retry", "gone"], 0).contains("1 file tried again"));
    wait_for("it is done", || house.trigger("gone")["done"] == 1 && house.trigger("gone")["dead"] == 0);
    let place = house.at("in");
    assert!(house.told(&["trigger", "skip", "flood", place.to_str().unwrap()], 0).contains("1 file skipped"));
    wait_for("it is skipped", || house.trigger("flood")["dead"] == 0);
    // Without a service it is the state directory that is asked.
    house.keepwatch.stop();
    assert!(house.told(&["trigger", "skip", "signal", place.to_str().unwrap()], 0).contains("1 file skipped"));
    assert!(house.told(&["trigger", "skip", "signal"], 0).contains("0 files skipped"));
    assert!(house.told(&["trigger", "retry", "hang", house.at("in/hang-1").to_str().unwrap()], 0).contains("1 file"));
    assert_eq!((house.trigger("signal")["dead"].clone(), house.trigger("hang")["dead"].clone()), (0.into(), 0.into()));
    house.keepwatch.start_and_settle();
    wait_for("it is tried again", || house.trigger("hang")["dead"] == 1);
    assert!(
        house.keepwatch.records().iter().filter(|one| one["trigger"] == "signal").all(|one| one["do"] != "resumed")
    );
    assert!(house.told(&["trigger", "retry", "fluod"], 2).contains("did you mean `flood`"));
}

/// Whether some process is `sleep SECONDS`.
fn is_sleeping(seconds: &str) -> bool {
    let expected = [b"sleep\0", seconds.as_bytes(), b"\0"].concat();
    let commands = fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
    commands.flatten().any(|line| line == expected)
}

#[test]
fn what_cannot_run_is_refused_by_name_with_a_remedy() {
    let ok = "command = [\"/bin/true\"]\n";
    let cases = [
        (format!("name = \"a\"\nmatch = [\"a[\"]\n{ok}"), "the pattern `a[`"),
        (
            "name = \"a\"\ncommand = [\"/bin/true\", \"{file}\"]".to_owned(),
            "`{file}` is no placeholder: there are {path}",
        ),
        ("name = \"a\"\ncommand = [\"/no/such\"]".to_owned(), "the program `/no/such`"),
        ("name = \"a\"\ncommand = [\"no-such-program\"]".to_owned(), "there is no program `no-such-program`"),
        ("name = \"a\"\ncommand = [\"/etc/passwd\"]".to_owned(), "chmod +x /etc/passwd"),
        (format!("name = \"a\"\nuser = \"nobody-here\"\n{ok}"), "there is no user `nobody-here`"),
        (format!("name = \"a\"\n{ok}[[triggers]]\nname = \"a\"\n{ok}"), "there are two triggers `a`"),
        (format!("name = \"a\"\nroots = [\"inn\"]\n{ok}"), "did you mean `in`?"),
        (format!("name = \"a\"\nmach = [\"*\"]\n{ok}"), "did you mean `match` instead of `mach`?"),
        ("name = \"a\"".to_owned(), "trigger `a` has no command"),
        (ok.to_owned(), "a trigger has no name"),
        (format!("name = \"a b\"\n{ok}"), "`a b` is no name for a trigger"),
        ("name = \"a\"\nbatch = 9\ncommand = [\"/bin/true\", \"{path}\"]".to_owned(), "come on standard input"),
        (format!("name = \"a\"\nexisting = \"maybe\"\n{ok}"), "use \"run\" or \"skip\""),
        (format!("name = \"a\"\nconcurrency = 0\n{ok}"), "`concurrency` must be from 1"),
    ];
    for (text, expected) in cases {
        let house = House::new(&format!("[[triggers]]\n{text}"));
        let told = house.told(&["config", "check"], 2);
        assert!(told.contains(expected), "{text}\n{told}");
    }
}

#[test]
fn what_a_command_writes_itself_makes_no_loop() {
    let mut house = House::new(
        "[[triggers]]\nname = \"grow\"\nmatch = [\"*.in\"]\n\
         command = [\"/bin/sh\", \"-c\", \"echo grown >> $1; echo copy > $1.copy.in; sleep 0.5\", \"sh\", \"{path}\"]\n\
         [[triggers]]\nname = \"next\"\nmatch = [\"*.out\"]\ncommand = [\"/bin/true\"]\n\
         [[triggers]]\nname = \"globs\"\nmatch = [\"*.g\"]\nexclude = [\"*.out.g\"]\nignore_own = false\n\
         command = [\"/bin/cp\", \"{path}\", \"{path}.out.g\"]\n\
         [[triggers]]\nname = \"feed\"\nmatch = [\"*.feed\"]\ncommand = [\"/bin/cp\", \"{path}\", \"{path}.out\"]\n",
    );
    house.keepwatch.start_and_settle();
    for name in ["a.in", "b.g", "c.feed"] {
        fs::write(house.at("in").join(name), "x\n").unwrap();
    }
    wait_for("another trigger's output is for the next", || house.trigger("next")["done"] == 1);
    wait_for("the globs keep it out", || house.trigger("globs")["done"] == 1);
    // The first run, and what it wrote.
    wait_for("its own are known", || house.trigger("grow")["done"].as_u64() >= Some(2));
    house.keepwatch.caught_up();
    let started = |name: &str| {
        let records = house.keepwatch.records();
        records.iter().filter(|one| one["trigger"] == name && one["do"] == "started").count()
    };
    assert_eq!((started("grow"), started("globs"), started("next"), started("feed")), (1, 1, 1, 1));
    assert_eq!(fs::read_to_string(house.at("in/a.in")).unwrap(), "x\ngrown\n");
}

#[test]
fn order_batches_existing_files_and_what_the_command_is_told() {
    let mut house = House::new(
        "[[triggers]]\nname = \"ordered\"\nmatch = [\"o*\"]\nordered = true\nretries = 3\nretry_delay = \"10ms\"\n\
         command = [\"/bin/sh\", \"-c\", \"echo $0 >> AT/ordered; test $0 != o5 || test $(grep -c o5 AT/ordered) = 3\", \"{name}\"]\n\
         [[triggers]]\nname = \"batch\"\nmatch = [\"b*\"]\nbatch = 50\n\
         command = [\"/bin/sh\", \"-c\", \"tr '\\\\0' '\\\\n' >> AT/batched; echo run >> AT/batches\"]\n\
         [[triggers]]\nname = \"new\"\nmatch = [\"e*\"]\nexisting = \"skip\"\ncommand = [\"/bin/sh\", \"-c\", \"echo {name} >> AT/new\"]\n\
         [[triggers]]\nname = \"told\"\nmatch = [\"t*\"]\nhash = true\ndir = \"/usr\"\nenv = [\"MORE=1\"]\nsize_min = 3\non = [\"create\"]\n\
         command = [\"/bin/sh\", \"-c\", \"(pwd; env) > AT/told-{name}\"]\n",
    );
    for name in ["e1", "e2"] {
        fs::write(house.at("in").join(name), "x").unwrap();
    }
    house.keepwatch.start_and_settle();
    wait_for("it follows", || house.trigger("new")["state"] == "following");
    for number in 1..=20 {
        fs::write(house.at("in").join(format!("o{number}")), "x").unwrap();
    }
    for number in 0..200 {
        fs::write(house.at("in").join(format!("b{number}")), "x").unwrap();
    }
    fs::write(house.at("in/e2"), "changed").unwrap();
    fs::write(house.at("in/e3"), "new").unwrap();
    fs::write(house.at("in/t1"), "too").unwrap();
    fs::write(house.at("in/t2"), "no").unwrap();
    house.wait_idle("ordered", 20);
    house.wait_idle("batch", 200);
    house.wait_idle("new", 2);
    house.wait_idle("told", 1);
    let lines = |name: &str| -> Vec<String> {
        fs::read_to_string(house.at(name)).unwrap().lines().map(str::to_owned).collect()
    };
    let mut expected: Vec<String> = (1..=20).map(|number| format!("o{number}")).collect();
    expected.splice(4..5, ["o5".to_owned(), "o5".to_owned(), "o5".to_owned()]);
    assert_eq!(lines("ordered"), expected, "what fails holds up the others");
    let mut batched = lines("batched");
    batched.sort();
    batched.dedup();
    assert_eq!((batched.len(), lines("batched").len()), (200, 200));
    assert!(lines("batches").len() < 200, "many files go to one run");
    let mut new = lines("new");
    new.sort();
    assert_eq!(new, ["e2", "e3"]);
    let told = lines("told-t1");
    let path = house.at("in/t1");
    let sum = String::from_utf8(sha256(b"too")).unwrap();
    assert_eq!(told[0], "/usr");
    for line in [
        format!("KEEPWATCH_PATH={}", path.display()),
        format!("KEEPWATCH_SHA256={sum}"),
        "KEEPWATCH_ROOT=in".to_owned(),
        "KEEPWATCH_TRIGGER=told".to_owned(),
        "MORE=1".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}: {told:?}");
    }
    assert!(!house.at("told-t2").exists());
}

/// A command without a configuration, in an environment of its own.
fn plain(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(support::program());
    command.args(args).env_clear().env("HOME", home).env("LC_ALL", "C.UTF-8").current_dir(home);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("XDG_CONFIG_HOME", home.join("config"));
    command.env("XDG_STATE_HOME", home.join("state")).stdin(std::process::Stdio::null());
    command
}

#[test]
fn on_runs_a_command_without_a_configuration_and_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (home, state) = (dir.path(), dir.path().join("on"));
    fs::create_dir(home.join("box")).unwrap();
    fs::write(home.join("box/a.csv"), "1").unwrap();
    fs::write(home.join("box/a.txt"), "1").unwrap();
    let args = ["on", "box", "--match", "*.csv", "--state-dir", state.to_str().unwrap(), "--", "sh", "-c"];
    let script = "cat \"$1\" >> seen; echo \"$HELLO\" >> seen; echo heard";
    let start = || {
        let out = fs::File::options().create(true).append(true).open(home.join("out")).unwrap();
        let mut command = plain(home, &args);
        command.args([script, "sh", "{path}"]).env("HELLO", "from outside");
        command.stdout(out).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let seen = || fs::read_to_string(home.join("seen")).unwrap_or_default();
    let end = |child: std::process::Child| {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let child = start();
    wait_for("what was there is run for", || seen() == "1from outside\n");
    fs::write(home.join("box/b.csv"), "2").unwrap();
    wait_for("what comes is run for", || seen() == "1from outside\n2from outside\n");
    assert!(end(child).contains("2 files done, 0 runs failed"));
    assert_eq!(fs::read_to_string(home.join("out")).unwrap(), "heard\nheard\n", "what commands say is printed");
    fs::write(home.join("box/c.csv"), "3").unwrap();
    let child = start();
    wait_for("what came meanwhile is run for", || seen().contains('3'));
    end(child);
    assert_eq!(seen(), "1from outside\n2from outside\n3from outside\n");
    for (args, expected) in [
        (&["on", "no", "--", "true"][..], "cannot be watched"),
        (&["on", "box", "--", "no-such-program"], "there is no program `no-such-program`"),
        (&["on", "box", "--match", "a[", "--", "true"], "the pattern `a[`"),
        (&["on", "box", "--", "true", "{file}"], "`{file}` is no placeholder"),
    ] {
        let output = plain(home, args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn wait_prints_the_first_finished_file_or_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    fs::create_dir(home.join("box")).unwrap();
    let output = plain(home, &["wait", "box", "--match", "*.csv", "--timeout", "1s"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
    let child = plain(home, &["wait", "box", "--match", "*.csv", "--timeout", "100s"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    fs::write(home.join("box/a.txt"), "1").unwrap();
    // Held open for writing it is not finished, whoever closes it elsewhere.
    let held = fs::File::create(home.join("box/a.csv")).unwrap();
    let output = plain(home, &["wait", "box", "--match", "a.csv", "--timeout", "1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    drop(held);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, [home.join("box/a.csv").as_os_str().as_bytes(), b"\n"].concat());
    let output = plain(home, &["wait", "box", "--timeout", "100s", "-0"]).output().unwrap();
    assert!(output.status.success() && output.stdout.ends_with(b"\0"), "what is finished already counts");
}

#[test]
fn a_file_is_handed_over_after_its_copy_and_moved_or_deleted_after_its_run() {
    let mut house = House::new(
        "[replicas.vault]\nurl = \"AT/vault\"\n\
         [[triggers]]\nname = \"tell\"\nmatch = [\"*.doc\"]\nafter = \"copied:vault\"\n\
         command = [\"/bin/sh\", \"-c\", \"find AT/vault -name $0 -size +0 | grep -c . >> AT/told\", \"{name}\"]\n\
         [[triggers]]\nname = \"file\"\nmatch = [\"*.csv\"]\nthen = \"move:done\"\nretries = 0\n\
         command = [\"/bin/sh\", \"-c\", \"test $(cat $0) != bad\", \"{path}\"]\n\
         [[triggers]]\nname = \"burn\"\nmatch = [\"*.job\"]\nthen = \"delete\"\nignore_own = false\n\
         command = [\"/bin/sh\", \"-c\", \"cat $0 >> AT/burnt; test $(cat $0) != new && mv -f AT/next $0; true\", \"{path}\"]\n",
    );
    fs::create_dir(house.at("vault")).unwrap();
    fs::create_dir(house.at("in/done")).unwrap();
    house.keepwatch.start_and_settle();
    fs::write(house.at("in/a.doc"), "x").unwrap();
    for content in ["1", "2"] {
        fs::write(house.at("in/a.csv"), content).unwrap();
        wait_for("it is moved", || !house.at("in/a.csv").exists());
    }
    fs::write(house.at("in/bad.csv"), "bad").unwrap();
    wait_for("what fails stays", || house.trigger("file")["dead"] == 1);
    assert!(house.at("in/bad.csv").exists());
    let read = |path: &str| fs::read_to_string(house.at(path)).unwrap_or_default();
    assert_eq!((read("in/done/a.csv"), read("in/done/a.csv~2")), ("1".to_owned(), "2".to_owned()));
    // What takes the name while its command runs is another file: it is run for, and only then deleted.
    fs::write(house.at("next"), "new").unwrap();
    fs::write(house.at("in/a.job"), "old").unwrap();
    wait_for("both are deleted", || read("burnt") == "oldnew" && !house.at("in/a.job").exists());
    wait_for("it is told of when it is there", || read("told") == "1\n");
    house.wait_idle("file", 2);
    // A start finds nothing to do.
    house.keepwatch.stop();
    let before = house.keepwatch.records().len();
    house.keepwatch.start_and_settle();
    wait_for("it follows", || house.trigger("burn")["state"] == "following");
    assert!(house.keepwatch.records().iter().skip(before).all(|record| record["do"] != "started"));
    for (line, expected) in [
        ("after = \"copied:valt\"", "did you mean `copied:vault`?"),
        ("after = \"vault\"", "use \"copied:REPLICA\""),
        ("then = \"burn\"", "use \"move:DIR\" or \"delete\""),
        ("then = \"move:no-such\"", "make it: mkdir -p"),
        ("then = \"move:/dev/shm\"", "not on the file system of root `in`"),
    ] {
        let text =
            format!("[replicas.vault]\nurl = \"AT/vault\"\n[[triggers]]\nname = \"a\"\ncommand = [\"true\"]\n{line}");
        let told = House::new(&text).told(&["config", "check"], 2);
        assert!(told.contains(expected), "{line}: {told}");
    }
}

/// The example of docs/triggers.md: A writes over a mount, B enriches, A takes what B made.
#[test]
fn two_machines_hand_files_on_through_a_mounted_folder() {
    const TEST: &str = "two_machines_hand_files_on_through_a_mounted_folder";
    let (shared, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hand, mounted) = (shared.path().join("hand"), far.path().join("mnt"));
    for dir in [&hand, &hand.join("Unenriched"), &hand.join("Enriched"), &mounted] {
        fs::create_dir(dir).unwrap();
    }
    // The server beside the client, over a pipe: what a mount by ssh is, without the ssh.
    let server = "/usr/lib/openssh/sftp-server";
    let script = far.path().join("ssh");
    fs::write(&script, format!("#!/bin/sh\nexec {server}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let sshfs = Command::new("sshfs")
        .arg("-o")
        .arg(format!("ssh_command={},cache=no", script.display()))
        .arg(format!("b:{}", hand.display()))
        .arg(&mounted)
        .output();
    match &sshfs {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skipped(TEST, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => return skipped(TEST, &format!("sshfs: {error}")),
    }
    let result = std::panic::catch_unwind(|| hand_on(shared.path(), far.path(), &hand, &mounted));
    let _ = Command::new("fusermount3").arg("-u").arg(&mounted).status();
    result.unwrap();
}

fn hand_on(near: &Path, far: &Path, hand: &Path, mounted: &Path) {
    let enrich = r#"sleep 0.01; { cat "$1"; echo enriched; } > "$2.part" && mv "$2.part" "$2""#;
    fs::write(near.join("enrich"), enrich).unwrap();
    let toml = format!(
        "host = \"b\"\n[roots.hand]\npath = {hand:?}\n[[triggers]]\nname = \"enrich\"\nmatch = [\"Unenriched/*\"]\n\
         retries = 100\nretry_delay = \"20ms\"\ncommand = [\"/bin/sh\", \"{}/enrich\", \"{{path}}\", \"{}/Enriched/{{name}}\"]\n",
        near.display(),
        hand.display()
    );
    let mut b = support::Keepwatch::configured(&near.join("state"), &toml);
    let toml = format!(
        "host = \"a\"\n[roots.hand]\npath = {mounted:?}\npoll = \"1s\"\nsettle = \"1s\"\n[[triggers]]\nname = \"take\"\n\
         match = [\"Enriched/*\"]\nretries = 100\nretry_delay = \"20ms\"\n\
         command = [\"/bin/sh\", \"-c\", \"cp $0 {}/taken.$1 && mv {}/taken.$1 {}/taken-$1\", \"{{path}}\", \"{{name}}\"]\n",
        far.display(),
        far.display(),
        far.display()
    );
    let mut a = support::Keepwatch::configured(&far.join("state"), &toml);
    let mut dice = support::Dice::new(7);
    b.start_and_settle();
    a.start_and_settle();
    let count = sized(40, 10_000);
    for number in 0..count {
        let place = mounted.join("Unenriched").join(format!("f{number}"));
        fs::write(place.with_extension("part"), format!("content {number}\n")).unwrap();
        fs::rename(place.with_extension("part"), &place).unwrap();
        if number % (count / 8) == 3 {
            let side = if dice.below(2) == 0 { &mut a } else { &mut b };
            side.kill();
            side.start();
        }
    }
    let taken = |number: usize| fs::read_to_string(far.join(format!("taken-f{number}"))).unwrap_or_default();
    for number in 0..count {
        wait_for(&format!("f{number} came back"), || !taken(number).is_empty());
        assert_eq!(taken(number), format!("content {number}\nenriched\n"));
    }
    let done = |side: &support::Keepwatch, trigger: &str| {
        let records = side.records();
        records.iter().filter(|one| one["trigger"] == trigger && one["do"] == "ran").count()
    };
    wait_for("each is recorded as enriched once", || done(&b, "enrich") == count);
    // A run that was cut at B has written its file again: another version.
    wait_for("and as taken", || done(&a, "take") >= count);
}
