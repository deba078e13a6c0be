"""From close(2) to durable in the journal at a steady rate, beside how soon inotifywait prints the same (kept nowhere)."""

import collections
import os
import pathlib
import queue
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import harness
import service
import writer

WRITER = pathlib.Path(__file__).with_name("writer.py")
# The records that carry a file's content; `settled` says more and comes later.
CHANGE = re.compile(rb'\{"seq":\d+,"at":"[^"]+","do":"(?:create|modify)","root":"[^"]+","path":"([^"]+)"')
CLOSED = re.compile(rb"CLOSE_WRITE,CLOSE .*/tree/(\S+)")


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--per-second", type=int, default=1000, help="files closed a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=10, help="for how long (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    files = options.per_second * options.seconds
    runs = collections.defaultdict(list)
    with harness.place((1 << 30) + files * 6000, files + 20_000, options.tmpfs) as base:
        for round_ in range(options.rounds + 1):
            for name, once in {"keepwatch": _keepwatch, "inotifywait": _inotifywait}.items():
                at = base / "run"
                writer.prepare(str(at / "tree"), 1)
                os.sync()
                waits = once(keepwatch, at / "tree", files, options.per_second)
                shutil.rmtree(at)
                for what, waits_ms in waits.items():
                    if round_ > 0:
                        runs[what].append(_percentiles(waits_ms))
                    harness.say(f"  round {round_}  {what:<40} p50 {_percentiles(waits_ms)['p50_ms']:8.2f} ms")
    rows = []
    print(f"\n{files} files at {options.per_second} a second{'':<12} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for what, rounds in runs.items():
        row = {"what": what} | {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        print(f"{what:<40} {row['p50_ms']:8.2f} {row['p90_ms']:8.2f} {row['p99_ms']:8.2f} {row['max_ms']:8.2f}")
        rows.append(row)
    harness.figure("keepwatch, durable: p50 ms", rows[1]["p50_ms"], "≤ 10")
    harness.write_json(rows, options.json)


def _percentiles(waits_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(waits_ms, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p90_ms": cuts[89], "p99_ms": cuts[98], "max_ms": max(waits_ms)}


def _keepwatch(keepwatch: str, tree: pathlib.Path, files: int, per_second: int) -> dict[str, list[float]]:
    """When the commit line over the last record of a file can be read, and when it certainly was on disk.

    A commit line can be read shortly before the fdatasync(2) behind it is done. To know when it was, this calls fdatasync
    on the same file as soon as it sees the line: when that returns the line is durable, whoever wrote it.
    """
    seen_ns, durable_ns, uncommitted = {}, {}, []
    to_sync = queue.SimpleQueue()
    watcher = service.Keepwatch(keepwatch, tree, tree.with_name("state"))
    with watcher.running():
        tail = watcher.tail()

        def look() -> None:
            for line in tail.lines():
                if change := CHANGE.match(line):
                    uncommitted.append(change[1])
                elif service.COMMIT.match(line):
                    now = time.monotonic_ns()
                    seen_ns.update(dict.fromkeys(uncommitted, now))
                    to_sync.put((os.dup(tail.file.fileno()), uncommitted.copy()))
                    uncommitted.clear()

        syncing = threading.Thread(target=_sync, args=(to_sync, durable_ns))
        syncing.start()
        try:
            closed_ns = _write(tree, files, per_second, look)
            service.wait_for("the journal has every file", lambda: look() or closed_ns.keys() <= seen_ns.keys())
            # The record of the last closes may follow an earlier one of the same file.
            watcher.until_quiet()
            look()
        finally:
            to_sync.put(None)
            syncing.join()
            tail.close()
    return {
        "keepwatch, commit line to be read": [(seen_ns[path] - at) / 1e6 for path, at in closed_ns.items()],
        "keepwatch, durable (at the latest)": [(durable_ns[path] - at) / 1e6 for path, at in closed_ns.items()],
    }


def _sync(to_sync, durable_ns: dict) -> None:
    while item := to_sync.get():
        file, paths = item
        os.fdatasync(file)
        os.close(file)
        durable_ns.update(dict.fromkeys(paths, time.monotonic_ns()))


def _inotifywait(_keepwatch: str, tree: pathlib.Path, files: int, per_second: int) -> dict[str, list[float]]:
    printed_ns = {}
    watcher = service.Inotifywait(tree, tree.with_name("out"))
    with watcher.running():
        tail = watcher.tail()

        def look() -> None:
            lines = tail.lines()
            now = time.monotonic_ns()
            printed_ns.update({closed[1]: now for line in lines if (closed := CLOSED.match(line))})

        closed_ns = _write(tree, files, per_second, look)
        service.wait_for("inotifywait has every file", lambda: look() or closed_ns.keys() <= printed_ns.keys())
        tail.close()
    return {"inotifywait, line to be read": [(printed_ns[path] - at) / 1e6 for path, at in closed_ns.items()]}


def _write(tree: pathlib.Path, files: int, per_second: int, look) -> dict[bytes, int]:
    """Lets the writer write, looking four times a millisecond; gives when each file had been closed."""
    argv = [sys.executable, str(WRITER), "paced", str(tree), str(files), str(per_second)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        said = []
        reading = threading.Thread(target=lambda: said.append(process.stdout.read()))
        reading.start()
        while process.poll() is None:
            look()
            time.sleep(0.000_25)
        reading.join()
    if process.returncode != 0:
        raise harness.Refused(f"the writer ended with {process.returncode}")
    return {path: int(at_ns) for path, at_ns in map(bytes.split, said[0].splitlines())}
