"""Noise prediction: the path's ends, DDIM's known answers, packs that state their objective, and learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from text2ct.diffusion import Pack, load_pack, save_pack
from text2ct.diffusion.ddpm import Ddpm, DdpmConfig
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.init import PRESETS
from text2ct.diffusion.pack import Part
from text2ct.diffusion.training import DiffusionTraining, Encoded, train_diffusion
from text2ct.errors import UserError
from text2ct.files import read_json, write_json

TINY = PRESETS["tiny"]


def test_the_path_ends_at_data_and_nearly_at_noise() -> None:
    x_0, noise = torch.randn(2, 2, 1, 3, 3, 3, dtype=torch.float64).unbind()
    ends = Ddpm(DdpmConfig()).path(x_0, noise, torch.tensor([0.0, 999.0]))
    torch.testing.assert_close(ends.x_t[0], x_0[0], atol=0.2, rtol=0)
    torch.testing.assert_close(ends.x_t[1], noise[1], atol=0.1, rtol=0)
    assert torch.equal(ends.target, noise)


def test_the_path_keeps_variance_one() -> None:
    x_0, noise = torch.randn(2, 1, 1, 40, 40, 40).unbind()
    for t in (0.0, 300.0, 999.0):
        assert float(Ddpm(DdpmConfig()).path(x_0, noise, torch.tensor([t])).x_t.var()) == pytest.approx(1, abs=0.03)


def test_training_times_are_whole_and_cover_the_schedule() -> None:
    scheduler = Ddpm(DdpmConfig(num_train_timesteps=10))
    times = scheduler.training_timesteps(scheduler.draw(1000, torch.Generator().manual_seed(0)), (4, 4, 4))
    assert set(times.tolist()) == set(range(10))


@pytest.mark.parametrize("schedule", ["linear_beta", "scaled_linear_beta"])
def test_exact_noise_of_a_gaussian_gives_back_its_mean_and_deviation(schedule: str) -> None:
    """The expected noise of N(m, s²) at x_t is linear in x_t; DDIM with all steps ends at N(m, s²)."""
    config = DdpmConfig(schedule=schedule)  # type: ignore[arg-type]
    mean, deviation = 2.0, 0.5
    kept = torch.linspace(config.beta_start, config.beta_end, 1000)
    if schedule == "scaled_linear_beta":
        kept = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000) ** 2
    kept = torch.cumprod(1 - kept, 0)

    def noise_in(x: torch.Tensor, t: float) -> torch.Tensor:
        a = kept[int(t)]
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * deviation**2 + 1 - a)

    noise = torch.randn(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    z = Ddpm(config).sample(noise_in, noise, 1000)
    assert float(z.mean()) == pytest.approx(mean, abs=0.03)
    assert float(z.std()) == pytest.approx(deviation, abs=0.02)
    with pytest.raises(UserError, match="has 1000 times"):
        Ddpm(config).sample(noise_in, noise, 1001)
    with pytest.raises(UserError, match="uneven"):
        Ddpm(config).sample(noise_in, noise, 10, location=2.0)


def test_a_pack_states_the_objective_of_its_scheduler(tiny_pack: Pack, tmp_path: Path) -> None:
    parts = {"scheduler": Part(DdpmConfig())}
    with pytest.raises(UserError, match="states the objective 'velocity', but its scheduler 'ddpm' is for 'epsilon'"):
        save_pack(tmp_path / "no", tiny_pack.info, parts)
    info = tiny_pack.info.model_copy(update={"objective": "epsilon"})
    assert save_pack(tmp_path / "yes", info, parts).scheduler.config == DdpmConfig()
    unet = GaussianUnetConfig(unet=TINY.unet.model_copy(update={"in_channels": 8}), latent_shape=(4, 4, 4, 4))
    with pytest.raises(UserError, match="its unet 'gaussian_unet' is for 'velocity'"):
        save_pack(tmp_path / "no", info, {"unet": Part(unet, GaussianUnet(unet).state_dict())})
    stated = read_json(tmp_path / "yes" / "pack.json")
    write_json(tmp_path / "yes" / "pack.json", stated | {"objective": "velocity"})
    with pytest.raises(UserError, match="states the objective 'velocity'"):
        load_pack(tmp_path / "yes")


class LineOfTime(nn.Module):
    """A UNet's stand-in that can say a Gaussian's noise: ``a(t)·x + b(t)``, a and b learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.config = DdpmConfig()
        self.coefficients = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, timesteps: Tensor, **others: Tensor) -> Tensor:
        powers = torch.arange(8)
        a, b = self.coefficients((timesteps[:, None] / 1000) ** powers).T
        return a.view(-1, 1, 1, 1, 1) * x + b.view(-1, 1, 1, 1, 1)


def test_noise_prediction_learns_a_distribution(tmp_path: Path) -> None:
    """Latents of N(1, 0.3²): samples of the trained network have their mean and deviation, untrained ones do not."""
    latents = np.random.default_rng(0).normal(1.0, 0.3, (32, 4, 4, 4, 4)).astype(np.float16)
    encoded = Encoded(latents, np.zeros((32, 1, 1, 4), np.float16), {"spacing_mm": (20.0, 20.0, 20.0), "std": 0.3})
    torch.manual_seed(0)
    network, scheduler = LineOfTime(), Ddpm(DdpmConfig())
    noise = torch.randn(4, 4, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def sample() -> Tensor:
        return scheduler.sample(lambda x, t: network(x, torch.full((4,), t)), noise, 100)

    before = sample()
    config = DiffusionTraining(
        steps=400, batch_size=16, learning_rate=2e-2, poly_power=1, loss="l2", precision="float32", ema_decay=0.9
    )
    network = train_diffusion(encoded, network, scheduler, config, tmp_path, scale_factor=1.0, device="cpu")  # type: ignore[arg-type, assignment]
    after = sample()
    assert float(after.mean()) == pytest.approx(1.0, abs=0.1)
    assert float(after.std()) == pytest.approx(0.3, abs=0.1)
    assert abs(float(before.mean()) - 1.0) > 1
    assert float(before.std()) > 1
