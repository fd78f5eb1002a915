"""The base's tokenizer: a CLIP byte-pair tokenizer in which every word of the world is one token."""

from __future__ import annotations

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from .world import BACKGROUNDS, EXTRA_WORDS, FILLERS, NOUNS, PLAIN, SIZES, STYLES, TINTS

MAX_LENGTH = 32


def words() -> list[str]:
    """Every word that is to be one token, sorted."""
    text = [*NOUNS, *BACKGROUNDS.values(), *PLAIN, *TINTS, *SIZES, *FILLERS, *EXTRA_WORDS, "an", "background"]
    text += STYLES.values()
    return sorted({word for phrase in text for word in phrase.split()})


def build() -> CLIPTokenizer:
    """The same tokenizer every time; other words fall into endings and letters.

    Each word's letters are joined from its end, so that no word's rules get in another's way. (The library's own
    trainer breaks ties at random: two runs of it number the words differently.)
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges: dict[tuple[str, str], None] = {}
    for word in words():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            left, right = pieces[-2:]
            merges[left, right] = None
            vocabulary.setdefault(left + right, len(vocabulary))
            pieces[-2:] = [left + right]
    vocabulary["<|startoftext|>"] = len(vocabulary)
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=MAX_LENGTH)
    split = [w for w in words() if len(tokenizer(w).input_ids) != 3]
    if split:
        raise ValueError(f"these words are not one token: {split}")
    return tokenizer
