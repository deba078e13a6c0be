"""A copy that is kept, beside lsyncd: from close(2) to a complete copy at a low rate, then a burst of new files."""

import os
import pathlib
import random
import shutil
import statistics
import subprocess
import time

import harness
import mirror
import service

# Another tool may take minutes for a burst.
BURST_DEADLINE_S = 600.0


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=100_000, help="how many files there are before (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=1_000, help="in how many directories (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="bytes of each (default: %(default)s)")
    parser.add_argument("--single", type=int, default=400, help="files that are written one by one (default: %(default)s)")
    parser.add_argument("--per-second", type=int, default=20, help="how many of them a second (default: %(default)s)")
    parser.add_argument("--burst", type=int, default=50_000, help="files that are written at once (default: %(default)s)")


def run(options) -> None:
    keepwatch, lsyncd = service.program(options), harness.peer("lsyncd", "lsyncd")
    harness.peer("rsync", "rsync")
    print(f"lsyncd: {harness.version(lsyncd, '-version')}")
    files = options.files + (options.rounds + 1) * (options.single + options.burst)
    inodes = 4 * (files + options.dirs) + 20_000
    waits, bursts = {}, {}
    with harness.place((2 << 30) + 3 * files * options.size + inodes * 1500, inodes, options.tmpfs) as base:
        top = base / "tree"
        harness.say(f"making {options.files} files of {options.size} bytes in {options.dirs} directories")
        mirror.make(top, options)
        os.sync()
        # Each keeps a copy of its own, in turn: two at a time would take from one another.
        for name, start in {"keepwatch": _keepwatch, "lsyncd, delay 1 s": _lsyncd}.items():
            target = base / "target"
            target.mkdir()
            follower = start(keepwatch if name == "keepwatch" else lsyncd, top, target)
            try:
                _wait_for_all(top, target)
                waits[name], bursts[name] = [], []
                for round_ in range(options.rounds + 1):
                    single = _single(top, target, options, f"{round_}")
                    burst_s = _burst(top, target, options, f"{round_}")
                    harness.say(f"  round {round_}  {name:<20} p50 {statistics.median(single):9.2f} ms  burst {burst_s:8.2f} s")
                    if round_ > 0:
                        waits[name] += single
                        bursts[name].append(burst_s)
                if mirror.digest(top) != mirror.digest(target):
                    raise harness.Refused(f"{name} did not come to the same tree")
            finally:
                follower.terminate()
                follower.wait()
            shutil.rmtree(target)
            for made in top.glob("new-*"):
                shutil.rmtree(made)
    rows = []
    print(f"\n{options.single} files at {options.per_second}/s, then {options.burst} at once, beside {options.files}")
    for name in waits:
        cuts = statistics.quantiles(waits[name], n=100, method="inclusive")
        row = {"tool": name, "p50_ms": cuts[49], "p99_ms": cuts[98], "burst_s": statistics.median(bursts[name])}
        print(f"{name:<20} p50 {row['p50_ms']:9.2f} ms   p99 {row['p99_ms']:9.2f} ms   burst {row['burst_s']:8.2f} s")
        rows.append(row)
    harness.figure("from close(2) to a complete copy: p50 ms", rows[0]["p50_ms"], "≤ 15")
    harness.figure("from close(2) to a complete copy: p99 ms", rows[0]["p99_ms"], "≤ 100")
    harness.figure("burst: lsyncd's time ÷ ours", rows[1]["burst_s"] / rows[0]["burst_s"], "≥ 2")
    harness.write_json(rows, options.json)


def _keepwatch(keepwatch: str, top: pathlib.Path, target: pathlib.Path):
    flags = ["-q", "--source-prefix", f"{top}/", "--state-dir", str(target.with_name("state"))]
    return subprocess.Popen([keepwatch, "mirror", *flags, str(top), str(target)], stdout=subprocess.DEVNULL)


def _lsyncd(lsyncd: str, top: pathlib.Path, target: pathlib.Path):
    argv = [lsyncd, "-nodaemon", "-delay", "1", "-rsync", str(top), str(target)]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _names(top: pathlib.Path) -> set[str]:
    found = set()
    for directory, dirs, files in os.walk(top):
        dirs[:] = [name for name in dirs if not name.startswith(".keepwatch-")]
        at = os.path.relpath(directory, top)
        found.update(f"{at}/{name}" for name in files if not name.startswith("."))
    return found


def _wait_for_all(top: pathlib.Path, target: pathlib.Path) -> None:
    wanted, until = _names(top), time.monotonic() + BURST_DEADLINE_S
    while not wanted <= _names(target):
        if time.monotonic() > until:
            raise harness.Refused(f"only {len(_names(target) & wanted)} of {len(wanted)} files came")
        time.sleep(0.2)


def _single(top: pathlib.Path, target: pathlib.Path, options, tag: str) -> list[float]:
    """Milliseconds from close(2) until a file of the full size stands at the target, for each of some files."""
    rng = random.Random(f"{options.seed} {tag}")
    to, copies = top / f"new-{tag}", target / f"new-{tag}"
    to.mkdir()
    waiting, waits, due = {}, [], time.monotonic()
    written = 0
    while written < options.single or waiting:
        now = time.monotonic()
        if written < options.single and now >= due:
            name, content = f"{written:06d}", rng.randbytes(options.size)
            (to / name).write_bytes(content)
            waiting[name] = time.monotonic()
            written, due = written + 1, due + 1 / options.per_second
        for name, closed in list(waiting.items()):
            try:
                whole = os.stat(copies / name).st_size == options.size
            except FileNotFoundError:
                continue
            if whole:
                waits.append((time.monotonic() - closed) * 1000)
                del waiting[name]
        if now - due > BURST_DEADLINE_S:
            raise harness.Refused(f"{len(waiting)} files did not come")
        time.sleep(0.0005)
    return waits


def _burst(top: pathlib.Path, target: pathlib.Path, options, tag: str) -> float:
    """Seconds from the first write until all files are at the target."""
    content = random.Random(f"{options.seed} burst {tag}").randbytes(options.size)
    to, copies = top / f"new-burst-{tag}", target / f"new-burst-{tag}"
    begun = time.monotonic()
    for number in range(options.burst):
        if number % 1000 == 0:
            (to / f"{number // 1000:03d}").mkdir(parents=True)
        (to / f"{number // 1000:03d}" / f"{number:06d}").write_bytes(content)
    wanted = _names(to)
    while True:
        found = _names(copies) if copies.is_dir() else set()
        if wanted <= found:
            return time.monotonic() - begun
        if time.monotonic() - begun > BURST_DEADLINE_S:
            raise harness.Refused(f"of a burst of {len(wanted)} files {len(found & wanted)} came")
        time.sleep(0.1)
