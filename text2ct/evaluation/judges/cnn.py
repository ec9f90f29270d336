"""A judge that is a network: a small 3D CNN on HU windows.

The registered classifier ``cnn3d`` halves the grid twice before it learns anything, at which a nodule or a
coronary plaque of 2 to 4 voxels is one cell. This one has a convolution at half the grid first, reductions by
maximum and average side by side, coordinates, since where something lies names many findings, and hands every
level's own maxima and means to the last layer, so that a small thing need not survive all levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from text2ct.compute import pick_device
from text2ct.diffusion.training.cases import Cases
from text2ct.diffusion.training.config import TrainingConfig, parse_config
from text2ct.diffusion.training.draws import epoch_indices, step_generator
from text2ct.diffusion.training.loop import MakeBatch, fit, load_result
from text2ct.diffusion.training.processes import Share
from text2ct.diffusion.training.step import Batch, StepModule
from text2ct.errors import UserError
from text2ct.evaluation.judges.judge import JUDGE_FILE, VolumesHu, check_cases, check_volumes, origin, read_judge_file
from text2ct.files import atomic_path, write_json
from text2ct.findings import FINDINGS

# Low and high HU of each input channel: the range, lung, soft tissue, calcium and metal.
WINDOWS_HU = ((-1000.0, 1000.0), (-1000.0, -300.0), (-160.0, 240.0), (100.0, 1000.0))
SMALLEST = 16  # voxels an axis: the stem and three reductions halve it four times
BATCH = 8  # volumes scored at once; the last batch is padded, since arithmetic depends on a batch's shape


class CnnConfig(BaseModel):
    """The network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int, int] = (64, 64, 64)
    stem: int = Field(default=16, ge=1, description="channels at half the grid")
    widths: tuple[int, int, int] = Field(default=(40, 80, 128), description="channels at 1/4, 1/8 and 1/16")
    dropout: float = Field(default=0.2, ge=0, lt=1)


class CnnJudgeTraining(TrainingConfig):
    """Training of the network: AdamW, warm-up and linear decay, averaged weights, small shifts and HU changes."""

    steps: int = Field(default=5000, ge=1)
    minutes: float | None = Field(default=25, gt=0)
    batch_size: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=150, ge=0)
    poly_power: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=0.03, ge=0)
    gradient_clip: float | None = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=0.997, gt=0, lt=1)
    shift: int = Field(default=2, ge=0, description="largest shift along each axis, voxels")
    noise_hu: float = Field(default=15.0, ge=0, description="largest deviation of added noise")
    scale: float = Field(default=0.02, ge=0, description="largest relative change of HU above air")


class Pooling(nn.Module):
    """Maximum and average pooling by 2, concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, 2 C, X/2, Y/2, Z/2)."""
        return torch.cat([functional.max_pool3d(x, 2), functional.avg_pool3d(x, 2)], dim=1)


class Residual(nn.Module):
    """Two convolutions, the second of which adds to the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm3d(outputs)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, outputs, X, Y, Z)."""
        x = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(x)))


