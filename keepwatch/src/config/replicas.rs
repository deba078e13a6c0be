//! `[replicas.NAME]`: places that hold copies, and by what rules.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keepwatch_engine::daemon::replicate::{self as engine, Meter, OnDelete};
use keepwatch_engine::daemon::settings::Scrubbing;
use keepwatch_engine::model::{ReplicaName, RootName};
use keepwatch_engine::sync::filter::FilterText;
use keepwatch_engine::sync::guards::Limits;
use keepwatch_engine::sync::layout::Layout;
use keepwatch_engine::target::{
    Access, ExecCommand, ExecPatience, Patience, RcloneAccess, Secret, SshOptions, TargetUrl, Throttled, Timetable, Way,
};

use super::problem::{Origin, Problem, Sourced};
use super::reader::{Table, nearest};
use super::secret::SecretFrom;
use super::settings::{Origins, RootSettings, Taker};
use crate::error::CommandError;
use crate::show::safe::Safe;
use crate::{aws, cloud};

/// Deletes wait for so long.
const DELETE_DELAY: Duration = Duration::from_secs(60);
/// The trash is kept for so long.
const TRASH_KEEP: Duration = Duration::from_secs(30 * 86_400);
/// The variable that can hold the secret of HTTP targets.
pub const HTTP_VARIABLE: &str = "KEEPWATCH_HTTP_SECRET";
/// The systemd credential that can hold it: `LoadCredential=keepwatch.http:/path`.
pub const HTTP_CREDENTIAL: &str = "keepwatch.http";
/// More threads gain nothing anywhere.
const TRANSFERS_MAX: u64 = 1024;

/// One `[replicas.NAME]` as it was written.
#[derive(Clone, Debug)]
pub struct RawReplica {
    /// Where its section begins.
    pub origin: Origin,
    url: Option<Sourced<String>>,
    roots: Option<Sourced<Vec<String>>>,
    layout: Option<Sourced<LayoutKind>>,
    source_prefix: Option<Sourced<String>>,
    target_prefix: Option<Sourced<String>>,
    source_filter: Option<Sourced<String>>,
    source_exclude: Option<Sourced<String>>,
    include: Option<Sourced<Vec<String>>>,
    exclude: Option<Sourced<Vec<String>>>,
    filter: Option<Sourced<Vec<String>>>,
    filter_from: Option<Sourced<PathBuf>>,
    on_delete: Option<Sourced<OnDelete>>,
    delete_delay: Option<Sourced<Duration>>,
    max_delete: Option<Sourced<u8>>,
    may_empty: Option<Sourced<bool>>,
    trash_keep: Option<Sourced<Duration>>,
    transfers: Option<Sourced<u64>>,
    bwlimit: Option<Sourced<Timetable>>,
    hash: Option<Sourced<bool>>,
    verify_every: Option<Sourced<Duration>>,
    verify_bwlimit: Option<Sourced<Timetable>>,
    endpoint: Option<Sourced<String>>,
    region: Option<Sourced<String>>,
    profile: Option<Sourced<String>>,
    credentials_file: Option<Sourced<PathBuf>>,
    timeout: Option<Sourced<Duration>>,
    secret_file: Option<Sourced<PathBuf>>,
    ssh_command: Option<Sourced<ExecCommand>>,
    ssh_config: Option<Sourced<PathBuf>>,
    identity_file: Option<Sourced<PathBuf>>,
    far_side: Option<Sourced<Way>>,
}

/// Where originals go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayoutKind {
    /// `HOST/ABSOLUTE PATH`.
    #[default]
    Hosts,
    /// The absolute path with another beginning.
    Mirror,
}

impl LayoutKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LayoutKind::Hosts => "hosts",
            LayoutKind::Mirror => "mirror",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "hosts" => Ok(LayoutKind::Hosts),
            "mirror" => Ok(LayoutKind::Mirror),
            _ => Err(format!("`{text}` is no layout: use \"hosts\" or \"mirror\"")),
        }
    }
}

/// What happens when an original goes, by its word.
///
/// # Errors
/// The words that there are.
pub fn parse_on_delete(text: &str) -> Result<OnDelete, String> {
    [OnDelete::Trash, OnDelete::Keep, OnDelete::Delete]
        .into_iter()
        .find(|what| what.as_str() == text)
        .ok_or_else(|| format!("`{text}` is not known: use \"trash\", \"keep\" or \"delete\""))
}

