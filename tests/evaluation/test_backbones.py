"""Backbones from files: what is read, what is refused, and that other weights have other names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks import nets
from torchvision.models import resnet50, squeezenet1_1

from text2ct.classifiers.config import WindowSetting
from text2ct.errors import UserError
from text2ct.evaluation.fidelity import fid_between
from text2ct.evaluation.generator import fidelity, leading
from text2ct.evaluation.generator.backbones import RadImageNet, plain_view, slice_encoder
from text2ct.evaluation.generator.backbones_3d import MedicalNet, volume_encoder
from text2ct.evaluation.generator.evaluate import window_settings
from text2ct.evaluation.slices import StatisticsOfSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def medicalnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as MedicalNet's authors publish it: wrapped, and with a head that belongs to segmentation."""
    torch.manual_seed(0)
    network = nets.resnet10(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type="B", bias_downsample=False
    )
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    state["module.conv_seg.0.weight"] = torch.zeros(3)
    path = tmp_path_factory.mktemp("weights") / "resnet_10.pth"
    torch.save({"state_dict": state}, path)
    return path


def test_medicalnets_depth_is_known_by_its_weights(medicalnet: Path) -> None:
    encoder = volume_encoder(f"medicalnet:{medicalnet}", scorer=None, device=CPU)
    assert encoder.name.startswith("MedicalNet ResNet-10 (")
    assert encoder.grid is None
    volume = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
    (features,) = encoder(volume)
    assert features.shape == (512,)
    assert np.isfinite(features).all()
    assert np.array_equal(encoder(volume)[0], features)


def test_files_that_are_something_else_are_refused(medicalnet: Path, tmp_path: Path) -> None:
    state = torch.load(medicalnet, weights_only=True)["state_dict"]
    state.pop("module.layer4.0.conv2.weight")
    torch.save(state, tmp_path / "lacking.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, message in (
        ("lacking.pth", "layer4.0.conv2.weight: missing"),
        ("other.pth", "no ResNet of MedicalNet"),
        ("list.pth", "no table of tensors"),
        ("text.pth", "cannot be read as weights"),
        ("absent.pth", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            MedicalNet(str(tmp_path / name), CPU)
    with pytest.raises(UserError, match="has no ResNet-11"):
        MedicalNet("11", CPU)
    for name, message in (("clip", "name one with --clip"), ("resnet", "is no 3D backbone")):
        with pytest.raises(UserError, match=message):
            volume_encoder(name, scorer=None, device=CPU)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Code()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        MedicalNet(str(tmp_path / "code.pth"), CPU)
    assert not (tmp_path / "ran").exists()


def test_radimagenet_is_read_under_both_kinds_of_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = resnet50(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    numbers = dict(enumerate(name for name, _ in network.named_children()))
    places = {name: number for number, name in numbers.items()}
    state = {
        f"backbone.{places[first]}.{rest}": value
        for first, rest, value in ((*name.split(".", 1), value) for name, value in network.state_dict().items())
        if first != "fc"
    }
    torch.save(state, tmp_path / "numbered.pt")
    encoders = [slice_encoder(f"radimagenet:{tmp_path / name}.pt", device=CPU) for name in ("whole", "numbered")]
    assert encoders[0].name == encoders[1].name
    assert plain_view(encoders[0]) == "full_range"
    slices = torch.rand(2, 3, 48, 40)
    features = encoders[0](slices)
    assert features.shape == (2, 2048)
    whole = torch.nn.Sequential(*list(network.children())[:-1])(slices - encoders[0].mean).flatten(1)
    assert torch.allclose(features, whole, atol=1e-5)
    with pytest.raises(UserError, match="is not the weights of a ResNet-50"):
        RadImageNet(_saved(tmp_path / "small.pt", {"conv1.weight": torch.zeros(1)}))


def test_squeezenet_is_torchvisions_without_imagenets_means(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = squeezenet1_1(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "squeeze.pt")
    encoder = slice_encoder(f"squeezenet:{tmp_path / 'squeeze.pt'}", device=CPU)
    slices = torch.rand(2, 3, 48, 40)
    assert torch.allclose(encoder(slices), network(slices - torch.tensor([0.406, 0.456, 0.485]).reshape(1, 3, 1, 1)))
    with pytest.raises(UserError, match="is not the weights of a SqueezeNet"):
        slice_encoder(f"squeezenet:{_saved(tmp_path / 'small.pt', {'a': torch.zeros(1)})}", device=CPU)


def _saved(path: Path, state: dict) -> Path:
    torch.save(state, path)
    return path


def test_windows_by_name_and_by_numbers() -> None:
    found = window_settings("lung, vessel:100:600")
    assert found[0] == WindowSetting(name="lung", centre=-600, width=1500)
    assert found[1] == WindowSetting(name="vessel", centre=100, width=600)
    for text in ("heart", "bone:1", "bone:a:b", "bone:100:0", "bone:1:2:3", "lung:nan:100", "lung:1:inf", "a|b:1:2"):
        with pytest.raises(UserError, match="is no window"):
            window_settings(text)


class Held(list):
    """Features by volume, as they are kept on disk."""


def held(seed: int, n: int, shift: float) -> Held:
    rng = np.random.default_rng(seed)
    scale = np.array([4.0, 2.0, 1.0, 0.1, 0.1, 0.1])
    return Held(tuple((rng.normal(size=(9, 6)) * scale + shift).astype(np.float32) for _ in range(3)) for _ in range(n))


def test_a_wide_networks_distance_is_that_of_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 3 of 6 components the estimate is the same; interval and floor are of the 3, which hold nearly all."""
    pair = held(0, 12, 0.0), held(1, 10, 0.7)

    class Encoder:
        name, channels = "a test's", 3

    how = {"groups": None, "n_bootstrap": 50, "seed": 0}
    whole, _, said = fidelity._distance(pair, Encoder(), "full_range", 1, (9, 9, 9), how)
    assert said == {"components": None}
    for module in (fidelity, leading):
        monkeypatch.setattr(module, "LEADING", 3)
    fid, both, said = fidelity._distance(pair, Encoder(), "full_range", 1, (9, 9, 9), how)
    assert fid.mean == pytest.approx(whole.mean, rel=1e-9)
    assert fid.dimension == 6
    assert both[0].dimension == 3
    assert 0.95 < said["variance_kept"] <= 1
    assert 0.5 * whole.mean < fid_between(*both, n_bootstrap=0).mean <= whole.mean
    assert fid.ci[0] <= fid.mean <= fid.ci[1]
    collected = StatisticsOfSet("a test's", "full_range", 1)
    for planes in pair[0]:
        collected.add(planes)
    expected = collected.statistics((9, 9, 9)).gaussian(0, np.ones(12))
    moments = leading.leading_components(pair).moments[0][0]
    assert np.allclose(moments[0], expected[0])
    assert np.allclose(moments[1], expected[1])
