"""The walker beside find, bfs and fd: every entry of a large tree with its size, time and inode, caches warm."""

import harness
import tree

FORMAT = "%p %s %T@ %i\\n"


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000, help="how many files (default: %(default)s)")
    parser.add_argument("--dirs", type=int, default=10_000, help="in how many directories (default: %(default)s)")


def run(options) -> None:
    ours = harness.build("-p", "keepwatch-engine", "--example", "scan_speed")
    find = harness.peer("find", "findutils")
    bfs = harness.peer("bfs", "bfs")
    fd = harness.peer("fdfind", "fd-find")
    for program in (find, bfs, fd):
        print(f"{program}: {harness.version(program)}")
    inodes = options.files + options.dirs + 10_000
    with harness.place(1 << 30 if inodes < 2_000_000 else inodes * 600, inodes, options.tmpfs) as base:
        top = base / "tree"
        harness.say(f"making {options.files} files in {options.dirs} directories, seed {options.seed}")
        entries = tree.many_small(top, options.files, options.dirs, options.seed)
        top = str(top)
        tools = [
            harness.Tool("keepwatch", [ours, top], [ours, top, "--print"]),
            harness.Tool("keepwatch, printing", [ours, top, "--print"]),
            harness.Tool("keepwatch, 1 thread", [ours, top, "--threads", "1"], [ours, top, "--threads", "1", "--print"]),
            harness.Tool("find -printf", [find, top, "-mindepth", "1", "-printf", FORMAT]),
            harness.Tool("bfs -printf", [bfs, top, "-mindepth", "1", "-printf", FORMAT]),
            harness.Tool("fd, looking at mtime", [fd, "-uu", "--changed-after", "1971-01-01", ".", top]),
        ]
        peaks_kib = _check(tools, entries)
        harness.compare(tools, options.rounds, peaks_kib, options.json)


def _check(tools, entries: int) -> dict[str, int]:
    """All must find every entry; those that print facts must print the same. Gives the peak memory of each."""
    peaks_kib, digests = {}, set()
    for tool in tools:
        (lines, digest), peaks_kib[tool.name] = harness.check(tool, _lines)
        if lines != entries:
            raise harness.Refused(f"{tool.name} found {lines} entries, but {entries} were made")
        if not tool.name.startswith("fd"):
            digests.add(digest)
    if len(digests) != 1:
        raise harness.Refused("the tools do not agree on the facts")
    print(f"{entries} entries, the same facts by all that print them")
    return peaks_kib


def _lines(output) -> tuple[int, int]:
    """How many lines, and a digest of them in whatever order."""
    count, digest = 0, 0
    for line in output:
        count += 1
        digest += harness.digest(line)
    return count, digest % 2**64
