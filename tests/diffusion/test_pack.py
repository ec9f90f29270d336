from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from text2ct.diffusion import Pack, generate, init_pack, list_packs, load_pack, released, verify_pack
from text2ct.diffusion.components import COMPONENT_TYPES
from text2ct.diffusion.fit import misfits
from text2ct.diffusion.gaussian import GaussianUnetConfig
from text2ct.diffusion.init import PRESETS, estimate_init
from text2ct.diffusion.weights import is_finite
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


def test_fidelity_stands_beside_the_pack_and_leaves_its_identity_alone(copy: Path, tiny_pack: Pack) -> None:
    assert tiny_pack.fidelity == {}
    write_json(copy / "fidelity.json", {"Pleural effusion": 0.9})
    pack = load_pack(copy)
    assert pack.fidelity == {"Pleural effusion": 0.9}
    assert pack.sha256 == tiny_pack.sha256


@pytest.mark.parametrize(
    ("written", "message"),
    [({"Pleural effusion": "much"}, "is damaged"), ({"Gout": 0.9}, "unknown findings")],
)
def test_a_damaged_fidelity_is_refused(copy: Path, written: dict[str, object], message: str) -> None:
    write_json(copy / "fidelity.json", written)
    with pytest.raises(UserError, match=message):
        _ = load_pack(copy).fidelity


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


def test_generation_reads_the_text_tower_alone(copy: Path) -> None:
    """A weight of the vision half may even be damaged: it is read, and refused, when volumes are embedded."""
    path = copy / "clip/model.safetensors"
    state = load_file(path)
    state["visual_projection.weight"][0] = torch.nan
    save_file(state, path)
    rehash(copy, "clip/model.safetensors")
    pack = load_pack(copy)
    volumes = generate(pack, ["Normal chest."], [0], device="cpu", batch_size=1)
    assert volumes.shape == (1, 16, 16, 16)
    assert not hasattr(pack.text_tower, "visual_projection")
    with pytest.raises(UserError, match=r"NaN or infinite weights(.|\n)*visual_projection\.weight"):
        _ = pack.clip


@torch.inference_mode()
def test_the_text_tower_says_what_the_whole_says(tiny_pack: Pack) -> None:
    alone, whole = load_pack(tiny_pack.path), load_pack(tiny_pack.path)
    ids = torch.from_numpy(alone.tokenizer.encode(["Emphysema."], 32))
    a = alone.text_tower.encode_text(ids)
    b = whole.clip.encode_text(ids)
    assert torch.equal(a.context("tokens"), b.context("tokens"))
    assert whole.text_tower is whole.clip
    assert type(alone.text_tower).__name__ == "TextTower"


def test_a_name_that_the_text_tower_does_not_need_is_checked_too(copy: Path) -> None:
    path = copy / "clip/model.safetensors"
    state = load_file(path)
    del state["visual_projection.weight"]
    save_file(state, path)
    rehash(copy, "clip/model.safetensors")
    with pytest.raises(UserError, match=r"visual_projection\.weight: missing"):
        _ = load_pack(copy).text_tower


def test_every_module_is_whole_when_it_is_loaded(tiny_pack: Pack) -> None:
    pack = load_pack(tiny_pack.path)
    for module in (pack.text_tower, pack.clip, pack.vae, pack.unet):
        tensors = [*module.parameters(), *module.buffers()]
        assert not any(value.is_meta for value in tensors)
        assert {value.dtype for value in tensors if value.is_floating_point()} == {torch.float32}


def test_each_file_is_hashed_once_for_a_pack(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from text2ct.diffusion import pack as module

    hashed: list[str] = []
    monkeypatch.setattr(module, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    pack = load_pack(copy)
    for _ in range(2):
        assert pack.text_tower is not None
        assert pack.clip is not None
        assert pack.tokenizer is not None
    assert sorted(hashed) == ["config.json", "model.safetensors", "pack.json", "tokenizer.json"]


def test_stored_files_may_be_read_by_whoever_may_read_the_rest(tiny_pack: Pack) -> None:
    modes = {path.stat().st_mode for path in tiny_pack.path.rglob("*") if path.is_file()}
    assert len(modes) == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_single_value_that_is_no_number_is_seen(value: float, dtype: torch.dtype) -> None:
    weights = torch.linspace(-1, 1, 3000, dtype=torch.float32).to(dtype)
    assert is_finite(weights)
    weights[1234] = value
    assert not is_finite(weights)
    assert is_finite(torch.zeros(3, 0))


def test_the_text2ct_preset_is_the_released_model() -> None:
    preset = PRESETS["text2ct"]
    assert {"clip": preset.clip, "vae": preset.vae, "unet": preset.unet} == released.NETWORKS
    theirs = released.released_info("x", 1.0287, "bert")
    for name in ("grid", "spacing_mm", "text_length", "conditioning", "text_cleaning", "defaults"):
        assert getattr(preset, name) == getattr(theirs, name)
    assert preset.flow.step_sizes == "released"
    would = estimate_init("text2ct")
    assert would["bytes"] == pytest.approx(2 * (785.0e6 + 218e6 + 21e6), rel=0.01)


def edit_config(pack: Path, component: str, **changes: object) -> None:
    edit(pack / component / "config.json", **changes)
    rehash(pack, f"{component}/config.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grid", [0, 16, 16]),
        ("grid", [16, -16, 16]),
        ("spacing_mm", [20, 0, 20]),
        ("spacing_mm", [20, -1, 20]),
        ("spacing_mm", [20, math.nan, 20]),
        ("spacing_mm", [math.inf, 20, 20]),
        ("hu_range", [1000, -1000]),
        ("hu_range", [0, 0]),
        ("hu_range", [-1000, math.nan]),
        ("hu_range", [-math.inf, 1000]),
        ("latent_scale_factor", 0),
        ("latent_scale_factor", math.nan),
        ("latent_scale_factor", math.inf),
        ("text_length", 1),
        ("name", "a\n"),
        ("defaults", {"guidance_scale": math.nan}),
        ("defaults", {"guidance_interval": [0, math.nan]}),
    ],
    ids=str,
)
def test_a_value_that_no_pack_can_have_is_named(copy: Path, field: str, value: object) -> None:
    (copy / "pack.json").write_text(json.dumps(read_json(copy / "pack.json") | {field: value}))
    with pytest.raises(UserError, match=rf"cannot be used by this version(.|\n)*- {field}"):
        load_pack(copy)


