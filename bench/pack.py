"""The packer beside rear, zip and tar: many small files into one archive, by one process and by eight; one more file for an
archive of a million; reading one."""

import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time
import zipfile

import harness

REAR = "rear==0.1.2"
PROCESSES = 8


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=100_000, help="how many files (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=2048, help="the length of each (default: %(default)s)")
    parser.add_argument("--members", type=int, default=1_000_000, help="of the large archive (default: %(default)s)")


def run(options) -> None:
    ours = harness.build("-p", "keepwatch-pack", "--example", "pack_tree")
    peers = {name: harness.peer(name, name) for name in ("zip", "tar")}
    for program in peers.values():
        print(f"{program}: {harness.version(program)}")
    size = 8 * options.files * (options.bytes + 4096) + options.members * 1500 + (1 << 30)
    with harness.place(size, options.files * 2 + 100_000, options.tmpfs) as base:
        harness.say(f"making {options.files} files of {options.bytes} bytes, seed {options.seed}")
        _make(base / "src", options)
        rear = _rear(base)
        _many(ours, rear, peers, base, options)
        _side_by_side(ours, base, options)
        _one_more(ours, rear, peers["zip"], base, options)


def _make(top: pathlib.Path, options) -> None:
    dice = random.Random(options.seed)
    for number in range(options.files):
        # A tree for each of the processes that work side by side; no two files have the same name below them.
        directory = top / f"{number % PROCESSES}" / f"{number // 1000:04}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06}.log").write_bytes(dice.randbytes(options.bytes))
    os.sync()


def _rear(base: pathlib.Path) -> list[str]:
    """The command that packs with rear, from PyPI in an environment of its own."""
    venv = base / "venv"
    harness.say(f"installing {REAR} from PyPI")
    harness.run(sys.executable, "-m", "venv", str(venv))
    harness.run(str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", REAR)
    return [str(venv / "bin/python"), str(pathlib.Path(__file__).with_name("pack_rear.py"))]


def _many(ours: str, rear: list[str], peers: dict[str, str], base: pathlib.Path, options) -> None:
    src, pack, reared = str(base / "src"), base / "pack", base / "rear"
    zipped, tarred = base / "peer.zip", base / "peer.tar"

    def empty(directory: pathlib.Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()

    tools = [
        harness.Tool("keepwatch", [ours, src, str(pack), "ar.zip"], prepare=lambda: empty(pack)),
        harness.Tool(REAR, [*rear, src, str(reared), "ar.zip"], prepare=lambda: empty(reared)),
        harness.Tool(
            "zip -0 -r",
            [peers["zip"], "-0", "-q", "-r", str(zipped), src],
            prepare=lambda: zipped.unlink(missing_ok=True),
        ),
        harness.Tool("tar", [peers["tar"], "-cf", str(tarred), "-C", src, "."]),
    ]
    empty(pack)
    empty(reared)
    peaks_kib = {tool.name: harness.check(tool, lambda output: output.read())[1] for tool in tools}
    for made in (pack, reared):
        _is_packed(made / "ar.zip", lambda name: base / "src" / name, options)
    harness.compare(tools, options.rounds, peaks_kib, options.json)
    print("keepwatch: staged, collected, read back, synced; rear: staged, collected; zip and tar: written once; none synced")


def _is_packed(path: pathlib.Path, source, options) -> None:
    with zipfile.ZipFile(path) as archive:
        if len(archive.namelist()) != options.files or archive.testzip():
            raise harness.Refused(f"{path} is not what was packed")
        names = archive.namelist()
        for name in random.Random(options.seed).sample(names, min(1000, len(names))):
            if archive.read(name) != source(name).read_bytes():
                raise harness.Refused(f"{name} differs")


def _side_by_side(ours: str, base: pathlib.Path, options) -> None:
    """The same files by one process, one tree after the other, and by eight at the same time; then they are collected."""
    trees = [base / "src" / str(number) for number in range(PROCESSES)]
    seen: dict[int, list[float]] = {1: [], PROCESSES: []}
    collected = []
    for round_ in range(options.rounds + 1):
        for width, times in seen.items():
            pack = base / f"side{width}"
            shutil.rmtree(pack, ignore_errors=True)
            pack.mkdir()
            since = time.monotonic()
            for first in range(0, PROCESSES, width):
                argvs = [[ours, str(tree), str(pack), "ar.zip", "worker"] for tree in trees[first : first + width]]
                running = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for argv in argvs]
                if any([process.wait() for process in running]):
                    raise harness.Refused("a worker failed")
            if round_ > 0:
                times.append(time.monotonic() - since)
        since = time.monotonic()
        subprocess.run([ours, ".", str(pack), "ar.zip", "scavenger"], stdout=subprocess.DEVNULL, check=True)
        collected.append(options.files / (time.monotonic() - since))
    places = {path.relative_to(tree).as_posix(): path for tree in trees for path in tree.rglob("*.log")}
    _is_packed(base / f"side{PROCESSES}" / "ar.zip", lambda name: places[name], options)
    cores = len(os.sched_getaffinity(0))
    one, many = (statistics.median(times) for times in seen.values())
    harness.figure("staging by 1 process, s", one, "—")
    harness.figure(f"staging by {PROCESSES} processes on {cores} cores, s", many, "—")
    harness.figure(f"{PROCESSES} processes, times as fast as 1", one / many, f"about {min(cores, PROCESSES)}")
    harness.figure("collecting what they staged, members/s", statistics.median(collected[1:]), "≥ 50,000")


def _one_more(ours: str, rear: list[str], zip_program: str, base: pathlib.Path, options) -> None:
    """An archive that another program made, taken in by the first round, which warms up."""
    harness.say(f"making an archive of {options.members} members")
    large = base / "large"
    large.mkdir()
    with zipfile.ZipFile(large / "ar.zip", "w") as archive:
        for number in range(options.members):
            archive.writestr(zipfile.ZipInfo(f"d{number // 1000:04}/some-file-{number:07}.log"), b"x" * 100)
    harness.run("cp", str(large / "ar.zip"), str(base / "peer-large.zip"))
    (base / "rear-large").mkdir()
    harness.run("cp", str(large / "ar.zip"), str(base / "rear-large" / "ar.zip"))
    seen: dict[str, list[float]] = {}
    for round_ in range(options.rounds + 1):
        one = base / f"one{round_}"
        one.mkdir()
        (one / f"more{round_}").write_bytes(b"one more")
        middle = f"d{options.members // 2000:04}/some-file-{options.members // 2:07}.log"
        runs = {
            "one more file": [ours, str(one), str(large), "ar.zip"],
            f"one more file, {REAR}": [*rear, str(one), str(base / "rear-large"), "ar.zip"],
            "zip -g": [zip_program, "-g", "-q", "-j", str(base / "peer-large.zip"), str(one / f"more{round_}")],
            "open and read one": [ours, str(one), str(large), "ar.zip", "read", middle],
        }
        for name, argv in runs.items():
            since = time.monotonic()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            if round_ > 0:
                seen.setdefault(name, []).append(time.monotonic() - since)
    wanted = {"one more file": "< 500", "open and read one": "≤ 10"}
    for name, times in seen.items():
        harness.figure(f"{name}, of {options.members} members, ms", 1000 * statistics.median(times), wanted.get(name, "—"))
