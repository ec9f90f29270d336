"""Names and shapes of the released networks at full size, of which no weights are needed."""

from __future__ import annotations

from collections.abc import Iterator

from text2ct.diffusion import released
from text2ct.diffusion.checkpoints import drop_position_ids
from text2ct.diffusion.components import COMPONENT_TYPES, type_of
from text2ct.diffusion.ctclip import CtClip, CtClipConfig
from text2ct.diffusion.importing import CLIP_PREFIX
from text2ct.diffusion.parity.folder import Folder
from text2ct.diffusion.parity.result import ArrayResult
from text2ct.diffusion.weights import Shape, expected_shapes, fit_problems
from text2ct.errors import UserError

# A name that only this network has, to the network.
MARKS = {
    CLIP_PREFIX + "logit_scale": "clip",
    "time_embed.0.weight": "unet",
    "quant_conv_mu.conv.weight": "vae",
    "to_visual_latent.weight": "ctclip",
}


def full_size(network: str) -> dict[str, Shape]:
    """Names and shapes of ours."""
    if network == "ctclip":
        return expected_shapes(CtClip, CtClipConfig())
    config = released.NETWORKS[network]
    prefix = CLIP_PREFIX if network == "clip" else ""
    shapes = expected_shapes(COMPONENT_TYPES[type_of(config)].build, config)
    return {prefix + name: shape for name, shape in shapes.items()}


def check_names(folder: Folder) -> Iterator[ArrayResult]:
    """Compare ``keys_full.json``; the difference is how many names or shapes differ."""
    theirs = {name: tuple(shape) for name, shape in folder.json("keys_full.json").items()}
    network = next((network for mark, network in MARKS.items() if mark in theirs), None)
    if network is None:
        raise UserError(f"{folder.path / 'keys_full.json'} is of no network that is known")
    theirs = drop_position_ids(theirs)
    problems = fit_problems(full_size(network), theirs, "the released network")
    note = f"{len(theirs)} names and shapes of {network}" + (f"; {problems[0]}" if problems else "")
    yield ArrayResult(folder.variant, "keys_full", float(len(problems)), 0.0, note)