/// The share of a replica that may be deleted within an hour, such as `10%`.
///
/// # Errors
/// How to write it.
pub fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent = number.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("`{text}` is no share: write it as \"10%\""))
}

/// The program that is run as `ssh`, and what it is told first.
///
/// # Errors
/// How to write it.
pub fn parse_ssh_command(text: &str) -> Result<ExecCommand, String> {
    let command = ExecCommand::parse(text.as_bytes()).filter(ExecCommand::is_found_anywhere);
    command.ok_or_else(|| {
        format!(
            "`{text}` is no ssh command: write it as \"ssh ARG…\" or \"/absolute/path/ssh ARG…\", every quote closed"
        )
    })
}

/// How to talk to the far side of an ssh, by its word.
///
/// # Errors
/// The words that there are.
pub fn parse_far_side(text: &str) -> Result<Way, String> {
    Way::parse(text).ok_or_else(|| format!("`{text}` is not known: use \"auto\", \"receive\" or \"sftp\""))
}

/// A replica, complete and with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: TargetUrl,
    /// Which roots; none: all.
    pub roots: Vec<String>,
    /// Where they go.
    pub layout: LayoutKind,
    /// Cut from the front of absolute paths.
    pub source_prefix: OsString,
    /// Put in front of what is left.
    pub target_prefix: OsString,
    /// What is held.
    pub filter: FilterText,
    /// What happens when an original is gone.
    pub on_delete: OnDelete,
    /// How long after.
    pub delete_delay: Duration,
    /// What deletes are held to.
    pub limits: SpecLimits,
    /// How long the trash is kept.
    pub trash_keep: Duration,
    /// Files copied at the same time; `None`: by the kind of target.
    pub transfers: Option<u64>,
    /// How fast; `None`: as fast as it goes.
    pub bwlimit: Option<Timetable>,
    /// Whether files are hashed while they are copied.
    pub hash: bool,
    /// How old the last check of a copy may grow before it is read again, and how fast.
    pub scrubbing: Scrubbing,
    /// How S3, Google's or Azure's store is reached.
    pub aws: aws::Source,
    /// How long a plug-in or a server may say nothing; `None`: as long as the engine finds right.
    pub timeout: Option<Duration>,
    /// By what requests to an HTTP target are signed.
    pub secret: SecretFrom,
    /// What is run as ssh; `None`: ssh.
    pub ssh_command: Option<ExecCommand>,
    /// What ssh is told, but for what `ssh_command` and `timeout` say.
    pub ssh: SshOptions,
    /// Where content waits that is on its way.
    pub spool: PathBuf,
}

/// What deletes are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecLimits {
    /// The share that may go within an hour, in percent.
    pub delete_percent_max: u8,
    /// A root may lose its last file.
    pub may_empty: bool,
    /// All that waits is meant.
    pub allow_deletes: bool,
}

impl ReplicaSpec {
    /// A replica of this name and place, with the defaults.
    #[must_use]
    pub fn new(name: String, url: TargetUrl) -> Self {
        let Limits { delete_percent_max, may_empty, allow_deletes } = Limits::default();
        ReplicaSpec {
            name,
            url,
            roots: Vec::new(),
            layout: LayoutKind::default(),
            source_prefix: OsString::new(),
            target_prefix: OsString::new(),
            filter: FilterText::default(),
            on_delete: OnDelete::default(),
            delete_delay: DELETE_DELAY,
            limits: SpecLimits { delete_percent_max, may_empty, allow_deletes },
            trash_keep: TRASH_KEEP,
            transfers: None,
            bwlimit: None,
            hash: true,
            scrubbing: Scrubbing::default(),
            aws: aws::Source::default(),
            timeout: None,
            secret: SecretFrom::Nowhere,
            ssh_command: None,
            ssh: SshOptions::default(),
            spool: PathBuf::new(),
        }
    }

    /// By what requests to an HTTP target are signed, or an rclone that runs is asked.
    #[must_use]
    pub fn target_secret(&self) -> Secret {
        match &self.secret {
            SecretFrom::File(path) | SecretFrom::Credential(path) => Secret::File(path.clone()),
            SecretFrom::Variable(secret) => Secret::Given(secret.secret()),
            SecretFrom::Nowhere => Secret::None,
        }
    }

