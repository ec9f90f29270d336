"""Model packs: a folder of ``pack.json`` and components, opened lazily, checked always."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import save_file

from text2ct.diffusion.components import COMPONENT_TYPES, component_type, type_of
from text2ct.diffusion.fit import misfits, text_misfits, tokenizer_misfits
from text2ct.diffusion.info import COMPONENTS, PackInfo
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.weights import built, expected_shapes, load_module
from text2ct.errors import UserError
from text2ct.fidelity import read_fidelity
from text2ct.files import atomic_path, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from text2ct.diffusion.clip import Clip3D, TextTower
    from text2ct.diffusion.components import Scheduler
    from text2ct.diffusion.unet import Unet
    from text2ct.diffusion.vae import Vae

BUNDLED = Path(__file__).parent / "packs"
DEFAULT_PACK = "simulated-64"
_CANNOT = {
    "clip": "text cannot be read, so nothing can be generated from it",
    "vae": "volumes can be neither encoded nor decoded",
    "unet": "latents cannot be generated",
    "scheduler": "latents cannot be sampled",
}


@dataclass
class Pack:
    """An opened pack; each component is read from disk when first used.

    Attributes:
        path: Its folder.
        info: The contents of ``pack.json``.
        sha256: SHA-256 of ``pack.json``, which names every other file's: the pack's identity.
    """

    path: Path
    info: PackInfo
    sha256: str
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)
    _configs: dict[str, Any] = field(default_factory=dict, repr=False)
    _checked: set[str] = field(default_factory=set, repr=False)

    def __reduce__(self) -> tuple[Callable[[Path, str], Pack], tuple[Path, str]]:
        """A pack goes to another process by its folder, and is opened there; a bundled one by its name."""
        return _opened_again, (
            Path(self.path.name) if self.path.parent == BUNDLED else self.path.absolute(),
            self.sha256,
        )

    @property
    def fidelity(self) -> dict[str, float]:
        """The share of its own AUC that each finding keeps in generated volumes; empty where nobody measured it."""
        return read_fidelity(self.path)

    def has(self, component: str) -> bool:
        """Whether the pack holds ``component`` (clip, vae, unet or scheduler)."""
        return component in self.info.components

    def config(self, component: str) -> Any:
        """The configuration of a component, from its checked ``config.json``; its weights are not read."""
        if component not in self._configs:
            entry = component_type(component, self._require(component))
            self._configs[component] = _parse(entry.config, self._check(f"{component}/config.json"))
        return self._configs[component]

    def misfits(self) -> list[str]:
        """What does not fit between the components and ``pack.json``; no weights are read."""
        return misfits(self.info, {component: self.config(component) for component in self.info.components})

    def check_fit(self) -> None:
        """Refuse a pack whose components do not fit each other or ``pack.json``; no weights are read.

        Raises:
            UserError: Everything that does not fit.
        """
        self._refuse(self.misfits())

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise UserError(f"the parts of the pack '{self.info.name}' at {self.path} do not fit together", problems)

    @property
    def clip(self) -> Clip3D:
        """Both CLIP towers, in evaluation mode; the text tower is then theirs."""
        self._refuse(text_misfits(self.info, self.config("clip")))
        whole = self._component("clip")
        self._loaded.pop("text_tower", None)
        return whole

    @property
    def text_tower(self) -> TextTower:
        """The part of CLIP that reads texts, in evaluation mode: all of it where that is open already."""
        if "clip" not in self._loaded and "text_tower" not in self._loaded:
            entry = component_type("clip", self._require("clip"))
            config = self.config("clip")
            self._refuse(text_misfits(self.info, config))
            weights = self._check("clip/model.safetensors")
            self._loaded["text_tower"] = load_module(entry.build, config, weights, entry.build_text)
        return self._loaded.get("clip") or self._loaded["text_tower"]

    @property
    def vae(self) -> Vae:
        """The autoencoder, in evaluation mode."""
        return self._component("vae")

    @property
    def unet(self) -> Unet:
        """The velocity or noise network, in evaluation mode."""
        return self._component("unet")

    @property
    def scheduler(self) -> Scheduler:
        """Path, times and sampler."""
        return self._component("scheduler")

    def bytes_to_load(self, component: str) -> int:
        """Bytes that a component (or ``text_tower``) will hold in float32 once read; 0 when it is open already."""
        if component in self._loaded or (component == "text_tower" and "clip" in self._loaded):
            return 0
        whole = "clip" if component == "text_tower" else component
        entry = component_type(whole, self._require(whole))
        build = entry.build_text if component == "text_tower" and entry.build_text else entry.build
        shapes = expected_shapes(build, self.config(whole))
        return 4 * sum(math.prod(shape) for shape in shapes.values())

    @property
    def usual_batch(self) -> int:
        """Volumes computed together unless told otherwise: 4 of 64³ voxels, fewer of larger ones."""
        return max(1, min(4, 4 * 64**3 // math.prod(self.info.grid)))

    def release(self, *components: str) -> None:
        """Let go of components; they are read again when next used."""
        for component in components:
            self._loaded.pop(component, None)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer beside the CLIP weights."""
        if "tokenizer" not in self._loaded:
            self._require("clip")
            tokenizer = TextTokenizer.load(self._check("clip/tokenizer.json"), self.info.text_cleaning)
            self._refuse(tokenizer_misfits(tokenizer, self.config("clip")))
            self._loaded["tokenizer"] = tokenizer
        return self._loaded["tokenizer"]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64 voxel-to-world matrix of what it generates: RAS, spacing true, centred on 0 mm."""
        spacing = np.asarray(self.info.spacing_mm, dtype=np.float64)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -spacing * (np.asarray(self.info.grid) - 1) / 2
        return affine

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C, x, y, z) of one volume's latent; no weights are read.

        Raises:
            UserError: The components do not fit each other or the grid.
        """
        self.check_fit()
        vae = self.config("vae")
        x, y, z = (size // vae.downsampling for size in self.info.grid)
        return vae.latent_channels, x, y, z

    def _require(self, component: str) -> str:
        kind = self.info.components.get(component)  # type: ignore[call-overload]
        if kind is None:
            raise UserError(
                f"the pack '{self.info.name}' has no component '{component}': {_CANNOT[component]}; use another pack"
            )
        return kind

    def _check(self, name: str) -> Path:
        path = self.path / name
        expected = self.info.files.get(name)
        if expected is None:
            raise UserError(f"{self.path}: pack.json lists no checksum for {name}; the pack is incomplete")
        if name in self._checked:
            return path
        if not path.is_file():
            raise UserError(f"the pack '{self.info.name}' lacks its file {path}; get the pack again")
        found = sha256_file(path)
        if found != expected:
            raise UserError(
                f"{path} is not the file that pack.json describes (SHA-256 {found[:12]}…, expected {expected[:12]}…); "
                "get the pack again"
            )
        self._checked.add(name)
        return path

    def _component(self, component: str) -> Any:
        if component not in self._loaded:
            entry = component_type(component, self._require(component))
            config = self.config(component)
            if entry.has_weights:
                weights = self._check(f"{component}/model.safetensors")
                self._loaded[component] = load_module(entry.build, config, weights)
            else:
                self._loaded[component] = built(entry.build, config)
        return self._loaded[component]


def _parse(model: type[BaseModel], path: Path) -> Any:
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise UserError(f"{path} cannot be used by this version of text2ct", problems) from error


def load_pack(name_or_path: str | Path = DEFAULT_PACK) -> Pack:
    """Open a pack by the name of a bundled one or by its folder; weights are read when first used.

    Raises:
        UserError: No such pack, or a ``pack.json`` that this version cannot use.
    """
    path = Path(name_or_path)
    if not path.is_dir() and (BUNDLED / str(name_or_path)).is_dir():
        path = BUNDLED / str(name_or_path)
    if not (path / "pack.json").is_file():
        known = ", ".join(bundled_packs()) or "none"
        raise UserError(f"'{name_or_path}' is neither a pack's folder nor a bundled pack (bundled: {known})")
    info = _parse(PackInfo, path / "pack.json")
    _check_objective(info)
    return Pack(path=path, info=info, sha256=sha256_file(path / "pack.json"))


def _opened_again(name_or_path: Path, sha256: str) -> Pack:
    """The pack that another process speaks of.

    Raises:
        UserError: It is not here, or another one is.
    """
    pack = load_pack(name_or_path)
    if pack.sha256 != sha256:
        raise UserError(f"the pack at {pack.path} is not the same on every machine; copy it there again")
    return pack


def _check_objective(info: PackInfo) -> None:
    """Refuse components that know another objective than ``pack.json`` states."""
    for component, kind in info.components.items():
        known = component_type(component, kind).objective
        if known not in (None, info.objective):
            raise UserError(
                f"the pack '{info.name}' states the objective '{info.objective}', but its {component} '{kind}' is for "
                f"'{known}'; use a {component} of the objective, or state the other one"
            )


def bundled_packs() -> list[str]:
    """Names of the packs inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/pack.json"))


def list_packs(folder: Path | None = None) -> list[PackInfo]:
    """The bundled packs, then those in the subfolders of ``folder``."""
    paths = [BUNDLED / name for name in bundled_packs()]
    if folder is not None and Path(folder).is_dir():
        paths += sorted(path.parent for path in Path(folder).glob("*/pack.json"))
    return [load_pack(path).info for path in paths]


def verify_pack(name_or_path: str | Path) -> PackInfo:
    """Read every component, comparing checksums, names, shapes and values, and whether the components fit.

    Raises:
        UserError: All that is wrong, at once.
    """
    pack = load_pack(name_or_path)
    problems: list[str] = []
    for name in sorted(pack.info.files):
        _collect(problems, lambda name=name: pack._check(name))
    if not problems:
        _collect(problems, lambda: problems.extend(pack.misfits()))
        for component in pack.info.components:
            _collect(problems, lambda component=component: pack._component(component))
        if pack.has("clip"):
            _collect(problems, lambda: pack.tokenizer)
    if problems:
        raise UserError(f"the pack '{pack.info.name}' at {pack.path} is damaged, or its parts do not fit", problems)
    return pack.info


def _collect(problems: list[str], action: Any) -> None:
    try:
        action()
    except UserError as error:
        if str(error) not in problems:
            problems.append(str(error))


@dataclass(frozen=True)
class Part:
    """A component to be saved: its configuration and, unless it has no weights, its state.

    A function that makes the state is called when the component is written, so that large ones are in memory one
    after the other.
    """

    config: BaseModel
    state: dict[str, torch.Tensor] | Callable[[], dict[str, torch.Tensor]] | None = None


def save_pack(
    path: Path,
    info: PackInfo,
    parts: dict[str, Part],
    tokenizer: TextTokenizer | None = None,
    *,
    dtype: torch.dtype | None = torch.float16,
) -> Pack:
    """Write a pack; ``pack.json`` comes last, so a folder without it is an unfinished one.

    Args:
        path: The pack's folder.
        info: Its description; ``components`` and ``files`` are filled in here.
        parts: Component name to what is saved of it.
        tokenizer: Goes beside the CLIP weights.
        dtype: Of floating-point weights on disk; None keeps theirs.

    Raises:
        UserError: A component knows another objective than ``info`` states.
    """
    components = {name: type_of(parts[name].config) for name in COMPONENTS if name in parts}
    info = info.model_copy(update={"components": components})
    _check_objective(info)
    files: list[str] = []
    for name in ("pack.json", "MODEL_CARD.md"):  # whose figures are those of other weights
        (path / name).unlink(missing_ok=True)
    for component, part in parts.items():
        folder = path / component
        write_json(folder / "config.json", part.config.model_dump(mode="json"))
        files.append(f"{component}/config.json")
        if part.state is not None:
            with atomic_path(folder / "model.safetensors") as temporary:
                save_file(_stored(part.state() if callable(part.state) else part.state, dtype), temporary)
                # The library leaves its files to their owner alone; a pack may be shared.
                temporary.chmod((folder / "config.json").stat().st_mode)
            files.append(f"{component}/model.safetensors")
    if tokenizer is not None:
        tokenizer.save(path / "clip" / "tokenizer.json")
        files.append("clip/tokenizer.json")
    filled = info.model_copy(update={"files": {name: sha256_file(path / name) for name in sorted(files)}})
    write_json(path / "pack.json", filled.model_dump(mode="json"))
    return load_pack(path)


def save_networks(
    path: Path,
    info: PackInfo,
    networks: dict[str, Part],
    scheduler: BaseModel,
    tokenizer: Callable[[], TextTokenizer],
    *,
    dtype: torch.dtype | None,
) -> Pack:
    """Write a pack of networks and a scheduler, with the tokenizer where CLIP is among them; as :func:`save_pack`."""
    parts = networks | {"scheduler": Part(scheduler)}
    return save_pack(path, info, parts, tokenizer() if "clip" in networks else None, dtype=dtype)


def _stored(state: dict[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().to(dtype if value.is_floating_point() else None).cpu().contiguous()
        for name, value in state.items()
    }


__all__ = [
    "COMPONENT_TYPES",
    "Pack",
    "Part",
    "bundled_packs",
    "list_packs",
    "load_pack",
    "save_networks",
    "save_pack",
    "verify_pack",
]
