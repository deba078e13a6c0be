"""Makes zips whose headers and lists of members tell different stories, in the directory given."""

import struct
import sys
import zlib
from pathlib import Path

top = Path(sys.argv[1])


def local(name, data, *, method=0, crc=None, packed=None, size=None, flags=0):
    crc = zlib.crc32(data) if crc is None else crc
    packed = len(data) if packed is None else packed
    size = packed if size is None else size
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0x21, crc, packed, size, len(name), 0)
    return head + name + data


def entry(name, offset, data, *, method=0, crc=None, packed=None, size=None):
    crc = zlib.crc32(data) if crc is None else crc
    packed = len(data) if packed is None else packed
    size = packed if size is None else size
    head = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 0x21, crc, packed, size, len(name), 0, 0, 0, 0, 0, offset
    )
    return head + name


def end(count, length, at):
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, at, 0)


def archive(body, entries, *, count=None, shift=0, length=None):
    joined = b"".join(entries)
    count = len(entries) if count is None else count
    return body + joined + end(count, len(joined) if length is None else length, len(body) + shift)


def deflated(data, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


a = local(b"ar.zip/a", b"first")
whole = archive(a, [entry(b"ar.zip/a", 0, b"first")])
bomb = deflated(bytes(100_000_000))
zeros = zlib.crc32(bytes(100_000_000))
# Members that overlap: the data of each is the header of the next and its data, and all of them share one kernel.
kernel = local(b"ar.zip/z", b"kernel")
quoted = kernel
for number in range(50):
    quoted = local(b"ar.zip/q%02d" % number, quoted)
made = {
    "one header with two names": archive(a, [entry(b"ar.zip/a", 0, b"first"), entry(b"ar.zip/b", 0, b"first")]),
    "many entries of one member": archive(a, [entry(b"ar.zip/%d" % n, 0, b"first") for n in range(5000)]),
    "members within members": archive(quoted, [entry(b"ar.zip/q49", 0, quoted[38:])]),
    "bomb": archive(
        local(b"ar.zip/bomb", bomb, method=8, crc=zeros, size=100_000_000),
        [entry(b"ar.zip/bomb", 0, bomb, method=8, crc=zeros, size=100_000_000)],
    ),
    "bomb that says it is small": archive(
        local(b"ar.zip/bomb", bomb, method=8, crc=zeros, size=10),
        [entry(b"ar.zip/bomb", 0, bomb, method=8, crc=zeros, size=10)],
    ),
    "small that says it is large": archive(
        local(b"ar.zip/a", b"first", packed=5, size=0xFFFFFFFE),
        [entry(b"ar.zip/a", 0, b"first", packed=5, size=0xFFFFFFFE)],
    ),
    "data beyond the end": archive(
        local(b"ar.zip/a", b"first", packed=0x7FFFFFFF), [entry(b"ar.zip/a", 0, b"first", packed=0x7FFFFFFF)]
    ),
    "wrong sum": archive(local(b"ar.zip/a", b"first", crc=1), [entry(b"ar.zip/a", 0, b"first", crc=1)]),
    "sizes behind the data": archive(
        local(b"ar.zip/a", b"first", packed=0, crc=0, flags=8), [entry(b"ar.zip/a", 0, b"first")]
    ),
    "encrypted": archive(local(b"ar.zip/a", b"first", flags=1), [entry(b"ar.zip/a", 0, b"first")]),
    "unknown method": archive(local(b"ar.zip/a", b"first", method=99), [entry(b"ar.zip/a", 0, b"first", method=99)]),
    "header elsewhere": archive(a, [entry(b"ar.zip/a", 0x10000000, b"first")]),
    "too many counted": archive(a, [entry(b"ar.zip/a", 0, b"first")], count=60_000),
    "too few counted": archive(a, [entry(b"ar.zip/a", 0, b"first"), entry(b"ar.zip/b", 0, b"first")], count=1),
    "list before the beginning": archive(a, [entry(b"ar.zip/a", 0, b"first")], shift=0xFFFFFF),
    "list of two gigabytes": archive(a, [entry(b"ar.zip/a", 0, b"first")], length=0x7FFFFFFF),
    "two ends": whole + end(0, 0, 0),
    "names that lead elsewhere": archive(
        local(b"../evil", b"e") + local(b"/ar.zip/evil", b"e") + local(b"ar.zip/../../evil", b"e"),
        [entry(b"../evil", 0, b"e"), entry(b"/ar.zip/evil", 38, b"e"), entry(b"ar.zip/../../evil", 81, b"e")],
    ),
    "a zip64 end that lies": a
    + entry(b"ar.zip/a", 0, b"first")
    + struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 62, (1 << 64) - 8)
    + struct.pack("<4sLQL", b"PK\6\7", 0, len(a) + 54, 1)
    + end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
}
for name, content in made.items():
    (top / name).write_bytes(content)
