//! A real sshd for the tests: its own keys, configuration and port, on loopback; and a proxy before it that counts, cuts and
//! swallows what passes.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, missing_docs)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::support;

/// What is installed on the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// `keepwatch`, which takes copies in.
    Keepwatch,
    /// Nothing but sshd and its sftp server.
    Bare,
}

/// A server, ended and removed with this.
pub struct Sshd {
    dir: tempfile::TempDir,
    pub proxy: Proxy,
    child: Child,
}

/// Where Debian, Fedora and others keep them.
const SSHD: &str = "/usr/sbin/sshd";
const SFTP: &[&str] = &["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];

impl Sshd {
    /// Starts one; `None`, said loudly, where sshd is not installed.
    pub fn start(test: &str, far: Far) -> Option<Self> {
        let sftp = SFTP.iter().find(|path| Path::new(path).exists());
        let (true, Some(sftp)) = (Path::new(SSHD).exists(), sftp) else {
            support::skipped(test, "sshd is not installed (Debian: openssh-server)");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kwssh").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for key in ["host", "user", "stranger"] {
            let output = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).output();
            assert!(output.unwrap().status.success());
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        let port = free_port();
        let mut path = "/usr/bin:/bin".to_owned();
        if far == Far::Keepwatch {
            fs::create_dir(at("far")).unwrap();
            std::os::unix::fs::symlink(support::program(), at("far/keepwatch")).unwrap();
            path = format!("{}:{path}", at("far").display());
        }
        let top = dir.path().display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {top}/host\nAuthorizedKeysFile {top}/authorized\nStrictModes no\n\
             UsePAM no\nPidFile none\nSubsystem sftp {sftp}\nSetEnv PATH={path}\nMaxStartups 100\nPrintMotd no\n"
        );
        fs::write(at("sshd.conf"), config).unwrap();
        if support::is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let log = fs::File::create(at("sshd.log")).unwrap();
        let mut command = Command::new(SSHD);
        command.arg("-D").arg("-e").arg("-f").arg(at("sshd.conf")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().unwrap();
        support::wait_for("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let proxy = Proxy::start(port);
        let key = fs::read_to_string(at("host.pub")).unwrap();
        let key: Vec<&str> = key.split(' ').take(2).collect();
        fs::write(at("known"), format!("far-key {}\n", key.join(" "))).unwrap();
        fs::write(at("unknown"), "").unwrap();
        let client = format!(
            "Host far wrong unknown\n  HostName 127.0.0.1\n  Port {}\n  HostKeyAlias far-key\n  IdentitiesOnly yes\n\
             GlobalKnownHostsFile none\nHost far unknown\n  IdentityFile {top}/user\nHost wrong\n  IdentityFile {top}/stranger\n\
             Host far wrong\n  UserKnownHostsFile {top}/known\nHost unknown\n  UserKnownHostsFile {top}/unknown\n",
            proxy.port
        );
        fs::write(at("ssh.conf"), client).unwrap();
        fs::create_dir(at("bin")).unwrap();
        let sshd = Sshd { dir, proxy, child };
        sshd.set_client("");
        Some(sshd)
    }

    /// What goes before the options that we give to `ssh`; of two that differ it takes the first.
    pub fn set_client(&self, options: &str) {
        let (config, ssh) = (self.dir.path().join("ssh.conf"), self.dir.path().join("bin/ssh"));
        let text = format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' {options} \"$@\"\n", config.display());
        fs::write(&ssh, text).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Binds the key of the client to a command.
    pub fn force(&self, command: &str) {
        let key = fs::read_to_string(self.dir.path().join("user.pub")).unwrap();
        fs::write(self.dir.path().join("authorized"), format!("restrict,command=\"{command}\" {key}")).unwrap();
    }

    /// A `PATH` on which `ssh` finds this server under the names `far`, `wrong` (the key is) and `unknown` (its key is).
    pub fn path(&self) -> String {
        format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.dir.path().join("bin").display())
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.proxy.cut();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// What happens to what passes.
#[derive(Default)]
struct Passing {
    sent: AtomicU64,
    is_hole: AtomicBool,
    /// Once so many bytes were sent, all connections are cut, or swallow everything.
    limit: AtomicU64,
    cuts: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// A proxy before a server.
pub struct Proxy {
    pub port: u16,
    passing: Arc<Passing>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let passing = Arc::new(Passing::default());
        passing.limit.store(u64::MAX, Ordering::SeqCst);
        let shared = Arc::clone(&passing);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                shared.streams.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to, counts) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap(), true), (far, near, false)]
                {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || pass(from, to, counts, &shared));
                }
            }
        });
        Proxy { port, passing }
    }

    /// Bytes that clients have sent so far.
    pub fn sent(&self) -> u64 {
        self.passing.sent.load(Ordering::SeqCst)
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.passing.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends all connections, or lets nothing through any more (`hole`), once `bytes` more were sent.
    pub fn trouble_after(&self, bytes: u64, hole: bool) {
        self.passing.cuts.store(!hole, Ordering::SeqCst);
        self.passing.limit.store(self.sent() + bytes, Ordering::SeqCst);
    }

    /// Whether trouble has come.
    pub fn had_trouble(&self) -> bool {
        self.passing.limit.load(Ordering::SeqCst) == u64::MAX
    }

    /// Lets everything through again, on new connections.
    pub fn heal(&self) {
        self.cut();
        self.passing.is_hole.store(false, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, counts: bool, passing: &Passing) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if counts {
            let sent = passing.sent.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if sent > passing.limit.load(Ordering::SeqCst) {
                passing.limit.store(u64::MAX, Ordering::SeqCst);
                if passing.cuts.load(Ordering::SeqCst) {
                    for stream in passing.streams.lock().unwrap().drain(..) {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                } else {
                    passing.is_hole.store(true, Ordering::SeqCst);
                }
            }
        }
        if passing.is_hole.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
