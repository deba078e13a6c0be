//! `keepwatch mirror` to Google's and Azure's stores, over the wire: what they hold is looked at past the wire, and held against
//! the source.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use keepwatch_s3_server::{ACCOUNT, ACCOUNT_KEY, Dialect, Server, TOKEN};

/// What all keys begin with.
const PREFIX: &str = "some/where/";

/// A source, a store, and the state of what mirrors one to the other.
struct Pair {
    dir: tempfile::TempDir,
    server: Server,
    dialect: Dialect,
}

impl Pair {
    fn new(dialect: Dialect) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Pair { dir, server: Server::speaking(dialect, "bucket").unwrap(), dialect }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn url(&self) -> &'static str {
        if self.dialect == Dialect::Google { "gs://bucket/some/where" } else { "az://bucket/some/where" }
    }

    fn bare(&self, url: &str) -> Command {
        let mut command = Command::new(support::program());
        command.arg("mirror").arg(self.source()).arg(url);
        command.arg(format!("--source-prefix={}/", self.source().display())).arg("--once");
        command.args(["--delete-delay=0s", "--max-delete=100%", "--state-dir"]).arg(self.dir.path().join("state"));
        command.env_clear().env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    fn once(&self, key: &str) -> Output {
        let mut command = self.bare(self.url());
        match self.dialect {
            Dialect::Azure => {
                command.env("AZURE_STORAGE_ACCOUNT", ACCOUNT).env("AZURE_STORAGE_ACCOUNT_KEY", key);
                command.arg("--endpoint").arg(self.server.endpoint());
            }
            _ => {
                command.env("CLOUDSDK_AUTH_ACCESS_TOKEN", key).env("STORAGE_EMULATOR_HOST", self.server.endpoint());
            }
        }
        command.output().unwrap()
    }

    fn key(&self) -> &'static str {
        if self.dialect == Dialect::Google { TOKEN } else { ACCOUNT_KEY }
    }

    fn once_fine(&self) {
        let output = self.once(self.key());
        let text = said(&output);
        assert!(output.status.success(), "{}: {text}", output.status);
        assert!(!text.contains(self.key()), "{text}");
    }

    /// Content, mode and whether it is a link, of each that is held below the prefix.
    fn held(&self) -> BTreeMap<String, (Vec<u8>, bool)> {
        let keys = self.server.store.keys("bucket").into_iter();
        let rows = keys.filter_map(|key| {
            let short = key.strip_prefix(PREFIX)?.to_owned();
            let object = self.server.store.object("bucket", &key)?;
            assert!(["mtime", "mode", "uid", "gid"].iter().all(|name| object.metadata.contains_key(*name)), "{key}");
            Some((short, (object.bytes(), object.metadata.contains_key("keepwatch_kind"))))
        });
        rows.filter(|(key, _)| !key.starts_with(".keepwatch-")).collect()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The files and links of a tree.
fn walk(tree: &Path, top: &Path, rows: &mut BTreeMap<String, (Vec<u8>, bool)>) {
    for entry in fs::read_dir(tree).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            walk(&path, top, rows);
            continue;
        }
        let content = match kind.is_symlink() {
            true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            false => fs::read(&path).unwrap(),
        };
        let key = path.strip_prefix(top).unwrap().to_str().unwrap().replace("line\nbreak", "!line%0Abreak");
        rows.insert(key, (content, kind.is_symlink()));
    }
}

fn follows(dialect: Dialect) {
    let pair = Pair::new(dialect);
    let source = pair.source();
    let same = |pair: &Pair| {
        let mut there = BTreeMap::new();
        walk(&pair.source(), &pair.source(), &mut there);
        assert!(!there.is_empty());
        assert!(pair.held() == there, "{:?}\n{:?}", pair.held().keys(), there.keys());
    };
    for number in 0..60 {
        let dir = source.join(format!("d{}", number % 5));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file {number}")), vec![number as u8; number * 37]).unwrap();
    }
    let large: Vec<u8> = (0..20_000_003_usize).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    fs::write(source.join("large"), large).unwrap();
    fs::write(source.join("line\nbreak"), b"x").unwrap();
    symlink("../elsewhere", source.join("link")).unwrap();
    pair.once_fine();
    same(&pair);
    let before = pair.server.seen();
    pair.once_fine();
    assert!(pair.server.seen().bytes - before.bytes < 1000, "nothing changed, and something was sent");
    fs::write(source.join("d1/file 1"), b"changed").unwrap();
    fs::remove_file(source.join("d2/file 2")).unwrap();
    fs::rename(source.join("d3"), source.join("e3")).unwrap();
    fs::rename(source.join("large"), source.join("larger")).unwrap();
    let before = pair.server.seen();
    pair.once_fine();
    same(&pair);
    assert!(pair.server.seen().bytes - before.bytes < 50_000, "content was sent again");
    let trash = format!("{PREFIX}.keepwatch-trash/");
    assert!(pair.server.store.keys("bucket").iter().any(|key| key.starts_with(&trash)), "what went is kept");
    // Another key is refused, and not told.
    let other = if dialect == Dialect::Azure { "aHVzaGh1c2g=" } else { "hushhush" };
    let refused = pair.once(other);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(4), "{text}");
    assert!(text.contains("credentials") && !text.contains(other), "{text}");
    same(&pair);
}

#[test]
fn a_bucket_of_google_s_follows_a_tree() {
    follows(Dialect::Google);
}

#[test]
fn a_container_of_azure_s_follows_a_tree() {
    follows(Dialect::Azure);
}

#[test]
fn what_cannot_be_begun_is_refused_with_the_remedy() {
    let pair = Pair::new(Dialect::Google);
    let told = |url: &str, variables: &[(&str, &str)], words: &[&str]| {
        let output = pair.bare(url).envs(variables.iter().copied()).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|words| text.contains(words)), "{text}");
        assert!(!text.contains("hush"), "{text}");
    };
    told("gs://", &[], &["`gs://` names no place", "gs://BUCKET/PREFIX"]);
    told("az://a.b/c", &[], &["names no place", "az://CONTAINER@ACCOUNT/PREFIX"]);
    told("az://box/p", &[], &["storage account", "AZURE_STORAGE_ACCOUNT"]);
    told("gs://bucket", &[("NO_GCE_CHECK", "true")], &["no credentials", "GOOGLE_APPLICATION_CREDENTIALS"]);
    told("gs://bucket", &[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such.json")], &["/no/such.json"]);
    let half = [("AZURE_STORAGE_ACCOUNT", "acct"), ("AZURE_CLIENT_SECRET", "hush")];
    told("az://box", &half, &["not AZURE_TENANT_ID"]);
    assert!(pair.server.store.keys("bucket").is_empty());
}