class JudgeCnn(nn.Module):
    """HU volumes to logits of the 18 findings.

    Args:
        config: Grid and widths.
    """

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        if any(n % SMALLEST for n in config.size):
            raise UserError(f"the grid {config.size} must be a multiple of {SMALLEST} along each axis")
        self.config = config
        windows = len(WINDOWS_HU)
        self.stem = nn.Conv3d(windows, config.stem, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm3d(config.stem)
        self.fine = nn.Conv3d(config.stem, config.stem, 3, padding=1, bias=False)
        self.fine_norm = nn.BatchNorm3d(config.stem)
        # The extremes and means of the windows themselves, by blocks of four voxels, and three coordinates.
        self.window_norm = nn.BatchNorm3d(3 * windows)
        inputs = 2 * config.stem + 3 * windows + 3
        levels = []
        for width in config.widths:
            levels.append(Residual(inputs, width))
            inputs = 2 * width
        self.levels = nn.ModuleList(levels)
        self.pooling = Pooling()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * (config.stem + sum(config.widths)), len(FINDINGS))
        low, high = torch.tensor(WINDOWS_HU).T
        self.register_buffer("low", low.reshape(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("high", high.reshape(1, -1, 1, 1, 1), persistent=False)
        axes = [torch.linspace(-1, 1, n // 4) for n in config.size]
        self.register_buffer("place", torch.stack(torch.meshgrid(*axes, indexing="ij"))[None], persistent=False)
        self.low: Tensor
        self.high: Tensor
        self.place: Tensor

    def forward(self, volume_hu: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) float32 HU -> (B, 18) logits."""
        x = ((volume_hu - self.low) / (self.high - self.low)).clamp(0, 1)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        half = functional.avg_pool3d(x, 2)
        windows = torch.cat(
            [functional.max_pool3d(x, 4), -functional.max_pool3d(-half, 2), functional.avg_pool3d(half, 2)], dim=1
        )
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = functional.relu(x + self.fine_norm(self.fine(x)))
        seen = [x.amax(dim=(2, 3, 4)), x.mean(dim=(2, 3, 4))]
        place = self.place.expand(len(x), -1, -1, -1, -1)
        x = torch.cat([self.pooling(x), self.window_norm(windows), place], dim=1)
        for number, level in enumerate(self.levels):
            x = level(self.pooling(x) if number else x)
            seen += [x.amax(dim=(2, 3, 4)), x.mean(dim=(2, 3, 4))]
        logits: Tensor = self.head(self.dropout(torch.cat(seen, dim=1)))
        return logits


class CnnJudgeModule(StepModule):
    """The network in training: binary cross-entropy of the labels."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of ``hu``, (B, 1, X, Y, Z) float32, and ``labels``, (B, 18) float32."""
        loss = functional.binary_cross_entropy_with_logits(self.network(batch["hu"]).float(), batch["labels"])
        return {"loss": loss}


def cnn_batches(cases: Cases, config: CnnJudgeTraining) -> MakeBatch:
    """Volumes by step, each shifted by whole voxels, scaled about air, and with noise of its own level.

    Sides are never mirrored: many findings have one.
    """

    def make(step: int, share: Share) -> Batch:
        draw = step_generator(config.seed, step)
        indices = epoch_indices(len(cases), config.batch_size, config.seed, step)
        shifts = draw.integers(-config.shift, config.shift + 1, size=(len(indices), 3))
        scales = 1 + config.scale * draw.uniform(-1, 1, size=len(indices)).astype(np.float32)
        deviations = config.noise_hu * draw.uniform(0, 1, size=len(indices)).astype(np.float32)
        streams = draw.spawn(len(indices))
        mine = share.of(len(indices))
        volumes = []
        for number in range(len(indices))[mine]:
            hu = _shifted(cases.volume_hu(int(indices[number])), shifts[number], config.shift).astype(np.float32)
            hu = (hu + 1000) * scales[number] - 1000
            hu += deviations[number] * streams[number].standard_normal(hu.shape, dtype=np.float32)
            volumes.append(np.clip(hu, -1000, 1000))
        labels = torch.from_numpy(cases.labels[indices[mine]])
        return {"hu": torch.from_numpy(np.stack(volumes))[:, None], "labels": labels}

    return make


def _shifted(volume: NDArray[np.generic], shift: NDArray[np.integer], most: int) -> NDArray[np.generic]:
    if not most:
        return volume
    x, y, z = shift + most
    padded = np.pad(volume, most, mode="edge")
    return padded[x : x + volume.shape[0], y : y + volume.shape[1], z : z + volume.shape[2]]


class CnnJudge:
    """A trained network.

    Args:
        network: In evaluation mode.
        trained_on: What it was trained on, for the record.
        device: As for :func:`text2ct.compute.pick_device`.
    """

    name = "CNN on HU windows"
    kind = "cnn"

    def __init__(self, network: JudgeCnn, trained_on: dict[str, Any], *, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.network = network.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last_3d)
        self.trained_on = trained_on
        self.size = network.config.size

    @torch.inference_mode()
    def scores(self, volumes_hu: VolumesHu) -> NDArray[np.float32]:
        """Probability of each finding, (n, 18) float32; see :class:`Judge`."""
        check_volumes(volumes_hu, self.size)
        found = np.zeros((len(volumes_hu), len(FINDINGS)), dtype=np.float32)
        for start in range(0, len(volumes_hu), BATCH):
            part = volumes_hu[start : start + BATCH]
            hu = np.full((BATCH, 1, *self.size), -1000, dtype=np.float32)
            for number, volume in enumerate(part):
                hu[number, 0] = volume
            logits = self.network(torch.from_numpy(hu).to(self.device)).float().cpu()
            found[start : start + len(part)] = torch.sigmoid(logits).numpy()[: len(part)]
        return found

    def save(self, folder: Path) -> None:
        """Write ``judge.json`` and ``model.safetensors``."""
        weights = {name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(weights, temporary)
        record = {"network": self.network.config.model_dump(mode="json"), "trained_on": self.trained_on}
        write_json(folder / JUDGE_FILE, {"kind": self.kind, **record})

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> CnnJudge:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: The folder holds no such judge.
        """
        record = read_judge_file(folder, cls.kind)
        network = JudgeCnn(parse_config(CnnConfig, record["network"], folder / JUDGE_FILE))
        network.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(network, record["trained_on"], device=device)


def train_cnn_judge(
    cases: Cases,
    config: CnnJudgeTraining,
    out: Path,
    *,
    network: CnnConfig | None = None,
    device: str = "auto",
    stop_at: int | None = None,
) -> CnnJudge:
    """Train on ``cases`` in the folder ``out``, and save the judge there; the same call resumes.

    Args:
        cases: Volumes with known labels.
        config: Settings of the run.
        out: Folder of the run and of the judge.
        network: Widths; the grid is that of the cases. The default's if None.
        device: As for :func:`text2ct.compute.pick_device`.
        stop_at: Stop early at this step, as an interruption would.

    Raises:
        UserError: Unknown labels, a grid that cannot be halved four times, or ``out`` holds another run.
    """
    check_cases(cases, SMALLEST)
    torch.manual_seed(config.seed)
    settings = (network or CnnConfig()).model_copy(update={"size": cases.size})
    module = CnnJudgeModule(JudgeCnn(settings).to(memory_format=torch.channels_last_3d), config)
    identity = {"cases": cases.digest}
    finished = fit(module, cnn_batches(cases, config), out, device=device, stop_at=stop_at, identity=identity)
    judge = CnnJudge(load_result(module, out), origin(cases), device=device)  # type: ignore[arg-type]
    if finished:
        judge.save(out)
    return judge
