"""Released checkpoints to packs: the same numbers; whatever is wrong with a file is said and nothing is written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from text2ct.augment._refusals import trained_on, training_data
from text2ct.cli import app
from text2ct.diffusion import load_pack, pack, released, verify_pack
from text2ct.diffusion.importing import import_pack
from text2ct.diffusion.unfinished import MARK, making_pack
from text2ct.errors import UserError
from text2ct.files import read_json
from text2ct.locks import LOCK

from .released_stand_in import NETWORKS, SCALE_FACTOR, checkpoint_files


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "NETWORKS", NETWORKS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return checkpoint_files(tmp_path_factory.mktemp("released"))


def rewritten(path: Path, out: Path, edit) -> Path:
    """A copy of a checkpoint whose dictionary ``edit`` changes in place."""
    found = torch.load(path, weights_only=True)
    edit(found)
    torch.save(found, out)
    return out


def command(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, words)], catch_exceptions=False)
    return result.exit_code, result.stderr


def test_every_number_is_kept_and_the_pack_is_whole(files: dict[str, Path], tmp_path: Path) -> None:
    made = import_pack(tmp_path / "pack", files)
    assert verify_pack(made.path) == made.info
    prefixes = {"clip": "model.", "vae": "", "unet": ""}
    for component, path in files.items():
        theirs = torch.load(path, weights_only=True)
        theirs = theirs.get("unet_state_dict", theirs)
        theirs.pop("model.text_model.embeddings.position_ids", None)
        ours = load_file(made.path / component / "model.safetensors")
        assert {prefixes[component] + name for name in ours} == theirs.keys()
        for name, value in ours.items():
            assert value.dtype == theirs[prefixes[component] + name].dtype
            assert torch.equal(value, theirs[prefixes[component] + name]), name
        module = getattr(made, component).state_dict()
        assert all(torch.equal(value, ours[name].to(value.dtype)) for name, value in module.items())
    assert not (made.path / MARK).exists()


def test_its_description_says_how_it_was_made_and_on_whom(files: dict[str, Path], tmp_path: Path) -> None:
    info = import_pack(tmp_path / "pack", files, name="mine").info
    assert (info.name, info.grid, info.spacing_mm) == ("mine", (512, 512, 128), (0.75, 0.75, 3.0))
    assert (info.conditioning, info.text_length, info.text_cleaning) == ("pooled", 512, "bert")
    assert (info.defaults.steps, info.defaults.guidance_scale) == (30, 5.0)
    assert info.latent_scale_factor == SCALE_FACTOR
    assert load_pack(tmp_path / "pack").scheduler.config.step_sizes == "released"
    data = training_data(read_json(tmp_path / "pack" / "pack.json"))
    assert trained_on(data, "CT-RATE", "train_17051")
    assert not trained_on(data, "CT-RATE", "valid_3")


def test_a_bare_state_dict_has_the_released_scale_factor_and_parts_may_lack(
    files: dict[str, Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save(torch.load(files["unet"], weights_only=True)["unet_state_dict"], bare)
    made = import_pack(tmp_path / "pack", {"unet": bare})
    assert made.info.latent_scale_factor == 1.0287
    assert set(made.info.components) == {"unet", "scheduler"}
    with pytest.raises(UserError, match="no component 'clip'"):
        _ = made.text_tower
    with pytest.raises(UserError, match="at least one of --autoencoder, --unet and --clip"):
        import_pack(tmp_path / "none", {})


def test_clip_without_position_ids_and_in_half_precision(files: dict[str, Path], tmp_path: Path) -> None:
    def halve(state: dict) -> None:
        del state["model.text_model.embeddings.position_ids"]
        state.update({name: value.half() for name, value in state.items()})

    half = rewritten(files["clip"], tmp_path / "half.pt", halve)
    made = import_pack(tmp_path / "pack", {"clip": half})
    stored = load_file(made.path / "clip/model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert {value.dtype for value in made.clip.state_dict().values()} == {torch.float32}


class Code:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


REFUSED = f"holds code ({os.mkdir.__module__}.mkdir), not weights alone, and is not loaded"


def truncated(path: Path, source: Path) -> None:
    path.write_bytes(source.read_bytes()[:-200])


def with_code(path: Path, source: Path) -> None:
    torch.save({"weight": Code(path.with_name("ran"))}, path)


def with_code_in_a_plain_pickle(path: Path, source: Path) -> None:
    path.write_bytes(pickle.dumps(Code(path.with_name("ran")), protocol=2))


def with_code_in_a_new_pickle(path: Path, source: Path) -> None:
    path.write_bytes(pickle.dumps(Code(path.with_name("ran")), protocol=4))


def with_code_in_a_new_pickle_in_a_zip(path: Path, source: Path) -> None:
    torch.save({"weight": Code(path.with_name("ran"))}, path, pickle_protocol=4)


def of_a_plain_pickle(path: Path, source: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=4))


def cut_short(path: Path, source: Path) -> None:
    path.write_bytes(source.read_bytes()[:900])


def with_scale(value: object) -> Callable[[Path, Path], None]:
    def spoil(path: Path, source: Path) -> None:
        rewritten(source, path, lambda state: state.update(scale_factor=value))

    return spoil


def with_nan(path: Path, source: Path) -> None:
    rewritten(source, path, lambda state: state["unet_state_dict"]["out.2.conv.bias"].fill_(torch.nan))


def of_strings(path: Path, source: Path) -> None:
    torch.save({"epoch": "7"}, path)


def of_a_list(path: Path, source: Path) -> None:
    torch.save([torch.zeros(1)], path)


def without_scale(path: Path, source: Path) -> None:
    rewritten(source, path, lambda state: state.pop("scale_factor"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated, "is not a whole PyTorch checkpoint: it is cut short or damaged; get it again"),
        (cut_short, "is not a whole PyTorch checkpoint: it is cut short or damaged; get it again"),
        (with_code, REFUSED),
        (with_code_in_a_plain_pickle, REFUSED),
        (with_code_in_a_new_pickle, REFUSED),
        (with_code_in_a_new_pickle_in_a_zip, REFUSED),
        (of_a_plain_pickle, "is a pickle that torch.save does not write, and is not loaded"),
        (with_nan, "NaN or infinite weights; get it again\n  - out.2.conv.bias"),
        (of_strings, "is not a state dict"),
        (of_a_list, "holds a list, not a state dict"),
        (without_scale, "but no 'scale_factor'"),
        (with_scale(0.0), "'scale_factor' is 0.0"),
        (with_scale(-1), "'scale_factor' is -1.0"),
        (with_scale(float("nan")), "'scale_factor' is nan"),
        (with_scale(torch.tensor(torch.inf)), "'scale_factor' is inf"),
        (with_scale("one"), "'scale_factor' is not a number"),
        (with_scale(torch.ones(2)), "'scale_factor' is not a number"),
        (with_scale(None), "'scale_factor' is not a number"),
        (lambda path, source: path.write_bytes(b""), "is empty"),
        (lambda path, source: path.write_text("<html>not found</html>"), "is not a PyTorch checkpoint, or is damaged"),
        (lambda path, source: path.mkdir(), "is a folder"),
        (lambda path, source: None, "does not exist"),
    ],
    ids=lambda value: "" if callable(value) else value.split(",")[0][:24],
)
def test_a_bad_file_is_named_with_its_reason(files: dict[str, Path], tmp_path: Path, spoil, says: str) -> None:
    bad = tmp_path / "bad.pt"
    spoil(bad, files["unet"])
    code, message = command("import", "--unet", bad, tmp_path / "pack")
    assert code == 2
    assert says in message
    assert str(bad) in message
    assert "Traceback" not in message
    assert not any(word in message for word in ("PyTorch 2.6", "miniz", "yo)", "Warning"))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "pack" / "pack.json").exists()


def test_another_models_weights_are_refused_key_by_key(files: dict[str, Path], tmp_path: Path) -> None:
    """Twenty differences and how many more; every bad file in one message."""
    code, message = command("import", "--autoencoder", files["clip"], "--unet", files["vae"], tmp_path / "pack")
    assert code == 2
    assert "is not the released vae" in message
    assert "is not the released unet" in message
    vae = torch.load(files["vae"], weights_only=True).keys()
    unet = torch.load(files["unet"], weights_only=True)["unet_state_dict"].keys()
    assert f"{len(vae ^ unet)} of its entries differ" in message
    assert f"and {len(vae ^ unet) - 20} more" in message
    assert f"{min(vae ^ unet)}: " in message


def test_one_good_file_of_three_makes_no_pack(files: dict[str, Path], tmp_path: Path) -> None:
    nan, folder = tmp_path / "nan.pt", tmp_path / "folder"
    with_nan(nan, files["unet"])
    folder.mkdir()
    code, message = command("import", "--autoencoder", files["vae"], "--unet", nan, "--clip", folder, tmp_path / "pack")
    assert code == 2
    assert "NaN or infinite weights" in message
    assert f"{folder} is a folder" in message
    assert str(files["vae"]) not in message
    assert not (tmp_path / "pack").exists()


def test_a_difference_in_one_key_is_that_key_alone(files: dict[str, Path], tmp_path: Path) -> None:
    def edit(state: dict) -> None:
        state["surplus"] = torch.zeros(1)
        del state["encoder.blocks.0.conv.conv.bias"]
        state["decoder.blocks.0.conv.conv.bias"] = torch.zeros(3)

    bad = rewritten(files["vae"], tmp_path / "bad.pt", edit)
    with pytest.raises(UserError) as caught:
        import_pack(tmp_path / "pack", {"vae": bad})
    assert caught.value.problems == (
        "decoder.blocks.0.conv.conv.bias: shape (3,), expected (8,)",
        "encoder.blocks.0.conv.conv.bias: missing",
        "surplus: not a parameter of the released vae",
    )


def test_a_folder_in_use_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    assert "is not empty" in command("import", "--unet", files["unet"], used)[1]
    assert [path.name for path in used.iterdir()] == ["notes.txt"]
    assert "cannot be a pack's name" in command("import", "--unet", files["unet"], "--name", "a b", tmp_path / "x")[1]
    assert "is a file" in command("import", "--unet", files["unet"], used / "notes.txt")[1]
    assert command("import", "--unet", files["unet"], tmp_path / "pack")[0] == 0
    code, message = command("import", "--unet", files["unet"], tmp_path / "pack")
    assert code == 2
    assert "holds a finished pack" in message


@pytest.mark.parametrize("name", ["a\n", "\na", "", ".a", "a/b"], ids=repr)
def test_a_name_is_one_whole_word(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a pack's name"):
        import_pack(tmp_path / "pack", files, name=name)


def test_two_commands_do_not_make_packs_in_one_folder(tmp_path: Path) -> None:
    out, request = tmp_path / "pack", {"init": "tiny", "seed": 0}
    with making_pack(out, request):
        for again in range(2):
            with pytest.raises(UserError, match=r"another text2ct command .* is working in"), making_pack(out, request):
                pytest.fail(f"entered at try {again}")
        assert read_json(out / MARK) == request
    assert not out.exists()
    with making_pack(out, {"init": "tiny", "seed": 1}):
        pass


HOLD = """
import os, sys
from pathlib import Path
from text2ct.diffusion.unfinished import making_pack
with making_pack(Path(sys.argv[1]), {"init": "tiny"}):
    os._exit(9)