    /// The slashes in front of every path at the target, if that keeps them.
    ///
    /// # Errors
    /// What is wrong, and what to do: some roots' paths have them, others' have not.
    pub fn lead(&self, roots: &[RootSettings], host: &str) -> Result<Vec<u8>, (String, &'static str)> {
        let layout = self.layout(host);
        let mut lead: Option<Vec<u8>> = None;
        for root in self.of(roots) {
            let slashes = lead_of(&self.url, &layout, &root.path);
            if lead.as_ref().is_some_and(|lead| *lead != slashes) {
                let message = "some paths would begin with a `/` at the target and others not".to_owned();
                return Err((
                    message,
                    "give a source_prefix that all sources begin with, or each a replica of its own",
                ));
            }
            lead = Some(slashes);
        }
        Ok(lead.unwrap_or_default())
    }

    /// Where its originals go.
    #[must_use]
    pub fn layout(&self, host: &str) -> Layout {
        match self.layout {
            LayoutKind::Hosts => Layout::Hosts { host: host.to_owned() },
            LayoutKind::Mirror => Layout::Mirror {
                source_prefix: self.source_prefix.as_bytes().to_vec(),
                target_prefix: self.target_prefix.as_bytes().to_vec(),
            },
        }
    }

    /// The roots it holds, of these.
    fn of<'r>(&self, roots: &'r [RootSettings]) -> impl Iterator<Item = &'r RootSettings> {
        roots.iter().filter(|root| self.roots.is_empty() || self.roots.contains(&root.name))
    }

    /// What the engine is told.
    #[must_use]
    pub fn for_engine(&self, roots: &[RootSettings], host: &str) -> engine::ReplicaSettings {
        let mut exec = ExecPatience::default();
        exec.silence = self.timeout.unwrap_or(exec.silence);
        let mut http = Patience::default();
        http.reply = self.timeout.unwrap_or(http.reply);
        let mut rclone = RcloneAccess { endpoint: self.aws.asked.endpoint.clone(), ..RcloneAccess::default() };
        rclone.silence = self.timeout.unwrap_or(rclone.silence);
        let mut ssh = self.ssh.clone();
        if let Some(command) = &self.ssh_command {
            ssh.program.clone_from(command.program());
            ssh.arguments = command.arguments().to_vec();
        }
        if let Some(timeout) = self.timeout {
            ssh.silence_max_s = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        }
        let target = self.url.target(&Access {
            s3: self.aws.for_engine(),
            cloud: cloud::for_engine(&self.aws),
            spool: self.spool.clone(),
            lead: self.lead(roots, host).unwrap_or_default(),
            exec,
            secret: self.target_secret(),
            http,
            rclone,
            ssh,
        });
        let target = match &self.bwlimit {
            Some(table) => Arc::new(Throttled::new(target, table.clone(), minute_of_week)),
            None => target,
        };
        let SpecLimits { delete_percent_max, may_empty, allow_deletes } = self.limits;
        let transfers = self.transfers.and_then(|transfers| usize::try_from(transfers).ok());
        engine::ReplicaSettings {
            name: ReplicaName::new(self.name.as_str()),
            url: self.url.to_string(),
            target,
            roots: self.of(roots).map(|root| (RootName::new(root.name.as_str()), root.path.clone())).collect(),
            layout: self.layout(host),
            filter: self.filter.clone(),
            on_delete: self.on_delete,
            delete_delay: self.delete_delay,
            trash_keep: self.trash_keep,
            limits: Limits { delete_percent_max, may_empty, allow_deletes },
            transfers: transfers.unwrap_or_else(|| self.url.transfers()),
            hash: self.hash,
            scrubbing: self.scrubbing.clone(),
            once: false,
            owner: None,
            meter: Arc::new(Meter::default()),
        }
    }

    /// Why files have to be hashed while they are copied, if they are not to be.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check_hash(&self) -> Result<(), (&'static str, &'static str)> {
        if self.hash || self.url.local_dir().is_some() {
            return Ok(());
        }
        Err((
            "only what is copied to a directory of this machine need not be hashed",
            "leave that out: what is sent is read anyway",
        ))
    }

    /// Why it would be copied into what it copies, or the other way round, if it would.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check_roots(&self, roots: &[RootSettings]) -> Result<(), (String, &'static str)> {
        self.lead(roots, "host")?;
        let Some(dir) = self.url.local_dir() else { return Ok(()) };
        let target = real(dir);
        for root in roots {
            let source = real(&root.path);
            if target.starts_with(&source) || source.starts_with(&target) {
                let message =
                    format!("the target {} and the source {} lie in one another", dir.display(), root.path.display());
                return Err((message, "choose a target outside of every source"));
            }
        }
        Ok(())
    }
}

