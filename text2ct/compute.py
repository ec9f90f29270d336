"""Where and in which precision tensors are computed: one code for CUDA, MPS and CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
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


def device_name(device: torch.device) -> str:
    """What a device is called: the GPU's own name, else its kind."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def has_fast_bf16(device: torch.device, *, backward: bool = False) -> bool:
    """Whether bfloat16 is computed in hardware: AMX or AVX-512 on the CPU, Ampere or newer on CUDA.

    Args:
        device: Where.
        backward: Whether gradients are wanted too. Those of 3D convolutions through AVX-512 are not
            reproducible and may be NaN, so training on a CPU asks for AMX.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        with_avx = not backward and torch.cpu._is_avx512_bf16_supported()
        return bool(torch.cpu._is_amx_tile_supported() or with_avx)
    return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Half precision for a forward pass where the hardware computes it fast, otherwise float32 unchanged.

    bfloat16 where there is hardware for it, float16 on older CUDA devices.
    """
    import torch

    if has_fast_bf16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    if device.type == "cuda":
        return torch.autocast(device.type, dtype=torch.float16)
    return nullcontext()


def check_compiler() -> None:
    """Ask before hours of work whether ``torch.compile`` can work here.

    Raises:
        UserError: There is no C++ compiler.
    """
    import os
    import shutil

    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "c++", "clang++") if name):
        raise UserError('"compile" needs a C++ compiler; install g++ or clang++ (or name one in CXX), or leave it out')


def lightning_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """The Lightning ``precision`` of training: bfloat16 where its gradients can be trusted."""
    return "bf16-mixed" if has_fast_bf16(device, backward=True) else "32-true"


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


def return_freed_memory() -> None:
    """Give the system back what was freed and kept so far; before a stage that needs other sizes of blocks."""
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on ``device``; None where nobody says.

    On the CPU the least of what the system, the container (control groups 1 and 2) and the process's own limit
    leave.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    left = [_system_memory(), *_container_memory(), _process_memory()]
    known = [value for value in left if value is not None]
    return max(0, min(known)) if known else None


def _system_memory() -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _container_memory() -> list[int]:
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    found = []
    for limit, used in pairs:
        numbers = [line for name in (limit, used) for line in _lines(f"/sys/fs/cgroup/{name}")[:1]]
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            found.append(int(numbers[0]) - int(numbers[1]))
    return found


def _process_memory() -> int | None:
    try:
        import resource
    except ImportError:  # not on this system
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _lines("/proc/self/statm")[:1]
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0].split()[0]) * resource.getpagesize()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
