"""The journal alone: records a second appended, read and verified, and the bytes of a record."""

import json
import statistics
import subprocess
import time

import harness
import service
import tree

WANTED = {"append": "≥ 300,000/s", "verify": "≥ 1,000,000/s", "bytes/record": "≤ 450"}


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--records", type=int, default=1_000_000, help="how many records (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    speed = harness.build("-p", "keepwatch-journal", "--example", "journal_speed")
    runs: dict[str, list[float]] = {}
    files = options.records // 2
    with harness.place((1 << 30) + options.records * 3000, files + 20_000, options.tmpfs) as base:
        # A first scan writes two records a file or fewer: a journal made by the program itself.
        tree.many_small(base / "tree", files, max(1, files // 100), options.seed)
        state = base / "state"
        state.mkdir(mode=0o700)
        argv = [keepwatch, "reconcile", "--root", str(base / "tree"), "--state-dir", str(state), "--summary"]
        # It ends with 1 because it found what was new.
        if subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode != 1:
            raise harness.Refused("keepwatch reconcile made no journal")
        for round_ in range(options.rounds + 1):
            harness.say(f"  round {round_}")
            numbers = _speed(speed, base / "speed", options.records) | _verify(keepwatch, state, files)
            if round_ > 0:
                for name, number in numbers.items():
                    runs.setdefault(name, []).append(number)
    rows = [
        {"what": name, "median": statistics.median(seen), "min": min(seen), "max": max(seen)} for name, seen in runs.items()
    ]
    for row in rows:
        wanted = WANTED.get(row["what"].removesuffix("/s"), WANTED["verify"] if "verify" in row["what"] else "—")
        harness.figure(f"{row['what']} ({row['min']:,.0f}–{row['max']:,.0f})", row["median"], wanted)
    harness.write_json(rows, options.json)


def _speed(speed: str, directory, records: int) -> dict[str, float]:
    said = subprocess.run([speed, str(directory), str(records)], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise harness.Refused(f"journal_speed ended with {said.returncode}: {said.stderr.strip()}")
    named = (line.rsplit(None, 1) for line in said.stdout.splitlines())
    return {name.replace(" ", ""): float(number) for name, number in named if name.strip() != "commits"}


def _verify(keepwatch: str, state, files: int) -> dict[str, float]:
    """The whole program, its start included."""
    since = time.monotonic()
    argv = [keepwatch, "journal", "verify", "--json", "--state-dir", str(state)]
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - since
    report = json.loads(said.stdout)
    if said.returncode != 0 or not report["sound"] or report["records"] < files:
        raise harness.Refused(f"keepwatch journal verify ended with {said.returncode}: {said.stdout.strip()}")
    return {"keepwatch journal verify, records/s": report["records"] / wall_s}
