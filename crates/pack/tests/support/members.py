"""Lists what Python's zipfile reads from the archives below directories, which come NUL-ended on standard input.

A line for each member: the number of the directory, then ARCHIVE/MEMBER and the content, both in hex. `ar-1.zip` counts
as `ar.zip` where its comment says so. The last line is `end`, so that nobody takes a part of the list for all of it.
"""

import os
import re
import sys
import zipfile

# Not `print`: where PYTHONUNBUFFERED is set it loses the rest of a write that a signal cut short.
out = open(sys.stdout.fileno(), "wb", closefd=False)
for number, base in enumerate(sys.stdin.buffer.read().split(b"\0")[:-1]):
    for top, dirs, files in os.walk(base):
        dirs[:] = [name for name in dirs if name != b".keepwatch-pack"]
        for name in files:
            path = os.path.join(top, name)
            if not name.lower().endswith(b".zip"):
                continue
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                bad = archive.testzip()
                assert bad is None, (path, bad)
                of = re.fullmatch(rb"keepwatch-pack [0-9a-f-]{36} of (.*)", archive.comment)
                shown = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), of[1]) if of else name
                for info in archive.infolist():
                    utf8 = info.flag_bits & 0x800
                    member = info.filename.encode("utf-8" if utf8 else "cp437")
                    full = os.path.join(os.path.relpath(os.path.join(top, shown), base), member)
                    out.write(b"%d %s %s\n" % (number, full.hex().encode(), archive.read(info).hex().encode()))
out.write(b"end\n")
out.close()
