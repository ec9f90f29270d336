"""Tokens, text embeddings, CT tokens and volume embeddings of 3D CLIP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from text2ct.diffusion.checkpoints import drop_position_ids
from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.clip import Clip3D, ClipConfig, TextConfig
from text2ct.diffusion.clip_vocabulary import clip_tokenizer
from text2ct.diffusion.ctvit import CTViTConfig
from text2ct.diffusion.importing import CLIP_PREFIX
from text2ct.diffusion.parity.folder import Arrays, Folder
from text2ct.diffusion.parity.result import TOLERANCE, ArrayResult, compare

WEIGHTS = "clip3d_state_dict.pt"
# The ends of the fixture's names to the cleaning that the released tokenizer did.
CLEANINGS: dict[str, TextCleaning] = {"": "bert", "_ftfy": "ftfy", "_hf_fast": "tokenizer"}
TEXTS = {"text.npz": "texts.json", "text_own.npz": "texts_own.json"}
TOKEN_NAMES = {
    "bos_token_id_in_tokenizer": "bos_token_id",
    "eos_token_id_in_tokenizer": "eos_token_id",
    "pad_token_id_in_tokenizer": None,  # the end token, as ours
}


def check_clip3d(folder: Folder) -> Iterator[ArrayResult]:
    """Compare both towers."""
    config = folder.json()
    stored = drop_position_ids(folder.checkpoint(WEIGHTS))
    state = {name.removeprefix(CLIP_PREFIX): value for name, value in stored.items()}
    clip: Clip3D = folder.build(Clip3D, clip_config(folder, config), WEIGHTS, state)  # type: ignore[assignment]
    with torch.inference_mode():
        for arrays, texts in TEXTS.items():
            if folder.has(arrays):
                yield from _texts(folder, clip, arrays, folder.json(texts), config["max_length"])
        if folder.has("vision.npz"):
            yield from _volumes(folder, clip)


def clip_config(folder: Folder, config: dict[str, Any]) -> ClipConfig:
    """Our configuration of a fixture's."""
    text = dict(config["text"])
    for theirs, ours in TOKEN_NAMES.items():
        value = text.pop(theirs, None)
        if ours is not None and value is not None:
            text[ours] = value
    vision = dict(config["ctvit"])
    height, width = np.broadcast_to(vision.pop("image_size"), 2).tolist()
    vision["image_size"] = (height, width, config["volume_shape_BCHWD"][-1])
    return ClipConfig(
        text=folder.config(TextConfig, text, {}),
        vision=folder.config(CTViTConfig, vision, {}),
        projection_dim=config["projection_dim"],
    )


def _texts(folder: Folder, clip: Clip3D, name: str, texts: list[str], length: int) -> Iterator[ArrayResult]:
    """From sentences to embeddings, once for each cleaning that the file has."""
    arrays = folder.arrays(name)
    stem = name.removesuffix(".npz")
    for end, cleaning in CLEANINGS.items():
        if f"token_ids{end}" not in arrays:
            continue
        ids = clip_tokenizer(cleaning).encode(texts, length)
        yield compare(folder.variant, f"{stem}/token_ids{end}", ids, arrays[f"token_ids{end}"], 0)
        features = clip.encode_text(torch.from_numpy(ids))
        ours: dict[str, Any] = {
            "text_embed": features.context("pooled"),
            "pool_position": features.mask.sum(1) - 1,
            "n_tokens_incl_special": features.mask.sum(1),
            "attention_mask": features.mask,
        }
        for array, value in ours.items():
            if array + end in arrays:
                tolerance = TOLERANCE if array == "text_embed" else 0.0
                yield compare(folder.variant, f"{stem}/{array}{end}", value, arrays[array + end], tolerance)
        for array in [array for array in arrays if not end and array.startswith("last_hidden_state")]:
            rows, tokens = arrays[array].shape[:2]
            yield compare(folder.variant, f"{stem}/{array}", features.states[:rows, :tokens], arrays[array])


def _volumes(folder: Folder, clip: Clip3D) -> Iterator[ArrayResult]:
    """From a volume to its embedding, through the tokens before the codebook: the embedding alone hides errors."""
    arrays: Arrays = folder.arrays("vision.npz")
    volume = arrays.tensor("volume")
    tokens = clip.vision_model.tokens(volume)
    ours = {
        "pre_vq_tokens": tokens,
        "vq_indices": clip.vision_model.vq(tokens)[1],
        "encoded_tokens": clip.vision_model(volume),
        "vision_embed": clip.encode_volume(volume).unsqueeze(1),
    }
    for array, value in ours.items():
        tolerance = 0.0 if array == "vq_indices" else TOLERANCE
        yield compare(folder.variant, f"vision/{array}", value, arrays[array], tolerance)
