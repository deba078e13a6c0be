//! `[[triggers]]`: commands that are run for finished files, and by what rules.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keepwatch_engine::daemon::triggers::{Existing, Meter, Pace, RunAs, Then, TriggerSettings};
use keepwatch_engine::model::{ReplicaName, RootName, TriggerName};
use keepwatch_engine::trigger::{Kind, RuleText};

use super::problem::{Origin, Problem, Sourced, into_error};
use super::reader::{Table, nearest};
use super::replicas::ReplicaSpec;
use super::settings::{Origins, RootSettings, Taker, is_root_name};
use super::sources::Environment;
use crate::control::access::group_id;
use crate::error::CommandError;

const RETRIES: u64 = 5;
const RETRY_DELAY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3600);
/// Clients of network file systems believe in what they have seen for up to 30 s.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);
/// Signs of life that come more often would be all that a folder is used for.
const CLAIM_TIMEOUT_MIN: Duration = Duration::from_secs(3);
const CONCURRENCY: u64 = 4;
/// More processes at the same time gain nothing on any machine.
const CONCURRENCY_MAX: u64 = 1024;
/// Paths that one run is handed at most: they are held in memory.
const BATCH_MAX: u64 = 100_000;

/// Variables that a command of the service inherits from it.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"];

/// One `[[triggers]]` as it was written.
#[derive(Clone, Debug)]
pub struct RawTrigger {
    /// Where it begins.
    pub origin: Origin,
    name: Option<Sourced<String>>,
    roots: Option<Sourced<Vec<String>>>,
    matches: Option<Sourced<Vec<String>>>,
    exclude: Option<Sourced<Vec<String>>>,
    size_min: Option<Sourced<u64>>,
    size_max: Option<Sourced<u64>>,
    age_min: Option<Sourced<Duration>>,
    age_max: Option<Sourced<Duration>>,
    kinds: Option<Sourced<Vec<String>>>,
    command: Option<Sourced<Vec<String>>>,
    dir: Option<Sourced<PathBuf>>,
    user: Option<Sourced<String>>,
    group: Option<Sourced<String>>,
    env: Option<Sourced<Vec<String>>>,
    retries: Option<Sourced<u64>>,
    retry_delay: Option<Sourced<Duration>>,
    timeout: Option<Sourced<Duration>>,
    concurrency: Option<Sourced<u64>>,
    ordered: Option<Sourced<bool>>,
    batch: Option<Sourced<u64>>,
    existing: Option<Sourced<Existing>>,
    after: Option<Sourced<String>>,
    then: Option<Sourced<Then>>,
    claim: Option<Sourced<bool>>,
    claim_timeout: Option<Sourced<Duration>>,
    ignore_own: Option<Sourced<bool>>,
    hash: Option<Sourced<bool>>,
}

/// A trigger, complete and with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerSpec {
    /// Its name.
    pub name: String,
    /// Which roots; none: all.
    pub roots: Vec<String>,
    /// Which files of them.
    pub rules: RuleText,
    /// The program, by its path, and its arguments.
    pub command: Vec<OsString>,
    /// As what and where it runs.
    pub run_as: RunAs,
    /// When and how often.
    pub pace: Pace,
    /// What was there before.
    pub existing: Existing,
    /// The replica that is to hold the version first.
    pub after: Option<String>,
    /// What becomes of the file afterwards.
    pub then: Option<Then>,
    /// Whether of several hosts with the same folder one runs.
    pub claim: bool,
    /// After how long a silence another host is held to be over.
    pub claim_timeout: Duration,
    /// Whether what its own commands write is left alone.
    pub ignore_own: bool,
    /// Whether the command is told the SHA-256.
    pub hash: bool,
    /// What is wrong with its program, and what to do: it keeps a trigger from being started, not from being shown.
    pub missing: Option<(String, String)>,
}

