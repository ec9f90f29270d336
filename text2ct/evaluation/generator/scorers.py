"""3D CLIPs that score volumes and texts: a pack's own, Text2CT's among them, or CT-CLIP from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from text2ct.classifiers.config import Preprocessing
from text2ct.diffusion.ctclip import CtClip, CtClipConfig, load_ctclip, load_report_tokenizer
from text2ct.diffusion.pack import Pack
from text2ct.errors import UserError
from text2ct.evaluation.pack_sections import embed_texts, embed_volumes
from text2ct.files import sha256_file

CTCLIP = "ctclip:"
_CTCLIP_SPACING_MM = (0.75, 0.75, 1.5)
_CTCLIP_TOKENS = 512
_CTCLIP_HU = 1000.0


class Scorer(Protocol):
    """Embeds volumes and texts into one space.

    Attributes:
        name: For people: which network, which version.
        identity: Network and weights; decides what is kept on disk.
        weights: SHA-256 of the weights' file, to be found in the ``pack.json`` of generators that it conditioned.
        grid: What it reads.
    """

    name: str
    identity: str
    weights: str | None
    grid: Preprocessing

    def volumes(self, volumes_hu: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """(X, Y, Z) HU on the grid, each, to (n, d) unit vectors."""
        ...

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) unit vectors."""
        ...


class PackScorer:
    """The 3D CLIP of a pack.

    Args:
        pack: A pack that has one.
        device: Where it computes.

    Raises:
        UserError: The pack has none.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        if not pack.has("clip"):
            raise UserError(f"the pack '{pack.info.name}' has no 3D CLIP that could score; name another with --clip")
        self._pack, self._device = pack, device
        self.name = f"{pack.info.name} {pack.info.version} {pack.sha256[:12]}"
        self.weights = pack.info.files.get("clip/model.safetensors")
        self.identity = f"3D CLIP of {pack.info.name} {pack.info.version} {pack.sha256[:16]}"
        self.grid = Preprocessing(size=pack.info.grid, spacing_mm=pack.info.spacing_mm)

    def volumes(self, volumes_hu: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """(X, Y, Z) HU on the grid, each, to (n, d) unit vectors."""
        return embed_volumes(self._pack, volumes_hu, self._device)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) unit vectors."""
        return embed_texts(self._pack, texts, self._device)


class CtClipScorer:
    """CT-CLIP (Hamamci et al. 2024, arXiv 2403.17834), which no generator here was conditioned by.

    Volumes are read as its authors' data loader and the VLM3D scorer leave them: 480 x 480 x 240 voxels of 0.75 x 0.75
    x 1.5 mm, HU / 1000, from the patient's right to the left, from front to back, from the feet up. Texts are cut at
    512 tokens.

    Args:
        folder: With one ``.pt`` file of the official weights, and CXR-BERT's tokenizer beside it or in a folder inside.
        device: Where it computes.
        config: Sizes; the official ones if None.

    Raises:
        UserError: The folder lacks one of these, or the weights are not CT-CLIP's.
    """

    def __init__(self, folder: Path, device: torch.device, config: CtClipConfig | None = None) -> None:
        files = sorted(folder.glob("*.pt")) if folder.is_dir() else []
        if len(files) != 1:
            raise UserError(
                f"{folder} holds {len(files)} .pt files; expected a folder with CT-CLIP's one, and a tokenizer"
            )
        inside = [path.parent for path in sorted(folder.rglob("tokenizer_config.json"))] or [folder]
        self._tokenizer: Any = load_report_tokenizer(inside[0])
        self._network: CtClip = load_ctclip(files[0], config).to(device)
        self._device = device
        self.weights: str | None = sha256_file(files[0])
        digest = str(self.weights)
        self.name = f"CT-CLIP {digest[:12]}"
        self.identity = f"CT-CLIP {digest[:16]}"
        self.grid = Preprocessing(size=self._network.config.vision.image_size, spacing_mm=_CTCLIP_SPACING_MM)

    @torch.inference_mode()
    def volumes(self, volumes_hu: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
        """(X, Y, Z) HU on the grid, each, to (n, d) unit vectors."""
        rows = []
        for hu in volumes_hu:
            scaled = np.asarray(hu, dtype=np.float32)[::-1, ::-1] / _CTCLIP_HU
            volume = torch.from_numpy(np.ascontiguousarray(scaled))[None, None].to(self._device)
            rows.append(self._network.encode_volume(volume)[0].float().cpu().numpy())
        return np.stack(rows)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) unit vectors."""
        rows = []
        for text in texts:
            tokens = self._tokenizer(
                text, return_tensors="pt", padding="max_length", truncation=True, max_length=_CTCLIP_TOKENS
            )
            ids, mask = (tokens[name].to(self._device) for name in ("input_ids", "attention_mask"))
            rows.append(self._network.encode_text(ids, mask)[0].float().cpu().numpy())
        return np.stack(rows)
