"""What contrastive alignment of the text encoder brings to the diffusion: the paper's ablation, on simulated patients.

    python benchmarks/alignment.py --work build/pack --steps 3000

The pack's diffusion is trained again, for the same steps at the same learning rates, from the same seed and on the
same latents, with three text encoders of the same size: ``aligned``, that of the pack, trained with the volumes;
``text-only``, trained for as many steps to read labels and details from reports, but never shown a volume;
``untrained``, random weights. No training of these arms has a limit of time, so a slow machine changes nothing. The
pack's own encoder may have had one: its learning rate then fell with time, where that of ``text-only`` falls with
steps. Steps and minutes of every training are reported. Every arm's volumes, of the same reports of new patients and
the same noise, are read by the two judges of the pack's card.

Needs the work folder of ``text2ct core pack``. Arms are kept in ``alignment/3000-steps-of-8`` of that folder, after
the steps and their cases, and so is ``alignment-200.json``, the result; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from text2ct.compute import keep_freed_memory
from text2ct.diffusion.build import (
    load_tokenizer,
    new_clip,
    new_unet,
    run_summary,
    trained_clip,
    trained_vae,
)
from text2ct.diffusion.build_config import BuildConfig, pack_info
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.generate import generate
from text2ct.diffusion.pack import Part, load_pack, save_pack
from text2ct.diffusion.training.cases import Cases, render_patients
from text2ct.diffusion.training.clip import train_clip
from text2ct.diffusion.training.diffusion import train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.evaluation.judges import trained_judges
from text2ct.evaluation.pack_figures import MeasureConfig
from text2ct.evaluation.pack_sections import factual_figures
from text2ct.files import read_json, write_json
from text2ct.simulation.patients import FIRST_MEASURED

ENCODERS = ("aligned", "text-only", "untrained")


def study_folder(work: Path, steps: int, batch_size: int) -> Path:
    """Where arms that are trained for ``steps`` of ``batch_size``, and what is found in them, are kept."""
    return work / "alignment" / f"{steps}-steps-of-{batch_size}"


def result_file(work: Path, steps: int, batch_size: int, patients: int) -> Path:
    """What is found with so many new patients."""
    return study_folder(work, steps, batch_size) / f"alignment-{patients}.json"


def encoder_run(name: str, work: Path, arm: Path) -> Path | None:
    """Folder of the training of one arm's text encoder; None for the encoder that had none."""
    return {"aligned": work / "clip", "text-only": arm / "clip", "untrained": None}[name]


def text_encoder(name: str, work: Path, config: BuildConfig, cases: Cases, arm: Path) -> Clip3D:
    """The text encoder of one arm, trained in the folder ``arm`` where it is not the pack's."""
    if name == "aligned":
        return trained_clip(work, config)
    fresh = new_clip(config).eval()
    if name == "untrained":
        return fresh
    steps = run_summary(work / "clip")["steps"]
    alone = config.train_clip.model_copy(
        update={"steps": steps, "minutes": None, "text_only_steps": steps, "contrastive_weight": 0.0}
    )
    trained = train_clip(cases, fresh, load_tokenizer(work), alone, arm / "clip")
    assert isinstance(trained, Clip3D)
    return trained


def pack_of(name: str, work: Path, config: BuildConfig, steps: int, batch_size: int) -> Path:
    """Train the diffusion of one arm for ``steps``, and write its pack; one that is there is not trained again."""
    folder = study_folder(work, steps, batch_size) / name
    if (folder / "pack" / "pack.json").is_file():
        return folder / "pack"
    cases, vae, tokenizer = Cases(work / "cases"), trained_vae(work, config), load_tokenizer(work)
    clip = text_encoder(name, work, config, cases, folder)
    if not (folder / "encoded" / "encoded.json").is_file():
        encode(
            cases, vae, clip, tokenizer, folder / "encoded",
            conditioning="tokens", text_length=config.text_length, device="auto",
        )  # fmt: skip
    encoded = Encoded.open(folder / "encoded")
    scale, network = 1 / encoded.info["std"], new_unet(config)
    fit_gaussian(network, encoded, scale)
    settings = config.train_diffusion.model_copy(update={"steps": steps, "minutes": None, "batch_size": batch_size})
    flow = RectifiedFlow(config.flow)
    trained = train_diffusion(encoded, network, flow, settings, folder / "diffusion", scale_factor=scale)
    parts = {
        "clip": Part(config.clip, clip.state_dict()),
        "vae": Part(config.vae, vae.state_dict()),
        "unet": Part(config.unet, trained.state_dict()),
        "scheduler": Part(config.flow),
    }
    info = pack_info(config, 1 / encoded.info["std"]).model_copy(update={"name": f"alignment-{name}"})
    save_pack(folder / "pack", info, parts, tokenizer)
    return folder / "pack"


def trainings(name: str, work: Path, arm: Path) -> dict[str, Any]:
    """``steps``, ``minutes`` and ``device`` of the trainings behind one arm; None for an encoder that had none."""
    encoder = encoder_run(name, work, arm)
    return {
        "text_encoder": None if encoder is None else run_summary(encoder),
        "diffusion": run_summary(arm / "diffusion"),
    }


def study(
    work: Path,
    steps: int,
    batch_size: int,
    patients: int,
    encoders: Sequence[str],
    measure: MeasureConfig | None = None,
) -> None:
    """Train the arms that are missing, read their volumes and write what is found after each."""
    keep_freed_memory()
    stored = {key: value for key, value in read_json(work / "build.json").items() if key != "text2ct"}
    config = BuildConfig.model_validate(stored)
    measure = measure or MeasureConfig()
    grid: dict[str, Any] = {"size": config.grid, "spacing_mm": config.spacing_mm}
    new = render_patients(work / "new-cases", FIRST_MEASURED, measure.patients, **grid)
    judges = trained_judges(work, measure.judge_patients, minutes=measure.judge_minutes, **grid)
    prompts, labels = [text.text() for text in new.texts[:patients]], new.labels[:patients]
    own = [new.volume_hu(i) for i in range(patients)]
    kept = result_file(work, steps, batch_size, patients)
    found: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "patients": patients, "encoders": {}}
    if kept.is_file():
        found = read_json(kept)
    for name in encoders:
        pack = load_pack(pack_of(name, work, config, steps, batch_size))
        made = generate(pack, prompts, list(range(patients)), sampling=config.defaults, batch_size=8)
        read = factual_figures(judges, labels, own, list(np.rint(made).astype(np.int16)))["judges"]
        aucs = {
            judge: {key: row[key] for key in ("macro_auc_real", "macro_auc_synthetic", "macro_auc_synthetic_ci")}
            for judge, row in read.items()
        }
        found["encoders"][name] = {
            "trainings": trainings(name, work, study_folder(work, steps, batch_size) / name),
            "judges": aucs,
        }
        write_json(kept, found)
        print(json.dumps({name: found["encoders"][name]}), flush=True)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="work folder of `text2ct core pack`")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of each arm's diffusion")
    parser.add_argument("--batch-size", type=int, default=8, help="cases of each of these steps")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS, help="the arms")
    parser.add_argument("--patients", type=int, default=200, help="new patients whose reports become volumes")
    arguments = parser.parse_args()
    for name in ("steps", "batch_size", "patients"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected 1 or more")
    new = MeasureConfig().patients
    if arguments.patients > new:
        parser.error(f"--patients is {arguments.patients}; there are {new} new patients")
    torch.manual_seed(0)
    study(arguments.work, arguments.steps, arguments.batch_size, arguments.patients, arguments.encoders)


if __name__ == "__main__":
    main()
