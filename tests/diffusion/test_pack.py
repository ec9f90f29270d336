from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from text2ct.diffusion import Pack, init_pack, list_packs, load_pack, verify_pack
from text2ct.diffusion.components import COMPONENT_TYPES
from text2ct.diffusion.init import PRESETS
from text2ct.errors import UserError
from text2ct.files import read_json, sha256_file, write_json


@pytest.fixture
def copy(tiny_pack: Pack, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pack.path, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    write_json(path, read_json(path) | changes)


def rehash(pack: Path, name: str) -> None:
    """Make pack.json agree with a file that the test changed."""
    files = read_json(pack / "pack.json")["files"] | {name: sha256_file(pack / name)}
    edit(pack / "pack.json", files=files)


def test_round_trip(tiny_pack: Pack) -> None:
    again = load_pack(tiny_pack.path)
    assert again.info == tiny_pack.info
    assert again.sha256 == tiny_pack.sha256
    assert verify_pack(tiny_pack.path) == tiny_pack.info
    stored = load_file(tiny_pack.path / "unet/model.safetensors")
    assert all(value.dtype == torch.float16 for value in stored.values())
    for name, value in again.unet.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[name].float())


def test_the_same_seed_writes_the_same_pack(tiny_pack: Pack, tmp_path: Path) -> None:
    assert init_pack(tmp_path / "again").sha256 == tiny_pack.sha256
    assert init_pack(tmp_path / "other", seed=1).sha256 != tiny_pack.sha256


def test_geometry(tiny_pack: Pack) -> None:
    centre = tiny_pack.affine @ np.array([7.5, 7.5, 7.5, 1])
    np.testing.assert_allclose(centre, [0, 0, 0, 1])
    assert tiny_pack.latent_shape == (4, 4, 4, 4)


def test_every_type_rebuilds_from_its_saved_config() -> None:
    for name, entry in COMPONENT_TYPES.items():
        config = entry.config()
        assert entry.config.model_validate(json.loads(config.model_dump_json())) == config, name


def test_lists(tiny_pack: Pack) -> None:
    assert tiny_pack.info.name in [info.name for info in list_packs(tiny_pack.path.parent)]


def test_a_missing_component_is_said(copy: Path) -> None:
    components = read_json(copy / "pack.json")["components"]
    del components["clip"]
    edit(copy / "pack.json", components=components)
    pack = load_pack(copy)
    assert not pack.has("clip")
    assert pack.has("unet")
    with pytest.raises(UserError, match="no component 'clip': text cannot be read"):
        _ = pack.tokenizer


def test_a_changed_file_is_refused(copy: Path) -> None:
    path = copy / "vae/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is not the file that pack\.json describes"):
        _ = load_pack(copy).vae
    with pytest.raises(UserError, match="is damaged"):
        verify_pack(copy)


def test_nan_weights_are_refused(copy: Path) -> None:
    path = copy / "unet/model.safetensors"
    state = load_file(path)
    state["conv_in.conv.bias"][0] = torch.nan
    save_file(state, path)
    rehash(copy, "unet/model.safetensors")
    with pytest.raises(UserError, match=r"NaN or infinite weights(.|\n)*conv_in\.conv\.bias"):
        _ = load_pack(copy).unet


def test_weights_of_another_model_are_refused_key_by_key(copy: Path) -> None:
    path = copy / "unet/model.safetensors"
    state = load_file(path)
    state["surplus"] = state.pop("conv_in.conv.bias")
    save_file(state, path)
    rehash(copy, "unet/model.safetensors")
    with pytest.raises(UserError, match=r"conv_in\.conv\.bias: missing(.|\n)*surplus: not a parameter"):
        _ = load_pack(copy).unet


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "unet/model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    rehash(copy, "unet/model.safetensors")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        _ = load_pack(copy).unet


def test_unknown_keys_are_refused(copy: Path) -> None:
    edit(copy / "unet/config.json", chanels=3)
    rehash(copy, "unet/config.json")
    with pytest.raises(UserError, match="chanels"):
        _ = load_pack(copy).unet
    edit(copy / "pack.json", flavour="sweet")
    with pytest.raises(UserError, match="flavour"):
        load_pack(copy)


def test_an_unknown_type_is_refused(copy: Path) -> None:
    edit(copy / "pack.json", components={"vae": "rectified_flow"})
    with pytest.raises(UserError, match="not a type of the component 'vae'"):
        load_pack(copy)


def test_a_missing_file_and_a_missing_pack(copy: Path, tmp_path: Path) -> None:
    (copy / "clip/tokenizer.json").unlink()
    with pytest.raises(UserError, match="lacks its file"):
        _ = load_pack(copy).tokenizer
    with pytest.raises(UserError, match="neither a pack's folder nor a bundled pack"):
        load_pack(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no preset 'huge'"):
        init_pack(tmp_path / "huge", "huge")


def test_presets_are_named_random(tiny_pack: Pack) -> None:
    assert set(PRESETS) == {"tiny", "text2ct"}
    assert tiny_pack.info.name.startswith("random-")
