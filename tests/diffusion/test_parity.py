"""Ours against arrays that the released code computed, through `models check-parity`; and that it can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from text2ct.cli import app
from text2ct.diffusion.parity import ArrayResult, check_parity, training_step
from text2ct.diffusion.parity.folder import Folder
from text2ct.diffusion.parity.preprocess import PERMUTED
from text2ct.diffusion.parity.result import compare
from text2ct.errors import UserError
from text2ct.files import read_json, write_json

Edit = Callable[[Path], None]


def command(folder: Path, *options: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["models", "check-parity", str(folder), *options], catch_exceptions=False)
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


def test_every_array_of_every_fixture_holds(parity: Path) -> None:
    code, out, err = command(parity, "--json")
    found = json.loads(out)
    assert [row for row in found["arrays"] if not row["holds"]] == []
    assert (code, err, found["holds"]) == (0, "", True)
    kinds = {row["variant"].split("/")[0] for row in found["arrays"]}
    assert kinds == {path.name for path in parity.iterdir() if path.is_dir()}
    for folder in parity.rglob("*.npz"):
        variant = folder.parent.relative_to(parity).as_posix()
        assert any(row["variant"] == variant for row in found["arrays"]), folder


def scaled(name: str, key: str, factor: float = 1.01) -> Edit:
    """Multiply one weight of a checkpoint."""

    def edit(folder: Path) -> None:
        found = torch.load(folder / name, weights_only=True)
        found.get("unet_state_dict", found)[key].mul_(factor)
        torch.save(found, folder / name)

    return edit


def shifted(name: str, array: str, by: float) -> Edit:
    """Add to one array of a file."""

    def edit(folder: Path) -> None:
        arrays = dict(np.load(folder / name))
        arrays[array] = arrays[array] + by
        np.savez(folder / name, **arrays)

    return edit


def set_to(key: str, value: object) -> Edit:
    """Change one setting."""
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | {key: value})


def other_sentence(folder: Path) -> None:
    texts = read_json(folder / "texts_own.json")
    write_json(folder / "texts_own.json", ["Clear lungs.", *texts[1:]])


@pytest.mark.parametrize(
    ("kind", "edit", "broken"),
    [
        ("clip3d/a", scaled("clip3d_state_dict.pt", "model.text_projection.weight", -1.0), "text/text_embed"),
        (
            "clip3d/a",
            scaled("clip3d_state_dict.pt", "model.text_model.final_layer_norm.weight"),
            "text/last_hidden_state_first3",
        ),
        ("clip3d/a", other_sentence, "text_own/token_ids_ftfy"),
        (
            "clip3d/a",
            scaled("clip3d_state_dict.pt", "model.vision_model.enc_temporal_transformer.norm_out.gamma"),
            "vision/pre_vq_tokens",
        ),
        ("sampler/a", scaled("unet_ckpt.pt", "conv_in.conv.weight"), "fwd_out"),
        ("sampler/a", set_to("spacing_tensor", [75.0, 75.0, 301.0]), "g5_s30_v0"),
        ("sampler/a", shifted("sampler.npz", "g1_s10_dt", 1e-3), "g1_s10_dt"),
        ("vae/a", scaled("autoencoder_state_dict.pt", "post_quant_conv.conv.weight"), "decoded_sliding_window"),
        ("vae/a", set_to("scale_factor", 1.0), "hu_int16"),
        ("vae/a", set_to("scale_factor", 0), "hu_int16"),
        ("training_step/a", scaled("unet_before.pt", "conv_in.conv.weight"), "grads_step0"),
        ("training_step/a", set_to("condition_drop_probability", 0.0), "step0_context_masked"),
        ("training_step/a", set_to("poly_power", 1.0), "step1_lr"),
        ("training_step/a", shifted("training.npz", "step1_noise", 1e-3), "step1_target"),
        ("preprocess/c", shifted("expected.npz", "probe_int16", 2), "probe_int16"),
        ("preprocess/c", shifted("expected.npz", "mid_sub", 0.3), "mid_sub"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_is_found(parity: Path, tmp_path: Path, kind: str, edit: Edit, broken: str) -> None:
    """Negative controls: one thing changed in a copy is seen in the array that it changes."""
    folder = Path(shutil.copytree(parity / kind, tmp_path / "copy"))
    edit(folder)
    assert broken in [row.array for row in check_parity(tmp_path).arrays if not row.holds]


def one_split(folder: Path) -> None:
    """Tiles along one axis change rounding only."""
    config = read_json(folder / "config.json")
    config["autoencoder"]["num_splits"] = 2
    write_json(folder / "config.json", config)


def another_run(folder: Path) -> None:
    """A fixture may have any runs: here one of its own under another name."""
    arrays = dict(np.load(folder / "sampler.npz"))
    arrays |= {name.replace("g1_s10", "g1_again"): value for name, value in arrays.items() if "g1_s10" in name}
    np.savez(folder / "sampler.npz", **arrays)
    runs = read_json(folder / "config.json")["runs"]
    set_to("runs", {"g1_again": runs["g1_s10"]})(folder)


def bare_weights(folder: Path) -> None:
    """A state dict without its scale factor, which then is the released one."""
    found = torch.load(folder / "unet_ckpt.pt", weights_only=True)
    torch.save(found["unet_state_dict"], folder / "unet_ckpt.pt")


def without_texts_of_others(folder: Path) -> None:
    (folder / "text.npz").unlink()
    (folder / "texts.json").unlink()


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("vae/a", one_split),
        ("sampler/a", another_run),
        ("sampler/a", bare_weights),
        ("clip3d/a", without_texts_of_others),
        ("training_step/a", set_to("steps", 1)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_variants_of_the_format_are_read(parity: Path, tmp_path: Path, kind: str, edit: Edit) -> None:
    folder = Path(shutil.copytree(parity / kind, tmp_path / "copy"))
    edit(folder)
    report = check_parity(tmp_path)
    assert report.damaged == ()
    failing = {row.array for row in report.arrays if not row.holds}
    # One step alone does not end where two do.
    assert failing == ({"losses", "lr_after", "unet_after"} if kind == "training_step/a" else set())


@pytest.mark.parametrize("kind", ["clip3d", "ctclip", "sampler", "vae"])
def test_a_changed_name_or_shape_is_found(parity: Path, tmp_path: Path, kind: str) -> None:
    keys = read_json(parity / kind / "keys_full.json")
    first, *_, last = (name for name in keys if "position_ids" not in name and keys[name])
    write_json(tmp_path / "keys_full.json", {k: v for k, v in keys.items() if k != first} | {last: [1, 2]})
    (row,) = check_parity(tmp_path).arrays
    assert row.difference == 2


def released_preprocessing(folder: Path, permuted: bool) -> None:
    """A fixture as the released code would make it, of a small smooth volume, by the steps in its description."""
    rng = np.random.default_rng(5)
    field = torch.from_numpy(rng.normal(size=(1, 1, 5, 6, 4)).astype(np.float32))
    hu = (F.interpolate(field, (30, 26, 22), mode="trilinear") * 600 - 300).clamp(-1024, 1500)[0, 0].numpy().round()
    spacing = np.array([2.0, 2.5, 6.0])
    affine = np.diag([*spacing, 1.0])
    stored, axes = hu.astype(np.int16), affine
    if permuted:
        stored, axes = hu.astype(np.int16).transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
    image = nibabel.Nifti1Image(stored, axes)
    nibabel.save(image, folder / "input.nii.gz")
    zooms = [float(zoom) for zoom in image.header.get_zooms()]
    target, size = (3.0, 0.75, 0.75), (24, 64, 64)
    zyx = torch.from_numpy(hu.transpose(2, 1, 0).copy())[None, None]
    middle = tuple(round(n * s / t) for n, s, t in zip(zyx.shape[2:], zooms[::-1], target, strict=True))
    between = F.interpolate(zyx.clamp(-1000, 1000), middle, mode="trilinear", align_corners=False)
    result = F.interpolate(between, size, mode="trilinear", align_corners=False)[0, 0].numpy()
    probes = np.stack([rng.integers(0, n, 500) for n in size], axis=1)
    at = tuple(probes.T)
    np.savez(
        folder / "expected.npz",
        oriented_zyx_f32=zyx[0, 0, ::2, ::2, ::2].numpy(),
        mid_sub=between[0, 0, ::8, ::16, ::16].numpy(),
        resampled_float_sub=result[::8, ::16, ::16],
        int16_sub=result[::8, ::16, ::16].astype(np.int16),
        probe_index_zyx=probes.astype(np.int16),
        probe_int16=result[at].astype(np.int16),
        probe_float=result[at],
    )
    config = {
        "oriented_saved": "[::2,::2,::2]",
        "original_spacing_zyx_used": zooms[::-1],
        "intermediate_shape_zyx": middle,
        "output_shape_zyx": size,
        "saved_nifti_affine": np.diag([0.75, 0.75, 3.0, 1.0]).tolist(),
    }
    write_json(folder / "config.json", config)


@pytest.mark.parametrize("permuted", [False, True], ids=["as-stored", "permuted"])
def test_preprocessing_holds_and_a_permuted_file_is_said(tmp_path: Path, permuted: bool) -> None:
    released_preprocessing(tmp_path, permuted)
    report = check_parity(tmp_path)
    assert [row for row in report.arrays if not row.holds] == []
    assert len(report.arrays) == 6
    said = {row.array for row in report.arrays if PERMUTED in row.note}
    assert said == ({row.array for row in report.arrays} - {"oriented_zyx_f32"} if permuted else set())


def test_a_wrong_spacing_is_not_taken_for_a_permuted_one(tmp_path: Path) -> None:
    released_preprocessing(tmp_path, permuted=False)
    set_to("intermediate_shape_zyx", [43, 87, 60])(tmp_path)
    assert not check_parity(tmp_path).holds


def test_exit_codes_and_one_row_an_array(tmp_path: Path) -> None:
    fixture = tmp_path / "fixtures" / "b"
    fixture.mkdir(parents=True)
    released_preprocessing(fixture, permuted=False)
    code, out, _ = command(tmp_path)
    assert code == 0
    assert "fixtures/b probe_float" in out
    assert "6 of 6 hold" in out
    shifted("expected.npz", "probe_float", np.nan)(fixture)
    code, out, _ = command(fixture, "--json")
    assert code == 1
    assert {row["variant"] for row in json.loads(out)["arrays"]} == {"b"}
    row = next(row for row in json.loads(out)["arrays"] if row["array"] == "probe_float")
    assert (row["difference"], row["holds"]) == (None, False)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "holds no parity fixtures"),
        (lambda folder: (folder / "expected.npz").write_bytes(b"PK\x03\x04 torn"), "cannot be read as arrays"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), "does not exist"),
        (lambda folder: (folder / "input.nii.gz").unlink(), "lacks input.nii.gz"),
        (lambda folder: (folder / "config.json").write_text("{}"), "not of the expected format (KeyError"),
        (lambda folder: np.savez(folder / "expected.npz", a=1), "lacks the array 'oriented_zyx_f32'"),
        (lambda folder: (folder / "input.nii.gz").write_bytes(b"torn"), "input.nii.gz"),
        (lambda folder: (folder / "keys_full.json").write_text('{"a": [1]}'), "of no network that is known"),
        (lambda folder: (folder / "keys_full.json").write_text("[1]"), "not of the expected format (AttributeError"),
        (lambda folder: (folder / "timesteps_full_size_1x1x1.json").write_text("[]"), "(AttributeError"),
        (lambda folder: (folder / "timesteps_full_size_0x1x1.json").write_text('{"3": {}}'), "expected format ("),
        (lambda folder: (folder / "config.json").write_text("[]"), "not of the expected format (TypeError"),
    ],
    ids=[
        "nothing",
        "arrays",
        "json",
        "no-json",
        "no-image",
        "keys",
        "no-array",
        "image",
        "names",
        "names-list",
        "times-list",
        "no-latent",
        "list",
    ],
)
def test_nothing_to_compare_or_a_damaged_file_is_said(tmp_path: Path, spoil: Edit, says: str) -> None:
    fixture = tmp_path / "a"
    fixture.mkdir()
    released_preprocessing(fixture, permuted=False)
    spoil(fixture)
    code, _, err = command(tmp_path)
    assert code == 2
    assert says in err


def test_a_folder_that_is_absent_and_weights_that_do_not_fit(parity: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        check_parity(tmp_path / "nowhere")
    shutil.copytree(parity / "vae/a", tmp_path / "vae")
    shutil.copytree(parity / "sampler/a", tmp_path / "sampler")
    shutil.copy(parity / "sampler/a/unet_ckpt.pt", tmp_path / "vae/autoencoder_state_dict.pt")
    config = read_json(tmp_path / "sampler/config.json")
    config["unet"]["include_top_region_index_input"] = True
    write_json(tmp_path / "sampler/config.json", config)
    report = check_parity(tmp_path)
    assert len(report.damaged) == 2
    assert "include_top_region_index_input is True; only False is known" in report.damaged[0]
    assert "is not a state dict" in report.damaged[1]
    assert not report.holds


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("sampler/a", set_to("runs", [1])),
        ("sampler/a", set_to("runs", {"g1_s10": None})),
        ("sampler/a", set_to("spacing_tensor", 3)),
        ("training_step/a", set_to("lr", "fast")),
        ("vae/a", set_to("sliding_window", [])),
        ("vae/a", set_to("scale_factor", None)),
        ("clip3d/a", set_to("max_length", 0.5)),
        ("clip3d/a", set_to("text", [])),
        ("preprocess/c", set_to("saved_nifti_affine", 1)),
        ("preprocess/c", set_to("output_shape_zyx", [0, 0, 0])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_of_another_kind_are_damage(parity: Path, tmp_path: Path, kind: str, edit: Edit) -> None:
    folder = Path(shutil.copytree(parity / kind, tmp_path / "copy"))
    edit(folder)
    code, _, err = command(tmp_path)
    assert code == 2
    assert "not everything could be compared\n  - " in err


def test_networks_of_other_sizes_than_their_weights_are_damage(parity: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(parity / "vae/a", tmp_path / "copy"))
    config = read_json(folder / "config.json")
    config["autoencoder"]["latent_channels"] += 1
    write_json(folder / "config.json", config)
    (damage,) = check_parity(tmp_path).damaged
    assert "is not the MaisiVae of config.json" in damage


@pytest.mark.parametrize(("reach", "tolerance"), [(2e-4, 2e-5), (10.0, 1e-4)])
def test_a_large_learning_rate_widens_no_tolerance(tmp_path: Path, reach: float, tolerance: float) -> None:
    unet = torch.nn.Linear(2, 2)
    torch.save(unet.state_dict(), tmp_path / training_step.AFTER)
    with torch.no_grad():
        unet.bias += 2 * tolerance
    gradients = {name: torch.ones_like(value) for name, value in unet.named_parameters()}
    row = training_step._weights(Folder(tmp_path, "a"), unet, gradients, reach)
    assert row.tolerance == pytest.approx(tolerance)
    assert not row.holds


def test_arrays_of_another_shape_or_without_a_value_never_hold() -> None:
    assert not compare("v", "a", np.zeros(3), np.zeros(4)).holds
    assert not compare("v", "a", np.zeros((1, 3)), np.zeros(3)).holds
    assert not compare("v", "a", np.array([0.0, np.nan]), np.zeros(2)).holds
    assert compare("v", "a", torch.zeros(2), [0, 5e-5]).holds
    assert ArrayResult("v", "a", float("inf"), 1.0).as_json()["difference"] is None