/// The slashes that a layout leaves in front of a root's paths at a target, where that keeps them.
#[must_use]
pub fn lead_of(url: &TargetUrl, layout: &Layout, root: &Path) -> Vec<u8> {
    let top = [root.as_os_str().as_bytes(), b"/"].concat();
    let slashes = || layout.text(&top).into_iter().take_while(|byte| *byte == b'/').collect();
    if url.keeps_lead() { slashes() } else { Vec::new() }
}

/// The replica of this name.
///
/// # Errors
/// A usage error with the nearest name that there is.
pub fn known<'r>(replicas: &'r [ReplicaSpec], name: &str) -> Result<&'r ReplicaSpec, CommandError> {
    replicas.iter().find(|replica| replica.name == name).ok_or_else(|| {
        let error = CommandError::usage(format!("there is no replica `{}`", Safe::text(name)));
        match nearest(name, replicas.iter().map(|replica| replica.name.as_str())) {
            Some(known) => error.hint(format!("did you mean `{known}`?")),
            None => error.hint("`keepwatch replica list` lists them"),
        }
    })
}

/// With links resolved, as far as it exists.
fn real(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)))
        .map_or_else(|| path.to_owned(), |(real, rest)| real.join(rest).components().collect())
}

/// By the clock that people read.
pub fn minute_of_week() -> u16 {
    let now = jiff::Zoned::now();
    let day = u16::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0);
    let part = |number: i8| u16::try_from(number).unwrap_or(0);
    day * 24 * 60 + part(now.hour()) * 60 + part(now.minute())
}

impl RawReplica {
    /// Reads its table.
    pub fn read(origin: Origin, mut table: Table<'_>, problems: &mut Vec<Problem>) -> Self {
        let raw = RawReplica {
            origin,
            url: table.string("url", problems),
            roots: table.strings("roots", problems),
            layout: table.parsed("layout", problems, LayoutKind::parse),
            source_prefix: table.string("source_prefix", problems),
            target_prefix: table.string("target_prefix", problems),
            source_filter: table.string("source_filter", problems),
            source_exclude: table.string("source_exclude", problems),
            include: table.strings("include", problems),
            exclude: table.strings("exclude", problems),
            filter: table.strings("filter", problems),
            filter_from: table.string("filter_from", problems).map(|path| path.map(PathBuf::from)),
            on_delete: table.parsed("on_delete", problems, parse_on_delete),
            delete_delay: table.duration("delete_delay", problems),
            max_delete: table.parsed("max_delete", problems, parse_percent),
            may_empty: table.boolean("may_empty", problems),
            trash_keep: table.duration("trash_keep", problems),
            transfers: table.count("transfers", problems),
            bwlimit: table.parsed("bwlimit", problems, Timetable::parse),
            hash: table.boolean("hash", problems),
            verify_every: table.duration("verify_every", problems),
            verify_bwlimit: table.parsed("verify_bwlimit", problems, Timetable::parse),
            endpoint: table.string("endpoint", problems),
            region: table.string("region", problems),
            profile: table.string("profile", problems),
            credentials_file: table.string("credentials_file", problems).map(|path| path.map(PathBuf::from)),
            timeout: table.duration("timeout", problems),
            secret_file: table.string("secret_file", problems).map(|path| path.map(PathBuf::from)),
            ssh_command: table.parsed("ssh_command", problems, parse_ssh_command),
            ssh_config: table.string("ssh_config", problems).map(|path| path.map(PathBuf::from)),
            identity_file: table.string("identity_file", problems).map(|path| path.map(PathBuf::from)),
            far_side: table.parsed("far_side", problems, parse_far_side),
        };
        // People say of a directory that it is local; what else would it be.
        table.boolean("local", problems);
        table.finish(&[], problems);
        raw
    }

