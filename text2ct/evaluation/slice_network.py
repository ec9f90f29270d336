"""A small 2D network that describes CT slices: the backbone of Fréchet distances where nothing can be downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from text2ct import console
from text2ct.compute import pick_device
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.weights import fit_problems, not_finite, shapes
from text2ct.errors import UserError
from text2ct.evaluation.slices import COLOUR, PLANES, VIEWS, grey_channels, slices_of
from text2ct.files import atomic_path, read_json, write_json
from text2ct.findings import FINDINGS

CONFIG, MODEL = "config.json", "model.safetensors"
# Slices of one volume in a batch: reading a volume costs more than cutting one more slice from it.
SLICES_A_VOLUME = 4
# A mean over all positions, so other grids work, but four halvings must leave something.
SMALLEST_SLICE = 16


class SliceNetworkConfig(BaseModel):
    """Sizes of the network, and what it was trained on.

    Attributes:
        widths: Channels after each convolution of stride 2.
        features: Number of features.
        trained_on: Digest of the cases; empty for random weights.
        grid: (X, Y, Z) of the cases.
        steps: Training steps.
        batch_size: Slices a step.
        learning_rate: The greatest.
        seed: Of weights and slices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[int, ...] = (24, 40, 56, 64)
    features: int = Field(default=48, ge=1)
    trained_on: str = ""
    grid: tuple[int, ...] = ()
    steps: int = Field(default=0, ge=0)
    batch_size: int = 0
    learning_rate: float = 0.0
    seed: int = 0


class SliceNetwork(nn.Module):
    """Convolutions of stride 2, a mean over positions, 48 features, and heads for what a slice tells.

    The features are a :class:`text2ct.evaluation.slices.SliceEncoder`. Distances made with them are comparable
    only between sets measured with the same backbone, that is the same ``name``: **not with published FIDs**, which
    use Inception or RadImageNet features, nor with those of another training of this network.

    Args:
        config: Sizes; :class:`SliceNetworkConfig`. Weights are random until trained or loaded.
    """

    channels = len(COLOUR)

    def __init__(self, config: SliceNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or SliceNetworkConfig()
        layers: list[nn.Module] = []
        before = self.channels
        for width in self.config.widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        last = nn.Conv2d(before, self.config.features, 3, padding=1, bias=False)
        self.body = nn.Sequential(*layers, last, nn.BatchNorm2d(self.config.features), nn.ReLU())
        self.findings = nn.Linear(self.config.features, len(FINDINGS))
        self.plane = nn.Linear(self.config.features, len(PLANES))
        self.position = nn.Linear(self.config.features, 1)

    @property
    def name(self) -> str:
        """``slice-network:`` and the first 8 digits of the SHA-256 of ``model.safetensors`` as saved."""
        return f"slice-network:{hashlib.sha256(self._bytes()).hexdigest()[:8]}"

    def forward(self, slices: Tensor) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1], H and W of 16 or more, to (n, features) float32."""
        if min(slices.shape[-2:]) < SMALLEST_SLICE:
            raise UserError(
                f"slices of {tuple(slices.shape[-2:])} pixels are too small; "
                f"the slice network reads {SMALLEST_SLICE} along each axis or more"
            )
        pooled: Tensor = self.body(slices).mean(dim=(-2, -1))
        return pooled

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the heads say of (n, features).

        Returns:
            Logits of the volume's findings (n, 18), logits of the plane (n, 3), position of the slice along its
            axis (n,), 0 at the first and 1 at the last.
        """
        return self.findings(features), self.plane(features), self.position(features).squeeze(-1)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (half precision), each whole or not at all."""
        with atomic_path(Path(folder) / MODEL) as temporary:
            temporary.write_bytes(self._bytes())
        write_json(Path(folder) / CONFIG, self.config.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> SliceNetwork:
        """Read a network as written by :meth:`save`, on the CPU and in evaluation mode.

        Raises:
            UserError: A file is missing or damaged, or the two do not fit. Random weights never stand in.
        """
        folder = Path(folder)
        try:
            network = cls(SliceNetworkConfig.model_validate(read_json(folder / CONFIG)))
            state = load((folder / MODEL).read_bytes())
        except FileNotFoundError as error:
            raise UserError(f"{folder / MODEL} does not exist; train the slice network again") from error
        except ValidationError as error:
            raise UserError(f"{folder / CONFIG} is not a slice network's: {error.errors()[0]['msg']}") from error
        except SafetensorError as error:
            raise UserError(f"{folder / MODEL} is not a whole safetensors file: {error}") from error
        problems = fit_problems(shapes(state), shapes(network.state_dict()), cls.__name__)
        problems += [f"{name}: not finite" for name in not_finite(state)]
        if problems:
            raise UserError(f"{folder / MODEL} does not fit its {CONFIG}", problems)
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def _bytes(self) -> bytes:
        """Weights as saved, in half precision."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return save({name: value.half() if value.is_floating_point() else value for name, value in state.items()})


