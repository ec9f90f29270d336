"""Where and in which precision tensors are computed: one code for CUDA, MPS and CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from text2ct.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` to a device that exists.

    Raises:
        UserError: The device named is not present on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:N or mps") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device '{name}' is not present on this machine; use --device auto")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware: AMX on the CPU, Ampere or newer on CUDA."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 autocast where the hardware computes it fast, otherwise float32 unchanged."""
    import torch

    if has_fast_bf16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def lightning_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """The Lightning ``precision`` that matches :func:`autocast`."""
    return "bf16-mixed" if has_fast_bf16(device) else "32-true"


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    Loops over large tensors otherwise fetch and clear the same pages at every step, which can cost more than
    the arithmetic. Does nothing where the C library is another one.
    """
    import ctypes

    m_trim_threshold, m_mmap_threshold = -1, -3
    largest = 2**31 - 1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(m_mmap_threshold, largest)
    mallopt(m_trim_threshold, largest)
