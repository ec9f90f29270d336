"""Files that claim terabytes, or unpack to them: refused before the memory is taken.

python -m benchmarks.soak.bombs FOLDER    # makes and reads each, and prints a line of JSON for it
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.soak.broken import ALARM_S, ROOM_MB
from benchmarks.soak.children import REPOSITORY, environment, memory_mb
from benchmarks.soak.outcome import Outcome
from benchmarks.soak.seeds import make
from benchmarks.soak.targets import ALLOWED, TARGETS

# What a bomb unpacks to, in MB; a machine that tests may have less memory than a terabyte.
BOMB_MB = 6_000
# The process may take this much, so that a machine survives a defect.
_CEILING_MB = 12_000


def _zeros(wbits: int, megabytes: int = BOMB_MB, before: bytes = b"") -> bytes:
    """So many MB of zeros, packed: as gzip (31), zlib (15) or deflate (-15)."""
    packer, piece = zlib.compressobj(6, wbits=wbits), bytes(2**20)
    return b"".join([packer.compress(before), *(packer.compress(piece) for _ in range(megabytes)), packer.flush()])


def _nifti(shape: tuple[int, ...], kind: str = "<i2") -> bytes:
    import nibabel as nib

    header = nib.nifti1.Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(kind))
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    return bytes(header.binaryblock) + b"\0" * 4


def nifti_unpacks(folder: Path) -> Path:
    path = folder / "bomb.nii.gz"
    path.write_bytes(_zeros(31, before=_nifti((20, 18, 16))))
    return path


def nifti_claims(folder: Path) -> Path:
    path = folder / "claims.nii"
    path.write_bytes(_nifti((30000, 30000, 30000), "<f8") + bytes(1000))
    return path


def nifti_claims_packed(folder: Path) -> Path:
    path = folder / "claims.nii.gz"
    path.write_bytes(_zeros(31, 1, before=_nifti((30000, 30000, 30000), "<f8")))
    return path


def _mha(folder: Path, sizes: str, data: bytes, packed: bool) -> Path:
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
        f"CompressedData = {packed}", *([f"CompressedDataSize = {len(data)}"] if packed else []),
        "ElementSpacing = 2 2 2", f"DimSize = {sizes}", "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
    ]  # fmt: skip
    path = folder / "bomb.mha"
    path.write_bytes("\n".join(lines).encode() + b"\n" + data)
    return path


def mha_unpacks(folder: Path) -> Path:
    return _mha(folder, "20 18 16", _zeros(15), True)


def mha_claims(folder: Path) -> Path:
    return _mha(folder, "30000 30000 30000", bytes(1000), False)


def mha_claims_some(folder: Path) -> Path:
    """More than the room and less than a machine has: it could be taken."""
    return _mha(folder, "1600 1600 1600", bytes(1000), False)


def mha_claims_packed(folder: Path) -> Path:
    return _mha(folder, "1600 1600 1600", zlib.compress(bytes(1000)), True)


def _nrrd(folder: Path, sizes: str, data: bytes, encoding: str) -> Path:
    path = folder / "bomb.nrrd"
    head = (
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nspacings: 2 2 2\nendian: little\nencoding: {encoding}\n"
    )
    path.write_bytes(head.encode() + b"\n" + data)
    return path


def nrrd_unpacks(folder: Path) -> Path:
    return _nrrd(folder, "20 18 16", _zeros(31), "gzip")


def nrrd_claims(folder: Path) -> Path:
    return _nrrd(folder, "30000 30000 30000", bytes(1000), "raw")


def nrrd_claims_packed(folder: Path) -> Path:
    return _nrrd(folder, "1600 1600 1600", _zeros(31, 1), "gzip")


def dicom_claims(folder: Path) -> Path:
    """Rows and columns of the first slices set to 65,535: 8 GB a slice."""
    series = make("dicom", folder / "made") / "series"
    for file in sorted(series.iterdir())[:3]:
        data = file.read_bytes()
        for tag in (b"\x28\x00\x10\x00\x02\x00\x00\x00", b"\x28\x00\x11\x00\x02\x00\x00\x00"):
            at = data.index(tag) + len(tag)
            data = data[:at] + b"\xff\xff" + data[at + 2 :]
        file.write_bytes(data)
    return series


def _npy(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<i2", "fortran_order": False, "shape": shape})
    return out.getvalue()


def npz_unpacks(folder: Path) -> Path:
    path = folder / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ct.npy", "w", force_zip64=True) as out,
    ):
        out.write(_npy((20, 20, 20)))
        for _ in range(BOMB_MB):
            out.write(bytes(2**20))
    return path


def npz_claims(folder: Path) -> Path:
    path = folder / "claims.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ct.npy", _npy((2000, 2000, 2000)) + bytes(1000))
    return path


def json_nested(folder: Path) -> Path:
    path = folder / "gate.json"
    path.write_text("[" * 5_000_000)
    return path


def checkpoint_unpacks(folder: Path) -> Path:
    """A checkpoint whose storage is deflated."""
    import torch

    torch.save({"a": torch.zeros(1000)}, folder / "a.pt")
    path = folder / "bomb.pt"
    with zipfile.ZipFile(folder / "a.pt") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in source.infolist():
            if "/data/" not in one.filename:
                archive.writestr(one.filename, source.read(one))
                continue
            with archive.open(one.filename, "w", force_zip64=True) as out:
                for _ in range(BOMB_MB):
                    out.write(bytes(2**20))
    return path


BOMBS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "NIfTI that unpacks to 6 GB": ("nifti", nifti_unpacks),
    "NIfTI that claims 216 TB": ("nifti", nifti_claims),
    "packed NIfTI that claims 216 TB": ("nifti", nifti_claims_packed),
    "MHA that unpacks to 6 GB": ("metaimage", mha_unpacks),
    "MHA that claims 54 TB": ("metaimage", mha_claims),
    "MHA that claims 8 GB": ("metaimage", mha_claims_some),
    "packed MHA that claims 8 GB": ("metaimage", mha_claims_packed),
    "NRRD that unpacks to 6 GB": ("nrrd", nrrd_unpacks),
    "NRRD that claims 54 TB": ("nrrd", nrrd_claims),
    "packed NRRD that claims 8 GB": ("nrrd", nrrd_claims_packed),
    "DICOM slices that claim 8 GB each": ("dicom", dicom_claims),
    "NPZ that unpacks to 6 GB": ("npz", npz_unpacks),
    "NPZ that claims 16 GB": ("npz", npz_claims),
    "JSON of five million brackets": ("json", json_nested),
    "checkpoint that unpacks to 6 GB": ("checkpoint", checkpoint_unpacks),
}  # fmt: skip
QUICK = ("packed NIfTI that claims 216 TB", "packed NRRD that claims 8 GB")


def bombs(names: tuple[str, ...] | None = None) -> list[Outcome]:
    """Make and read each, or those that are named; every one has a process of its own."""
    return [_one(name) for name in names or tuple(BOMBS)]


def _one(name: str) -> Outcome:
    found = Outcome(name, tried=1)
    with tempfile.TemporaryDirectory(prefix="soak-bomb-") as folder:
        words = [sys.executable, "-m", "benchmarks.soak.bombs", folder, name]
        done = subprocess.run(words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        found.problems.append(f"ended with {done.returncode}: {done.stderr[-300:]}")
        return found
    last = lines[-1]
    found.figures = {"memory (MB)": round(last["mb"]), "seconds": round(last["seconds"], 1)}
    if last["mb"] > ROOM_MB:
        found.problems.append(f"took {last['mb']:.0f} MB")
    if last["ended"] != "refused":
        found.problems.append(last["ended"])
    return found


def _read(folder: Path, names: list[str]) -> Iterator[dict[str, object]]:
    import torch

    torch.set_num_threads(1)
    for name in names:
        kind, build = BOMBS[name]
        sandbox = folder / "sandbox"
        (sandbox / "workspace").mkdir(parents=True, exist_ok=True)
        good = make(kind, folder / "seeds")
        for path in sorted(good.iterdir()):  # loads the modules
            try:
                TARGETS[kind](path, sandbox)
            except ALLOWED:
                continue
        path = build(folder)
        os.chdir(sandbox)
        Path("/proc/self/clear_refs").write_text("5")
        before, begun = memory_mb(), time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)
        try:
            TARGETS[kind](path, sandbox)
            ended = "read as if it were whole"
        except ALLOWED:
            ended = "refused"
        except BaseException as error:
            ended = f"{type(error).__name__}: {str(error)[:300]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        yield {"ended": ended, "mb": memory_mb(what="VmHWM") - before, "seconds": time.perf_counter() - begun}


if __name__ == "__main__":
    ceiling = _CEILING_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    for line in _read(Path(sys.argv[1]), sys.argv[2:]):
        print(json.dumps(line), flush=True)
