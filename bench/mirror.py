"""`keepwatch mirror --once` beside cp and rsync: to an empty directory, hashed and not, and again with nothing changed.

Many small files; `--files 4 --dirs 1 --size 1073741824` for large ones.
"""

import hashlib
import os
import pathlib
import random
import shutil
import subprocess

import harness
import service
import tree

# So much of a file is made at once.
PIECE = 64 << 20


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=100_000, help="how many files (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=1_000, help="in how many directories (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="bytes of each (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    cp, rsync = harness.peer("cp", "coreutils"), harness.peer("rsync", "rsync")
    for peer in (cp, rsync):
        print(f"{peer}: {harness.version(peer)}")
    inodes = 3 * (options.files + options.dirs) + 20_000
    blocks = options.files * (-(-options.size // 4096) * 4096)
    # The source, two targets and a state directory, with room for inodes and the journal.
    with harness.place((1 << 30) + 4 * blocks + inodes * 1500, inodes, options.tmpfs) as base:
        top = base / "tree"
        harness.say(f"making {options.files} files of {options.size} bytes in {options.dirs} directories")
        make(top, options)
        target, state, kept, kept_state = base / "target", base / "state", base / "kept", base / "kept-state"

        def forget() -> None:
            for directory in (target, state):
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir(mode=0o700)
            os.sync()

        def mirror(to, its_state, *more) -> list[str]:
            flags = ["--source-prefix", f"{top}/", "--state-dir", str(its_state), *more]
            return [keepwatch, "mirror", "--once", "-q", *flags, str(top), str(to)]

        # cp syncs nothing; what it leaves to the kernel is made durable inside the measured time, as ours is.
        synced = "sync -f \"$2\""
        copy = ["sh", "-c", f"{cp} -aT \"$1\" \"$2\" && {synced}", "cp", str(top), str(target)]
        sync = ["sh", "-c", f"{rsync} -a \"$1/\" \"$2/\" && {synced}", "rsync", str(top), str(target)]
        tools = [
            harness.Tool("mirror, first", mirror(target, state), prepare=forget),
            harness.Tool("mirror --no-hash, first", mirror(target, state, "--no-hash"), prepare=forget),
            harness.Tool("cp -a, sync", copy, prepare=forget),
            harness.Tool("rsync -a, sync", sync, prepare=forget),
        ]
        wanted, peaks_kib = digest(top), {}
        for tool in tools:
            forget()
            _, peaks_kib[tool.name] = harness.check(tool, lambda output: output.read())
            if digest(target) != wanted:
                raise harness.Refused(f"{tool.name} did not come to the same tree")
        print(f"{options.files} files, the same paths, contents, modes and times at each target")
        for directory in (kept, kept_state):
            directory.mkdir(mode=0o700)
        subprocess.run(mirror(kept, kept_state), check=True, stdout=subprocess.DEVNULL)
        again = harness.Tool("mirror, unchanged", mirror(kept, kept_state))
        _, peaks_kib[again.name] = harness.check(again, lambda output: output.read())
        rows = harness.compare([*tools, again], options.rounds, peaks_kib, options.json)
    seconds = {row["tool"]: row["wall_s"] for row in rows}
    first, unread, cp_s, rsync_s = (seconds[tool.name] for tool in tools)
    harness.figure("first mirror, wall ÷ cp's", first / cp_s, "≤ 1.3 for small files")
    harness.figure("first mirror, wall ÷ rsync's", first / rsync_s, "< 1")
    harness.figure("first mirror, not hashed, wall ÷ cp's", unread / cp_s, "≤ 1.15 for large files")
    harness.figure("first mirror: peak MB", peaks_kib[tools[0].name] * 1024 / 1e6, "< 100")


def make(top: pathlib.Path, options) -> None:
    rng = random.Random(options.seed)
    for number in range(options.dirs):
        at = top / f"{number // 100:03d}" / f"{number % 100:02d}"
        at.mkdir(parents=True)
        for index in range(number * options.files // options.dirs, (number + 1) * options.files // options.dirs):
            path = at / f"{index:07d}.dat"
            with path.open("wb") as file:
                for done in range(0, options.size, PIECE):
                    file.write(rng.randbytes(min(PIECE, options.size - done)))
            mtime_ns = tree.NEWEST_NS - rng.randrange(tree.YEAR_NS)
            os.utime(path, ns=(mtime_ns, mtime_ns))


def digest(top: pathlib.Path) -> int:
    """Of path, content, mode and mtime of every file, in whatever order; our own at a target's top left out."""
    digest = 0
    for directory, _, files in os.walk(top):
        at = pathlib.Path(directory)
        if any(part.startswith(".keepwatch-") for part in at.relative_to(top).parts):
            continue
        for name in files:
            path = at / name
            if name.startswith(".keepwatch-"):
                continue
            facts, content = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
            line = f"{path.relative_to(top)} {content} {facts.st_mode} {facts.st_mtime_ns}"
            digest += harness.digest(line.encode())
    return digest % 2**64
