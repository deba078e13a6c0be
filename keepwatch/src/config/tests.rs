use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::problem::Origin;
use super::settings::JournalSettings;
use keepwatch_engine::sync::filter::FilterText;

use super::replicas::ReplicaSpec;
use super::*;

/// Loads one file and these variables in a world without anything else.
fn load_text(text: &str, vars: &[(&str, &str)], overrides: &Overrides) -> Result<Loaded, CommandError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keepwatch.toml");
    std::fs::write(&file, text).unwrap();
    let environment = Environment {
        vars: vars.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect(),
        home: Some(dir.path().to_owned()),
        current_dir: dir.path().to_owned(),
        ..Environment::default()
    };
    let prefix = format!("{}/", dir.path().display());
    load_files(vec![file], &environment, overrides).map_err(|mut error| {
        error.message = error.message.replace(&prefix, "");
        error
    })
}

fn settings(text: &str) -> Settings {
    load_text(text, &[], &Overrides::default()).unwrap().settings
}

fn refusal(text: &str) -> String {
    load_text(text, &[], &Overrides::default()).unwrap_err().to_string()
}

#[test]
fn every_key_is_read() {
    let settings = settings(
        r#"
        state_dir = "/state"
        host = "preserve-1"
        control_group = "staff"
        log = "json"
        backlog_max = 5_000
        [journal]
        roll_size = "64Mi"
        commit_interval = "20ms"
        commit_records = 100
        [roots.records]
        path = "/srv/records"
        ignore = ["*.swp", ".Trash/"]
        unfinished = ["*.upload"]
        watch = "inotify"
        poll = "1h"
        settle = "90s"
        settle_min = "5s"
        open_max = "2h"
        lease = false
        "#,
    );
    let root = RootSettings {
        name: "records".to_owned(),
        path: "/srv/records".into(),
        ignore: vec!["*.swp".to_owned(), ".Trash/".to_owned()],
        unfinished: vec!["*.upload".to_owned()],
        watch: WatchMethod::Inotify,
        poll: Poll::Every(Duration::from_secs(3600)),
        settle: Some(Duration::from_secs(90)),
        settle_min: Duration::from_secs(5),
        open_max: Duration::from_secs(7200),
        lease: false,
        scrubbing: keepwatch_engine::daemon::settings::Scrubbing::default(),
        copies_min: 0,
    };
    let expected = Settings {
        packs: Vec::new(),
        state_dir: "/state".into(),
        host: Some("preserve-1".to_owned()),
        control_group: Some("staff".to_owned()),
        log: LogFormat::Json,
        backlog_max: 5000,
        journal: JournalSettings {
            roll_bytes: 64 << 20,
            commit_interval: Duration::from_millis(20),
            commit_records: 100,
        },
        digest: keepwatch_engine::model::Algorithm::Sha256,
        postgres: None,
        roots: vec![root],
        replicas: Vec::new(),
        triggers: Vec::new(),
    };
    assert_eq!(settings, expected);
}

#[test]
fn the_example_changes_nothing_and_its_comments_are_true() {
    let defaults = settings("");
    assert_eq!(Settings { state_dir: defaults.state_dir.clone(), ..settings(example::EXAMPLE) }, defaults);
    // Without the comment signs it sets every default, and the example's own values.
    let uncommented: String = example::EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
        .flat_map(|line| [line, "\n"])
        .collect();
    let example = settings(&uncommented);
    let plain = settings("[roots.records]\npath = \"/srv/records\"");
    assert_eq!((&example.journal, example.backlog_max, example.log), (&plain.journal, plain.backlog_max, plain.log));
    let unset = keepwatch_engine::daemon::settings::Scrubbing::default();
    let (ignore, unfinished) = (vec![], vec![]);
    let root = RootSettings { ignore, unfinished, scrubbing: unset.clone(), copies_min: 0, ..example.roots[0].clone() };
    assert_eq!(root, plain.roots[0]);
    let plain = settings("[roots.records]\npath = \"/srv/records\"\n[replicas.backup]\nurl = \"/mnt/backup\"");
    let asked = &example.replicas[0].aws.asked;
    assert!(asked.endpoint.is_some() && asked.region.is_some() && asked.profile.is_some(), "{asked:?}");
    let ssh = &example.replicas[0].ssh;
    assert!(ssh.config.is_some() && ssh.identity.is_some() && example.replicas[0].ssh_command.is_some(), "{ssh:?}");
    let replica = ReplicaSpec {
        scrubbing: unset,
        roots: vec![],
        filter: FilterText::default(),
        bwlimit: None,
        aws: plain.replicas[0].aws.clone(),
        secret: plain.replicas[0].secret.clone(),
        timeout: plain.replicas[0].timeout,
        ssh_command: None,
        ssh: plain.replicas[0].ssh.clone(),
        spool: plain.replicas[0].spool.clone(),
        ..example.replicas[0].clone()
    };
    assert_eq!(replica, ReplicaSpec { transfers: Some(16), ..plain.replicas[0].clone() });
}

