"""What the small FLUX.2 and Z-Image have in common: Qwen3 made very small, with its tokenizer's manners."""

from __future__ import annotations

from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

WORDS = ("photo", "dog", "cat", "snow")
"""What the tokenizer knows as one token each behind a space; any other letter is a token."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
LENGTH, WIDTH = 64, 16
"""Rows of a prompt, and width of one state in a row."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}{% if not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
"""What Qwen3's own template makes of one message of a user."""


def tokenizer() -> Qwen2Tokenizer:
    """A real byte-pair tokenizer that joins the letters of WORDS with the space before them."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in WORDS:
        left = "Ġ"
        for letter in word:
            merges.append((left, letter))
            left += letter
            pieces.append(left)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=LENGTH)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    made.chat_template = TEMPLATE
    return made


def text_encoder(words: Qwen2Tokenizer, layers: int) -> Qwen3ForCausalLM:
    """So many layers."""
    made = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=LENGTH, tie_word_embeddings=True,
    ))  # fmt: skip
    # As freshly made, all words nearly mean the same to the layers above.
    made.get_input_embeddings().weight.data.mul_(20)
    return made
