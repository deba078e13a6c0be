"""A replica on a host reached by ssh, beside rsync over ssh and rclone over sftp: a tree of small files, then a large one."""

import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import time

import harness
import tree

SFTP = "/usr/lib/openssh/sftp-server"


def arguments(parser) -> None:
    parser.add_argument("--program", help="the keepwatch to measure (default: target/release/keepwatch)")
    parser.add_argument("--files", type=int, default=20_000, help="how many files of 4 KiB (default: %(default)s)")
    parser.add_argument("--large-mib", type=int, default=1024, help="MiB of the one large file (default: %(default)s)")
    parser.add_argument("--no-rclone", action="store_true", help="leave rclone out, which takes longest")


def run(options) -> None:
    program = options.program or str(harness.REPOSITORY / "target/release/keepwatch")
    if not os.access(program, os.X_OK):
        raise harness.Refused(f"{program} is missing: cargo build --release -p keepwatch")
    program = os.path.realpath(program)
    sshd, rsync = harness.peer("sshd", "openssh-server"), harness.peer("rsync", "rsync")
    rclone = None if options.no_rclone else harness.peer("rclone", "rclone")
    for peer in filter(None, (rsync, rclone)):
        print(f"{peer}: {harness.version(peer)}")
    size = 3 * (options.large_mib << 20) + options.files * 40_000 + (1 << 30)
    inodes = 12 * options.files + 10_000
    # Another host has another file system: who watches ours hears nothing of what is written there.
    with (
        harness.place(size, inodes, options.tmpfs) as base,
        harness.place(size, inodes, options.tmpfs) as far,
        servers(base, sshd, program) as ports,
    ):
        small, large = base / "small", base / "large"
        harness.say(f"making {options.files} files of 4 KiB and one of {options.large_mib} MiB, seed {options.seed}")
        make(small, options.files, options.seed)
        large.mkdir()
        with (large / "one").open("wb") as file:
            for number in range(options.large_mib):
                file.write(random.Random(number).randbytes(1 << 20))
        for name, source in (("small files", small), ("one large file", large)):
            print(f"\n{name}")
            tools = [copier for copier in copiers(base, far, source, program, rsync, rclone, ports)]
            peaks_kib = {tool.name: check(tool, source, far) for tool in tools}
            harness.compare(tools, options.rounds, peaks_kib, options.json and f"{options.json}.{source.name}")


def make(top: pathlib.Path, files: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(files):
        at = top / f"{number // 1000:03d}" / f"{number // 100 % 10}"
        if number % 100 == 0:
            at.mkdir(parents=True)
        path = at / f"{rng.randrange(16**8):08x}-{number:06d}.dat"
        path.write_bytes(rng.randbytes(4096))
        mtime_ns = tree.NEWEST_NS - rng.randrange(tree.YEAR_NS)
        os.utime(path, ns=(mtime_ns, mtime_ns))


def copiers(base, far, source, program, rsync, rclone, ports):
    """Each copies `source` into an empty directory of the far side."""
    target, state = far / "target", base / "state"

    def empty() -> None:
        for directory in (target, state):
            shutil.rmtree(directory, ignore_errors=True)
        target.mkdir()
        subprocess.run(["sync", "-f", str(base), str(far)], check=True)

    def keepwatch(host: str) -> list[str]:
        prefix = f"--source-prefix={source}/"
        return [program, "mirror", "--once", "-q", prefix, "--state-dir", str(state), str(source), f"ssh://{host}{target}"]

    yield harness.Tool("keepwatch, receiver", keepwatch("far"), prepare=empty)
    yield harness.Tool("keepwatch, sftp", keepwatch("bare"), prepare=empty)
    yield harness.Tool("rsync -a -e ssh", [rsync, "-a", "-e", "ssh", f"{source}/", f"far:{target}/"], prepare=empty)
    if rclone:
        remote = f":sftp,host=127.0.0.1,port={ports['bare']},user=root,key_file={base}/ssh/user:{target}"
        yield harness.Tool("rclone copy, sftp", [rclone, "copy", "-q", "--config", "", str(source), remote], prepare=empty)


def check(tool, source, far) -> int:
    """The far side must hold the same content under the same names. Gives the peak memory."""
    tool.prepare()
    _, peak_kib = harness.check(tool, lambda output: output.read())
    if contents(source) != contents(far / "target"):
        raise harness.Refused(f"{tool.name} did not copy everything as it is")
    return peak_kib


def contents(top: pathlib.Path) -> dict:
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_file() and not name.startswith(".keepwatch-"):
            with path.open("rb") as file:
                found[name] = (path.stat().st_mtime_ns // 10**9, hashlib.file_digest(file, "sha256").digest())
    return found


@contextlib.contextmanager
def servers(base: pathlib.Path, sshd: str, program: str):
    """Two servers on loopback, `far` with keepwatch on its PATH and `bare` without, and an `ssh` that finds them."""
    top = base / "ssh"
    (top / "bin").mkdir(parents=True)
    (top / "with").mkdir()
    (top / "with/keepwatch").symlink_to(program)
    for key in ("host", "user"):
        harness.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(top / key))
    shutil.copy(top / "user.pub", top / "authorized")
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    ports, processes, client = {}, [], ""
    key = " ".join((top / "host.pub").read_text().split()[:2])
    (top / "known").write_text(f"bench {key}\n")
    for host, path in (("far", f"{top}/with:/usr/bin:/bin"), ("bare", "/usr/bin:/bin")):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = ports[host] = free.getsockname()[1]
        (top / f"{host}.conf").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {top}/host\nAuthorizedKeysFile {top}/authorized\n"
            f"StrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp {SFTP}\nSetEnv PATH={path}\n"
        )
        client += f"Host {host}\n  HostName 127.0.0.1\n  Port {port}\n"
        argv = [os.path.realpath(sshd), "-D", "-f", str(top / f"{host}.conf")]
        processes.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    client += f"Host *\n  HostKeyAlias bench\n  User root\n  IdentityFile {top}/user\n  UserKnownHostsFile {top}/known\n"
    (top / "client.conf").write_text(client)
    (top / "bin/ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {top}/client.conf "$@"\n')
    (top / "bin/ssh").chmod(0o755)
    os.environ["PATH"] = f"{top}/bin:{os.environ['PATH']}"
    try:
        for port in ports.values():
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                time.sleep(0.05)
        yield ports
    finally:
        for process in processes:
            process.terminate()
            process.wait()
