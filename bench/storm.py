"""Writers at full speed: what a watcher costs them, what it costs itself, what it tells and what it loses."""

import collections
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

import harness
import service
import writer

FILE = re.compile(rb"f-\d+-\d{8}")
WRITER = pathlib.Path(__file__).with_name("writer.py")


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=100_000, help="files written in a run (default: %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="writers (default: 1 and 2)")


def run(options) -> None:
    keepwatch = service.program(options)
    settings = {
        "no watcher": None,
        "inotifywait": lambda top: service.Inotifywait(top, top.with_name("out")),
        "keepwatch run": lambda top: service.Keepwatch(keepwatch, top, top.with_name("state")),
    }
    rows = []
    # Five records a file, each below half a KiB, and the inventory's history of them.
    with harness.place((1 << 30) + options.files * 6000, options.files + 20_000, options.tmpfs) as base:
        for processes in options.processes:
            files = options.files // processes * processes
            runs = collections.defaultdict(list)
            for round_ in range(options.rounds + 1):
                for name, start in settings.items():
                    one = _once(base / "run", start, processes, files)
                    if round_ > 0:
                        runs[name].append(one)
                    harness.say(f"  round {round_}  {processes} writing  {name:<16} {one['writers_cpu_s']:8.3f} s of CPU")
            rows += [_row(name, processes, files, runs[name], runs["no watcher"]) for name in settings]
    _print(rows)
    harness.write_json(rows, options.json)


def _once(base: pathlib.Path, start, processes: int, files: int) -> dict:
    """One storm in a directory of its own, which goes afterwards."""
    top = base / "tree"
    writer.prepare(str(top), processes)
    os.sync()
    try:
        if start is None:
            return _write(top, processes, files) | {"watcher_cpu_s": 0.0, "told": 0, "lost": 0, "gaps": 0}
        watcher = start(top)
        with watcher.running():
            one = _write(top, processes, files)
            since = time.monotonic()
            told = watcher.until_told(top)
            one["drain_s"] = time.monotonic() - since
        one["watcher_cpu_s"] = watcher.cpu_s
        judge = _judge_journal if isinstance(watcher, service.Keepwatch) else _judge_lines
        one |= judge(told, top, files)
        return one
    finally:
        shutil.rmtree(base)


def _write(top: pathlib.Path, processes: int, files: int) -> dict:
    since = time.monotonic()
    process = subprocess.Popen([sys.executable, str(WRITER), "storm", str(top), str(processes), str(files)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise harness.Refused(f"the writers ended with {process.returncode}")
    return {
        "wall_s": time.monotonic() - since,
        "writers_cpu_s": usage.ru_utime + usage.ru_stime,
        "writers_kernel_s": usage.ru_stime,
        "drain_s": 0.0,
    }


def _judge_journal(lines: list[bytes], top: pathlib.Path, files: int) -> dict:
    """Carries out the journal's records on nothing: what results must be the files that are there, to size and time."""
    known, mentioned, told, gaps, expected_seq = {}, set(), 0, 0, 1
    for line in lines:
        if not line.startswith(b'{"seq":'):
            continue
        record = json.loads(line)
        if record["seq"] != expected_seq:
            raise harness.Refused(f"record {record['seq']} in the journal where {expected_seq} has to be")
        expected_seq += 1
        do, path = record["do"], record.get("path")
        gaps += do == "gap" and record["reason"] != "new"
        mentioned.update(FILE.findall(line))
        if do in ("create", "modify", "attrib", "move"):
            told += "f-" in path
            # Gone before it could be looked at: a record of its own has to say so.
            facts = known.pop(record.get("old_path"), "unread") if do == "move" else "unread"
            if record.get("type"):
                facts = tuple(record[field] for field in ("type", "size", "mtime_ns", "inode"))
            known[path] = facts
        elif do == "delete":
            told += "f-" in path
            known.pop(path, None)
            if record.get("subtree"):
                known = {name: facts for name, facts in known.items() if not name.startswith(path + "/")}
    there = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            there[os.path.relpath(path, top)] = ("file", facts.st_size, facts.st_mtime_ns, facts.st_ino)
    said = {path: facts for path, facts in known.items() if "f-" in path}
    there = {path: facts for path, facts in there.items() if "f-" in path}
    wrong = sum(said.get(path) != there.get(path) for path in said.keys() | there.keys())
    return {"told": told, "lost": wrong, "unmentioned": files - len(mentioned), "gaps": gaps}


def _judge_lines(lines: list[bytes], top: pathlib.Path, files: int) -> dict:
    """Every operation gives a known number of lines: what is missing was lost."""
    told = sum(bool(FILE.search(line)) for line in lines)
    mentioned = {name for line in lines for name in FILE.findall(line)}
    kept = sum(number % writer.KEEP_EACH == 0 for number in _numbers(top, files))
    # create, close_write, moved_from, moved_to, delete.
    expected = files * 5 - kept
    overflows = sum(b"OVERFLOW" in line for line in lines)
    return {"told": told, "lost": expected - told, "unmentioned": files - len(mentioned), "gaps": overflows}


def _numbers(top: pathlib.Path, files: int):
    processes = sum(child.is_dir() for child in top.iterdir())
    return (number for _ in range(processes) for number in range(files // processes))


def _row(name: str, processes: int, files: int, runs: list[dict], alone: list[dict]) -> dict:
    row = {"setting": name, "processes": processes, "files": files}
    for key in ("wall_s", "writers_cpu_s", "writers_kernel_s", "watcher_cpu_s", "drain_s"):
        row[key] = statistics.median(one[key] for one in runs)
    row["writers_cpu_min_s"] = min(one["writers_cpu_s"] for one in runs)
    row["writers_cpu_max_s"] = max(one["writers_cpu_s"] for one in runs)
    row["all_cpu_s"] = statistics.median(one["writers_cpu_s"] + one["watcher_cpu_s"] for one in runs)
    # Losses are not averaged away: the worst run counts.
    row["told"] = min(one["told"] for one in runs)
    for key in ("lost", "unmentioned", "gaps"):
        row[key] = max(one.get(key, 0) for one in runs)
    for key in ("writers_cpu_s", "writers_kernel_s"):
        row[key.removesuffix("_s") + "_ratio"] = row[key] / statistics.median(one[key] for one in alone)
    return row


def _print(rows: list[dict]) -> None:
    print(
        f"\n{'':<24} {'writers s':>9} {'min–max':>15} {'×':>6} {'kernel ×':>8} {'+ watcher s':>11} {'wall s':>8}"
        f" {'drain s':>8} {'told':>9} {'lost':>8} {'unmentioned':>11} {'gaps':>5}"
    )
    for row in rows:
        name = f"{row['processes']} writing, {row['setting']}"
        spread = f"{row['writers_cpu_min_s']:.3f}–{row['writers_cpu_max_s']:.3f}"
        print(
            f"{name:<24} {row['writers_cpu_s']:9.3f} {spread:>15} {row['writers_cpu_ratio']:6.2f}"
            f" {row['writers_kernel_ratio']:8.2f} {row['all_cpu_s']:11.3f} {row['wall_s']:8.3f} {row['drain_s']:8.3f}"
            f" {row['told']:9} {row['lost']:8} {row['unmentioned']:11} {row['gaps']:5}"
        )
    print("×: the writers' CPU ÷ that without a watcher, of medians; told, lost and gaps: of the worst run")