def train_slice_network(
    cases: Cases,
    *,
    steps: int = 1500,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
    device: str = "cpu",
) -> SliceNetwork:
    """Train a :class:`SliceNetwork` to tell from one slice the volume's findings, the plane and the position.

    Half of the slices of a batch show three windows as three channels, half one grey scale thrice, so every view
    of :mod:`text2ct.evaluation.fidelity` is familiar. Many slices do not show the finding that their volume has;
    the network need not read well, its features need to see what differs between slices. The same cases, settings
    and seed give the same weights on the same machine and thread count. 1,500 steps at
    64x64x64 take some 4 minutes of one core.

    Args:
        cases: Labelled volumes, of patients that nothing measured later comes from; unknown labels teach nothing.
        steps: Training steps; all are taken.
        batch_size: Slices a step; a multiple of 4.
        learning_rate: The greatest, of AdamW on a one-cycle schedule.
        seed: Of the weights and of the slices; any number of 0 or more.
        device: As for :func:`text2ct.compute.pick_device`.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: Settings are below what is possible, or the grid is too small.
    """
    if steps < 1 or batch_size < SLICES_A_VOLUME or batch_size % SLICES_A_VOLUME or seed < 0:
        raise UserError(
            f"steps {steps}, batch size {batch_size}, seed {seed}: "
            f"expected 1 or more, a multiple of {SLICES_A_VOLUME}, and 0 or more"
        )
    if min(cases.size) < SMALLEST_SLICE:
        raise UserError(f"the cases' grid {cases.size} is too small; the slice network reads {SMALLEST_SLICE} or more")
    where = pick_device(device)
    config = SliceNetworkConfig(
        trained_on=cases.digest,
        grid=cases.size,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SliceNetwork(config).to(where).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step, steps))
    with console.progress("training the slice network", steps) as advance:
        for step in range(steps):
            # One generator a step, so that a step's slices do not depend on how earlier ones were drawn.
            rng = np.random.default_rng([seed, step])
            slices, labels, planes, positions = _batch(cases, batch_size, rng)
            features = network(torch.from_numpy(slices).to(where))
            loss = _loss(network, features, *(torch.from_numpy(part).to(where) for part in (labels, planes, positions)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1)
    # Rounded as it is saved, so that it measures the same before and after.
    return network.cpu().half().float().eval().requires_grad_(False)


def _one_cycle(step: int, steps: int) -> float:
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))


def _loss(network: SliceNetwork, features: Tensor, labels: Tensor, planes: Tensor, positions: Tensor) -> Tensor:
    said, plane, position = network.predict(features)
    known = ~labels.isnan()
    findings = F.binary_cross_entropy_with_logits(said, labels.nan_to_num(), weight=known.float(), reduction="sum")
    findings = findings / known.sum().clamp(min=1)
    # A tenth of the axis wrong costs as much as a plane taken for another with 60% confidence.
    return findings + F.cross_entropy(plane, planes) + 10 * F.smooth_l1_loss(position, positions, beta=0.1)


def _batch(
    cases: Cases, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Slices (n, 3, H, W), labels (n, 18), planes (n,), positions (n,); of one plane, so that they have one size.

    A batch has slices of all planes where the grid is a cube, of one otherwise.
    """
    is_cube = len(set(cases.size)) == 1
    one = int(rng.integers(len(PLANES)))
    slices, labels, planes, positions = [], [], [], []
    for number in rng.integers(0, len(cases), size // SLICES_A_VOLUME):
        volume_hu = cases.volume_hu(int(number))
        for turn in range(SLICES_A_VOLUME):
            plane = int(rng.integers(len(PLANES))) if is_cube else one
            axis = (2, 1, 0)[plane]
            index = int(rng.integers(cases.size[axis]))
            view = "colour" if turn % 2 else str(rng.choice([name for name in VIEWS if name != "colour"]))
            cut = np.take(volume_hu, [index], axis=axis)
            slices.append(slices_of(grey_channels(cut, view, SliceNetwork.channels), PLANES[plane])[0])
            labels.append(cases.labels[number])
            planes.append(plane)
            positions.append(index / (cases.size[axis] - 1))
    return (
        np.stack(slices),
        np.stack(labels).astype(np.float32),
        np.array(planes, dtype=np.int64),
        np.array(positions, dtype=np.float32),
    )