#[test]
fn a_replica_is_checked_against_roots_and_other_replicas() {
    let roots = "[roots.r]\npath = \"/srv/r\"\n[roots.s]\npath = \"/srv/s\"\n";
    let told = |text: &str| refusal(&format!("{roots}{text}"));
    for (text, words) in [
        ("[replicas.b]\n", "replica `b` has no url"),
        ("[replicas.b]\nurl = \"backup\"", "must be a URL or an absolute path"),
        ("[replicas.b]\nurl = \"gopher://x/\"", "no target of the kind `gopher`"),
        ("[replicas.b]\nurl = \"/srv/r/in\"", "lie in one another"),
        ("[replicas.b]\nurl = \"/srv\"", "lie in one another"),
        ("[replicas.b]\nurl = \"/b\"\nroots = [\"rr\"]", "there is no root `rr`"),
        ("[replicas.b]\nurl = \"/b\"\nlayout = \"flat\"", "no layout"),
        ("[replicas.b]\nurl = \"/b\"\nsource_prefix = \"/srv/\"", "a prefix has no effect"),
        ("[replicas.b]\nurl = \"/b\"\nsource_filter = \"(\"", "the regular expression `(`"),
        ("[replicas.b]\nurl = \"/b\"\nfilter = [\"*.jpg\"]", "the rule `*.jpg`"),
        ("[replicas.b]\nurl = \"/b\"\nbwlimit = \"fast\"", "no bandwidth"),
        ("[replicas.b]\nurl = \"/b\"\nmax_delete = \"200%\"", "no share"),
        ("[replicas.b]\nurl = \"ssh://b/b\"\nhash = false", "need not be hashed"),
        ("[replicas.b]\nurl = \"/b\"\ntransfers = 0", "`transfers` must be from 1"),
        ("[replicas.b]\nurl = \"/b\"\n[replicas.c]\nurl = \"/b/c\"", "replicas `b` and `c` lie in one another"),
    ] {
        let error = told(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    let fine = settings(&format!(
        "{roots}[replicas.\"/mnt/backup\"]\nlocal = true\nroots = [\"r\"]\nbwlimit = \"08:00,20M 19:00,off\""
    ));
    assert_eq!(fine.replicas[0].url.local_dir(), Some(std::path::Path::new("/mnt/backup")));
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_one() {
    let error = refusal("host = \"a\"\n[roots.r]\npath = \"/srv\"\nsetle = \"1s\"\n");
    assert_eq!(
        error,
        "error: keepwatch.toml:4: unknown key `roots.r.setle`\nhint: did you mean `settle` instead of `setle`?"
    );
    assert!(refusal("zzz = 1").contains("known keys here: state_dir, host"));
}

#[test]
fn sections_of_later_versions_are_refused_not_ignored() {
    let error = refusal("[server]");
    assert!(error.contains("not supported by this version"), "{error}");
    assert!(refusal("[roots.r]\npath = \"/srv\"\ncopies_min = 2").contains("0 replicas hold that root"));
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_place() {
    let error = refusal(
        "backlog_max = -1\nhost = 5\n[journal]\nroll_size = \"10X\"\n[roots.\"no spaces\"]\npath = \"srv\"\npoll = \"10\"\n[roots.b]\nwatch = \"magic\"\n",
    );
    let expected = [
        "keepwatch.toml:1: `backlog_max` must be a whole number, not negative, not an integer",
        "keepwatch.toml:2: `host` must be a string, not an integer",
        "keepwatch.toml:4: journal.roll_size: `10X` is no size",
        "keepwatch.toml:7: roots.no spaces.poll: `10` has no unit",
        "keepwatch.toml:9: roots.b.watch: `magic` is no way to watch",
        "keepwatch.toml:8: root `b` has no path",
        "keepwatch.toml:5: `no spaces` is no name for a root",
        "keepwatch.toml:6: the path of root `no spaces` must be absolute",
    ];
    for line in expected {
        assert!(error.contains(line), "{line} is missing in:\n{error}");
    }
    assert!(error.contains("has 8 problems"), "{error}");
}

#[test]
fn a_syntax_error_has_its_line() {
    assert!(refusal("host = \"a\"\nlog = \n").contains("keepwatch.toml:2: "));
}

#[test]
fn values_that_cannot_work_are_refused() {
    let root = |rest: &str| format!("[roots.r]\npath = \"/srv\"\n{rest}");
    let cases = [
        ("state_dir = \"relative\"".to_owned(), "must be an absolute path"),
        ("state_dir = \"/a/../b\"".to_owned(), "must be an absolute path"),
        ("host = \"a/b\"".to_owned(), "without `/`"),
        ("backlog_max = 0".to_owned(), "at least 1"),
        ("[journal]\nroll_size = 10".to_owned(), "at least 1Mi"),
        ("[journal]\ncommit_interval = \"1m\"".to_owned(), "at most 1s"),
        (root("ignore = [\"a{b\"]"), "pattern `a{b`"),
        (root("watch = \"poll\"\npoll = \"off\""), "never be looked at"),
        (root("poll = \"10ms\""), "too often"),
        (root("ignore = \"*.swp\""), "a list of strings, not a string"),
    ];
    for (text, message) in cases {
        let error = refusal(&text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn flags_win_over_variables_and_these_over_files() {
    let vars = [("KEEPWATCH_STATE_DIR", "/by-variable"), ("KEEPWATCH_HOST", "by-variable"), ("KEEPWATCH_PATH", "x")];
    let overrides = Overrides { state_dir: Some("/by-flag".into()), ..Overrides::default() };
    let loaded = load_text("state_dir = \"/by-file\"\nhost = \"by-file\"\nlog = \"json\"", &vars, &overrides).unwrap();
    assert_eq!(loaded.settings.state_dir, Path::new("/by-flag"));
    assert_eq!(loaded.settings.host.as_deref(), Some("by-variable"));
    assert_eq!(loaded.origins["host"], Origin::Variable("KEEPWATCH_HOST".to_owned()));
    assert_eq!(loaded.origins["backlog_max"], Origin::Default);
    assert!(loaded.origins["log"].to_string().ends_with("keepwatch.toml:3"));
}

#[test]
fn an_unknown_variable_is_an_error_too() {
    let error = load_text("", &[("KEEPWATCH_HOSTS", "x")], &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: KEEPWATCH_HOSTS: no setting has this name\nhint: did you mean `KEEPWATCH_HOST`?"
    );
    let error = load_text("", &[("KEEPWATCH_BACKLOG_MAX", "many")], &Overrides::default()).unwrap_err();
    assert!(error.message.starts_with("KEEPWATCH_BACKLOG_MAX: "), "{error}");
}

#[test]
fn a_root_on_the_command_line_is_named_after_its_directory() {
    let roots = ["/a/My Files", "/b/My Files", "/", "/c/.hidden", "/d/r"].map(PathBuf::from).to_vec();
    // `/` holds all others, so it leaves them out here by having none of them beside it.
    let names = |roots: Vec<PathBuf>| {
        let overrides = Overrides { roots, ..Overrides::default() };
        let loaded = load_text("[roots.r]\npath = \"/srv/r\"", &[], &overrides).unwrap();
        loaded.settings.roots.into_iter().map(|root| root.name).collect::<Vec<_>>()
    };
    let without_top = roots.into_iter().filter(|root| root != Path::new("/")).collect();
    assert_eq!(names(without_top), ["r", "My-Files", "My-Files-2", "hidden", "r-2"]);
}

#[test]
fn roots_within_one_another_are_refused_unless_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    std::fs::create_dir_all(real.join("inner")).unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("alias")).unwrap();
    let two = |first: &str, ignore: &str, second: &str| {
        let dir = dir.path().display();
        format!("[roots.a]\npath = \"{dir}/{first}\"\nignore = [{ignore}]\n[roots.b]\npath = \"{dir}/{second}\"\n")
    };
    assert!(refusal(&two("real", "", "real")).contains("are the same directory"));
    assert!(refusal(&two("real", "", "alias")).contains("are the same directory"), "seen through a symbolic link");
    let nested = refusal(&two("real", "", "alias/inner"));
    assert!(nested.contains("keepwatch.toml:5: root `b` lies within root `a`"), "{nested}");
    assert!(nested.contains("ignore = [\"/inner/\"] in [roots.a]"), "{nested}");
    assert_eq!(settings(&two("real", "\"/inner/\"", "alias/inner")).roots.len(), 2, "the remedy works");
    assert_eq!(settings(&two("real", "", "real-too")).roots.len(), 2, "a common beginning is not nesting");
    assert!(refusal(&two("gone/x", "", "gone")).contains("root `a` lies within root `b`"), "absent ones by their text");
}

#[test]
fn a_root_in_two_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a.toml", "b.toml"].map(|name| dir.path().join(name));
    for file in &files {
        std::fs::write(file, "[roots.r]\npath = \"/srv\"\n").unwrap();
    }
    let environment = Environment { home: Some(dir.path().to_owned()), ..Environment::default() };
    let error = load_files(files.to_vec(), &environment, &Overrides::default()).unwrap_err();
    assert!(error.message.contains("b.toml:1: root `r` is defined twice, first at"), "{error}");
}

#[test]
fn what_show_prints_reads_back_as_the_same() {
    let text = "host = \"h\"\n[roots.\"a.b\"]\npath = \"/srv/a\\\"b\"\nsettle = \"1m30s\"\nignore = [\"x # y\"]\n[roots.c]\npath = \"/srv/c\"\npoll = \"off\"";
    let loaded = load_text(text, &[], &Overrides::default()).unwrap();
    let again = settings(&show::to_toml(&loaded));
    assert_eq!(again, loaded.settings);
}