    /// With its defaults; `None` if it has no place.
    pub(super) fn validate(self, name: &str, take: &mut Taker<'_>, problems: &mut Vec<Problem>) -> Option<ReplicaSpec> {
        let key = |key: &str| format!("replicas.{name}.{key}");
        let is_url =
            |text: &str| text.contains("://") || ["/", "exec:", "rclone:"].iter().any(|begin| text.starts_with(begin));
        let is_place = is_url(name);
        let (text, origin) = match &self.url {
            Some(url) => (url.value.clone(), url.origin.clone()),
            None if is_place => (name.to_owned(), self.origin.clone()),
            None => {
                let problem = Problem::new(self.origin, format!("replica `{name}` has no url"));
                problems.push(problem.hint(format!("add to [replicas.{name}]: url = \"/…\"")));
                return None;
            }
        };
        if !is_url(&text) {
            problems
                .push(Problem::new(origin, format!("the url of replica `{name}` must be a URL or an absolute path")));
            return None;
        }
        let url = match TargetUrl::parse(OsStr::new(&text), Path::new("/")) {
            Ok(url) => url,
            Err(error) => {
                problems.push(Problem::new(origin, format!("replica `{name}`: {error}")));
                return None;
            }
        };
        if let TargetUrl::Exec(command) = &url
            && !command.is_found_anywhere()
        {
            let message = format!("replica `{name}`: the plug-in must be an absolute path, or a name on PATH");
            problems.push(Problem::new(origin, message));
            return None;
        }
        let mut spec = ReplicaSpec::new(name.to_owned(), url);
        take.or(&key("url"), self.url, String::new());
        spec.roots = take.or(&key("roots"), self.roots, Vec::new());
        spec.layout = take.or(&key("layout"), self.layout, spec.layout);
        for prefix in [&self.source_prefix, &self.target_prefix].into_iter().flatten() {
            if spec.layout == LayoutKind::Hosts {
                let problem = Problem::new(prefix.origin.clone(), format!("replica `{name}`: a prefix has no effect"));
                problems.push(problem.hint("add: layout = \"mirror\""));
            }
        }
        spec.source_prefix = take.or(&key("source_prefix"), self.source_prefix, String::new()).into();
        spec.target_prefix = take.or(&key("target_prefix"), self.target_prefix, String::new()).into();
        spec.filter.source_filter.extend(take.or(
            &key("source_filter"),
            self.source_filter.map(|text| text.map(Some)),
            None,
        ));
        spec.filter.source_exclude.extend(take.or(
            &key("source_exclude"),
            self.source_exclude.map(|text| text.map(Some)),
            None,
        ));
        let include = take.or(&key("include"), self.include, Vec::new());
        let exclude = take.or(&key("exclude"), self.exclude, Vec::new());
        let mut rules = take.or(&key("filter"), self.filter, Vec::new());
        if let Some(from) = self.filter_from {
            match read_rules(&from.value) {
                Ok(lines) => rules.extend(lines),
                Err(error) => problems.push(Problem::new(from.origin, error)),
            }
        }
        spec.filter.add_rules(&include, &exclude, &rules);
        spec.on_delete = take.or(&key("on_delete"), self.on_delete, spec.on_delete);
        spec.delete_delay = take.or(&key("delete_delay"), self.delete_delay, spec.delete_delay);
        spec.limits.delete_percent_max = take.or(&key("max_delete"), self.max_delete, spec.limits.delete_percent_max);
        spec.limits.may_empty = take.or(&key("may_empty"), self.may_empty, false);
        spec.trash_keep = take.or(&key("trash_keep"), self.trash_keep, spec.trash_keep);
        let origin = self.transfers.as_ref().map(|transfers| transfers.origin.clone());
        spec.transfers = take.or(&key("transfers"), self.transfers.map(|count| count.map(Some)), None);
        if let (Some(transfers), Some(origin)) = (spec.transfers, origin)
            && !(1..=TRANSFERS_MAX).contains(&transfers)
        {
            problems.push(Problem::new(origin, format!("`transfers` must be from 1 to {TRANSFERS_MAX}")));
        }
        let origin = self.hash.as_ref().map(|hash| hash.origin.clone());
        spec.hash = take.or(&key("hash"), self.hash, spec.hash);
        if let (Err((message, hint)), Some(origin)) = (spec.check_hash(), origin) {
            problems.push(Problem::new(origin, format!("replica `{name}`: {message}")).hint(hint));
        }
        spec.scrubbing = Scrubbing {
            every: take.or(&key("verify_every"), self.verify_every.map(|every| every.map(Some)), None),
            bwlimit: take.or(&key("verify_bwlimit"), self.verify_bwlimit.map(|table| table.map(Some)), None),
        };
        spec.aws.asked = aws::Asked {
            endpoint: take.or(&key("endpoint"), self.endpoint.map(|text| text.map(Some)), None),
            region: take.or(&key("region"), self.region.map(|text| text.map(Some)), None),
            profile: take.or(&key("profile"), self.profile.map(|text| text.map(Some)), None),
            credentials_file: take.or(&key("credentials_file"), self.credentials_file.map(|file| file.map(Some)), None),
        };
        for (key, path) in [
            ("secret_file", &self.secret_file),
            ("ssh_config", &self.ssh_config),
            ("identity_file", &self.identity_file),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.value.is_absolute()) {
                let message =
                    format!("replica `{name}`: {key} must be an absolute path, not `{}`", path.value.display());
                problems.push(Problem::new(path.origin.clone(), message));
            }
        }
        let secret_file = take.or(&key("secret_file"), self.secret_file.map(|path| path.map(Some)), None);
        spec.secret = secret_file.map_or(SecretFrom::Nowhere, SecretFrom::File);
        spec.ssh_command = take.or(&key("ssh_command"), self.ssh_command.map(|command| command.map(Some)), None);
        spec.ssh.config = take.or(&key("ssh_config"), self.ssh_config.map(|path| path.map(Some)), None);
        spec.ssh.identity = take.or(&key("identity_file"), self.identity_file.map(|path| path.map(Some)), None);
        spec.ssh.way = take.or(&key("far_side"), self.far_side, spec.ssh.way);
        spec.timeout = take.or(&key("timeout"), self.timeout.map(|time| time.map(Some)), None);
        spec.bwlimit = take.or(&key("bwlimit"), self.bwlimit.map(|table| table.map(Some)), None);
        Some(spec)
    }
}

