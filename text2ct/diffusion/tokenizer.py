"""Text to token ids: a byte-level BPE, our own or CLIP's, saved in the pack as ``tokenizer.json``.

Ids follow CLIP's habit: a start token, the text, an end-of-text token, and the end-of-text token again as
padding, so the pooled position is the first end-of-text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from text2ct.diffusion.cleaning import TextCleaning, text_cleaner
from text2ct.errors import UserError
from text2ct.files import atomic_path

START, END = "<|startoftext|>", "<|endoftext|>"


class TextTokenizer:
    """Encodes texts to arrays of ids of one length.

    Args:
        tokenizer: A ``tokenizers`` tokenizer whose vocabulary has the start and end tokens.
        cleaning: Who cleans a text: the tokenizer's own normaliser, or :func:`text_cleaner` in its place.
    """

    def __init__(self, tokenizer: Tokenizer, cleaning: TextCleaning = "tokenizer") -> None:
        self._tokenizer = tokenizer
        self._normalizer = tokenizer.normalizer
        self._clean = text_cleaner(cleaning)
        if self._clean is not None:
            tokenizer.normalizer = None
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        if start is None or end is None:
            raise UserError(f"this tokenizer lacks {START} or {END}; it does not belong to a text2ct pack")
        self.start_id, self.end_id = start, end

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 3000) -> TextTokenizer:
        """Learn merges from ``texts``: lower case, accents stripped, digits apart, bytes as the alphabet."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[START, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        ids = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path, cleaning: TextCleaning = "tokenizer") -> TextTokenizer:
        """Read ``tokenizer.json``.

        Raises:
            UserError: The file is absent or is not a tokenizer.
        """
        try:
            return cls(Tokenizer.from_file(str(path)), cleaning)
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{path} cannot be read as a tokenizer: {error}") from error

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``, atomically, its own normaliser included."""
        saved = Tokenizer.from_str(self._tokenizer.to_str())
        saved.normalizer = self._normalizer
        with atomic_path(path) as temporary:
            saved.save(str(temporary))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._tokenizer.get_vocab_size()

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, start and end included, before any truncation."""
        return [len(ids) for ids in self._ids(texts)]

    def encode(self, texts: list[str], length: int) -> np.ndarray:
        """Ids of shape (n, length), int64; a longer text is cut and keeps its end-of-text token."""
        ids = np.full((len(texts), length), self.end_id, dtype=np.int64)
        for row, found in zip(ids, self._ids(texts), strict=True):
            kept = found[: length - 1]
            row[: len(kept)] = kept
        return ids

    def _ids(self, texts: list[str]) -> list[list[int]]:
        cleaned = texts if self._clean is None else [self._clean(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(cleaned)]
