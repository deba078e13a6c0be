"""What every comparison needs: peers to run, a place to put data, runs that alternate, a table of ratios.

A comparison (a module beside this one) makes its data at a `place`, lists its `Tool`s with ours first, checks with
`check` that they do the same thing, and gives them to `compare`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class Refused(Exception):
    """A comparison cannot be run here; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program to compare: how it is started, and how it is asked to show what it does."""

    name: str
    argv: list[str]
    # What it is started as to have its result checked, where that is not the same.
    argv_check: list[str] | None = None
    # Seconds of CPU in other processes that do its work, such as a daemon; called before and after each run.
    cpu_elsewhere: object = None
    # The exit code that means it did what it was asked.
    code: int = 0
    # Called before each run, outside the measurement, so that every run starts from the same state.
    prepare: object = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run took, children that were waited for included."""

    wall_s: float
    cpu_s: float


def measure(tool: Tool) -> Run:
    """Runs a tool once, its output thrown away; a failure ends the comparison."""
    if tool.prepare:
        tool.prepare()
    elsewhere = tool.cpu_elsewhere or (lambda: 0.0)
    cpu_before = elsewhere()
    start = time.monotonic()
    process = subprocess.Popen(tool.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != tool.code:
        raise Refused(f"{tool.name} ended with {process.returncode}: {' '.join(tool.argv)}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime + elsewhere() - cpu_before)


def check(tool: Tool, read) -> tuple[object, int]:
    """Runs a tool once outside the measurement; gives what `read` made of its output, and its peak memory in KiB.

    Peak memory is asked of /proc while it runs: the `ru_maxrss` of wait4 is never below the memory of the process that
    started it, which is this one (exec keeps the maximum, see getrusage(2)).
    """
    process = subprocess.Popen(tool.argv_check or tool.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    peak_kib = [0]
    sampler = threading.Thread(target=_sample_peak, args=(process, peak_kib))
    sampler.start()
    result = read(process.stdout)
    code = process.wait()
    sampler.join()
    if code != tool.code:
        raise Refused(f"{tool.name} ended with {code}: {' '.join(process.args)}")
    return result, peak_kib[0]


def _sample_peak(process: subprocess.Popen, peak_kib: list[int]) -> None:
    program = os.path.realpath(shutil.which(process.args[0]) or process.args[0])
    while process.poll() is None:
        with contextlib.suppress(OSError):
            # Before its exec it still is this interpreter.
            if os.readlink(f"/proc/{process.pid}/exe") == program:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                peak = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
                peak_kib[0] = max(peak_kib + peak)
        time.sleep(0.001)


def compare(tools: list[Tool], rounds: int, peaks_kib: dict[str, int], json_to: str | None = None) -> list[dict]:
    """Runs all tools in turn, `rounds` times after one that warms up; prints, and gives, medians and ratios to the first."""
    runs: dict[str, list[Run]] = {tool.name: [] for tool in tools}
    for round_ in range(rounds + 1):
        for tool in tools:
            run = measure(tool)
            if round_ > 0:
                runs[tool.name].append(run)
            say(f"  round {round_}  {tool.name:<24} {run.wall_s:8.3f} s")
    rows = []
    for tool in tools:
        rows.append(
            {
                "tool": tool.name,
                "wall_s": statistics.median(run.wall_s for run in runs[tool.name]),
                "wall_min_s": min(run.wall_s for run in runs[tool.name]),
                "wall_max_s": max(run.wall_s for run in runs[tool.name]),
                "cpu_s": statistics.median(run.cpu_s for run in runs[tool.name]),
                "peak_kib": peaks_kib[tool.name],
            }
        )
    print_table(rows)
    write_json(rows, json_to)
    return rows


def print_table(rows: list[dict]) -> None:
    """One line a tool; the ratios are ours divided by the tool's, so below 1 is in our favour."""
    ours = rows[0]
    print(f"\n{'':<24} {'wall s':>8} {'min–max':>15} {'CPU s':>8} {'peak MiB':>9} {'wall ×':>8} {'CPU ×':>8}")
    for row in rows:
        spread = f"{row['wall_min_s']:.3f}–{row['wall_max_s']:.3f}"
        line = f"{row['tool']:<24} {row['wall_s']:8.3f} {spread:>15} {row['cpu_s']:8.3f} {row['peak_kib'] / 1024:9.1f}"
        print(f"{line} {ours['wall_s'] / row['wall_s']:8.2f} {ours['cpu_s'] / row['cpu_s']:8.2f}")
    print("×: ours ÷ the line's, of medians")


def figure(what: str, value: float, wanted: str) -> None:
    """One number beside the one it should be; it is for people, nothing fails by it."""
    digits = 0 if value >= 1000 else 2
    print(f"{what:<52} {value:12,.{digits}f}   wanted {wanted}")


def write_json(rows: list[dict], to: str | None) -> None:
    """The numbers for programs, if that was asked for."""
    if to:
        pathlib.Path(to).write_text(json.dumps(rows, indent=2) + "\n")


def digest(line: bytes) -> int:
    """Of one line, to be added up for a set of lines in whatever order."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")


@contextlib.contextmanager
def place(size_bytes: int, inodes: int, tmpfs: bool):
    """An empty directory on a fresh file system of its own: ext4 on a loop device, or tmpfs. It goes afterwards.

    Not the machine's own disk: what creating files costs there was seen to vary eightfold from run to run.
    """
    if os.geteuid() != 0:
        raise Refused("a fresh file system has to be mounted: run this as root")
    with tempfile.TemporaryDirectory(prefix="keepwatch-bench-") as base:
        at = pathlib.Path(base, "at")
        at.mkdir()
        if tmpfs:
            run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={inodes}", "keepwatch-bench", str(at))
        else:
            image = pathlib.Path(base, "image")
            with image.open("wb") as file:
                file.truncate(size_bytes)
            run("mkfs.ext4", "-q", "-m", "0", "-N", str(inodes), "-E", "lazy_itable_init=0", str(image))
            run("mount", "-o", "loop,noatime", str(image), str(at))
        try:
            yield at
        finally:
            run("umount", str(at))


def peer(program: str, package: str) -> str:
    """The path of a peer's program, installed from the distribution if it is missing."""
    found = shutil.which(program)
    if not found:
        say(f"installing {package}")
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Refused(f"{program} is missing: install the package {package}")
        run("apt-get", "install", "-y", "-qq", package, stdout=subprocess.DEVNULL)
        found = shutil.which(program)
    if not found:
        raise Refused(f"the package {package} did not bring {program}")
    return found


def version(program: str, *ask: str) -> str:
    """The first line of what a program says of its version."""
    said = subprocess.run([program, *(ask or ("--version",))], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).splitlines()[0].strip()


def build(*what: str) -> str:
    """Builds one of our programs (`-p CRATE --bin NAME`, `--example NAME`) as it ships; gives its path."""
    argv = ["cargo", "build", "--release", "--quiet", "--message-format=json", *what]
    built = subprocess.run(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        raise Refused(f"cargo ended with {built.returncode}")
    paths = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    return next(path for path in paths if path)


def run(*argv: str, **options) -> None:
    """Runs a command of the set-up; a failure ends the comparison."""
    try:
        subprocess.run(argv, check=True, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(f"{' '.join(argv)}: {error}") from error


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)
