"""A quiet tree: how often a watcher wakes up, and the memory it holds."""

import collections
import contextlib
import pathlib
import shutil
import statistics
import time

import harness
import service
import tree

SWITCHES = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=10_000, help="how many files (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=100, help="in how many directories (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="how long to look (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=10, help="seconds to wait before (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    runs, threads = collections.defaultdict(list), collections.Counter()
    with harness.place((1 << 30) + options.files * 3000, options.files + options.dirs + 10_000, options.tmpfs) as base:
        top, at = base / "tree", base / "run"
        tree.many_small(top, options.files, options.dirs, options.seed)
        starts = {
            "keepwatch run": lambda: service.Keepwatch(keepwatch, top, at / "state"),
            "inotifywait": lambda: service.Inotifywait(top, at / "out"),
        }
        for round_ in range(options.rounds):
            for name, start in starts.items():
                at.mkdir()
                with start().running() as watcher:
                    time.sleep(options.settle)
                    before = _switches(watcher.process.pid)
                    time.sleep(options.seconds)
                    watcher.alive()
                    woken = _switches(watcher.process.pid)
                    woken.subtract(before)
                    runs[name].append((woken.total(), _memory_kib(watcher.process.pid)))
                    if name == "keepwatch run":
                        threads += woken
                shutil.rmtree(at)
                harness.say(f"  round {round_ + 1}  {name:<16} {runs[name][-1][0]:4} wake-ups")
    rows = []
    print(f"\n{'':<24} {'wake-ups':>8} {'min–max':>9} {'RSS MB':>8}")
    for name, seen in runs.items():
        wakeups, kib = zip(*seen)
        row = {"watcher": name, "seconds": options.seconds, "wakeups": statistics.median(wakeups)}
        row["rss_mb"] = statistics.median(kib) * 1024 / 1e6
        print(f"{name:<24} {row['wakeups']:8.0f} {f'{min(wakeups)}–{max(wakeups)}':>9} {row['rss_mb']:8.1f}")
        rows.append(row)
    print(f"threads of keepwatch that woke up, all rounds: {dict(threads) or 'none'}")
    harness.figure(f"wake-ups in {options.seconds:.0f} s", rows[0]["wakeups"], "none but the watchdog's")
    harness.figure("RSS MB", rows[0]["rss_mb"], "< 30")
    harness.write_json(rows, options.json)


def _switches(pid: int) -> collections.Counter:
    """Context switches of each thread until now, by the thread's name and id."""
    found = collections.Counter()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # A thread may end between being listed and being read.
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            status = (task / "status").read_text().splitlines()
            found[f"{name} {task.name}" if name in found else name] = sum(
                int(line.split()[1]) for line in status if line.startswith(SWITCHES)
            )
    return found


def _memory_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
