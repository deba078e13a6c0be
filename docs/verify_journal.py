#!/usr/bin/env python3
"""Verifies a Keepwatch journal: an independent judge, written from docs/journal-format.md alone.

usage: verify_journal.py JOURNAL_DIR [--head JOURNAL:SEQ:HASH]

Exit code 0: it verifies; 1: findings; 2: it cannot be judged.
Standard library only. For .zst files it uses compression.zstd (Python 3.14), else the zstd command.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

ZERO = "0" * 64
LINE_MAX = 64 << 20
COMMIT = re.compile(
    rb'\{"commit":(0|[1-9][0-9]*),"records":(0|[1-9][0-9]*),"prev":"([0-9a-f]{64})","sha256":"([0-9a-f]{64})"\}'
)
CLOSING = len(ZERO) + len('"}\n')


class CannotJudge(Exception):
    """The journal cannot be judged here: exit code 2."""


def parse_commit(line):
    """The four values of a commit line, or None."""
    match = COMMIT.fullmatch(line[:-1]) if line.endswith(b"\n") else None
    if match is None or int(match[1]) >= 1 << 63:
        return None
    return int(match[1]), int(match[2]), match[3].decode(), match[4].decode()


def parse_header(line):
    """The header as a dictionary, or None."""
    try:
        header = json.loads(line.decode("utf-8")) if line.endswith(b"\n") and len(line) <= 64 << 10 else None
    except ValueError:
        return None
    if not isinstance(header, dict) or not isinstance(header.get("keepwatch_journal"), int):
        return None
    if header["keepwatch_journal"] != 1:
        raise CannotJudge(f"it has format {header['keepwatch_journal']}, and this verifier knows only 1")
    whole = all(isinstance(header.get(name), int) for name in ("first_seq", "file"))
    whole &= all(isinstance(header.get(name), str) for name in ("journal_id", "host", "prev", "at"))
    whole = whole and 1 <= header["first_seq"] < 1 << 63 and re.fullmatch("[0-9a-f]{64}", header["prev"])
    return header if whole else None


class File:
    """One file of the journal."""

    def __init__(self, path):
        self.path = path
        self.packed = path.endswith(".zst")
        self.error = None
        lines = self.lines()
        self.header = parse_header(next(lines, b""))
        lines.close()

    def lines(self):
        """Its lines with their newlines. A file that cannot be decompressed just ends, with `error` set."""
        with self.open() as text:
            while True:
                try:
                    line = text.readline(LINE_MAX)
                except (EOFError, ValueError, OSError) as error:
                    self.error = str(error)
                    return
                if not line:
                    return
                yield line

    def open(self):
        if not self.packed:
            return open(self.path, "rb")
        try:
            from compression import zstd  # Python 3.14

            return zstd.open(self.path, "rb")
        except ImportError:
            return Unzstd(self)


class Unzstd:
    """The zstd command as a file."""

    def __init__(self, file):
        if shutil.which("zstd") is None:
            raise CannotJudge(f"{file.path} is compressed: install zstd, or use Python 3.14")
        self.file = file

    def __enter__(self):
        self.child = subprocess.Popen(
            ["zstd", "-dcq", "--", self.file.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return self

    def readline(self, limit):
        line = self.child.stdout.readline(limit)
        if not line and self.child.wait() != 0:
            raise ValueError(self.child.stderr.read().decode(errors="replace").strip())
        return line

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()


def is_free(line):
    return not line.strip(b"\0")


def holds_no_commit(file):
    """Whether a plain file with a header holds no batch that was ever committed."""
    if file.packed:
        return False
    seq, prev = file.header["first_seq"], file.header["prev"]
    digest, records, sound, met = hashlib.sha256(), 0, True, None
    for index, line in enumerate(file.lines()):
        commit = parse_commit(line)
        if met is not None:
            if not is_free(line):
                return False
        elif commit is not None:
            digest.update(line[:-CLOSING])
            if sound and records and commit == (seq + records - 1, records, prev, digest.hexdigest()):
                return False
            if commit[2] != prev:
                return False
            met = commit
        else:
            digest.update(line)
            if index > 0:
                sound = sound and is_record(line, seq + records)
                records += 1
    return True


def is_record(line, seq):
    return line.startswith(b'{"seq":%d,"at":"' % seq) and line.endswith(b"}\n")


class Verifier:
    def __init__(self):
        self.findings = []
        self.commits = {}
        self.head = None
        self.records = 0

    def find(self, file, line, seq, kind, what):
        self.findings.append((file.path, line, seq, kind, what))

    def journal(self, directory):
        names = {name for name in os.listdir(directory) if re.search(r"\.jsonl(\.zst)?$", name)}
        names = sorted(name for name in names if name.removesuffix(".zst") == name or name[:-4] not in names)
        files = []
        for name in names:
            file = File(os.path.join(directory, name))
            if file.header is None:
                self.headless(file)
            else:
                files.append(file)
        files.sort(key=lambda file: file.header["file"])
        journal = files[0].header["journal_id"] if files else None
        while files and holds_no_commit(files[-1]):
            file = files.pop()
            if not all(is_free(line) for index, line in enumerate(file.lines()) if index > 0):
                self.find(file, 2, file.header["first_seq"], "torn", "nothing in the file was ever committed")
        for index, file in enumerate(files):
            header = file.header
            if index == 0 and (header["first_seq"], header["prev"]) != (1, ZERO):
                self.find(file, 1, 1, "damaged", "what stood before this file is missing")
            if header["journal_id"] != journal:
                self.find(file, 1, header["first_seq"], "damaged", "it belongs to another journal")
            self.file(file, files[index + 1].header if index + 1 < len(files) else None)
        return journal

    def headless(self, file):
        written, committed = False, file.packed
        for line in file.lines():
            written = written or not is_free(line)
            committed = committed or parse_commit(line) is not None
        if committed or written:
            self.find(file, 1, 0, "damaged" if committed else "torn", "its header cannot be read")

    def file(self, file, following):
        """Walks through a file to where the next one begins, or to its end."""
        seq, prev = file.header["first_seq"], file.header["prev"]
        end = (following["first_seq"], following["prev"]) if following else None
        digest, records = hashlib.sha256(), 0
        flaw = None  # (line, seq, what) of the batch that is being read
        suspect = None  # a flaw in a batch whose commit line may be the very last thing in the file
        number, behind = 0, 2  # the line that is read, and the one behind the last commit line
        for number, line in enumerate(file.lines(), 1):
            if number > 1 and records == 0 and flaw is None and suspect is None and (seq, prev) == end:
                return
            if number == 1:
                digest.update(line)
                continue
            if suspect is not None:
                if is_free(line):
                    continue
                self.find(file, *suspect[:2], "damaged", suspect[2])
                suspect = None
            commit = parse_commit(line)
            if commit is None:
                digest.update(line)
                if flaw is None and not is_record(line, seq + records):
                    if records == 0 and is_free(line):
                        continue
                    flaw = (number, seq + records, "a line is neither this record nor a commit line")
                records += 1
                continue
            digest.update(line[:-CLOSING])
            expected = (seq + records - 1, records, prev, digest.hexdigest())
            if flaw is None and (commit != expected or records == 0):
                flaw = (number, seq + records, f"the commit line should say {expected}")
            if flaw is None:
                self.records += records
                self.head = (file.header["journal_id"], commit[0], commit[3])
                self.commits[self.head] = True
            elif following is None and not file.packed and commit[2] == prev:
                suspect = flaw
            else:
                self.find(file, *flaw[:2], "damaged", flaw[2])
            seq, prev = commit[0] + 1, commit[3]
            digest, records, flaw, behind = hashlib.sha256(), 0, None, number + 1
        if suspect is not None:
            self.find(file, *suspect[:2], "torn", suspect[2])
        elif file.error is not None:
            self.find(file, number, seq, "damaged", file.error)
        elif records or flaw is not None:
            kind = "torn" if following is None and not file.packed else "damaged"
            line, at, what = flaw or (number + 1, seq + records, "the batch has no commit line")
            self.find(file, line, at, kind, what)
        elif end is not None and (seq, prev) != end:
            self.find(file, behind, seq, "damaged", f"the file ends, and the next begins with seq {end[0]} elsewhere")


def main(arguments):
    head = None
    if "--head" in arguments[:-1]:
        at = arguments.index("--head")
        parts = arguments[at + 1].split(":")
        if len(parts) != 3 or not parts[1].isdigit() or not re.fullmatch("[0-9a-f]{64}", parts[2]):
            raise CannotJudge("--head takes JOURNAL:SEQ:HASH, as `keepwatch journal head` prints it")
        head = (parts[0].lower(), int(parts[1]), parts[2])
        arguments = arguments[:at] + arguments[at + 2 :]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise CannotJudge(__doc__.strip())
    verifier = Verifier()
    journal = verifier.journal(arguments[0])
    for path, line, seq, kind, what in verifier.findings:
        print(f"{path}:{line}: seq {seq}: {kind}: {what}")
    lost = head is not None and head not in verifier.commits and head != (journal, 0, ZERO)
    if lost:
        print(f"{arguments[0]}:0: seq {head[1]}: head: the journal does not hold it: cut, rolled back or rewritten")
    if verifier.findings or lost:
        return 1
    end = ":".join(map(str, verifier.head)) if verifier.head else "empty"
    print(f"verified: {verifier.records} records, head {end}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (CannotJudge, OSError) as reason:
        print(f"verify_journal: {reason}", file=sys.stderr)
        sys.exit(2)
