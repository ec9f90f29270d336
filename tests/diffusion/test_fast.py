"""What is computed faster or in less memory is what MAISI's networks compute."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from torch import Tensor, nn
from typer.testing import CliRunner

from text2ct.compute import free_memory
from text2ct.diffusion import Pack, generate, init_pack, slabs
from text2ct.diffusion.attention import attend
from text2ct.diffusion.decode import decode_windowed
from text2ct.diffusion.info import Sampling
from text2ct.diffusion.norms import GroupNorm
from text2ct.diffusion.unet import Unet, UnetConfig, upsampled_conv
from text2ct.diffusion.vae import MaisiConfig, MaisiVae
from text2ct.errors import UserError

UNET = UnetConfig(
    num_channels=(8, 16, 16),
    attention_levels=(False, True, True),
    num_head_channels=(0, 8, 8),
    num_res_blocks=1,
    cross_attention_dim=12,
    norm_num_groups=4,
)
VAE = MaisiConfig(num_channels=(8, 16, 16), num_res_blocks=(1, 2, 1), norm_num_groups=4)


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        centre = 1.0 if parameter.ndim == 1 else 0.0
        parameter.data = centre + torch.randn(parameter.shape, generator=generator) * 0.2
    return module.eval()


def close(ours: Tensor, theirs: Tensor, share: float = 1e-5) -> None:
    assert float((ours - theirs).abs().max()) < share * float(theirs.std())


@pytest.fixture(scope="module")
def unets() -> tuple[Unet, DiffusionModelUNetMaisi]:
    ours = randomise(Unet(UNET))
    theirs = DiffusionModelUNetMaisi(
        spatial_dims=3,
        with_conditioning=True,
        include_top_region_index_input=False,
        include_bottom_region_index_input=False,
        **UNET.model_dump(),
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def vae() -> MaisiVae:
    return randomise(MaisiVae(VAE))  # type: ignore[return-value]


def test_contexts_must_divide_among_latents(unets) -> None:
    with pytest.raises(ValueError, match="3 contexts cannot share 2 latents"):
        unets[0](
            torch.zeros(2, 4, 4, 4, 4), torch.ones(2), torch.zeros(3, 1, 12), torch.ones(2).long(), torch.ones(2, 3)
        )


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("grad", [False, True])
def test_contexts_that_share_their_latents_are_as_separate_calls(unets, tokens: int, batch: int, grad: bool) -> None:
    ours, theirs = unets
    x, context = torch.randn(batch, 4, 8, 12, 4), torch.randn(2 * batch, tokens, 12)
    times, classes = torch.linspace(100, 900, batch), torch.ones(batch, dtype=torch.long)
    spacing = torch.rand(batch, 3) * 100
    with torch.set_grad_enabled(grad):
        shared = ours(x, times, context, classes, spacing)
    with torch.no_grad():
        one, other = (theirs(x, times, part, classes, spacing_tensor=spacing) for part in context.chunk(2))
    close(shared.detach(), torch.cat([one, other]))


@torch.inference_mode()
def test_convolution_of_a_doubled_volume_without_doubling_it() -> None:
    x, weight, bias = torch.randn(2, 3, 4, 5, 2), torch.randn(6, 3, 3, 3, 3), torch.randn(6)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    close(upsampled_conv(x, weight, bias), F.conv3d(doubled, weight, bias, padding=1))


@torch.inference_mode()
@pytest.mark.parametrize("queries", [3, 700])
def test_attention_in_half_precision_is_near_attention(queries: int) -> None:
    q, k, v = torch.randn(2, 3, queries, 16), torch.randn(2, 3, 700, 16), torch.randn(2, 3, 700, 16)
    exact = torch.softmax(q @ k.transpose(-1, -2) * 0.25, dim=-1) @ v
    close(attend(q, k, v, 0.25), exact)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.25).float()
    assert float((half - exact).abs().mean()) < 0.02 * float(exact.std())


@torch.inference_mode()
@pytest.mark.parametrize("slab_bytes", [1, 40_000, 2**27], ids=["planes", "some", "one"])
@pytest.mark.parametrize("size", [(10, 6, 4), (7, 8, 3)], ids=str)
def test_slabs_are_the_whole_volume(vae: MaisiVae, monkeypatch, slab_bytes: int, size: tuple[int, ...]) -> None:
    """Decoding and encoding slab by slab, whatever their number, against MONAI on the whole volume."""
    monkeypatch.setattr(slabs, "SLAB_BYTES", slab_bytes)
    z = torch.randn(2, 4, *size)
    close(vae.decode(z), AutoencoderKlMaisi.decode(vae, z), 3e-5)
    x = torch.rand(2, 1, *(4 * n for n in size))
    (mean, deviation), (their_mean, their_deviation) = vae.encode(x), AutoencoderKlMaisi.encode(vae, x)
    close(mean, their_mean, 3e-5)
    close(deviation.log(), their_deviation.log(), 3e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(5, 6, 7), (10, 9, 8), (13, 13, 13), (11, 8, 16)], ids=str)
def test_slabs_take_sizes_that_do_not_divide(vae: MaisiVae, monkeypatch, size: tuple[int, ...]) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1)
    x = torch.rand(1, 1, *size)
    close(vae.encode(x)[0], AutoencoderKlMaisi.encode(vae, x)[0], 3e-5)


@torch.inference_mode()
def test_moments_are_the_same_by_the_plain_way(monkeypatch) -> None:
    """Other devices do not have the CPU's kernel; here its stand-in is asked on the CPU."""
    planes = torch.randn(3, 8, 5, 6) * 2 + 1
    fast = slabs._moments_of_planes(planes, 4)
    double = slabs._moments_of_planes(planes.double(), 4)

    class Elsewhere:
        device = torch.device("meta")
        __len__ = lambda self: 3  # noqa: E731
        float = lambda self: planes  # noqa: E731

    plain = slabs._moments_of_planes(Elsewhere(), 4)  # type: ignore[arg-type]
    for ours, exact, other in zip(fast, double, plain, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other, exact, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_moments_survive_a_large_offset() -> None:
    """The variance of values around 1,000 with deviation 1, for which a sum of squares in float32 fails."""
    slab = 1000 + torch.randn(1, 4, 6, 64, 64)
    moments = slabs._Moments(2)
    for part in slab.split(2, dim=2):
        moments.add(part.contiguous(memory_format=torch.channels_last_3d))
    mean, variance = moments.of_channels(4, torch.device("cpu"))
    groups = slab.double().reshape(2, -1)
    torch.testing.assert_close(mean[::2].double(), groups.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance[::2].double(), groups.var(1, unbiased=False), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_group_norm_far_from_zero(dtype: torch.dtype) -> None:
    """Means of 25 deviations, as time embeddings make them, in channels-last order and with a gradient."""
    norm = GroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    x = (25 * torch.randn(2, 8, 1, 1, 1).repeat_interleave(1, 1) + 0.2 * torch.randn(2, 8, 32, 32, 32)).to(dtype)
    x[:, ::2] = x[:, 1::2] + 0.2 * torch.randn(2, 4, 32, 32, 32).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    exact = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double())
    out = norm(x)
    assert out.dtype == dtype
    limit = 1e-4 if dtype == torch.float32 else 0.05
    assert float((out.double() - exact).abs().max().detach()) < limit
    (ours,) = torch.autograd.grad(out.float().square().sum(), x)
    (theirs,) = torch.autograd.grad(exact.square().sum(), x)
    assert float((ours.double() - theirs.double()).abs().max()) < 100 * limit


@torch.inference_mode()
def test_windows_differ_from_the_whole_and_slabs_do_not(vae: MaisiVae, monkeypatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1)
    z = torch.randn(1, 4, 12, 6, 4)
    whole = AutoencoderKlMaisi.decode(vae, z)
    close(vae.decode(z), whole, 3e-5)
    assert float((decode_windowed(vae, z, roi=6) - whole).abs().max()) > 0.1 * float(whole.std())
    close(decode_windowed(vae, z, roi=12), whole, 3e-5)


def test_a_layer_that_cannot_be_cut_sees_the_whole_volume(monkeypatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1)
    attentive = randomise(MaisiVae(VAE.model_copy(update={"attention_levels": (False, False, True)})))
    with torch.inference_mode():
        z = torch.randn(1, 4, 6, 4, 4)
        close(attentive.decode(z), AutoencoderKlMaisi.decode(attentive, z), 3e-5)


def test_too_little_memory_is_said_with_what_would_fit(tiny_pack: Pack, monkeypatch) -> None:
    from text2ct.diffusion import memory

    cpu, settings = torch.device("cpu"), tiny_pack.info.defaults
    one, many = (memory.estimate(tiny_pack, cpu, n, settings) for n in (1, 500))
    assert one < many
    monkeypatch.setattr(memory, "free_memory", lambda device: (one + many) // 2)
    with pytest.raises(UserError, match=r"500 volumes of 16x16x16 at once would need(.|\n)*--batch-size 1 needs 0\."):
        generate(tiny_pack, ["a"], [0], batch_size=500)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1)
    with pytest.raises(UserError, match=r"a volume of (.|\n)*nothing smaller fits"):
        generate(tiny_pack, ["a"], [0], batch_size=1)


def test_memory_is_checked_before_any_weight_is_read(tmp_path: Path, monkeypatch) -> None:
    """Of a pack just opened, what its weights will hold counts too, and reading them is not needed to know it."""
    from text2ct.diffusion import memory

    pack = init_pack(tmp_path / "pack")
    cpu = torch.device("cpu")
    before = memory.estimate(pack, cpu, 1, pack.info.defaults)
    assert pack._loaded == {}
    generate(pack, ["a"], [0], batch_size=1)
    assert memory.estimate(pack, cpu, 1, pack.info.defaults) < before
    assert pack.bytes_to_load("unet") == pack.bytes_to_load("text_tower") == 0
    held = 4 * sum(p.numel() for p in pack.unet.state_dict().values())
    pack.release("unet")
    assert pack.bytes_to_load("unet") == held


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("x: can't allocate memory: you")]
)
def test_no_memory_is_one_line_and_other_errors_are_not_hidden(error: Exception) -> None:
    from text2ct._cli_shared import guarded

    for cause, code in ((error, 2), (RuntimeError("another"), 1)):
        app = typer.Typer()

        def fail(cause: Exception = cause) -> None:
            raise cause

        fail.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
        app.command()(guarded(fail))
        result = CliRunner().invoke(app)
        assert result.exit_code == code
        assert ("too little memory" in result.stderr) == (code == 2)
        assert code == 2 or result.exception is cause


def test_free_memory_is_what_the_system_and_the_limits_leave(monkeypatch) -> None:
    from text2ct import compute

    cpu = torch.device("cpu")
    files = {
        "/proc/meminfo": ["MemTotal: 9 kB", "MemAvailable: 8000 kB"],
        "/sys/fs/cgroup/memory.max": ["max"],
        "/sys/fs/cgroup/memory.current": ["1000"],
    }
    monkeypatch.setattr(compute, "_lines", lambda path: files.get(path, []))
    monkeypatch.setattr(compute, "_process_memory", lambda: None)
    assert free_memory(cpu) == 8_192_000
    files["/sys/fs/cgroup/memory.max"] = ["51000"]
    assert free_memory(cpu) == 50_000
    files.clear()
    assert free_memory(cpu) is None


def test_windows_can_be_asked_for(tiny_pack: Pack) -> None:
    """Below the released threshold windows are the whole volume; the setting is taken all the same."""
    plain, windowed = (
        generate(tiny_pack, ["a"], [0], sampling=Sampling(steps=1, decode=how), batch_size=1)
        for how in ("exact", "window")
    )
    np.testing.assert_allclose(plain, windowed, atol=0.5)
