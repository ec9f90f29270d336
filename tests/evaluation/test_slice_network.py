from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from text2ct.diffusion.training.cases import Cases, CaseText, write_cases
from text2ct.errors import UserError
from text2ct.evaluation.fidelity import fid_2p5d
from text2ct.evaluation.slice_network import SliceNetwork, SliceNetworkConfig, train_slice_network
from text2ct.files import sha256_file
from text2ct.findings import FINDINGS

from .volumes import stand_in, stand_ins

STEPS = 60


def labelled(index: int) -> tuple[np.ndarray, CaseText]:
    labels = np.full(len(FINDINGS), index % 2, dtype=np.float32)
    labels[3] = np.nan
    hu = stand_in(index, 16)
    hu[:, :, 8:] = np.clip(hu[:, :, 8:].astype(int) + 300, -1000, 1000)  # so that position shows
    return hu, CaseText(str(index), "A report.", "", labels, np.full((len(FINDINGS), 3), np.nan, dtype=np.float32))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    folder = tmp_path_factory.mktemp("cases")
    return write_cases(folder, labelled, 6, size=(16, 16, 16), spacing_mm=(20.0, 20.0, 20.0), source="stand-in")


@pytest.fixture(scope="module")
def network(cases: Cases) -> SliceNetwork:
    return train_slice_network(cases, steps=STEPS, batch_size=16)


def test_size_and_shapes(network: SliceNetwork) -> None:
    assert sum(p.numel() for p in network.parameters()) < 1e5, "it is bundled beside a pack"
    features = network(torch.rand(5, 3, 40, 24))
    assert features.shape == (5, 48)
    findings, plane, position = network.predict(features)
    assert (findings.shape, plane.shape, position.shape) == ((5, 18), (5, 3), (5,))


def test_it_learns(cases: Cases, network: SliceNetwork) -> None:
    from text2ct.evaluation.slice_network import _batch, _loss

    parts = [torch.from_numpy(part) for part in _batch(cases, 64, np.random.default_rng(123))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = SliceNetwork().eval().requires_grad_(False)
    losses = [float(_loss(net, net(parts[0]), *parts[1:])) for net in (fresh, network)]
    assert losses[1] < 0.8 * losses[0]


def test_the_seed_decides_and_nothing_else_is_drawn(cases: Cases, network: SliceNetwork) -> None:
    state = torch.random.get_rng_state()
    again = train_slice_network(cases, steps=STEPS, batch_size=16)
    assert again.name == network.name
    assert torch.equal(torch.random.get_rng_state(), state)
    assert train_slice_network(cases, steps=2, batch_size=16, seed=1).name != network.name


def test_save_and_load(network: SliceNetwork, tmp_path: Path) -> None:
    network.save(tmp_path / "net")
    read = SliceNetwork.load(tmp_path / "net")
    assert read.config == network.config
    assert read.name == network.name == f"slice-network:{sha256_file(tmp_path / 'net/model.safetensors')[:8]}"
    slices = torch.rand(3, 3, 16, 16)
    assert torch.equal(read(slices), network(slices))


def test_it_is_a_backbone(network: SliceNetwork) -> None:
    volumes = stand_ins(0, 3, 16)
    brighter = [np.clip(volume + 200, -1000, 1000) for volume in volumes]
    fid = fid_2p5d(volumes, brighter, network, n_bootstrap=5)
    assert fid.mean > fid_2p5d(volumes, volumes, network, n_bootstrap=0).mean
    assert (fid.backbone, fid.dimension, fid.view) == (network.name, 48, "colour")
    assert fid.rank_deficient == ("axial", "coronal", "sagittal")


def test_a_grid_that_is_no_cube(tmp_path: Path) -> None:
    def read(index: int) -> tuple[np.ndarray, CaseText]:
        return stand_in(index, 20)[:, :18, :16], labelled(index)[1]

    cases = write_cases(tmp_path, read, 2, size=(20, 18, 16), spacing_mm=(1.0, 1.0, 1.0), source="stand-in")
    assert train_slice_network(cases, steps=3, batch_size=4).config.grid == (20, 18, 16)


def test_refusals(cases: Cases, network: SliceNetwork, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch size 6"):
        train_slice_network(cases, batch_size=6)
    with pytest.raises(UserError, match="too small"):
        network(torch.rand(1, 3, 8, 32))
    with pytest.raises(UserError, match="does not exist"):
        SliceNetwork.load(tmp_path)
    SliceNetwork(SliceNetworkConfig(features=32)).save(tmp_path)
    network.save(tmp_path / "other")
    (tmp_path / "config.json").write_bytes((tmp_path / "other/config.json").read_bytes())
    with pytest.raises(UserError, match=r"findings.weight: shape \(18, 32\), expected \(18, 48\)"):
        SliceNetwork.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        SliceNetwork.load(tmp_path)
    (tmp_path / "config.json").write_text('{"width": 3}')
    with pytest.raises(UserError, match="is not a slice network's"):
        SliceNetwork.load(tmp_path)
