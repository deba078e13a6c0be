"""The shared index on a PostgreSQL with its defaults: changes a second taken in, and questions answered."""

import contextlib
import json
import os
import pathlib
import pwd
import re
import statistics
import subprocess

import harness

LINE = re.compile(r"^(?P<what>.*\S)\s+(?P<count>\d+) in\s+(?P<wall_s>[\d.]+) s,\s+(?P<cpu_s>[\d.]+) s of cpu")
WANTED = {"initial load": "≥ 80,000", "live changes, random places": "≥ 20,000"}
# Asked as docs/sql.md says; EXPLAIN's text is printed.
QUESTIONS = {
    "log PATH": (
        "SELECT seq, at, change, old_path, size FROM file_changes WHERE host = 'grown' AND root = 'records'"
        " AND left(path, 200) = left('{path}', 200) AND path = '{path}' ORDER BY seq"
    ),
    "what changed under DIR on DAY": (
        "SELECT seq, at, change, path FROM file_changes WHERE host = 'grown' AND root = 'records'"
        " AND left(path, 200) >= left('{dir}/', 200) AND left(path, 200) < left('{dir}0', 200)"
        " AND at >= '{day}' AND at < timestamptz '{day}' + interval '1 day' ORDER BY at"
    ),
}
# A year of changes, twenty million by default, to a million files in ten thousand directories.
GROW = """
INSERT INTO hosts (host_id, name, identity, journal, is_current, history_from)
  VALUES (1000, 'grown', 'grown', '00000000-0000-0000-0000-000000000001', true, 0);
INSERT INTO cursors VALUES (1000, '00000000-0000-0000-0000-000000000001', {count}, '', {count}, now());
"""
MONTH = """
CREATE TABLE IF NOT EXISTS changes_{year}_{month:02} (LIKE changes INCLUDING DEFAULTS);
ALTER TABLE changes ATTACH PARTITION changes_{year}_{month:02}
  FOR VALUES FROM ('{year}-{month:02}-01 00:00+00') TO ('{next_year}-{next_month:02}-01 00:00+00');
"""
ROWS = """
INSERT INTO changes (host_id, op, via, seq, at, at_ns, file_id, size, mtime_ns, ctime_ns, dev, inode, uid, gid, nlink, mode,
  kind, merged, subtree, exchange, root, path)
SELECT 1000, 1 + n % 3, 1, n, timestamptz '2025-01-01 00:00+00' + n * (interval '365 days' / {count}), 0,
  file, n % 100000, n, n, 66306, file, 1000, 1000, 1, 420, 1, false, false, false, 'records',
  format('records/series-%s/box-%s/page-%s.tif', lpad((file / 10000)::text, 3, '0'), lpad((file / 100)::text, 6, '0'),
         lpad(file::text, 8, '0'))
FROM (SELECT n, (n * 7919) % 1000000 AS file FROM generate_series({first}::bigint, {last}::bigint) AS n) AS numbers
"""


class Server:
    """A cluster in a directory of its own, as a user without rights, with PostgreSQL's defaults."""

    def __init__(self, base: pathlib.Path) -> None:
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise harness.Refused("PostgreSQL is not installed: apt-get install postgresql")
        self.bin, self.dir = found[-1].parent, base / "pg"
        self.dir.mkdir()
        nobody = pwd.getpwnam("nobody")
        os.chown(self.dir, nobody.pw_uid, nobody.pw_gid)
        base.chmod(0o755)
        base.parent.chmod(0o711)
        self.as_nobody = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
        self.call("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D", str(self.dir / "data"))
        options = f"-k {self.dir} -c listen_addresses="
        self.call("pg_ctl", "start", "-w", "-s", "-D", str(self.dir / "data"), "-l", str(self.dir / "log"), "-o", options)

    def call(self, program: str, *argv: str) -> None:
        harness.run(*self.as_nobody, str(self.bin / program), *argv, cwd=self.dir, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.call("pg_ctl", "stop", "-w", "-s", "-m", "immediate", "-D", str(self.dir / "data"))

    def url(self, database: str) -> str:
        return f"postgres://postgres@{str(self.dir).replace('/', '%2F')}/{database}"

    def sql(self, database: str, sql: str) -> str:
        argv = [self.bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]
        said = subprocess.run([*argv, "-h", self.dir, "-c", sql], capture_output=True, text=True, check=False)
        if said.returncode != 0:
            raise harness.Refused(f"psql: {said.stderr.strip()}")
        return said.stdout


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000, help="how many files (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=20_000_000, help="changes to be asked about (default: %(default)s)")


def run(options) -> None:
    speed = harness.build("-p", "keepwatch-engine", "--example", "index_speed")
    runs: dict[str, list[float]] = {}
    rows = []
    size = (4 << 30) + options.files * 4_000 * 2 + options.changes * 700
    with harness.place(size, 50_000, options.tmpfs) as base, contextlib.ExitStack() as last:
        server = Server(pathlib.Path(base))
        last.callback(server.stop)
        for round_ in range(options.rounds + 1):
            harness.say(f"  round {round_}")
            server.sql("postgres", "CREATE DATABASE speed")
            said = subprocess.run([speed, server.url("speed"), str(options.files)], capture_output=True, text=True, check=False)
            if said.returncode != 0:
                raise harness.Refused(f"index_speed ended with {said.returncode}: {said.stderr.strip()}")
            for line in filter(None, map(LINE.match, said.stdout.splitlines())):
                if round_ > 0 or options.rounds == 0:
                    runs.setdefault(line["what"], []).append(int(line["count"]) / max(float(line["wall_s"]), 1e-3))
            peak = re.search(r"peak memory: +(\d+) kB", said.stdout)
            if round_ < options.rounds:
                server.sql("postgres", "DROP DATABASE speed")
        for what, speeds in runs.items():
            median = statistics.median(speeds)
            if what.startswith("rename"):
                harness.figure(f"{what}, ms", 1000 / median, "< 1,000")
            else:
                harness.figure(f"{what}, a second", median, WANTED.get(what, "—"))
            rows.append({"what": what, "per_s": median})
        harness.figure("peak memory, MB", int(peak[1]) / 1000, "< 100")
        rows += ask(server, options.changes)
    harness.write_json(rows, options.json)


def ask(server: Server, count: int) -> list[dict]:
    harness.say(f"  {count} changes are made up")
    server.sql("speed", GROW.format(count=count))
    for month in range(1, 13):
        following = {"next_year": 2025 + month // 12, "next_month": month % 12 + 1}
        server.sql("speed", MONTH.format(year=2025, month=month, **following))
    for first in range(1, count + 1, 1_000_000):
        server.sql("speed", ROWS.format(count=count, first=first, last=min(count - 1, first + 999_999)))
    server.sql("speed", "VACUUM ANALYZE changes")
    values = {"path": "records/series-042/box-004242/page-00424242.tif", "dir": "records/series-042", "day": "2025-06-15"}
    rows = []
    for what, question in QUESTIONS.items():
        question = question.format(**values)
        explain = server.sql("speed", f"EXPLAIN (ANALYZE, BUFFERS) {question}")
        print(f"\n{what}:\n{explain}")
        times = []
        for _ in range(11):
            said = json.loads(server.sql("speed", f"EXPLAIN (ANALYZE, FORMAT JSON) {question}"))[0]
            times.append(said["Planning Time"] + said["Execution Time"])
        harness.figure(f"{what} of {count}, ms", statistics.median(times), "< 50")
        rows.append({"what": what, "ms": statistics.median(times)})
    return rows
