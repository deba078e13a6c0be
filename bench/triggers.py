"""Triggers: from close(2) to the command's start, beside an inotifywait loop; commands a second; files a second in batches."""

import collections
import contextlib
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import time

import harness
import service

RECORD = re.compile(rb'\{"seq":\d+,"at":"([^"]+)","do":"(started|ran)".*?(?:"files":\[([\d,]*)\]|\}$)')
# What a user would write instead; it does not know whether a file is finished.
LOOP = 'inotifywait -q -m -e close_write --format %w%f "$0" | while IFS= read -r f; do sh "$1" "$f"; done'


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=10_000, help="commands of `true` (default: %(default)s)")
    parser.add_argument("--batched", type=int, default=200_000, help="files in batches (default: %(default)s)")
    parser.add_argument("--per-second", type=int, default=20, help="files closed a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="for how long (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    harness.peer("inotifywait", "inotify-tools")
    size, inodes = (2 << 30) + options.batched * 8_000, options.batched + options.files + 100_000
    rates, waits = collections.defaultdict(list), collections.defaultdict(list)
    with harness.place(size, inodes, options.tmpfs) as base:
        for round_ in range(options.rounds + 1):
            at = pathlib.Path(base) / "run"
            found = {
                "commands of `true` a second": _rate(keepwatch, at, options.files, '["/bin/true"]\nconcurrency = 8'),
                "files a second in batches": _rate(keepwatch, at, options.batched, '["/bin/cat"]\nbatch = 10000\nconcurrency = 2'),
            }
            for what, rate in found.items():
                harness.say(f"  round {round_}  {what}: {rate:.0f}")
                if round_ > 0:
                    rates[what].append(rate)
            for what in ("keepwatch", "inotifywait"):
                took = _waits(keepwatch, at, what, options.per_second, options.per_second * options.seconds)
                harness.say(f"  round {round_}  {what}: close to command, p50 {statistics.median(took):.1f} ms")
                if round_ > 0:
                    waits[what] += took
    rows = []
    for what, wanted in (("commands of `true` a second", "≥ 1,000"), ("files a second in batches", "≥ 50,000")):
        harness.figure(what, statistics.median(rates[what]), wanted)
        rows.append({"what": what, "per_s": statistics.median(rates[what])})
    for what, took in waits.items():
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        wanted = {"keepwatch": ("≤ 20", "≤ 200")}.get(what, ("—", "—"))
        harness.figure(f"{what}: close to command, p50 ms", cuts[49], wanted[0])
        harness.figure(f"{what}: close to command, p99 ms", cuts[98], wanted[1])
        rows.append({"what": what, "p50_ms": cuts[49], "p99_ms": cuts[98]})
    harness.write_json(rows, options.json)


@contextlib.contextmanager
def _running(keepwatch: str, at: pathlib.Path, trigger: str):
    config = at / "keepwatch.toml"
    config.write_text(f'[roots.tree]\npath = "{at}/tree"\n{trigger}')
    argv = [keepwatch, "run", "-q", "-c", str(config), "--state-dir", str(at / "state")]
    process = subprocess.Popen(argv, env={"HOME": str(at), "PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _rate(keepwatch: str, at: pathlib.Path, files: int, command: str) -> float:
    """Files that are finished and known already, then the trigger: from the first `started` to the last `ran`."""
    for number in range(files):
        if number % 1_000 == 0:
            (at / f"tree/d{number // 1_000}").mkdir(parents=True)
        (at / f"tree/d{number // 1_000}/f{number}").write_bytes(b"x")
    with _running(keepwatch, at, ""):
        tail = service.Tail(at / "state/journal", "*.jsonl")
        settled = 0

        def all_settled() -> bool:
            nonlocal settled
            settled += sum(b'"do":"settled"' in line for line in tail.lines())
            return settled >= files

        service.wait_for("all files are settled", all_settled, 0.2)
        tail.close()
    with _running(keepwatch, at, f'[[triggers]]\nname = "t"\ncommand = {command}\n'):
        tail, times, done = service.Tail(at / "state/journal", "*.jsonl"), [], 0

        def all_done() -> bool:
            nonlocal done
            for when, what, others in (match.groups() for match in filter(None, map(RECORD.match, tail.lines()))):
                times.append(when)
                # One record tells of a whole batch: of its first file, and of pairs for the others.
                done += (1 + ((others or b"").count(b",") + 1) // 2 * bool(others)) * (what == b"ran")
            return done >= files

        service.wait_for("all files are done", all_done, 0.2)
        tail.close()
    shutil.rmtree(at)
    seconds = [time.mktime(time.strptime(text[:19].decode(), "%Y-%m-%dT%H:%M:%S")) + float(b"0" + text[19:29]) for text in times]
    return files / max(seconds[-1] - seconds[0], 1e-3)


def _waits(keepwatch: str, at: pathlib.Path, what: str, per_second: int, files: int) -> list[float]:
    """Milliseconds from close to the first thing that the command does: it starts `date`."""
    (at / "tree").mkdir(parents=True)
    (at / "marks").mkdir()
    closed = []
    with contextlib.ExitStack() as stack:
        if what == "keepwatch":
            trigger = f'[[triggers]]\nname = "t"\ncommand = ["/bin/sh", "-c", "date +%s%N > {at}/marks/{{name}}"]\n'
            stack.enter_context(_running(keepwatch, at, trigger))
        else:
            (at / "mark").write_text(f'date +%s%N > "{at}/marks/${{1##*/}}"\n')
            loop = subprocess.Popen(["sh", "-c", LOOP, str(at / "tree"), str(at / "mark")], start_new_session=True)
            stack.callback(lambda: os.killpg(loop.pid, 15))
        time.sleep(2)
        for number in range(files):
            (at / f"tree/f{number}").write_bytes(b"x")
            closed.append(time.time_ns())
            time.sleep(1 / per_second)
        service.wait_for("all commands", lambda: len(list((at / "marks").iterdir())) >= files and all(
            path.stat().st_size for path in (at / "marks").iterdir()
        ), 0.2)
        took = [(int((at / f"marks/f{number}").read_text()) - closed[number]) / 1e6 for number in range(files)]
    shutil.rmtree(at)
    return took