/// The lines of a file of rules.
///
/// # Errors
/// What is wrong with the file.
pub fn read_rules(path: &Path) -> Result<Vec<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) => Err(format!("cannot read the rules in {}: {error}", path.display())),
    }
}

/// What needs more than one replica, or the roots.
pub fn check(specs: &[ReplicaSpec], roots: &[RootSettings], origins: &Origins, problems: &mut Vec<Problem>) {
    let mut wrong = |spec: &ReplicaSpec, key: &str, message: String, hint: Option<String>| {
        let origin = |key: &str| origins.get(&format!("replicas.{}.{key}", spec.name)).cloned();
        let origin = origin(key).or_else(|| origin("url")).unwrap_or(Origin::Default);
        problems.push(Problem { origin, message, hint });
    };
    for (index, spec) in specs.iter().enumerate() {
        let name = &spec.name;
        for root in &spec.roots {
            if roots.iter().all(|known| known.name != *root) {
                let hint = nearest(root, roots.iter().map(|root| root.name.as_str()));
                let hint = hint.map(|known| format!("did you mean `{known}`?"));
                wrong(spec, "roots", format!("replica `{name}`: there is no root `{root}`"), hint);
            }
        }
        if let Err((message, hint)) = spec.check_roots(roots) {
            wrong(spec, "url", format!("replica `{name}`: {message}"), Some(hint.to_owned()));
        }
        if let Err(error) = spec.for_engine(roots, "host").check() {
            let key = match &error {
                engine::SettingsError::Filter(_) => "source_filter",
                _ => "source_prefix",
            };
            wrong(spec, key, format!("replica `{name}`: {error}"), None);
        }
        let is_same = |other: &&ReplicaSpec| {
            spec.url.overlaps(&other.url)
                || matches!((spec.url.local_dir(), other.url.local_dir()), (Some(one), Some(other))
                    if real(one).starts_with(real(other)) || real(other).starts_with(real(one)))
        };
        if let Some(other) = specs[..index].iter().find(is_same) {
            let message =
                format!("replicas `{}` and `{name}` lie in one another: {} and {}", other.name, other.url, spec.url);
            wrong(spec, "url", message, Some("give each a directory of its own".to_owned()));
        }
    }
}

/// A name for a replica that was given as a URL or path: its last component, made fit for a file's name.
#[must_use]
pub fn name_for(url: &TargetUrl) -> String {
    let text = url.to_string();
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let fit: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let fit = fit.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    if fit.is_empty() { "replica".to_owned() } else { fit }
}