@pytest.mark.parametrize(
    ("where", "changes", "says"),
    [
        ("pack", {"text_length": 65}, "text_length is 65, but the text tower has 64 positions"),
        ("pack", {"grid": [16, 20, 16]}, r"cannot take its grid \(16, 20, 16\): each axis must be a multiple of 8"),
        ("unet", {"in_channels": 3}, "in_channels is 3, but the VAE's latents have 4 channels"),
        ("unet", {"out_channels": 5}, "out_channels is 5, but the VAE's latents have 4 channels"),
        ("unet", {"cross_attention_dim": 8}, "cross_attention_dim is 8, but CLIP's projection_dim is 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_fit_are_refused_before_weights_are_read(
    copy: Path, where: str, changes: dict, says: str
) -> None:
    """By `verify`, and by whatever asks for the latents' shape, as generation does."""
    edit(copy / "pack.json", **changes) if where == "pack" else edit_config(copy, where, **changes)
    for component in ("clip", "vae", "unet"):
        (copy / component / "model.safetensors").unlink()
    pack = load_pack(copy)
    with pytest.raises(UserError, match=f"do not fit together\n  - .*{says}"):
        _ = pack.latent_shape


def test_verify_says_every_misfit_at_once(copy: Path) -> None:
    edit(copy / "pack.json", text_length=65, grid=[16, 20, 16])
    with pytest.raises(UserError) as caught:
        verify_pack(copy)
    assert [problem.split(" is ")[0].split(" (")[0] for problem in caught.value.problems] == [
        "text_length",
        "the pack's networks cannot take its grid",
    ]


def test_tokens_need_queries(copy: Path) -> None:
    clip = read_json(copy / "clip/config.json")
    edit_config(copy, "clip", text=clip["text"] | {"queries": 0})
    with pytest.raises(UserError, match="conditioning is 'tokens', but the text tower has no queries"):
        _ = load_pack(copy).text_tower


def test_a_text_that_is_too_long_for_the_tower_is_refused_when_it_is_opened(copy: Path) -> None:
    edit(copy / "pack.json", text_length=65)
    for part in ("text_tower", "clip"):
        with pytest.raises(UserError, match="text_length is 65"):
            getattr(load_pack(copy), part)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 100}, r"the tokenizer has \d+ tokens, but the text tower 100"),
        ({"eos_token_id": 7}, "end-of-text is 1, but the text tower's eos_token_id is 7"),
    ],
    ids=["vocabulary", "end"],
)
def test_a_tokenizer_of_another_tower_is_refused(copy: Path, changes: dict, says: str) -> None:
    clip = read_json(copy / "clip/config.json")
    edit_config(copy, "clip", text=clip["text"] | changes)
    with pytest.raises(UserError, match=says):
        _ = load_pack(copy).tokenizer


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latent_shape": (4, 8, 8, 8)}, r"the Gaussian's latents are \(8, 8, 8\), but the grid's are \(4, 4, 4\)"),
        ({"context_shape": (1, 16)}, r"the Gaussian's context is \(1, 16\), but the text tower's is"),
        ({"unet": PRESETS["tiny"].unet}, "in_channels is 4, but it sees 8"),
    ],
    ids=["latents", "context", "inputs"],
)
def test_a_gaussian_fits_one_shape(tiny_pack: Pack, changes: dict, says: str) -> None:
    sizes = {
        "unet": PRESETS["tiny"].unet.model_copy(update={"in_channels": 8}),
        "latent_shape": (4, 4, 4, 4),
        "context_shape": (1 + tiny_pack.config("clip").text.queries, 16),
    }
    configs = {name: tiny_pack.config(name) for name in ("clip", "vae")}
    assert misfits(tiny_pack.info, configs | {"unet": GaussianUnetConfig(**sizes)}) == []
    (problem,) = misfits(tiny_pack.info, configs | {"unet": GaussianUnetConfig(**(sizes | changes))})
    assert re.search(says, problem)


def test_configurations_say_what_their_networks_do_and_no_weights_are_read(tiny_pack: Pack) -> None:
    pack = load_pack(tiny_pack.path)
    shape = pack.latent_shape
    assert pack._loaded == {}
    latents = pack.vae.encode(torch.zeros(1, 1, *pack.info.grid))[0]
    assert tuple(latents.shape[1:]) == shape
    for component in ("vae", "unet"):
        for name, entry in COMPONENT_TYPES.items():
            if entry.component == component and hasattr(entry.config, "downsampling"):
                with torch.device("meta"):
                    assert entry.build(entry.config()).downsampling == entry.config().downsampling, name
