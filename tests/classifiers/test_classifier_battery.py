"""The same laws for every entry of the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZE, TINY_OPTIONS, VARIANTS

from text2ct.classifiers import CLASSIFIERS, predict
from text2ct.classifiers.cnn3d import _block_max
from text2ct.classifiers.config import DataRecord, Preprocessing, RunConfig, Training, WindowSetting
from text2ct.classifiers.losses import masked_bce
from text2ct.classifiers.model import Classifier, build_classifier
from text2ct.errors import UserError
from text2ct.findings import FINDINGS
from text2ct.volumes import WINDOWS

every_classifier = pytest.mark.parametrize("name", [*CLASSIFIERS, *VARIANTS])


def entry(name: str) -> tuple[str, dict]:
    """The registry's name of a case, and its tiny options."""
    registered, options = VARIANTS.get(name, (name, {}))
    return registered, {**TINY_OPTIONS[registered], **options}


def make(name: str, seed: int = 0, **options: object) -> Classifier:
    registered, tiny = entry(name)
    spec = CLASSIFIERS[registered]
    config = RunConfig(
        classifier=registered,
        options=spec.config.of("test", {**tiny, **options}).model_dump(),
        preprocessing=Preprocessing(size=SIZE),
        windows=tuple(WindowSetting(name=w, centre=WINDOWS[w].centre, width=WINDOWS[w].width) for w in spec.windows),
        training=Training(seed=seed, learning_rate=1e-3, validate_every=1),
        data=DataRecord(
            train_volumes=1,
            validation_volumes=1,
            left_out_without_label=0,
            weighted_sampling=False,
            sha256="",
        ),
    )
    return build_classifier(config, initial=True)


def hu_batch(count: int = 4) -> torch.Tensor:
    return torch.empty(count, 1, *SIZE).uniform_(-1000, 1000, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 8), 4), ((9, 14, 7), 4), ((5, 6, 7), 2)])
def test_the_maximum_of_blocks_is_that_of_max_pooling(shape: tuple[int, int, int], size: int) -> None:
    volume = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_block_max(volume, size), torch.nn.functional.max_pool3d(volume, size))


@every_classifier
def test_hu_volumes_give_one_finite_logit_a_finding(name: str) -> None:
    logits = make(name).eval()(hu_batch(2).to(torch.int16))
    assert logits.shape == (2, len(FINDINGS))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_classifier
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = make(name).train()
    torch.manual_seed(0)
    with torch.no_grad():  # residual branches that start at exactly zero let no gradient through at first
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    labels = (torch.arange(4 * 18).reshape(4, 18) % 3 == 0).float()
    masked_bce(model(hu_batch()), labels).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert without == []


@every_classifier
def test_same_seed_same_weights_other_seed_other_weights(name: str) -> None:
    a, b, c = (make(name, seed).eval()(hu_batch(1)) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@every_classifier
def test_building_leaves_the_callers_random_state_alone(name: str) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    make(name)
    assert torch.equal(torch.rand(3), expected)


@every_classifier
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    model, batch = make(name).eval(), hu_batch(4)
    with torch.inference_mode():
        whole, alone = model(batch), torch.cat([model(row[None]) for row in batch])
    torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)


@every_classifier
@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 20), (1, 3, 16, 16, 16), (1, 16, 16, 16)], ids=str)
def test_other_grids_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"made for volumes \(B, 1, 16, 16, 16\)"):
        make(name)(torch.zeros(shape))


@every_classifier
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="widht"):
        make(name, widht=3)


@every_classifier
def test_training_learns_and_its_run_predicts_the_same_after_loading(
    name: str, tmp_path: Path, workspace, manifest: pd.DataFrame, tiny_training
) -> None:
    registered, options = entry(name)
    result = tiny_training(manifest, tmp_path / "run", name=registered, options=options)
    assert result["classifier"] == registered
    assert result["steps"] == 4
    assert 0 <= result["validation_macro_auc"] <= 1
    first = predict(tmp_path / "run", manifest, workspace, batch_size=4, device="cpu")
    again = predict(tmp_path / "run", manifest, workspace, batch_size=4, device="cpu")
    other = predict(tmp_path / "run", manifest, workspace, batch_size=5, device="cpu")
    assert list(first.columns) == ["VolumeName", *FINDINGS]
    assert list(first["VolumeName"]) == list(manifest["volume"])
    pd.testing.assert_frame_equal(first, again)
    np.testing.assert_allclose(first[list(FINDINGS)], other[list(FINDINGS)], atol=1e-5)
    assert first[list(FINDINGS)].to_numpy().min() >= 0
    assert first[list(FINDINGS)].to_numpy().max() <= 1


