"""``text2ct doctor``: what is installed and present here, and what that means for a user's work."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2ct import __version__
from text2ct.compute import free_memory, has_fast_bf16
from text2ct.errors import UserError
from text2ct.files import sha256_file
from text2ct.workers import available_cores

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "monai", "lightning", "torchio", "timm", "transformers", "huggingface_hub", "numpy", "pandas")
EXTRAS = {"ray": "text2ct[cluster]", "zarr": "zarr"}
"""Optional packages, and what pip is told to install for each."""
HUB_TIMEOUT_S = 3.0
# docs/speed.md measures both with the command that it names.
_FULL_SIZE_GB, _BUNDLED_GB = 14.0, 1.2
_FULL_SIZE_BYTES = 512 * 512 * 128 * 2
# Checksums of more than this take longer than anybody waits for a doctor.
_QUICK_BYTES = 500_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        found: What is there.
        means: What follows for the user, in one sentence.
        usable: False where text2ct cannot work like this.
    """

    name: str
    found: str
    means: str
    usable: bool = True


def examine(workspace: Path, *, offline: bool = False) -> dict[str, Any]:
    """Look at packages, devices, memory, disk, packs and the hub.

    Args:
        workspace: Whose disk and packs; it need not exist.
        offline: Do not ask the hub.

    Returns:
        ``checks`` (``name``, ``found``, ``means``, ``usable`` of each), ``versions``, ``devices``, ``cores``,
        ``memory_bytes`` and ``disk_bytes`` (free), ``packs``, ``hub``, ``extras`` and ``usable``.
    """
    versions = {"text2ct": __version__, "python": platform.python_version(), **dict(_versions(PACKAGES))}
    checks = [_packages(versions)]
    found: dict[str, Any] = {"versions": versions, "extras": dict(_versions(EXTRAS))}
    if versions["torch"] is not None:
        devices = [_device(device) for device in _devices()]
        memory = free_memory(_devices()[0])
        found |= {"devices": devices, "cores": available_cores(), "memory_bytes": memory}
        checks += [*(_of_device(device) for device in devices), _memory(memory)]
        packs = [_pack(path) for path in _pack_folders(workspace)]
        found["packs"] = packs
        checks += [_of_pack(pack) for pack in packs]
    found["disk_bytes"], disk = _disk(workspace)
    found["hub"], hub = _hub(offline)
    checks += [disk, hub, *(_extra(name, version) for name, version in found["extras"].items())]
    return {
        "usable": all(check.usable for check in checks),
        "checks": [asdict(check) for check in checks],
        **found,
    }


def _versions(names: Any) -> Iterator[tuple[str, str | None]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None


def _packages(versions: dict[str, str | None]) -> Check:
    listed = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    wrong = list(_unmet())
    if wrong:
        return Check("packages", listed, f"text2ct needs {', '.join(wrong)}: install it again with pip", usable=False)
    return Check("packages", listed, "all that text2ct needs is installed")


def _unmet() -> Iterator[str]:
    """Requirements of the installed text2ct that nothing installed meets."""
    from packaging.requirements import Requirement

    try:
        required = metadata.requires("text2ct") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return
    for requirement in map(Requirement, required):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = dict(_versions([requirement.name]))[requirement.name]
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier} (here: {version or 'none'})"


def _devices() -> list[torch.device]:
    """The CPU first, then what computes faster."""
    import torch

    devices = [torch.device("cpu"), *(torch.device("cuda", index) for index in range(torch.cuda.device_count()))]
    return [*devices, *([torch.device("mps")] if torch.backends.mps.is_available() else [])]


