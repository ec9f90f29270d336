"""How a text is made uniform before it is tokenised: the one place that does.

The released 3D CLIP used transformers' Python tokenizer, whose cleaning depended on whether ``ftfy`` was
importable. Its requirements do not list it, so ``bert`` is the likelier one; which it was is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import ftfy
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TextCleaning = Literal["tokenizer", "bert", "ftfy"]
TEXT_CLEANINGS: tuple[str, ...] = get_args(TextCleaning)


def text_cleaner(cleaning: TextCleaning) -> Callable[[str], str] | None:
    """The function that cleans a text.

    Args:
        cleaning: ``bert``: lower case, accents stripped, every punctuation mark apart (Devlin et al. 2019);
            ``ftfy``: broken encodings mended (Speer 2019), white space collapsed, lower case;
            ``tokenizer``: the normaliser in ``tokenizer.json``.

    Returns:
        The cleaner, or None where the tokenizer itself cleans.
    """
    if cleaning == "bert":
        normalizer, splitter = BertNormalizer(), BertPreTokenizer()

        def clean_bert(text: str) -> str:
            return " ".join(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))

        return clean_bert
    if cleaning == "ftfy":
        return lambda text: " ".join(ftfy.fix_text(text).split()).lower()
    return None
