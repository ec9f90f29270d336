"""CLIP's tokenizer: known ids, three ways to clean, one place that does, and a copy in every pack."""

from __future__ import annotations

import gzip
import importlib.machinery
from pathlib import Path

import numpy as np
import pytest

from text2ct.diffusion import clip_vocabulary, generate
from text2ct.diffusion.cleaning import TEXT_CLEANINGS, text_cleaner
from text2ct.diffusion.clip import Clip3D
from text2ct.diffusion.clip_vocabulary import clip_tokenizer
from text2ct.diffusion.importing import import_pack
from text2ct.diffusion.info import PackInfo, Sampling
from text2ct.diffusion.pack import Part, load_pack, save_pack
from text2ct.diffusion.tokenizer import TextTokenizer
from text2ct.diffusion.unet import Unet
from text2ct.diffusion.vae import SpaceToDepthVae
from text2ct.errors import UserError

from .released_stand_in import NETWORKS, TINY, checkpoint_files

# Where the cleanings differ: an apostrophe, repeated punctuation, an accent, a broken encoding.
HARD = "The patient's naïve café -- STABLE!!  7.5 mm"


def test_the_ids_are_clips() -> None:
    """`a photo of a cat` is 320, 1125, 539, 320, 2368 in CLIP's vocabulary; padding is the end token."""
    tokenizer = clip_tokenizer()
    assert tokenizer.vocab_size == 49408
    ids = tokenizer.encode(["a photo of a cat", ""], 8)
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407, 49407], [49406] + [49407] * 7]
    assert tokenizer.encode(["cat " * 99], 6).tolist() == [[49406, 2368, 2368, 2368, 2368, 49407]]


def test_cleanings_agree_on_plain_words_and_differ_where_they_should() -> None:
    tokenizers = {name: clip_tokenizer(name) for name in TEXT_CLEANINGS}
    plain = [tokenizer.encode(["Small pleural effusion."], 16) for tokenizer in tokenizers.values()]
    assert all(np.array_equal(plain[0], other) for other in plain)
    hard = {name: tokenizer.encode([HARD], 64).tolist() for name, tokenizer in tokenizers.items()}
    assert hard["bert"] != hard["ftfy"] == hard["tokenizer"]
    broken = "na\u00c3\u00afve"  # UTF-8 read as Latin-1, which only ftfy mends
    assert tokenizers["ftfy"].lengths([broken]) == tokenizers["ftfy"].lengths(["naïve"])
    assert tokenizers["tokenizer"].lengths([broken]) != tokenizers["tokenizer"].lengths(["naïve"])


@pytest.mark.parametrize("cleaning", ["bert", "ftfy"])
def test_cleaning_twice_is_cleaning_once(cleaning) -> None:
    clean = text_cleaner(cleaning)
    assert clean is not None
    assert clean(clean(HARD)) == clean(HARD)
    assert clean(HARD) == clean(HARD).lower()


def test_bert_strips_accents_and_sets_punctuation_apart() -> None:
    assert text_cleaner("bert")(HARD) == "the patient ' s naive cafe - - stable ! ! 7 . 5 mm"
    assert text_cleaner("tokenizer") is None


@pytest.mark.parametrize("cleaning", TEXT_CLEANINGS)
def test_a_saved_tokenizer_cleans_as_its_pack_says(tmp_path: Path, cleaning) -> None:
    """The file holds its own normaliser whatever the cleaning: the pack's field decides."""
    clip_tokenizer(cleaning).save(tmp_path / "tokenizer.json")
    for other in TEXT_CLEANINGS:
        again = TextTokenizer.load(tmp_path / "tokenizer.json", other)
        assert np.array_equal(again.encode([HARD], 64), clip_tokenizer(other).encode([HARD], 64))


@pytest.mark.parametrize("cleaning", TEXT_CLEANINGS)
def test_the_packs_field_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleaning) -> None:
    monkeypatch.setattr("text2ct.diffusion.released.NETWORKS", NETWORKS)
    clip = checkpoint_files(tmp_path / "released")["clip"]
    made = import_pack(tmp_path / "pack", {"clip": clip}, text_cleaning=cleaning)
    ours = load_pack(made.path).tokenizer.encode([HARD], 512)
    assert np.array_equal(ours, clip_tokenizer(cleaning).encode([HARD], 512))


def test_a_prompt_above_512_tokens_is_cut_and_the_warning_says_by_how_much(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = TINY.clip.model_copy(update={"text": NETWORKS["clip"].text})
    parts = {
        "clip": Part(config, Clip3D(config).state_dict()),
        "vae": Part(TINY.vae, SpaceToDepthVae(TINY.vae).state_dict()),
        "unet": Part(TINY.unet, Unet(TINY.unet).state_dict()),
        "scheduler": Part(TINY.flow),
    }
    info = PackInfo(
        name="small", version="0", licence="none", components={}, grid=TINY.grid, spacing_mm=TINY.spacing_mm,
        latent_scale_factor=1.0, text_cleaning="bert",
    )  # fmt: skip
    pack = save_pack(tmp_path / "pack", info, parts, clip_tokenizer())
    words = "effusion " * 700
    long = pack.tokenizer.lengths([words])[0]
    assert long > 700
    volume = generate(pack, [words], [0], sampling=Sampling(steps=1, guidance_scale=1.0), batch_size=1)
    assert f"has {long} tokens, {long - 512} more than the pack reads" in capfd.readouterr().err
    kept = "effusion " * 800
    assert np.array_equal(
        volume, generate(pack, [kept], [0], sampling=Sampling(steps=1, guidance_scale=1.0), batch_size=1)
    )
    with pytest.raises(UserError, match="prompt 0 is empty"):
        generate(pack, [" \n"], [0])


def test_a_missing_or_broken_vocabulary_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_vocabulary, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install open_clip_torch"):
        clip_tokenizer()
    (tmp_path / clip_vocabulary.VOCABULARY).write_bytes(gzip.compress(b"version\na b\n"))
    spec = importlib.machinery.ModuleSpec("open_clip", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(clip_vocabulary, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="is not CLIP's vocabulary"):
        clip_tokenizer()
