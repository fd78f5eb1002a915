"""A CLIP model as judge: image and text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from .offload import present
from .pretrained import check_whole, has_words, load


class Judge:
    """A frozen CLIP model with its own image preparation (Pillow and numpy: torchvision is not needed)."""

    def __init__(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        device: torch.device | None = None,
        offload: bool = False,
    ) -> None:
        """Loads a transformers CLIP with safetensors weights. Pictures are normalised as it says.

        Args:
            source: its folder, or its name on the hub.
            tokenizer: where its tokenizer is if not in ``source``; only texts need one.
            offload: it waits in main memory while it judges nothing.

        Raises:
            CidmError: NOT_FOUND or INVALID when it cannot be loaded.
        """

        def read(name: str, **where: Any) -> tuple[CLIPModel, dict[str, Any], CLIPImageProcessorPil]:
            model, told = CLIPModel.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **where
            )
            return model, told, CLIPImageProcessorPil.from_pretrained(name, **where)

        self.source = str(source)
        self.device = device or torch.device("cpu")
        self.model, told, self.processor = load(source, read, flag="--clip")
        check_whole(told, source, flag="--clip")
        self.model.requires_grad_(False).eval().to(torch.device("cpu") if offload else self.device)
        self._tokenizer_source = source if tokenizer is None else tokenizer
        self._tokenizer: CLIPTokenizer | None = None

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit image embeddings [N, projection], float32."""
        prepared = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        pixels = prepared.pixel_values.to(self.device)
        with present(self.device, self.model):
            features = self.model.get_image_features(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit text embeddings [N, projection], float32; what does not fit the text encoder is cut off."""
        if self._tokenizer is None:
            self._tokenizer = load(self._tokenizer_source, _read_tokenizer, flag="--clip")
        ids = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids
        with present(self.device, self.model):
            features = self.model.get_text_features(input_ids=ids.to(self.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()


def _read_tokenizer(name: str, **where: Any) -> CLIPTokenizer:
    found: CLIPTokenizer = CLIPTokenizer.from_pretrained(name, **where)
    if not has_words(found):
        raise OSError("its tokenizer has no vocabulary")
    return found
