"""Who judges pictures: a CLIP, and a second, self-supervised encoder, so that no figure hangs on one judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES

from ..files.places import told_path
from ..models import clip
from ..models.offload import ONE_MEMORY, present
from ..models.pretrained import check_whole, load

NONE = "none"
"""The name of no second judge."""
OWN = "the base's own"
"""Where a judge comes from that is a part of the base."""
AT_ONCE = 64
"""Pictures a judge looks at in one pass."""


class Encoder:
    """A frozen image encoder of any kind that transformers knows to look at pictures: a DINO ViT, a ResNet."""

    def __init__(
        self, source: str | Path, *, device: torch.device | None = None, offload: bool = False
    ) -> None:
        """Loads it with safetensors weights, and the image settings beside it.

        Args:
            offload: it waits in main memory while it judges nothing.

        Raises:
            CidmError: NOT_FOUND or INVALID when it cannot be loaded, or lacks weights.
        """

        def read(name: str, **where: Any) -> tuple[Any, dict[str, Any], Any]:
            # Left out, the auto classes would ask on the terminal whether to run the model's own code.
            kind = str(PreTrainedConfig.get_config_dict(name, **where)[0].get("model_type"))
            # Others fetch kernels when they are built; timm's may be any model that timm can fetch.
            if kind not in MODEL_FOR_IMAGE_MAPPING_NAMES or kind.startswith("timm"):
                raise ValueError(f"a {kind} is not known to look at images")
            model, told = AutoModel.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, **where,
            )  # fmt: skip
            processor = AutoImageProcessor.from_pretrained(
                name, backend="pil", trust_remote_code=False, **where
            )
            return model, told, processor

        self.source = str(source)
        self.device = device or torch.device("cpu")
        self.model, told, self.processor = load(source, read, flag="--dino")
        check_whole(told, source, flag="--dino", spare="pooler.")
        # A pooler that did not come with the weights (DINO's ViT has none) is random: the CLS token is taken then.
        self.pooled = hasattr(self.model, "pooler") and not told["missing_keys"]
        self.model.requires_grad_(False).eval().to(torch.device("cpu") if offload else self.device)

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit image embeddings [N, width], float32: the pooled features, or the CLS token."""
        prepared = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        with present(self.device, self.model):
            out = self.model(pixel_values=prepared.pixel_values.to(self.device))
        features = out.pooler_output.flatten(1) if self.pooled else out.last_hidden_state[:, 0]
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy()


@dataclass
class Judges:
    """The judges of an evaluation. They remember what they have seen: hand them on to the next evaluation."""

    clip: clip.Judge
    dino: Encoder | None
    base: Path | None = None
    """The base's folder, whose own judges are told as such."""
    _pictures: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict, repr=False)
    _texts: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that judge pictures: "clip", and "dino" where there is a second."""
        return ("clip",) if self.dino is None else ("clip", "dino")

    @property
    def sources(self) -> dict[str, str]:
        """Where each comes from, without what leads there on this machine."""
        found = {name: Path(getattr(self, name).source) for name in self.names}
        return {
            name: OWN if self.base and path.parent == self.base else told_path(path)
            for name, path in found.items()
        }

    def look(
        self, keys: Sequence[str], picture: Callable[[str], Image.Image], seen: Callable[[int], None]
    ) -> None:
        """Embeds the pictures of these keys with every judge; one seen before is not looked at again.

        Args:
            picture: loads the picture of a key; a key means the same content always.
            seen: told how many of ``keys`` are done.
        """
        new = [key for key in dict.fromkeys(keys) if (self.names[-1], key) not in self._pictures]
        seen(len(keys) - len(new))
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            images = [picture(key) for key in some]
            for name in self.names:
                rows = torch.from_numpy(getattr(self, name).embed(images))
                self._pictures |= {(name, key): row for key, row in zip(some, rows, strict=True)}
            seen(len(keys) - len(new) + start + len(some))

    def pictures(self, name: str, keys: Sequence[str]) -> torch.Tensor:
        """Unit embeddings [N, width] by one judge of pictures that were looked at."""
        return torch.stack([self._pictures[name, key] for key in keys])

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings [N, width] of texts, by CLIP."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            self._texts |= dict(zip(some, torch.from_numpy(self.clip.embed_texts(some)), strict=True))
        return torch.stack([self._texts[text] for text in texts])


@dataclass(frozen=True)
class Choice:
    """Which judges are meant."""

    clip: str
    """A folder or a hub name."""
    dino: str | None
    """Likewise; None for no second judge."""
    tokenizer: Path | None
    """Where CLIP's tokenizer is, if its own folder holds none."""
    base: Path | None = None
    """The base's folder."""


def choose(
    folder: Path, clip_source: str | None, dino_source: str | None, usual: Mapping[str, str]
) -> Choice:
    """What is said, else what the base brings along, else its family's usual judges.

    Args:
        folder: the base's, perhaps with folders ``clip`` and ``dino``.
        usual: of the base's family.
    """
    mine = {name: folder / name for name in ("clip", "dino") if (folder / name / "config.json").is_file()}
    first = clip_source or str(mine.get("clip", usual["clip"]))
    second = dino_source or str(mine.get("dino", usual["dino"]))
    files = ("tokenizer.json", "vocab.json")
    bare = Path(first).is_dir() and not any((Path(first) / name).is_file() for name in files)
    tokenizer = folder / "tokenizer" if bare else None
    return Choice(first, None if second.lower() == NONE else second, tokenizer, folder)


def open_judges(choice: Choice, device: torch.device | None = None, *, offload: bool = False) -> Judges:
    """Loads the judges; with ``offload`` they wait in main memory, if that is not where they judge.

    Raises:
        CidmError: NOT_FOUND or INVALID, naming the option and the way out.
    """
    offload = offload and device is not None and device.type not in ONE_MEMORY
    second = None if choice.dino is None else Encoder(choice.dino, device=device, offload=offload)
    first = clip.Judge(choice.clip, tokenizer=choice.tokenizer, device=device, offload=offload)
    return Judges(first, second, choice.base)
