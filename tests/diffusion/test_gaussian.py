"""The Gaussian's velocity is the expected one, and its fit finds the Gaussian that made the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from text2ct.diffusion.flow import TIMESTEPS, FlowConfig, RectifiedFlow
from text2ct.diffusion.gaussian import GaussianUnet, GaussianUnetConfig
from text2ct.diffusion.training import Encoded
from text2ct.diffusion.training.gaussian import _leading, _mean_squares, fit_gaussian
from text2ct.diffusion.unet import UnetConfig
from text2ct.errors import UserError

SHAPE = (4, 2, 2, 2)
SIZE = 32
RANK = 3
CONFIG = GaussianUnetConfig(
    unet=UnetConfig(
        in_channels=8, out_channels=4, num_channels=(4,), attention_levels=(True,), num_head_channels=(4,),
        num_res_blocks=1, cross_attention_dim=5, norm_num_groups=4,
    ),
    latent_shape=SHAPE,
    components=RANK,
    context_shape=(2, 5),
)  # fmt: skip


@pytest.fixture
def network() -> GaussianUnet:
    """A Gaussian with three strong directions, whose first follows the text's first feature."""
    generator = torch.Generator().manual_seed(0)
    made = GaussianUnet(CONFIG).eval()
    basis = torch.linalg.qr(torch.randn(SIZE, RANK, generator=generator))[0]
    made.basis.copy_(basis)
    made.mean.copy_(torch.randn(SIZE, generator=generator))
    made.deviation.copy_(torch.tensor([3.0, 2.0, 1.5]))
    made.deviation_given_text.copy_(torch.tensor([1.0, 2.0, 1.5]))
    made.rest_deviation.fill_(0.4)
    made.text_weight[0, 0] = 2.0
    return made


def draw(network: GaussianUnet, count: int, generator: torch.Generator) -> Tensor:
    """Data from the Gaussian without text: components inside the basis, small noise outside it."""
    inside = torch.randn(count, RANK, generator=generator) * network.deviation
    rest = torch.randn(count, SIZE, generator=generator) * network.rest_deviation
    rest = rest - rest @ network.basis @ network.basis.T
    return network.mean + inside @ network.basis.T + rest


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_both_expectations_make_up_the_point(network: GaussianUnet, t: float) -> None:
    """x_t = (1 - t)·z + t·noise holds in expectation too."""
    x_t = torch.randn(6, *SHAPE) * 2
    context = torch.randn(6, 2, 5)
    data, noise = network.gaussian(x_t, torch.full((6,), t * TIMESTEPS), context)
    torch.testing.assert_close((1 - t) * data + t * noise, x_t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0.2, 0.8])
def test_the_error_is_uncorrelated_with_what_is_seen(network: GaussianUnet, t: float) -> None:
    """The orthogonality that makes an estimate the conditional expectation."""
    generator = torch.Generator().manual_seed(1)
    z = draw(network, 20_000, generator)
    noise = torch.randn(z.shape, generator=generator)
    x_t = (1 - t) * z + t * noise
    data, _ = network.gaussian(x_t.view(-1, *SHAPE), torch.full((len(z),), t * TIMESTEPS), torch.zeros(len(z), 2, 5))
    error = z - data.flatten(1)
    seen = x_t - x_t.mean(dim=0)
    covariance = error.T @ seen / len(z)
    assert covariance.abs().max() < 0.06
    assert error.mean(dim=0).abs().max() < 0.05
    assert error.square().mean() < (z - z.mean(dim=0)).square().mean()


def test_its_flow_ends_in_the_gaussian(network: GaussianUnet) -> None:
    """The network starts as the Gaussian alone (MAISI's last layer is zero), so sampling draws from it."""
    flow = RectifiedFlow(FlowConfig(timestep_transform=False))
    noise = torch.randn(3000, *SHAPE, generator=torch.Generator().manual_seed(2))
    context = torch.zeros(len(noise), 2, 5)
    extra = {"class_labels": torch.ones(len(noise), dtype=torch.long), "spacing_tensor": torch.ones(len(noise), 3)}

    def velocity(x_t: Tensor, timestep: float) -> Tensor:
        return network(x=x_t, timesteps=torch.full((len(x_t),), timestep), context=context, **extra)

    with torch.inference_mode():
        z = flow.sample(velocity, noise, steps=60).flatten(1)
    torch.testing.assert_close(z.mean(dim=0), network.mean, rtol=0, atol=0.25)
    inside = (z - network.mean) @ network.basis
    torch.testing.assert_close(inside.std(dim=0), network.deviation, rtol=0.1, atol=0)


def test_text_moves_the_mean_and_zeros_are_no_text(network: GaussianUnet) -> None:
    x_t = torch.zeros(2, *SHAPE)
    late = torch.full((2,), 0.99 * TIMESTEPS)
    context = torch.zeros(2, 2, 5)
    context[1, 0, 0] = 3.0
    data, _ = network.gaussian(x_t, late, context)
    moved = (data[1] - data[0]).flatten() @ network.basis
    torch.testing.assert_close(moved, torch.tensor([6.0, 0.0, 0.0]), rtol=0.1, atol=0.1)


