"""What a user may set for learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from ..bases import families, family
from .declared import (
    BASELINES,
    Asked,
    Count,
    Form,
    Group,
    Offered,
    Only,
    Positive,
    Seed,
    Shown,
    Weight,
    settled,
    usage,
)  # fmt: skip

CARRIED = ("finetune", "ewc", "lwf")
"""Methods of learning that carry one LoRA from concept to concept: the newest one draws all of them."""
SUMMED = ("c-lora",)
"""Methods of learning in which each LoRA is trained on top of all older ones: their sum draws all concepts."""
TARGETS = tuple(dict.fromkeys(targets for one in families() for targets in one.targets))
"""Of all families."""
GAMMA2 = {"subspace": 0.0, "paper": 1.0}
"""By the form of R1 and R2: as measured, R2 helps nowhere; as printed, the paper's own."""


@dataclass(frozen=True, kw_only=True)
class LearnOptions:
    """Settings of a training."""

    steps: Annotated[Count, Group("Training")]
    """Training steps."""
    batch: Count
    """Images in a step."""
    accumulate: Count = 1
    """Gradient accumulation: batches in a step, which then sees this many times --batch images."""
    lr: Positive
    """Learning rate of the low-rank weights; falls to zero over the training."""
    token_lr: Positive
    """Learning rate of the concept's tokens; falls to zero over the training."""
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """Optimizer; adamw8bit keeps its moments in 8 bits and needs bitsandbytes."""
    checkpointing: bool = False
    """Gradient checkpointing: recompute activations instead of keeping them; less memory, a third slower."""
    min_snr: Weight = 0.0
    """Min-SNR loss weighting: lowers the weight of timesteps with little noise; gamma, usually 5; 0 for none."""
    noise_offset: Weight = 0.0
    """Noise offset, for very dark or bright images; usually up to 0.1."""
    checkpoint_every: Count = 50
    """Steps between checkpoints."""
    seed: Seed = 0
    """Seed of everything drawn at random."""

    caption: Annotated[str, Group("Images")] = "a photo of a {noun}"
    """Caption of images without a .txt file; {noun} is the class noun."""
    crop: bool = True
    """Augment by random crops, which take off up to a fifth of the sides."""
    mirror: bool = False
    """Augment by mirroring; leave off for text and anything that is not symmetric."""
    buckets: Annotated[bool, Shown("on, but off for mini")]
    """Learn each image at a size near its own aspect ratio, not at a square crop."""
    variants: Count = 8
    """Crops of each image, encoded once before the training."""
    prior: Annotated[int, Ge(0)] = 0
    """Prior preservation: images of the class noun that the base draws and the training also learns; 0 for none."""
    prior_weight: Annotated[Weight, Only("prior")] = 1.0
    """Weight of the loss of the --prior images."""

    rank: Annotated[Count, Group("Weights and tokens")] = 4
    """Rank of the low-rank weights."""
    scale: Positive = 1.0
    """Factor on the low-rank weights (alpha / rank)."""
    targets: Annotated[
        str, Shown("attn2, the layers that attend to text, but attn1+attn2 for mini"), Offered(TARGETS)
    ]
    """Attention layers that get low-rank weights, as the base names them; Stable Diffusion has attn1+attn2, too."""
    token_groups: Literal["block", "layer"] = "block"
    """Layers that share a copy of the concept's tokens: those of one transformer block, or none."""
    portable: bool = False
    """Share the concept's tokens among all layers, so that an embedding file holds them exactly."""

    method: Annotated[
        Literal["cidm", "plain", "finetune", "ewc", "lwf", "c-lora"], Group("Older concepts")
    ] = "cidm"
    """How older concepts are taken into account; all but cidm are for comparison."""
    gamma1: Annotated[Weight, Only("method", "cidm")] = 0.1
    """cidm: weight of R1, which keeps concepts apart; 0 leaves it out."""

    gamma2: Annotated[Weight, Group(BASELINES), Only("method", "cidm"), Shown("0, but 1 for paper")]
    """cidm: weight of R2, which keeps what they share together; 0 leaves it out."""
    consolidation: Annotated[Literal["subspace", "paper"], Only("method", "cidm")] = "subspace"
    """cidm: form of R1 and R2; paper is as printed there: slow."""
    shared_rank: Annotated[
        Count, Only("method", "cidm"), Only("consolidation", "subspace"), Only("gamma2")
    ] = 8
    """cidm, subspace: rows of the subspace that concepts share in each layer."""
    refresh_every: Annotated[
        Count, Only("method", "cidm"), Only("consolidation", "subspace"), Only("gamma2")
    ] = 25
    """cidm, subspace: steps between recomputations of the shared subspace."""
    shared_lr: Annotated[Positive, Only("method", "cidm"), Only("consolidation", "paper"), Only("gamma2")] = (
        0.01
    )
    """cidm, paper: learning rate of the shared subspace; above 1 / number of concepts it diverges."""
    ewc_weight: Annotated[Weight, Only("method", "ewc")] = 3e4
    """ewc: λ, weight of the squared distance from the LoRA carried on."""
    ewc_draws: Annotated[Count, Only("method", "ewc")] = 64
    """ewc: gradients from which the Fisher information is estimated after the training."""
    lwf_weight: Annotated[Weight, Only("method", "lwf")] = 1.0
    """lwf: weight of the distance from the previous model's prediction."""
    clora_weight: Annotated[Weight, Only("method", "c-lora")] = 1e3
    """c-lora: weight of the overlap with the older concepts' weights, entry by entry."""


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """Previews, which change no byte of what is learned, the concept's preview image, and TensorBoard."""

    preview: Annotated[list[str], Form("PROMPT"), Group("Watching"), Shown("")] = field(default_factory=list)
    """Draw this now and then while learning; again for more."""
    preview_every: Annotated[Count, Form("N")] = 100
    """Steps between two previews; the last step has one, too."""
    preview_to: Annotated[Path, Form("DIR"), Shown("NAME-preview")] | None = None
    """Folder for previews."""
    preview_image: bool = True
    """Draw the concept once it is learned, and keep the image in its record."""
    tensorboard: Annotated[Path, Form("DIR")] | None = None
    """Write loss, rates and previews to DIR/NAME."""


def resolve_learn(asked: Asked, kind: str) -> LearnOptions:
    """What was asked for, with all that is open filled in for the family of a base of this kind.

    Raises:
        CidmError: USAGE, naming the option, for a value that cannot be trained with.
    """
    own = family(kind)
    gamma2 = GAMMA2.get(asked.get("consolidation", "subspace"))
    whole = settled(LearnOptions, asked, {**own.learn, "gamma2": gamma2 or 0.0})
    if whole.targets not in own.targets:
        raise usage("targets", whole.targets, f"must be {' or '.join(own.targets)}")
    return whole
