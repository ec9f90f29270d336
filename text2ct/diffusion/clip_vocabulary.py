"""CLIP's byte-level BPE as a tokenizer, from the vocabulary that ``open_clip_torch`` ships."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from text2ct.diffusion.cleaning import TextCleaning
from text2ct.diffusion.tokenizer import END, START, TextTokenizer
from text2ct.errors import UserError

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# The file lists more merges than CLIP uses: 49408 ids are two alphabets of 256 bytes, the merges, start and end.
MERGES = 49408 - 2 * 256 - 2
# Contractions, runs of letters, single digits, runs of anything else (Radford et al. 2021, arXiv 2103.00020).
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
WORD_END = "</w>"


def _alphabet() -> list[str]:
    """Characters that stand for the 256 bytes: the printable ones for themselves, in the vocabulary's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _merges() -> list[tuple[str, str]]:
    spec = find_spec("open_clip")
    path = Path(spec.origin or "").parent / VOCABULARY if spec is not None else None
    if path is None or not path.is_file():
        raise UserError("CLIP's vocabulary is not installed; run: pip install open_clip_torch")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")[1 : MERGES + 1]
    pairs = [tuple(line.split()) for line in lines]
    if len(pairs) != MERGES or any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{path} is not CLIP's vocabulary; install open_clip_torch anew")
    return pairs  # type: ignore[return-value]


def clip_tokenizer(cleaning: TextCleaning = "tokenizer") -> TextTokenizer:
    """CLIP's tokenizer: 49408 ids, start 49406, end 49407.

    Args:
        cleaning: As for :class:`TextTokenizer`.

    Raises:
        UserError: The package that ships the vocabulary is missing or broken.
    """
    merges = _merges()
    alphabet = _alphabet()
    words = [*alphabet, *(letter + WORD_END for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=WORD_END, unk_token=END))
    tokenizer.add_special_tokens([START, END])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    ids = [(token, vocabulary[token]) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    return TextTokenizer(tokenizer, cleaning)