def _device(device: torch.device) -> dict[str, Any]:
    from text2ct.compute import device_name

    return {
        "device": str(device),
        "name": _processor() if device.type == "cpu" else device_name(device),
        "free_bytes": free_memory(device),
        "bfloat16_generation": has_fast_bf16(device),
        "bfloat16_training": has_fast_bf16(device, backward=True),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _of_device(device: dict[str, Any]) -> Check:
    if device["device"] != "cpu":
        free = f", {device['free_bytes'] / 1e9:.1f} GB free" if device["free_bytes"] is not None else ""
        fast = "in bfloat16" if device["bfloat16_training"] else "in float32; generation in half precision"
        if device["device"] == "mps":
            fast = "in float32"
        return Check(device["device"], device["name"] + free, f"--device auto computes here; trainings run {fast}")
    generates, trains = device["bfloat16_generation"], device["bfloat16_training"]
    units = "AMX" if trains else "AVX512-BF16, no AMX" if generates else "neither AMX nor AVX512-BF16"
    if trains:
        means = "on this processor generation and trainings run in bfloat16"
    elif generates:
        means = "on this processor generation runs in bfloat16, and trainings in float32, which takes longer"
    else:
        means = (
            "on this processor all runs in float32; one with AVX512-BF16 did matrix products 4 times as fast in "
            "bfloat16 (docs/speed.md)"
        )
    return Check("cpu", f"{device['name']}, {available_cores()} cores, {units}", means)


def _memory(free: int | None) -> Check:
    if free is None:
        return Check("memory", "unknown", "a command that needs too much fails with a message, if the system lets it")
    needs = f"a 512x512x128 volume takes {_FULL_SIZE_GB:g} GB on the CPU and one of the bundled pack {_BUNDLED_GB:g} GB"
    gigabytes = free / 1e9
    fits = "both fit" if gigabytes >= _FULL_SIZE_GB else "the second fits" if gigabytes >= _BUNDLED_GB else "none fits"
    return Check("memory", f"{gigabytes:.1f} GB free", f"{needs}: {fits}")


def _disk(workspace: Path) -> tuple[int, Check]:
    # A folder in one that may not be looked into counts as absent.
    there = next(folder for folder in (workspace, *workspace.absolute().parents) if os.path.exists(folder))  # noqa: PTH110
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {workspace}"
    if not there.is_dir() or not os.access(there, os.W_OK):
        return free, Check("disk", found, f"{there} cannot be written: give another --workspace", usable=False)
    return free, Check("disk", found, f"room for at least {free // _FULL_SIZE_BYTES:,} volumes of 512x512x128")


def _pack_folders(workspace: Path) -> list[Path]:
    from text2ct.diffusion.pack import BUNDLED, bundled_packs

    try:
        own = sorted(path.parent for path in (workspace / "packs").glob("*/pack.json"))
    except PermissionError:  # the check of the disk says so
        own = []
    return [*(BUNDLED / name for name in bundled_packs()), *own]


def _pack(path: Path) -> dict[str, Any]:
    """A pack, its checksums compared if that takes no time."""
    from text2ct.diffusion import load_pack
    from text2ct.diffusion.pack import BUNDLED

    result: dict[str, Any] = {"name": path.name, "path": str(path), "bundled": path.parent == BUNDLED}
    try:
        info = load_pack(path).info
        absent = [name for name in info.files if not (path / name).is_file()]
        size = sum((path / name).stat().st_size for name in info.files if name not in absent)
        checked = size <= _QUICK_BYTES
        changed = [name for name in info.files if name not in absent and checked] if checked else []
        changed = [name for name in changed if sha256_file(path / name) != info.files[name]]
    except UserError as error:
        return result | {"whole": False, "checked": True, "problem": str(error)}
    problem = ", ".join([*(f"{name} is missing" for name in absent), *(f"{name} is damaged" for name in changed)])
    return result | {"version": info.version, "whole": not problem, "checked": checked, "problem": problem}


def _of_pack(pack: dict[str, Any]) -> Check:
    name = f"pack {pack['name']}"
    if not pack["whole"]:
        again = "install text2ct again" if pack["bundled"] else "make or pull it again"
        return Check(name, pack["problem"], f"it cannot be used: {again}", usable=not pack["bundled"])
    found = f"version {pack['version']} in {pack['path']}"
    if not pack["checked"]:
        return Check(name, found, f"all files are there; `text2ct models verify {pack['path']}` reads them")
    note = "; it has seen simulated patients only" if pack["bundled"] else ""
    return Check(name, found, f"whole, every file as it was made{note}")


def _hub(offline: bool) -> tuple[dict[str, Any], Check]:
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    shown = endpoint.rpartition("@")[2] if "@" in endpoint else endpoint  # no password of an address
    asked = not (offline or constants.HF_HUB_OFFLINE)
    answer = _answer(endpoint) if asked else None
    result = {"endpoint": shown, "asked": asked, "reachable": None if answer is None else answer == ""}
    if answer is None:
        means = "only `fetch`, `models pull` and downloaded backbones need it; all else works without"
        return result, Check("hub", f"{shown}: not asked", means)
    if answer:
        means = (
            "`models pull` and backbones that are not downloaded yet cannot be fetched from here; all else works. Pull "
            "on another machine and copy the folder, or set HF_ENDPOINT to a mirror"
        )
        return result, Check("hub", f"{shown}: not reachable ({answer})", means)
    return result, Check("hub", f"{shown}: reachable", "`models pull` can fetch released weights")


def _answer(address: str) -> str:
    """Nothing if anybody answers within the time, else why not; a name server may be silent for longer than a host."""
    said = [f"no answer in {HUB_TIMEOUT_S:g} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
                said[0] = ""
        except urllib.error.HTTPError:
            said[0] = ""
        except (OSError, ValueError) as error:
            said[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return said[0]


def _extra(name: str, version: str | None) -> Check:
    if version is None:
        return Check(name, "not installed", f"needed only for what asks for it: pip install '{EXTRAS[name]}'")
    return Check(name, version, "optional, and there")
