#!/usr/bin/env python3
"""Keeps what Keepwatch sends by HTTP in a directory: http_server.py DIRECTORY PORT [FILE_WITH_SECRET]"""
import base64, datetime, hashlib, hmac, http.server, json, os, sys, tempfile
from urllib.parse import unquote_to_bytes

top = os.fsencode(os.path.abspath(sys.argv[1]))
fresh = os.path.join(top, b".keepwatch-new")  # where bodies wait until they are whole
secret = open(sys.argv[3], "rb").readline().rstrip(b"\r\n") if len(sys.argv) > 3 else None

def place(name):
    if {b".", b".."} & set(name.split(b"/")):
        raise PermissionError("no such name")
    return os.path.join(top, name.lstrip(b"/"))

def move(path, to):  # on disk when it returns
    os.makedirs(os.path.dirname(to), exist_ok=True)
    os.replace(path, to), sync(os.path.dirname(to))

def sync(path):
    opened = os.open(path, os.O_RDONLY)
    os.fsync(opened), os.close(opened)

def item(name):
    path, exact = place(name), lambda text: base64.b64encode(text).decode()
    link = {"kind": "symlink", "target_b64": exact(os.readlink(path))} if os.path.islink(path) else {}
    return {"path_b64": exact(name), "size": os.lstat(path).st_size, "mtime_ns": os.lstat(path).st_mtime_ns, **link}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout, log_message = "HTTP/1.1", 60, lambda *_: None

    def answer(self):
        path, _, query = self.path.partition("?")
        asked = {key: unquote_to_bytes(value) for key, _, value in (part.partition("=") for part in query.split("&"))}
        try:
            secret and self.check()
            status, body = 200, getattr(self, self.command)(unquote_to_bytes(path[1:]), asked) or b""
        except (OSError, ValueError) as error:
            known = {FileNotFoundError: 500 if "list" in asked else 404, PermissionError: 403, ValueError: 400}
            status, body = known.get(type(error), 507 if getattr(error, "errno", 0) == 28 else 500), str(error).encode()
            self.close_connection = status != 404  # the body may not have been read
        self.send_response(status), self.send_header("Content-Length", str(len(body))), self.end_headers()
        self.wfile.write(body)
    do_GET = do_PUT = do_POST = do_DELETE = answer

    def check(self):  # that who asks knows the secret, and asks now
        date, digest = self.headers.get("X-Keepwatch-Date", ""), self.headers.get("X-Keepwatch-SHA256", "")
        text = "\n".join(["Keepwatch-HMAC-SHA256", self.command, self.path, date, digest])
        made = "Keepwatch-HMAC-SHA256 " + hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(made.encode(), self.headers.get("Authorization", "").encode()):
            raise PermissionError("the signature is wrong")
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(date[:19] + "+00:00")
        if abs(age.total_seconds()) > 300:
            raise PermissionError("the date is more than five minutes off")

    def GET(self, name, asked):
        if "list" not in asked:
            return os.readlink(place(name)) if os.path.islink(place(name)) else open(place(name), "rb").read()
        prefix, after, limit = asked["prefix"], asked.get("after", b""), int(asked["limit"])
        slashes = prefix[:len(prefix) - len(prefix.lstrip(b"/"))]
        paths = (os.path.join(here, one) for here, dirs, files in os.walk(top) for one in dirs + files)
        kept = (path for path in paths if not path.startswith(fresh) and (os.path.islink(path) or os.path.isfile(path)))
        names = (slashes + path[len(top) + 1:] for path in kept)
        found = sorted(name for name in names if name.startswith(prefix) and name > after)
        return json.dumps({"items": [item(name) for name in found[:limit]], "more": len(found) > limit,
                           "abilities": ["rename"], "checks": "sha256", "mtime_step_ns": 1}).encode()

    def PUT(self, name, asked):  # whole or not at all: beside, then in place
        with tempfile.TemporaryDirectory(dir=fresh) as beside:
            new, body = os.path.join(beside, b"new"), self.rfile.read(int(self.headers["Content-Length"]))
            if hashlib.sha256(body).hexdigest() != self.headers["X-Keepwatch-SHA256"]:
                raise ValueError("the content is not that of the digest")
            if asked["kind"] == b"symlink":
                os.symlink(body, new)
            else:
                with open(new, "wb") as file:
                    file.write(body), file.flush(), os.fsync(file)
            os.utime(new, ns=(int(asked["mtime_ns"]),) * 2, follow_symlinks=False)
            move(new, place(name))

    def POST(self, name, asked):
        move(place(name), place(asked["rename"]))

    def DELETE(self, name, asked):
        os.unlink(place(name)), sync(os.path.dirname(place(name)))

os.makedirs(fresh, exist_ok=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
