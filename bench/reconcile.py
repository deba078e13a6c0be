"""`keepwatch reconcile` beside find: into an empty inventory, and again with nothing changed; caches warm."""

import json
import os
import shutil
import subprocess

import harness
import service
import tree


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=1_000_000, help="how many files (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=10_000, help="in how many directories (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    find = harness.peer("find", "findutils")
    print(f"{find}: {harness.version(find)}")
    inodes = options.files + options.dirs + 10_000
    # A thousand bytes a file for its inode, its record in the journal and its row in the inventory, twice.
    with harness.place((1 << 30) + inodes * 3000, inodes, options.tmpfs) as base:
        top = base / "tree"
        harness.say(f"making {options.files} files in {options.dirs} directories, seed {options.seed}")
        entries = tree.many_small(top, options.files, options.dirs, options.seed)
        new, known = base / "state-new", base / "state-known"

        def forget() -> None:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            # What was removed and written before must not be paid for by who runs next.
            os.sync()

        def reconcile(state) -> list[str]:
            return [keepwatch, "reconcile", "--root", str(top), "--state-dir", str(state), "--summary"]

        forget()
        known.mkdir(mode=0o700)
        # It ends with 1 when something differed.
        first = harness.Tool("reconcile, first", reconcile(new), [*reconcile(new), "--json"], code=1, prepare=forget)
        filled = harness.Tool("reconcile, to fill", [*reconcile(known), "--json"], code=1)
        again = harness.Tool("reconcile, unchanged", reconcile(known), [*reconcile(known), "--json"])
        printing = harness.Tool("find -printf", [find, str(top), "-mindepth", "1", "-printf", "%p %s %T@ %i\\n"])
        peaks_kib = {}
        for tool, found in ((first, entries), (filled, entries), (again, 0)):
            summary, peaks_kib[tool.name] = harness.check(tool, json.load)
            if (summary["scanned"], summary["found"], summary["failed"]) != (entries, found, 0):
                raise harness.Refused(f"{tool.name} of {entries} entries said {summary}")
        facts, peaks_kib[printing.name] = harness.check(printing, _found)
        if _listed(keepwatch, new) != facts:
            raise harness.Refused("the inventory does not hold what find printed")
        print(f"{entries} entries, the same path, size and inode in the inventory as by find")
        rows = harness.compare([first, again, printing], options.rounds, peaks_kib, options.json)
    by_name = {row["tool"]: row for row in rows}
    find_s = by_name[printing.name]["wall_s"]
    harness.figure("first reconcile, wall ÷ find's", by_name[first.name]["wall_s"] / find_s, "≤ 2.5")
    harness.figure("unchanged reconcile, wall ÷ find's", by_name[again.name]["wall_s"] / find_s, "≤ 1.0")
    for tool in (first, again):
        harness.figure(f"{tool.name}: peak MB", peaks_kib[tool.name] * 1024 / 1e6, "< 150")


def _found(output) -> int:
    """A digest of path, size and inode of each line, in whatever order."""
    digest = 0
    for line in output:
        path, size, _, inode = line.rsplit(b" ", 3)
        digest += harness.digest(b"%b %b %b" % (path, size, inode.strip()))
    return digest % 2**64


def _listed(keepwatch: str, state) -> int:
    digest = 0
    argv = [keepwatch, "ls", "--json", "--state-dir", str(state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            entry = json.loads(line)
            digest += harness.digest(f"{entry['full']} {entry['size']} {entry['inode']}".encode())
    return digest % 2**64
