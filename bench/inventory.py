"""The inventory alone: changes a second taken in, and names given out, on one thread."""

import os
import re
import statistics
import subprocess

import harness

LINE = re.compile(r"^(?P<what>.*\S)\s+(?P<count>\d+) in\s+(?P<wall_s>[\d.]+) s,\s+(?P<cpu_s>[\d.]+) s of cpu")
# These take changes in; the others read, or are one record that stands for many names.
TAKES_IN = ("first scan", "settled, in order", "churn, random places")


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000, help="how many files (default: %(default)s)")


def run(options) -> None:
    speed = harness.build("-p", "keepwatch-engine", "--example", "inventory_speed")
    runs: dict[str, list[tuple[float, float]]] = {}
    with harness.place((1 << 30) + options.files * 6000, 10_000, options.tmpfs) as base:
        for round_ in range(options.rounds + 1):
            harness.say(f"  round {round_}")
            environment = os.environ | {"TMPDIR": str(base)}
            argv = [speed, str(options.files)]
            said = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
            if said.returncode != 0:
                raise harness.Refused(f"inventory_speed ended with {said.returncode}: {said.stderr.strip()}")
            for line in filter(None, map(LINE.match, said.stdout.splitlines())):
                count, wall_s, cpu_s = int(line["count"]), float(line["wall_s"]), float(line["cpu_s"])
                # Times are printed to the millisecond: what took none is not a speed.
                if round_ > 0 and wall_s and cpu_s:
                    runs.setdefault(line["what"], []).append((count / wall_s, count / cpu_s))
    if not set(TAKES_IN) <= runs.keys():
        raise harness.Refused("inventory_speed did not print what it took in: its output has another form, or too few files")
    rows = []
    for what, speeds in runs.items():
        per_s, per_cpu_s = (statistics.median(column) for column in zip(*speeds))
        rows.append({"what": what, "per_s": per_s, "per_cpu_s": per_cpu_s})
        harness.figure(f"{what}, a second", per_s, "≥ 50,000" if what in TAKES_IN else "—")
        harness.figure(f"{what}, a second of CPU", per_cpu_s, "—")
    harness.write_json(rows, options.json)
