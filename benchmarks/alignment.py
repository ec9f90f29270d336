"""What contrastive alignment of the text encoder brings to the diffusion: the paper's ablation, on simulated patients.

    python benchmarks/alignment.py --work build/pack --minutes 20

The pack's diffusion is trained again, for the same time, from the same seed and on the same latents, with three text
encoders of the same size: ``aligned``, that of the pack, trained with the volumes; ``text-only``, trained as long to
read labels and details from reports, but never shown a volume; ``untrained``, random weights. Every training's
volumes, of the same reports of new patients and the same noise, are read by the two judges of the pack's card. Needs
the work folder of ``text2ct core pack``; goes on where it was stopped. With 20 minutes each, under two hours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from text2ct.compute import keep_freed_memory
from text2ct.diffusion.build import BuildConfig, load_tokenizer, new_clip, new_unet, trained_clip, trained_vae
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.flow import RectifiedFlow
from text2ct.diffusion.generate import generate
from text2ct.diffusion.info import PackInfo
from text2ct.diffusion.pack import Part, load_pack, save_pack
from text2ct.diffusion.training.cases import Cases, render_patients
from text2ct.diffusion.training.clip import train_clip
from text2ct.diffusion.training.diffusion import train_diffusion
from text2ct.diffusion.training.encode import Encoded, encode
from text2ct.diffusion.training.gaussian import fit_gaussian
from text2ct.evaluation.judges import trained_judges
from text2ct.evaluation.pack_figures import MeasureConfig, factual_figures
from text2ct.files import read_json, write_json
from text2ct.simulation.patients import FIRST_MEASURED

ENCODERS = ("aligned", "text-only", "untrained")


def text_encoder(name: str, work: Path, config: BuildConfig, cases: Cases) -> Clip3D:
    """The text encoder of one arm."""
    if name == "aligned":
        return trained_clip(work, config)
    fresh = new_clip(config).eval()
    if name == "untrained":
        return fresh
    alone = config.train_clip.model_copy(update={"text_only_steps": config.train_clip.steps, "contrastive_weight": 0.0})
    trained = train_clip(cases, fresh, load_tokenizer(work), alone, work / "alignment" / name / "clip")
    assert isinstance(trained, Clip3D)
    return trained


def pack_of(name: str, work: Path, config: BuildConfig, info: PackInfo, minutes: float) -> Path:
    """Train the diffusion of one arm, and write its pack."""
    folder = work / "alignment" / name
    if (folder / "pack" / "pack.json").is_file():
        return folder / "pack"
    cases, vae, tokenizer = Cases(work / "cases"), trained_vae(work, config), load_tokenizer(work)
    clip = text_encoder(name, work, config, cases)
    if not (folder / "encoded" / "encoded.json").is_file():
        encode(
            cases, vae, clip, tokenizer, folder / "encoded",
            conditioning="tokens", text_length=config.text_length, device="auto",
        )  # fmt: skip
    encoded = Encoded.open(folder / "encoded")
    scale, network = 1 / encoded.info["std"], new_unet(config)
    fit_gaussian(network, encoded, scale)
    settings = config.train_diffusion.model_copy(update={"minutes": minutes})
    flow = RectifiedFlow(config.flow)
    trained = train_diffusion(encoded, network, flow, settings, folder / "diffusion", scale_factor=scale)
    parts = {
        "clip": Part(config.clip, clip.state_dict()),
        "vae": Part(config.vae, vae.state_dict()),
        "unet": Part(config.unet, trained.state_dict()),
        "scheduler": Part(config.flow),
    }
    named = info.model_copy(update={"name": f"alignment-{name}", "latent_scale_factor": scale, "components": {}})
    save_pack(folder / "pack", named, parts, tokenizer)
    return folder / "pack"


def study(work: Path, minutes: float, patients: int) -> dict[str, Any]:
    """Train the arms that are missing and read their volumes."""
    keep_freed_memory()
    stored = {key: value for key, value in read_json(work / "build.json").items() if key != "text2ct"}
    config = BuildConfig.model_validate(stored)
    info, measure = load_pack().info, MeasureConfig()
    grid: dict[str, Any] = {"size": config.grid, "spacing_mm": config.spacing_mm}
    new = render_patients(work / "new-cases", FIRST_MEASURED, measure.patients, **grid)
    judges = trained_judges(work, measure.judge_patients, minutes=measure.judge_minutes, **grid)
    prompts, labels = [text.text() for text in new.texts[:patients]], new.labels[:patients]
    own = [new.volume_hu(i) for i in range(patients)]
    found: dict[str, Any] = {"minutes": minutes, "patients": patients, "encoders": {}}
    for name in ENCODERS:
        pack = load_pack(pack_of(name, work, config, info, minutes))
        made = generate(pack, prompts, list(range(patients)), batch_size=8)
        read = factual_figures(judges, labels, own, list(np.rint(made).astype(np.int16)))["judges"]
        found["encoders"][name] = {
            judge: {key: row[key] for key in ("macro_auc_real", "macro_auc_synthetic", "macro_auc_synthetic_ci")}
            for judge, row in read.items()
        }
        print(json.dumps({name: found["encoders"][name]}), flush=True)
    return found


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="work folder of `text2ct core pack`")
    parser.add_argument("--minutes", type=float, default=20, help="training time of each arm's diffusion")
    parser.add_argument("--patients", type=int, default=200, help="new patients whose reports become volumes")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = study(arguments.work, arguments.minutes, arguments.patients)
    write_json(arguments.work / "alignment.json", found)


if __name__ == "__main__":
    main()