def test_every_entry_is_in_the_battery() -> None:
    assert set(TINY_OPTIONS) == set(CLASSIFIERS)


def test_ctnet_has_the_published_shape_on_the_published_grid() -> None:
    spec = CLASSIFIERS["ctnet"]
    with torch.device("meta"):
        network = spec.build(spec.config(output_stride=32), 1, (420, 420, 402), 83)
        logits = network(torch.zeros(1, 1, 420, 420, 402))
    assert network.triplets == 134  # Draelos et al. 2021, section 3.2
    assert network.flat == 16 * 18 * 5 * 5
    assert logits.shape == (1, 83)


def test_absent_pretrained_weights_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="pretrained=false"):
        make("slices", pretrained=True)


def kinetics(**options: object) -> Classifier:
    return make("r3d", **{"pretrained": True, "width": 64, "blocks": [2, 2, 2, 2], "slice_stride": 1, **options})


@pytest.mark.parametrize("style", ["r3d", "mc3", "r2plus1d"])
def test_with_torchvisions_weights_r3d_has_torchvisions_features(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import video

    torch.manual_seed(0)
    published = getattr(video, f"{style}_18")().eval()
    weights = published.state_dict()
    monkeypatch.setattr(video.R3D_18_Weights, "get_state_dict", lambda *_, **__: weights)
    monkeypatch.setattr(video.MC3_18_Weights, "get_state_dict", lambda *_, **__: weights)
    monkeypatch.setattr(video.R2Plus1D_18_Weights, "get_state_dict", lambda *_, **__: weights)
    ours = kinetics(style=style).eval()
    x = torch.rand(1, 3, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = published.stem(x.permute(0, 1, 4, 2, 3))
    for level in (published.layer1, published.layer2, published.layer3, published.layer4):
        maps = level(maps)
    torch.testing.assert_close(ours.network.features(x), maps, atol=1e-4, rtol=1e-3)


def test_kinetics_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.video import R3D_18_Weights

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(R3D_18_Weights, "get_state_dict", offline)
    with pytest.raises(UserError, match=r"torchvision cannot get .* pretrained=false"):
        kinetics()


@pytest.mark.parametrize("options", [{"width": 16}, {"blocks": [1, 1, 1, 1]}], ids=str)
def test_kinetics_weights_of_another_shape_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"width=64 and blocks=.* pretrained=false"):
        kinetics(**options)


@pytest.mark.parametrize(
    ("name", "options", "coarsest"),
    [
        ("cnn3d", {}, 4),
        ("r3d", {}, 4),
        ("r3d", {"style": "mc3"}, 4),
        ("r3d", {"style": "r2plus1d"}, 4),
        ("densenet", {}, 8),
        ("densenet", {"stem_pool": True}, 4),
    ],
    ids=str,
)
def test_the_default_grid_is_not_collapsed_before_the_head(name: str, options: dict, coarsest: int) -> None:
    spec = CLASSIFIERS[name]
    with torch.device("meta"):
        network = spec.build(spec.config.of("test", options), 3, (64, 64, 64), 18).eval()
        assert min(network.features(torch.zeros(1, 3, 64, 64, 64)).shape[2:]) == coarsest


def test_a_transformer_needs_equal_heads() -> None:
    with pytest.raises(UserError, match=r"hidden: .*multiple of 4"):
        make("slices-transformer", hidden=18)


def test_an_unknown_backbone_gets_near_names() -> None:
    with pytest.raises(UserError, match=r"no backbone 'resnet1'.*near: .*resnet1"):
        make("slices", backbone="resnet1")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn3d", {"blocks": [1, 1, 1, 1]}),
        ("ctnet", {"output_stride": 16}),
        ("r3d", {"blocks": [1, 1, 1, 1, 1]}),
        ("densenet", {"blocks": [1, 1, 1, 1], "stem_pool": True}),
    ],
)
def test_a_grid_that_is_too_small_is_refused(name: str, options: dict) -> None:
    with pytest.raises(UserError, match="grid 16x16x16 does not serve"):
        make(name, **options)
