"""A running `keepwatch`, the watchers one would use instead of it, and what each of them has told so far."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import time

import harness

COMMIT = re.compile(rb'\{"commit":(\d+),')
DEADLINE_S = 120.0


def arguments(parser) -> None:
    default = harness.REPOSITORY / "target/release/keepwatch"
    parser.add_argument("--program", default=str(default), help="the keepwatch to measure (default: %(default)s)")


def program(options) -> str:
    """The absolute path of the keepwatch to measure."""
    path = pathlib.Path(options.program).resolve()
    if not os.access(path, os.X_OK):
        raise harness.Refused(f"there is no {path}: cargo build --release -p keepwatch, or say --program")
    return str(path)


def wait_for(what: str, condition, every_s: float = 0.02):
    """Asks until the answer is something, and gives it; too long a wait ends the comparison."""
    until = time.monotonic() + DEADLINE_S
    while not (answer := condition()):
        if time.monotonic() > until:
            raise harness.Refused(f"waited {DEADLINE_S:.0f} s in vain: {what}")
        time.sleep(every_s)
    return answer


class Tail:
    """The whole lines that were added to files in a directory since the last look, oldest file first.

    The journal reserves room ahead of its end, which reads as NUL bytes: lines end there for now.
    """

    def __init__(self, directory: pathlib.Path, pattern: str):
        self.directory, self.pattern = directory, pattern
        self.file, self.name, self.rest = None, "", b""

    def lines(self) -> list[bytes]:
        found = []
        while True:
            if self.file:
                at = self.file.tell()
                bytes_ = self.file.read(1 << 20)
                end = bytes_.find(b"\0")
                if end >= 0:
                    bytes_ = bytes_[:end]
                    self.file.seek(at + end)
                *lines, self.rest = (self.rest + bytes_).split(b"\n")
                found += lines
                if bytes_:
                    continue
            newer = sorted(path.name for path in self.directory.glob(self.pattern) if path.name > self.name)
            if not newer:
                return found
            self.close()
            self.name, self.rest = newer[0], b""
            self.file = (self.directory / self.name).open("rb", buffering=0)

    def close(self) -> None:
        if self.file:
            self.file.close()


class Watcher:
    """A program that watches a tree until it is stopped; after that, `cpu_s` is what it took from start to end."""

    name = ""

    def __init__(self, argv: list[str], errors: pathlib.Path):
        self.argv, self.errors, self.cpu_s = argv, errors, 0.0
        with errors.open("wb") as file:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file)

    @contextlib.contextmanager
    def running(self):
        """Is stopped at the end, whatever happened."""
        try:
            self.until_ready()
            yield self
        finally:
            self.stop()

    def alive(self) -> None:
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self._ended(status, usage)
        if self.process.returncode is not None:
            said = self.errors.read_text(errors="replace").strip()
            raise harness.Refused(f"{self.name} ended with {self.process.returncode}: {said}")

    def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            _, status, usage = os.wait4(self.process.pid, 0)
            self._ended(status, usage)

    def _ended(self, status: int, usage) -> None:
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime

    def until_told(self, tree: pathlib.Path) -> list[bytes]:
        """All lines told, once all that was done in the tree before this call was told.

        Files made now are told after everything before them. Several are made, because a queue that is full drops them.
        """
        tail, told, number = self.tail(), [], 0
        due = 0.0

        def drained() -> bool:
            nonlocal number, due
            self.alive()
            if time.monotonic() >= due:
                (tree / f"sentinel-{number}").touch()
                number, due = number + 1, time.monotonic() + 0.2
            lines = tail.lines()
            told.extend(lines)
            return any(b"sentinel-" in line for line in lines)

        wait_for(f"{self.name} tells of a file made last", drained)
        self.until_quiet()
        told.extend(tail.lines())
        tail.close()
        return told

    def until_quiet(self) -> None:
        """What the program does after it told a change is done too."""


class Keepwatch(Watcher):
    name = "keepwatch run"

    def __init__(self, keepwatch: str, tree: pathlib.Path, state: pathlib.Path):
        state.mkdir(mode=0o700)
        self.keepwatch, self.state = keepwatch, state
        argv = [keepwatch, "run", "--quiet", "--root", str(tree), "--state-dir", str(state)]
        super().__init__(argv, state.with_name(state.name + ".err"))

    def status(self) -> dict:
        argv = [self.keepwatch, "status", "--json", "--state-dir", str(self.state)]
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        return json.loads(said) if said else {}

    def _settled(self) -> bool:
        self.alive()
        status = self.status()
        return (
            bool(status.get("service"))
            and all(root["state"] == "watching" and root["open_gaps"] == 0 for root in status["roots"])
            and status["journal"]["pending"] == 0
            and all(follower["lag_records"] == 0 for follower in status["followers"])
        )

    def until_ready(self) -> None:
        wait_for("keepwatch watches its root", self._settled)

    def until_quiet(self) -> None:
        wait_for("the journal is written and the inventory has followed", self._settled)

    def tail(self) -> Tail:
        return Tail(self.state / "journal", "*.jsonl")


class ToFile(Watcher):
    """A watcher that writes a line an event to a file."""

    def __init__(self, argv: list[str], out: pathlib.Path):
        self.out = out
        super().__init__(argv, out.with_name(out.name + ".err"))

    def tail(self) -> Tail:
        return Tail(self.out.parent, self.out.name)


class Inotifywait(ToFile):
    name = "inotifywait"
    EVENTS = ("create", "close_write", "moved_from", "moved_to", "delete")

    def __init__(self, tree: pathlib.Path, out: pathlib.Path, events: tuple[str, ...] = EVENTS):
        inotifywait = harness.peer("inotifywait", "inotify-tools")
        argv = [inotifywait, "-m", "-r", "--format", "%e %w%f", "-o", str(out), "-e", ",".join(events), str(tree)]
        super().__init__(argv, out)

    def until_ready(self) -> None:
        def ready() -> bool:
            self.alive()
            return b"Watches established." in self.errors.read_bytes()

        wait_for("inotifywait established its watches", ready)
