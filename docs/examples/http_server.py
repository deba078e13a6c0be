#!/usr/bin/env python3
"""Keeps what Keepwatch sends by HTTP in a directory: http_server.py DIRECTORY PORT [FILE_WITH_SECRET]"""
import base64, datetime, hashlib, hmac, http.server, itertools, json, os, sys, tempfile
from urllib.parse import unquote_to_bytes

top = os.fsencode(os.path.abspath(sys.argv[1]))
secret = open(sys.argv[3], "rb").readline().rstrip(b"\r\n") if len(sys.argv) > 3 else None

def place(name):
    return os.path.join(top, *name.lstrip(b"/").split(b"/"))

def walk(prefix, after, below=b""):  # names that begin with the prefix and come after another, in the order of bytes
    for entry in sorted(os.scandir(place(below)), key=lambda e: e.name + b"/" * e.is_dir(follow_symlinks=False)):
        name, inner = below + entry.name, below + entry.name + b"/"
        if not entry.is_dir(follow_symlinks=False):
            if name.startswith(prefix) and name > after and name != b".keepwatch-tmp/new":
                yield name, entry
        elif (inner.startswith(prefix) or prefix.startswith(inner)) and (inner > after or after.startswith(inner)):
            yield from walk(prefix, after, inner)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 60

    def reply(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refusal(self):  # why a request is not from who knows the secret
        date, digest = self.headers.get("X-Keepwatch-Date", ""), self.headers.get("X-Keepwatch-SHA256", "")
        text = "\n".join(["Keepwatch-HMAC-SHA256", self.command, self.path, date, digest])
        made = "Keepwatch-HMAC-SHA256 " + hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(made.encode(), self.headers.get("Authorization", "").encode()):
            return b"the signature is wrong"
        then = datetime.datetime.fromisoformat(date[:19] + "+00:00")
        age = datetime.datetime.now(datetime.timezone.utc) - then
        return b"the date is more than five minutes off" if abs(age.total_seconds()) > 300 else None

    def handle_any(self):
        path, _, query = self.path.partition("?")
        name = unquote_to_bytes(path[1:])
        asked = {key: unquote_to_bytes(value) for key, _, value in (part.partition("=") for part in query.split("&"))}
        why = self.refusal() if secret else None
        if why or {b"..", b"."} & set(name.split(b"/") + asked.get("rename", b"").split(b"/")):
            self.close_connection = True  # the body was not read
            return self.reply(403, why or b"no such name")
        try:
            self.reply(200, getattr(self, self.command)(name, place(name), asked))
        except FileNotFoundError:
            self.reply(404)
        except ValueError as error:
            self.reply(400, str(error).encode())
        except OSError as error:
            self.reply(507 if error.errno == 28 else 500, str(error).encode())

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def GET(self, name, path, asked):
        if "list" not in asked:
            return os.fsencode(os.readlink(path)) if os.path.islink(path) else open(path, "rb").read()
        items, exact, prefix = [], lambda text: base64.b64encode(text).decode(), asked["prefix"]
        slashes = prefix[:len(prefix) - len(prefix.lstrip(b"/"))]
        found = walk(prefix.lstrip(b"/"), asked.get("after", b"")[len(slashes):])
        for name, entry in itertools.islice(found, int(asked["limit"])):
            stat = entry.stat(follow_symlinks=False)
            link = {"kind": "symlink", "target_b64": exact(os.readlink(entry.path))} if entry.is_symlink() else {}
            items.append({"path_b64": exact(slashes + name), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, **link})
        return json.dumps({"items": items, "more": next(found, None) is not None, "abilities": ["rename"],
                           "checks": "sha256", "mtime_step_ns": 1}).encode()

    def PUT(self, name, path, asked):  # whole or not at all: beside, then in place
        os.makedirs(os.path.dirname(path), exist_ok=True)
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=place(b".keepwatch-new"), delete=False) as new:
            while left and (chunk := self.rfile.read(min(left, 1 << 20))):
                new.write(chunk), digest.update(chunk)
                left -= len(chunk)
        try:
            if left or digest.hexdigest() != self.headers["X-Keepwatch-SHA256"]:
                raise ValueError("the content is not that of the digest")
            if asked["kind"] == b"symlink":
                target = open(new.name, "rb").read()
                os.unlink(new.name), os.symlink(target, new.name)
            os.utime(new.name, ns=(int(asked["mtime_ns"]),) * 2, follow_symlinks=False)
            os.replace(new.name, path)
        finally:
            os.path.lexists(new.name) and os.unlink(new.name)
        return b""

    def POST(self, name, path, asked):
        os.makedirs(os.path.dirname(place(asked["rename"])), exist_ok=True)
        os.rename(path, place(asked["rename"]))
        return b""

    def DELETE(self, name, path, asked):
        os.unlink(path)
        return b""

    def log_message(self, *_):
        pass

os.makedirs(place(b".keepwatch-new"), exist_ok=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