def test_the_fit_finds_the_gaussian(network: GaussianUnet) -> None:
    generator = torch.Generator().manual_seed(3)
    count, scale = 4000, 0.5
    context = torch.randn(count, 1, 2, 5, generator=generator)
    inside = torch.randn(count, RANK, generator=generator) * network.deviation_given_text
    inside[:, 0] += 2.0 * context[:, 0, 0, 0]
    z = network.mean + inside @ network.basis.T + 0.1 * torch.randn(count, SIZE, generator=generator)
    encoded = Encoded(
        (z / scale).view(-1, *SHAPE).numpy().astype(np.float16), context.numpy().astype(np.float16), {"std": 1.0}
    )
    fitted = GaussianUnet(CONFIG)
    shares = fit_gaussian(fitted, encoded, scale)
    torch.testing.assert_close(fitted.mean, network.mean, rtol=0, atol=0.15)
    torch.testing.assert_close(
        torch.linalg.svdvals(fitted.basis.T @ network.basis), torch.ones(RANK), rtol=0, atol=1e-2
    )
    assert shares["explained"] > 0.9
    assert shares["told"] == pytest.approx(4 / (5 + 4 + 2.25), abs=0.05)
    first = fitted.basis.T @ network.basis[:, 0]
    assert abs(float(fitted.text_weight[0] @ first)) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("columns", [1, 7, 32, 100])
def test_squares_are_the_same_in_blocks_of_columns(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text2ct.diffusion.training.gaussian.COLUMNS", columns)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, SIZE, generator=generator)
    basis = torch.linalg.qr(torch.randn(SIZE, RANK, generator=generator))[0]
    total, rest = _mean_squares(rows, rows @ basis, basis)
    torch.testing.assert_close(total, rows.square().mean(dim=0))
    torch.testing.assert_close(rest, (rows - rows @ basis @ basis.T).square().mean(dim=0))


@pytest.mark.parametrize("shape", [(200, 400), (400, 200), (60, 20)])
def test_the_leading_directions_are_those_of_the_whole_decomposition(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    singular = 1.0 / torch.arange(1, len(right) + 1) ** 0.5  # slowly falling
    rank = 16
    before = torch.get_rng_state()
    basis, squares = _leading((left * singular) @ right, rank)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(squares, singular[:rank] ** 2, rtol=2e-2, atol=0)
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank), rtol=0, atol=1e-4)
    held = ((left * singular) @ right @ basis).square().sum()
    torch.testing.assert_close(held, (singular[:rank] ** 2).sum(), rtol=1e-2, atol=0)


def test_few_cases_leave_components_unused() -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((3, *SHAPE)).astype(np.float16)
    few = Encoded(latents, rng.standard_normal((3, 1, 2, 5)).astype(np.float16), {"std": 1.0})
    fitted = GaussianUnet(CONFIG)
    fit_gaussian(fitted, few, 1.0)
    assert fitted.deviation[:2].min() > 0
    assert not fitted.basis[:, 2].any()
    data, noise = fitted.gaussian(torch.randn(2, *SHAPE), torch.tensor([1.0, 900.0]), torch.zeros(2, 2, 5))
    assert data.isfinite().all()
    assert noise.isfinite().all()
    with pytest.raises(UserError, match="2 cases cannot fit a Gaussian"):
        fit_gaussian(GaussianUnet(CONFIG), Encoded(latents[:2], few.contexts[:2], few.info), 1.0)


def test_text_beside_the_time_begins_at_nothing_and_belongs_to_its_own_latent() -> None:
    """Two contexts of one latent in one call are what two calls find."""
    # Groups of one channel would take away again what is added to it.
    config = CONFIG.model_copy(update={"unet": CONFIG.unet.model_copy(update={"norm_num_groups": 2})})
    plain = GaussianUnet(config).eval()
    told = GaussianUnet(config.model_copy(update={"text_embedding": 6})).eval()
    for parameter in plain.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # residual branches and the output begin at zero
    told.load_state_dict(plain.state_dict(), strict=False)
    inputs = {
        "x": torch.randn(2, *SHAPE),
        "timesteps": torch.tensor([300.0, 800.0]),
        "class_labels": torch.ones(2, dtype=torch.long),
        "spacing_tensor": torch.full((2, 3), 500.0),
    }
    first, second = torch.randn(2, 2, 2, 5)
    assert torch.equal(told(context=first, **inputs), plain(context=first, **inputs))
    torch.nn.init.normal_(told.text_embedding[-1].weight, std=10.0)
    assert not torch.equal(told(context=first, **inputs), plain(context=first, **inputs))
    both = told(context=torch.cat([first, second]), **inputs)
    torch.testing.assert_close(both, torch.cat([told(context=first, **inputs), told(context=second, **inputs)]))
