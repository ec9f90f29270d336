"""A hub on this machine that speaks as much of the Hugging Face hub's API as downloads need."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Hub:
    """What the hub has, does wrong, and was asked.

    Attributes:
        files: Name to bytes.
        kind: ``model`` or ``dataset``.
        in_git: Names of small files, of which the hub states git's id instead of a SHA-256.
        status: Name of a file, ``info`` or ``paths``, to the error it answers with.
        code: The same names to the hub's own word for the error.
        cut: Name of a file to the bytes after which the connection is dropped, once.
        broken_after_cut: Whether a file that was cut is then answered with an error.
        elsewhere: Where large files really lie, as behind the hub; "" for here.
        tampered: Names of files whose bytes are not those that the hub states.
        asked: (name, Range header or "") of every download.
        tokens: Authorization headers seen.
    """

    files: dict[str, bytes]
    kind: str = "model"
    in_git: set[str] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    broken_after_cut: bool = False
    elsewhere: str = ""
    tampered: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    commit: str = "c0ffee" + "0" * 34
    repository: str = "someone/weights"
    url: str = ""

    @property
    def api(self) -> str:
        return f"/api/{self.kind}s/{self.repository}/"

    @property
    def resolve(self) -> str:
        return ("/datasets" if self.kind == "dataset" else "") + f"/{self.repository}/resolve/{self.commit}/"

    def info(self) -> dict:
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": "0" * 40,
                "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134},
            }
            for name, data in self.files.items()
        ]
        named = {"_id": "1", "id": self.repository, "sha": self.commit, "siblings": siblings}
        return named | ({"modelId": self.repository} if self.kind == "model" else {})

    def path_info(self, name: str) -> dict:
        data = self.files[name]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        info = {"type": "file", "path": name, "size": len(data), "oid": git}
        if name not in self.in_git:
            info["lfs"] = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
        return info


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": hub.commit, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str = "") -> None:
            self.answer(status, b'{"error": "no"}', {"X-Error-Code": code} if code else {})

        def answer_json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("Authorization", ""))
            path = urlsplit(self.path).path
            if path.startswith("/api/"):
                self.repository_info(path)
            else:
                self.file(unquote(path))

        def do_POST(self) -> None:
            hub.tokens.append(self.headers.get("Authorization", ""))
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if "paths" in hub.status:
                self.refuse(hub.status["paths"], hub.code.get("paths", ""))
            elif urlsplit(self.path).path != f"{hub.api}paths-info/{hub.commit}":
                self.refuse(404, "RevisionNotFound")
            else:
                self.answer_json([hub.path_info(name) for name in form["paths"] if name in hub.files])

        def repository_info(self, path: str) -> None:
            status = hub.status.get("info", 200)
            if not path.startswith(f"{hub.api}revision/"):
                self.refuse(401, "RepoNotFound")
            elif not path.endswith(("/main", hub.commit)):
                self.refuse(404, "RevisionNotFound")
            elif status != 200:
                self.refuse(status, hub.code.get("info", "GatedRepo" if status == 403 else ""))
            else:
                self.answer_json(hub.info())

        def file(self, path: str) -> None:
            name = path.removeprefix(hub.resolve)
            data, asked = hub.files[name], self.headers.get("Range", "")
            if hub.elsewhere and name not in hub.in_git:
                self.answer(302, b"", {"Location": hub.elsewhere + self.path})
                return
            hub.asked.append((name, asked))
            if name in hub.status:
                self.answer(hub.status[name], b"", {"X-Error-Code": hub.code[name]} if name in hub.code else {})
                return
            if name in hub.tampered:
                data = bytes([data[0] ^ 1]) + data[1:]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Content-Length": str(len(data) - start)}
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            cut = hub.cut.pop(name, None)
            self.answer(206 if asked else 200, data[start:cut], headers)
            if cut is not None:
                self.close_connection = True
                if hub.broken_after_cut:
                    hub.status[name] = 500

    return Handler


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` on this machine; its ``url`` is set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
