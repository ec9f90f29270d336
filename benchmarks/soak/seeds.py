"""Small valid files of every format that is read, to be broken."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from text2ct.files import write_json
from text2ct.findings import FINDINGS
from text2ct.volumes import Volume, write

SIZE = (20, 18, 16)


def phantom(shift: float = 0.0) -> Volume:
    """A body of soft tissue in air, with fat, two lungs and noise; enough of a chest to be taken for one."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SIZE], indexing="ij")
    hu = np.full(SIZE, -1000.0)
    hu[(x / 0.95) ** 2 + (y / 0.8) ** 2 < 1] = -100
    hu[(x / 0.85) ** 2 + (y / 0.7) ** 2 < 1] = 45 + shift
    for side in (-0.42, 0.42):
        hu[((x - side) / 0.3) ** 2 + (y / 0.45) ** 2 + ((z - 0.1) / 0.9) ** 2 < 1] = -820 - shift
    hu = np.rint(hu + np.random.default_rng(int(shift)).normal(0, 12, SIZE))
    return Volume(np.clip(hu, -1024, 1500).astype(np.float32), np.diag([18.0, 16.0, 18.0, 1.0]))


def nifti(folder: Path) -> None:
    """Foreign files, without this program's mark: gzipped and not, with a scale, in floats, big-endian."""
    import nibabel as nib

    volume = phantom()
    stored = volume.hu.astype(np.int16)
    for name, voxels in (("a.nii.gz", stored), ("b.nii", stored), ("c.nii.gz", volume.hu)):
        nib.save(nib.Nifti1Image(voxels, volume.affine), folder / name)
    big = nib.Nifti1Image(stored, volume.affine, nib.Nifti1Header(endianness=">"))
    nib.save(big, folder / "d.nii")
    write(volume, folder / "e.nii.gz")


def _itk() -> object:
    import SimpleITK as sitk

    volume = phantom()
    image = sitk.GetImageFromArray(volume.hu.astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing(volume.spacing_mm)
    return image


def metaimage(folder: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(_itk(), str(folder / "a.mha"), useCompression=False)
    sitk.WriteImage(_itk(), str(folder / "b.mha"), useCompression=True)
    write(phantom(), folder / "c.mha")
    (folder / "pair").mkdir()
    sitk.WriteImage(_itk(), str(folder / "pair" / "d.mhd"), useCompression=False)


def nrrd(folder: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(_itk(), str(folder / "a.nrrd"), useCompression=False)
    sitk.WriteImage(_itk(), str(folder / "b.nrrd"), useCompression=True)
    (folder / "pair").mkdir()
    sitk.WriteImage(_itk(), str(folder / "pair" / "c.nhdr"), useCompression=False)


def dicom(folder: Path) -> None:
    import SimpleITK as sitk

    image, series = _itk(), folder / "series"
    series.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetDepth()):  # type: ignore[attr-defined]
        piece = image[:, :, k]  # type: ignore[index]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))  # type: ignore[attr-defined]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0018": f"1.2.3.1.{k + 1}", "0008|0060": "CT",
            "0020|000d": "1.2.3", "0020|000e": "1.2.3.1", "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{value:.3f}" for value in position), "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024", "0028|1053": "1",
        }  # fmt: skip
        for key, value in tags.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(series / f"{k:03d}.dcm"))
        writer.Execute(piece)


def npz(folder: Path) -> None:
    voxels = phantom().hu.transpose(2, 1, 0)[::-1, ::-1].astype(np.int16)
    voxels = zoom(voxels, 5, order=1)  # its voxels are 0.8 mm, and less than 60 mm is no chest
    np.savez_compressed(folder / "a.npz", ct=voxels)
    np.savez(folder / "b.npz", ct=voxels)


def zarr(folder: Path) -> None:
    write(phantom(), folder / "a.zarr")


def _labels(rows: int = 6) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    return [
        {"VolumeName": f"train_{n}_a_1.nii.gz", **{name: str(int(rng.random() < 0.4)) for name in FINDINGS}}
        for n in range(1, rows + 1)
    ]


def _csv(path: Path, rows: list[dict[str, str]]) -> None:
    import pandas as pd

    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")