"""


def test_a_dead_command_leaves_its_folder_to_the_same_request(tmp_path: Path) -> None:
    out = tmp_path / "pack"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", HOLD, str(out)], env=environment, check=False).returncode == 9
    assert (out / MARK).is_file()
    with pytest.raises(UserError, match="init was tiny, now text2ct"), making_pack(out, {"init": "text2ct"}):
        pass
    with making_pack(out, {"init": "tiny"}):
        pass
    assert not list(out.iterdir())


def test_what_a_command_left_before_its_mark_was_whole_is_no_content(tmp_path: Path) -> None:
    for name in (LOCK, f".partial-{MARK}"):
        (tmp_path / name).write_text("{")
    with making_pack(tmp_path, {"init": "tiny"}):
        pass
    (tmp_path / MARK).write_text("[]")
    with pytest.raises(UserError, match="unfinished pack of another request"), making_pack(tmp_path, {"init": "tiny"}):
        pass


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit], ids=["ctrl-c", "kill"])
def test_what_is_stopped_midway_is_no_pack_and_goes_on(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    out, written = tmp_path / "pack", []

    def stopping(state: dict, path: Path) -> None:
        if written:
            raise stop
        written.append(path)
        keep(state, path)

    keep = pack.save_file
    with monkeypatch.context() as patch:
        patch.setattr(pack, "save_file", stopping)
        with pytest.raises(stop):
            import_pack(out, files)
    assert written
    assert not (out / "pack.json").exists()
    with pytest.raises(UserError, match="neither a pack's folder"):
        load_pack(out)
    with pytest.raises(UserError, match="unfinished pack of another request"):
        import_pack(out, {"unet": files["unet"]})
    assert verify_pack(import_pack(out, files).path)


def test_a_dry_run_checks_the_files_and_writes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    code, _ = command("import", "--unet", files["unet"], tmp_path / "pack", "--dry-run")
    assert code == 0
    assert not (tmp_path / "pack").exists()
