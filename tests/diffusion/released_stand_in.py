"""Checkpoints as released, of networks small enough for a test, and a hub that serves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import torch

from text2ct.diffusion import released
from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import MaisiConfig, MaisiVae

TINY = PRESETS["tiny"]
NETWORKS = {
    "clip": ClipConfig(
        text=TextConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2),
        vision=TINY.clip.vision.model_copy(update={"quantize": True, "codebook_size": 8}),
        projection_dim=16,
    ),
    "vae": MaisiConfig(
        num_channels=(4, 8, 8), num_res_blocks=(1, 1, 1), norm_num_groups=4, attention_levels=(False, False, False)
    ),
    "unet": TINY.unet,
}
SCALE_FACTOR = 0.875


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """The three files under their released names, weights random in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    clip = {f"model.{name}": value for name, value in Clip3D(NETWORKS["clip"]).state_dict().items()}
    clip["model.text_model.embeddings.position_ids"] = torch.arange(512)[None]
    unet = {"unet_state_dict": Unet(NETWORKS["unet"]).state_dict(), "scale_factor": torch.tensor(SCALE_FACTOR)}
    states = {"clip": clip, "vae": MaisiVae(NETWORKS["vae"]).state_dict(), "unet": unet}
    files = {component: folder / name for component, name in released.FILES.items()}
    for component, path in files.items():
        torch.save(states[component], path)
    return files


@dataclass
class Hub:
    """What the stand-in hub has, does wrong, and was asked.

    Attributes:
        files: Name to bytes.
        status: Name of a file, or ``info``, to the error it answers with.
        cut: Name of a file to the bytes after which the connection is dropped, once.
        broken_after_cut: Whether a file that was cut is then answered with an error.
        tampered: Names of files whose bytes are not those that the hub states.
        asked: (name, Range header or "") of every download.
        tokens: Authorization headers seen.
    """

    files: dict[str, bytes]
    status: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    broken_after_cut: bool = False
    tampered: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    commit: str = "c0ffee" + "0" * 34
    repository: str = "someone/weights"
    url: str = ""

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
        return {"_id": "1", "id": self.repository, "modelId": self.repository, "sha": self.commit, "siblings": siblings}


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

        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("Authorization", ""))
            path = urlsplit(self.path).path
            if path.startswith("/api/models/"):
                self.model_info(path)
            else:
                self.file(path)

        def model_info(self, path: str) -> None:
            status = hub.status.get("info", 200)
            if not path.startswith(f"/api/models/{hub.repository}/revision/"):
                self.answer(401, b'{"error": "no"}', {"X-Error-Code": "RepoNotFound"})
            elif not path.endswith(("/main", hub.commit)):
                self.answer(404, b'{"error": "no"}', {"X-Error-Code": "RevisionNotFound"})
            elif status == 403:
                self.answer(403, b'{"error": "no"}', {"X-Error-Code": "GatedRepo"})
            elif status != 200:
                self.answer(status, b'{"error": "no"}', {})
            else:
                self.answer(200, json.dumps(hub.info()).encode(), {"Content-Type": "application/json"})

        def file(self, path: str) -> None:
            name = path.removeprefix(f"/{hub.repository}/resolve/{hub.commit}/")
            data, asked = hub.files[name], self.headers.get("Range", "")
            hub.asked.append((name, asked))
            if name in hub.status:
                self.answer(hub.status[name], b"", {})
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


def serve(hub: Hub) -> tuple[ThreadingHTTPServer, Callable[[], None]]:
    """A server of ``hub`` on this machine, and what runs it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    return server, server.serve_forever
