"""A CLIP model as judge: image and text embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel
from transformers.utils import logging


class Judge:
    """A frozen CLIP model with its own image preparation (Pillow and numpy: torchvision is not needed)."""

    def __init__(self, folder: Path) -> None:
        """Loads a transformers CLIP folder with safetensors weights. Pictures are normalised as it says."""
        from transformers import CLIPImageProcessorPil

        logging.disable_progress_bar()
        self.model = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self.model.requires_grad_(False).eval()
        self.processor = CLIPImageProcessorPil.from_dict(
            json.loads((folder / "preprocessor_config.json").read_text())
        )

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit image embeddings [N, projection], float32."""
        prepared = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        features = self.model.get_image_features(pixel_values=prepared.pixel_values).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).numpy()
