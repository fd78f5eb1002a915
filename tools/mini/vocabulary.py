"""The base's tokenizer: a CLIP byte-pair tokenizer in which every word of the world is one token."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .world import BACKGROUNDS, EXTRA_WORDS, FILLERS, NOUNS, PLAIN, SIZES, STYLES, TINTS

MAX_LENGTH = 32


def words() -> list[str]:
    """Every word that is to be one token, sorted."""
    text = [*NOUNS, *BACKGROUNDS.values(), *PLAIN, *TINTS, *SIZES, *FILLERS, *EXTRA_WORDS, "an", "background"]
    text += [opening for opening, _ in STYLES.values()]
    return sorted({word for phrase in text for word in phrase.split()})


def build() -> CLIPTokenizer:
    """Merges are learned on the word list alone, until each word is one token; other words fall into pieces."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=20_000, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(words(), trainer)
    import json

    learned = json.loads(bpe.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    vocabulary["<|startoftext|>"] = len(vocabulary)
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    split = [w for w in words() if len(tokenizer(w).input_ids) != 3]
    if split:
        raise ValueError(f"these words are not one token: {split}")
    return tokenizer