impl TriggerSpec {
    /// A trigger with this command, and the defaults.
    #[must_use]
    pub fn new(name: String, command: Vec<OsString>) -> Self {
        TriggerSpec {
            name,
            roots: Vec::new(),
            rules: RuleText::default(),
            command,
            run_as: RunAs { dir: PathBuf::from("/"), ..RunAs::default() },
            pace: Pace {
                retries: u32::try_from(RETRIES).unwrap_or(u32::MAX),
                retry_delay: RETRY_DELAY,
                timeout: TIMEOUT,
                concurrency: usize::try_from(CONCURRENCY).unwrap_or(1),
                ordered: false,
                batch: None,
            },
            existing: Existing::default(),
            after: None,
            then: None,
            claim: false,
            claim_timeout: CLAIM_TIMEOUT,
            ignore_own: true,
            hash: false,
            missing: None,
        }
    }

    /// What the engine is told.
    #[must_use]
    pub fn for_engine(&self, roots: &[RootSettings]) -> TriggerSettings {
        let of_it = |root: &&RootSettings| self.roots.is_empty() || self.roots.contains(&root.name);
        TriggerSettings {
            name: TriggerName::new(self.name.as_str()),
            roots: roots
                .iter()
                .filter(of_it)
                .map(|root| (RootName::new(root.name.as_str()), root.path.clone()))
                .collect(),
            rules: self.rules.clone(),
            command: self.command.clone(),
            run_as: self.run_as.clone(),
            pace: self.pace.clone(),
            existing: self.existing,
            after: self.after.as_deref().map(ReplicaName::new),
            then: self.then.clone(),
            claim: self.claim.then_some(self.claim_timeout),
            ignore_own: self.ignore_own,
            hash: self.hash,
            // This very program, even where its file was replaced since.
            holder: vec!["/proc/self/exe".into(), "hold".into()],
            meter: Arc::new(Meter::default()),
            hears: None,
        }
    }
}

/// What a command of the service inherits.
#[must_use]
pub fn inherited(environment: &Environment) -> Vec<(OsString, OsString)> {
    let is_of_use =
        |name: &OsStr| name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"));
    environment.variables.iter().filter(|(name, _)| is_of_use(name)).cloned().collect()
}

/// Finds a program by its path or on the search path, as a shell does.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn find_program(word: &OsStr, environment: &Environment) -> Result<PathBuf, (String, String)> {
    let shown = word.to_string_lossy();
    let is_program = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if word.as_encoded_bytes().contains(&b'/') {
        let path = environment.current_dir.join(word);
        return match std::fs::metadata(&path) {
            Err(error) => Err((format!("the program `{shown}`: {error}"), "name a program that is there".to_owned())),
            Ok(meta) if meta.is_file() && !is_program(&path) => {
                Err((format!("the program `{shown}` is not executable"), format!("chmod +x {shown}")))
            }
            Ok(meta) if !meta.is_file() => {
                Err((format!("the program `{shown}` is not a file"), "name the program itself".to_owned()))
            }
            Ok(_) => Ok(path),
        };
    }
    let search = environment.variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let search = search.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = std::env::split_paths(&search).map(|dir| dir.join(word)).find(|path| is_program(path));
    found.ok_or_else(|| {
        let hint = format!("name it by its path; it was looked for in {}", search.to_string_lossy());
        (format!("there is no program `{shown}`"), hint)
    })
}

/// A user's number, and that of the user's own group: by name or number, as `/etc/passwd` has it.
///
/// # Errors
/// What to tell the user if there is none.
pub fn user_id(user: &str) -> Result<(u32, Option<u32>), String> {
    let file = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
    user_in(&file, user).or_else(|| user.parse().ok().map(|number| (number, None))).ok_or_else(|| {
        format!("there is no user `{user}` in /etc/passwd; a user of a directory service is given by its number")
    })
}

/// Lines are `name:password:uid:gid:…`, `passwd(5)`.
fn user_in(file: &str, user: &str) -> Option<(u32, Option<u32>)> {
    file.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { return None };
        (name == user || uid == user).then(|| Some((uid.parse().ok()?, gid.parse().ok())))?
    })
}

/// `copied:NAME`.
fn parse_after(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("copied:").filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| format!("`{text}` is not known: use \"copied:REPLICA\""))
}