def tables(folder: Path) -> None:
    """CSV files: labels, reports, metadata, a manifest, prompts, predictions."""
    from text2ct import manifests

    labels = _labels()
    _csv(folder / "labels.csv", labels)
    reports = [
        {"AccessionNo": f"r_{n}", "report_text": "Large right pleural effusion, atelectasis.", **row}
        for n, row in enumerate(labels)
    ]
    for row in reports:
        del row["VolumeName"]
    _csv(folder / "annotated.csv", reports)
    frame = manifests.read(folder / "labels.csv").assign(split="train", root="workspace")
    frame["path"] = [f"real/{name}" for name in frame["volume"]]
    manifests.write_manifest(frame, folder / "manifest.csv")
    meta = {"RescaleIntercept": "-1024", "RescaleSlope": "1", "XYSpacing": "[0.7, 0.7]", "ZSpacing": "1.5"}
    _csv(folder / "metadata.csv", [{"VolumeName": row["VolumeName"], **meta} for row in labels])
    _csv(folder / "prompts.csv", [{"prompt": "Effusion.", **row, "volume": row["VolumeName"]} for row in labels])
    _csv(folder / "predictions.csv", [row | dict.fromkeys(FINDINGS, "0.25") for row in labels])


def jsons(folder: Path) -> None:
    """JSON files: prompts, a plan, settings, a workspace, a request with its sidecar, predictions."""
    from text2ct.augment import make_plan
    from text2ct.manifests import read

    write_json(folder / "prompts.json", [{"input_image_name": f"p_{n}.mha", "report": "Effusion."} for n in range(3)])
    write_json(
        folder / "predictions.json",
        [{"input_image_name": f"p_{n}.mha", "probabilities": dict.fromkeys(FINDINGS, 0.25)} for n in range(3)],
    )
    write_json(folder / "gate.json", {"size": [64, 64, 64], "tests": ["geometry"], "label": {}})
    write_json(folder / "workspace.json", {"roots": {"real": "real", "other": "/nowhere"}})
    write_json(folder / "training.json", {"steps": 4, "batch_size": 2, "seed": 1, "learning_rate": 0.001})
    _csv(folder / "labels.csv", _labels(40))
    frame = read(folder / "labels.csv").assign(split="train")
    make_plan(frame).write(folder / "plan.json")
    (folder / "labels.csv").unlink()


def settings(folder: Path) -> None:
    """TOML and YAML, which are not read: given in the place of settings or of a table, they are refused."""
    (folder / "a.toml").write_text('size = [64, 64, 64]\ntests = ["geometry"]\n[label]\nmargin = 1.0\n')
    (folder / "b.yaml").write_text("size: [64, 64, 64]\nlabel: !!python/object/apply:os.system ['touch CANARY']\n")
    (folder / "c.yml").write_text("prompt: a\n- b: &x [*x, *x]\n")


def pack(folder: Path) -> None:
    from text2ct.diffusion import init_pack

    init_pack(folder / "tiny")


class _Runs:
    """What a pickle calls when it is loaded by a reader that lets it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.system, ("touch CANARY",)


def checkpoints(folder: Path) -> None:
    """Checkpoints with weights, plain pickles and pickles that call something."""
    import pickle

    import torch

    state = {"a.weight": torch.arange(24.0).reshape(4, 6), "a.bias": torch.zeros(4)}
    torch.save(state, folder / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, folder / "b.ckpt")
    torch.save(state, folder / "c.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": _Runs()}, folder / "d.pt")
    (folder / "e.pt").write_bytes(pickle.dumps({"a": _Runs()}))
    with zipfile.ZipFile(folder / "f.npz", "w") as archive:
        archive.writestr("ct.npy", _pickled_array())


def _pickled_array() -> bytes:
    import io

    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([_Runs()], dtype=object), allow_pickle=True)
    return out.getvalue()


def zips(folder: Path) -> None:
    """Challenge archives: predictions and ground truth of the same names."""
    content = folder / "one.mha"
    write(phantom(), content)
    for name in ("predictions", "truth"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for n in range(2):
                archive.write(content, f"deep/p_{n}.mha")
    content.unlink()


SEEDS: dict[str, Callable[[Path], None]] = {
    "nifti": nifti, "metaimage": metaimage, "nrrd": nrrd, "dicom": dicom, "npz": npz, "zarr": zarr, "csv": tables,
    "json": jsons, "toml-yaml": settings, "pack": pack, "checkpoint": checkpoints, "zip": zips,
}  # fmt: skip


def make(name: str, folder: Path) -> Path:
    """The seed files of a format in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    SEEDS[name](folder)
    return folder


__all__ = ["SEEDS", "make", "phantom"]