/// `move:DIR` or `delete`.
fn parse_then(text: &str) -> Result<Then, String> {
    match (text, text.strip_prefix("move:").filter(|dir| !dir.is_empty())) {
        ("delete", _) => Ok(Then::Delete),
        (_, Some(dir)) => Ok(Then::Move(PathBuf::from(dir))),
        _ => Err(format!("`{text}` is not known: use \"move:DIR\" or \"delete\"")),
    }
}

impl RawTrigger {
    /// Reads its table.
    pub fn read(origin: Origin, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Self {
        let existing = |text: &str| {
            Existing::from_word(text).ok_or_else(|| format!("`{text}` is not known: use \"run\" or \"skip\""))
        };
        let raw = RawTrigger {
            origin,
            name: table.string("name", problems),
            roots: table.strings("roots", problems),
            matches: table.strings("match", problems),
            exclude: table.strings("exclude", problems),
            size_min: table.size("size_min", problems),
            size_max: table.size("size_max", problems),
            age_min: table.duration("age_min", problems),
            age_max: table.duration("age_max", problems),
            kinds: table.strings("on", problems),
            command: table.strings("command", problems),
            dir: table.string("dir", problems).map(|dir| dir.map(PathBuf::from)),
            user: table.string("user", problems),
            group: table.string("group", problems),
            env: table.strings("env", problems),
            retries: table.count("retries", problems),
            retry_delay: table.duration("retry_delay", problems),
            timeout: table.duration("timeout", problems),
            concurrency: table.count("concurrency", problems),
            ordered: table.boolean("ordered", problems),
            batch: table.count("batch", problems),
            existing: table.parsed("existing", problems, existing),
            after: table.parsed("after", problems, parse_after),
            then: table.parsed("then", problems, parse_then),
            claim: table.boolean("claim", problems),
            claim_timeout: table.duration("claim_timeout", problems),
            ignore_own: table.boolean("ignore_own", problems),
            hash: table.boolean("hash", problems),
        };
        table.finish(&[], problems);
        raw
    }

    /// With its defaults; `None` if it has no name or command.
    pub(super) fn validate(
        self,
        environment: &Environment,
        take: &mut Taker<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<TriggerSpec> {
        let Some(name) = self.name else {
            let problem = Problem::new(self.origin, "a trigger has no name");
            problems.push(problem.hint("add to its [[triggers]]: name = \"…\""));
            return None;
        };
        if !is_root_name(&name.value) {
            let message = format!("`{}` is no name for a trigger", name.value);
            let hint = "use letters, digits, `-`, `_` and `.`, a letter or digit first";
            problems.push(Problem::new(name.origin.clone(), message).hint(hint));
        }
        let key = |key: &str| format!("triggers.{}.{key}", name.value);
        let Some(command) = self.command.filter(|command| !command.value.is_empty()) else {
            let problem = Problem::new(self.origin, format!("trigger `{}` has no command", name.value));
            problems.push(problem.hint("add to its [[triggers]]: command = [\"/path/to/program\", \"{path}\"]"));
            return None;
        };
        let mut wrong = |origin: &Origin, message: String, hint: Option<String>| {
            let message = format!("trigger `{}`: {message}", name.value);
            problems.push(Problem { origin: origin.clone(), message, hint });
        };
        let mut words: Vec<OsString> = command.value.iter().map(OsString::from).collect();
        let found = find_program(&words[0], environment);
        let missing = match found {
            Ok(path) => {
                words[0] = path.into();
                None
            }
            Err(missing) => Some(missing),
        };
        let mut spec = TriggerSpec { missing, ..TriggerSpec::new(name.value.clone(), words) };
        spec.run_as.environment = inherited(environment);
        for assignment in self.env.iter().flat_map(|env| &env.value) {
            match assignment.split_once('=') {
                Some((name, value)) if !name.is_empty() => spec.run_as.environment.push((name.into(), value.into())),
                _ => {
                    let origin = self.env.as_ref().map_or(&self.origin, |env| &env.origin);
                    wrong(origin, format!("`{assignment}` sets no variable"), Some("write NAME=VALUE".to_owned()));
                }
            }
        }
        if let Some(user) = &self.user {
            match user_id(&user.value) {
                Ok((user, group)) => (spec.run_as.user, spec.run_as.group) = (Some(user), group),
                Err(message) => wrong(&user.origin, message, None),
            }
        }
        if let Some(group) = &self.group {
            match group_id(&group.value) {
                Ok(group) => spec.run_as.group = Some(group),
                Err(message) => wrong(&group.origin, message, None),
            }
        }
        if let Some(dir) = &self.dir
            && !(dir.value.is_absolute() && dir.value.is_dir())
        {
            let message =
                format!("`dir` must be a directory that is there, by its absolute path, not `{}`", dir.value.display());
            wrong(&dir.origin, message, None);
        }
        for kind in self.kinds.iter().flat_map(|kinds| &kinds.value) {
            match Kind::from_word(kind) {
                Some(kind) => spec.rules.kinds.push(kind),
                None => {
                    let origin = self.kinds.as_ref().map_or(&self.origin, |kinds| &kinds.origin);
                    wrong(origin, format!("`on`: `{kind}` is not known: use \"create\" or \"modify\""), None);
                }
            }
        }
        for (count, max, what) in
            [(&self.concurrency, CONCURRENCY_MAX, "concurrency"), (&self.batch, BATCH_MAX, "batch")]
        {
            if let Some(count) = count.as_ref().filter(|count| !(1..=max).contains(&count.value)) {
                wrong(&count.origin, format!("`{what}` must be from 1 to {max}"), None);
            }
        }
        if let (Some(ordered), Some(concurrency)) = (&self.ordered, &self.concurrency)
            && ordered.value
            && concurrency.value > 1
        {
            let hint = "remove one of them".to_owned();
            wrong(&concurrency.origin, "with `ordered` one command runs at a time".to_owned(), Some(hint));
        }
        if let (Some(ordered), Some(claim)) = (&self.ordered, &self.claim)
            && ordered.value
            && claim.value
        {
            let hint = "remove one of them".to_owned();
            wrong(&claim.origin, "with `claim` several hosts run at a time, and in no order".to_owned(), Some(hint));
        }
        if let Some(timeout) = self.claim_timeout.as_ref().filter(|timeout| timeout.value < CLAIM_TIMEOUT_MIN) {
            wrong(&timeout.origin, format!("`claim_timeout` must be at least {CLAIM_TIMEOUT_MIN:?}"), None);
        }
        take.or(&key("name"), Some(name.clone()), String::new());
        take.or(&key("command"), Some(command), Vec::new());
        spec.roots = take.or(&key("roots"), self.roots, Vec::new());
        spec.rules.matches = take.or(&key("match"), self.matches, Vec::new());
        spec.rules.exclude = take.or(&key("exclude"), self.exclude, Vec::new());
        spec.rules.size_min = take.or(&key("size_min"), self.size_min.map(|size| size.map(Some)), None);
        spec.rules.size_max = take.or(&key("size_max"), self.size_max.map(|size| size.map(Some)), None);
        spec.rules.age_min = take.or(&key("age_min"), self.age_min.map(|age| age.map(Some)), None);
        spec.rules.age_max = take.or(&key("age_max"), self.age_max.map(|age| age.map(Some)), None);
        take.or(&key("on"), self.kinds, Vec::new());
        spec.run_as.dir = take.or(&key("dir"), self.dir, spec.run_as.dir);
        take.or(&key("user"), self.user, String::new());
        take.or(&key("group"), self.group, String::new());
        take.or(&key("env"), self.env, Vec::new());
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        spec.pace.retries = narrow(take.or(&key("retries"), self.retries, RETRIES));
        spec.pace.retry_delay = take.or(&key("retry_delay"), self.retry_delay, RETRY_DELAY);
        spec.pace.timeout = take.or(&key("timeout"), self.timeout, TIMEOUT);
        spec.pace.ordered = take.or(&key("ordered"), self.ordered, false);
        let concurrency = if spec.pace.ordered { 1 } else { CONCURRENCY };
        spec.pace.concurrency = size(take.or(&key("concurrency"), self.concurrency, concurrency));
        spec.pace.batch = take.or(&key("batch"), self.batch.map(|batch| batch.map(Some)), None).map(size);
        spec.existing = take.or(&key("existing"), self.existing, spec.existing);
        spec.after = take.or(&key("after"), self.after.map(|name| name.map(Some)), None);
        spec.then = take.or(&key("then"), self.then.map(|then| then.map(Some)), None);
        spec.claim = take.or(&key("claim"), self.claim, false);
        spec.claim_timeout = take.or(&key("claim_timeout"), self.claim_timeout, CLAIM_TIMEOUT);
        spec.ignore_own = take.or(&key("ignore_own"), self.ignore_own, spec.ignore_own);
        spec.hash = take.or(&key("hash"), self.hash, false);
        Some(spec)
    }
}

/// Whether there is a program for every trigger.
///
/// # Errors
/// A usage error that names those that there are not.
pub fn check_programs(specs: &[TriggerSpec], origins: &Origins) -> Result<(), CommandError> {
    let problem = |spec: &TriggerSpec| {
        let (message, hint) = spec.missing.clone()?;
        let origin = origins.get(&format!("triggers.{}.command", spec.name)).cloned().unwrap_or(Origin::Default);
        Some(Problem::new(origin, format!("trigger `{}`: {message}", spec.name)).hint(hint))
    };
    into_error(specs.iter().filter_map(problem).collect()).map_or(Ok(()), Err)
}

/// What needs more than one trigger, or the roots.
pub fn check(
    specs: &[TriggerSpec],
    roots: &[RootSettings],
    replicas: &[ReplicaSpec],
    origins: &Origins,
    problems: &mut Vec<Problem>,
) {
    for spec in specs {
        let name = &spec.name;
        let mut wrong = |key: &str, message: String, hint: Option<String>| {
            let origin = origins.get(&format!("triggers.{name}.{key}")).cloned().unwrap_or(Origin::Default);
            problems.push(Problem { origin, message: format!("trigger `{name}`: {message}"), hint });
        };
        for root in &spec.roots {
            if roots.iter().all(|known| known.name != *root) {
                let hint = nearest(root, roots.iter().map(|root| root.name.as_str()));
                let hint = hint.map(|known| format!("did you mean `{known}`?"));
                wrong("roots", format!("there is no root `{root}`"), hint);
            }
        }
        if let Some(after) = &spec.after
            && replicas.iter().all(|replica| replica.name != *after)
        {
            let hint = nearest(after, replicas.iter().map(|replica| replica.name.as_str()));
            let hint = hint.map(|known| format!("did you mean `copied:{known}`?"));
            wrong("after", format!("there is no replica `{after}`"), hint);
        }
        if let Some(Then::Move(dir)) = &spec.then {
            for root in roots.iter().filter(|root| spec.roots.is_empty() || spec.roots.contains(&root.name)) {
                let to = root.path.join(dir);
                let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
                match (device(&root.path), device(&to)) {
                    (_, Err(error)) => {
                        let hint = format!("make it: mkdir -p {}", to.display());
                        wrong("then", format!("{}: {error}", to.display()), Some(hint));
                    }
                    (Ok(from), Ok(into)) if from != into => {
                        let message = format!("{} is not on the file system of root `{}`", to.display(), root.name);
                        let hint = "name a directory on the same one: a file is moved there in one step".to_owned();
                        wrong("then", message, Some(hint));
                    }
                    _ => {}
                }
            }
        }
        if let Err(error) = spec.for_engine(roots).check() {
            use keepwatch_engine::daemon::triggers::TriggerError;
            let key = match &error {
                TriggerError::Rule(rule) if spec.rules.exclude.contains(&rule.pattern) => "exclude",
                TriggerError::Rule(_) => "match",
                _ => "command",
            };
            wrong(key, error.to_string(), None);
        }
    }
}
