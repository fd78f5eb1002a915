"""What a user may set for learning, and what each base takes where nothing is set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..errors import CidmError, ExitCode
from .values import filled, usage


@dataclass(frozen=True)
class LearnOptions:
    """Settings of a training; None takes the base's own default."""

    steps: int | None = None
    """Training steps."""
    batch: int | None = None
    """Pictures in a step."""
    accumulate: int = 1
    """Batches whose gradients make one step; a step then sees this many times --batch pictures."""
    rank: int = 4
    """Rank of the low-rank weights."""
    scale: float = 1.0
    """Factor on the low-rank weights (alpha / rank)."""
    lr: float | None = None
    """Learning rate of the low-rank weights; falls to zero over the training."""
    token_lr: float | None = None
    """Learning rate of the concept's tokens; falls to zero over the training."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    optimizer: str = "adamw"
    """Optimizer: adamw, or adamw8bit, which keeps its moments in 8 bits (needs bitsandbytes)."""
    checkpointing: bool = False
    """Compute inner values again for the gradients instead of keeping them: less memory, a third slower."""
    min_snr: float = 0.0
    """Weigh the loss of little noise down, by a signal to noise ratio up to this, usually 5; 0 leaves it out."""
    noise_offset: float = 0.0
    """Shift of the noise as a whole, for very dark or bright pictures; usually up to 0.1."""
    targets: str = "attn2"
    """Attention layers that get low-rank weights: attn2 (to text) or attn1+attn2."""
    caption: str = "a photo of a {noun}"
    """Caption of pictures without a .txt file; {noun} is the class noun."""
    crop: bool = True
    """Vary the pictures by cropping up to a fifth off their sides."""
    mirror: bool = False
    """Vary the pictures by mirroring; leave off for text and anything that is not symmetric."""
    buckets: bool | None = None
    """Learn each picture at a size near its own aspect instead of cutting all square; on but for mini."""
    variants: int = 8
    """Croppings of each picture, encoded once before the training."""
    prior: int = 0
    """Pictures of the class noun that the base draws first and goes on learning beside the concept; 0 for none."""
    prior_weight: float = 1.0
    """Weight of the loss of the --prior pictures."""
    method: str = "cidm"
    """How older concepts are taken into account: cidm, plain, finetune, ewc, lwf or c-lora."""
    gamma1: float = 0.1
    """cidm: weight of R1, which keeps concepts apart; 0 leaves it out."""
    gamma2: float | None = None
    """cidm: weight of R2, which keeps what they share together; 0, which leaves it out, but 1 for paper."""
    consolidation: str = "subspace"
    """cidm: form of R1 and R2: subspace, or paper (as printed there: slow, for comparison)."""
    shared_rank: int = 8
    """cidm, subspace: rows of the subspace that concepts share in each layer."""
    refresh_every: int = 25
    """cidm, subspace: steps between recomputations of the shared subspace."""
    shared_lr: float = 0.01
    """cidm, paper: learning rate of the shared subspace; above 1 / number of concepts it diverges."""
    ewc_weight: float = 3e4
    """ewc: λ, weight of the squared distance from the LoRA carried on."""
    ewc_draws: int = 64
    """ewc: gradients from which the Fisher information is estimated after the training."""
    lwf_weight: float = 1.0
    """lwf: weight of the distance from the previous model's prediction."""
    clora_weight: float = 1e3
    """c-lora: weight of the overlap with the older concepts' weights, entry by entry."""
    token_groups: str = "block"
    """Layers that share a copy of the concept's tokens: block (those of one transformer block) or layer (none)."""
    portable: bool = False
    """Share the concept's tokens among all layers, so that an embedding file holds them exactly."""
    checkpoint_every: int = 50
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of everything drawn at random."""


LEARN_METHODS: dict[str, tuple[str, ...]] = {
    "cidm": ("gamma1", "gamma2", "consolidation", "shared_rank", "refresh_every", "shared_lr"),
    "plain": (),
    "finetune": (),
    "ewc": ("ewc_weight", "ewc_draws"),
    "lwf": ("lwf_weight",),
    "c-lora": ("clora_weight",),
}
"""What ``--method`` of learning may be, with the settings that only it has; docs/methods.md says what each does."""
CARRIED = ("finetune", "ewc", "lwf")
"""Methods of learning that carry one LoRA from concept to concept: the newest one draws all of them."""
SUMMED = ("c-lora",)
"""Methods of learning in which each LoRA is trained on top of all older ones: their sum draws all concepts."""
OPTIMIZERS = ("adamw", "adamw8bit")
CONSOLIDATIONS: dict[str, tuple[str, ...]] = {
    "subspace": ("shared_rank", "refresh_every"),
    "paper": ("shared_lr",),
}
"""What ``--consolidation`` may be, with the settings that only it has."""
# Defaults that depend on the base's family: the paper's for SD-1.5 and SDXL, which it trains and draws alike
# (arXiv 2410.17594, section 4.1), measured ones for the small base.
LEARN_DEFAULTS: dict[str, dict[str, Any]] = {
    "mini": {"steps": 100, "batch": 8, "lr": 2e-3, "token_lr": 1e-2, "buckets": False},
    "sd15": {"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-3, "buckets": True},
    "sdxl": {"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-3, "buckets": True},
}
GAMMA2 = {"subspace": 0.0, "paper": 1.0}
"""By the form of R1 and R2: as measured, R2 helps nowhere; as printed, the paper's own."""


def resolve_learn(options: LearnOptions, kind: str) -> LearnOptions:
    """The options with every None filled in for the base's family.

    Raises:
        CidmError: USAGE, naming the option, for a value that cannot be trained with.
    """
    if options.consolidation not in CONSOLIDATIONS:
        raise usage("consolidation", options.consolidation, "must be subspace or paper")
    whole = filled(options, {**LEARN_DEFAULTS[kind], "gamma2": GAMMA2[options.consolidation]})
    counts = "steps batch accumulate rank variants checkpoint_every shared_rank refresh_every ewc_draws"
    for name in counts.split():
        if getattr(whole, name) < 1:
            raise usage(name, getattr(whole, name), "must be at least 1")
    for name in ("lr", "token_lr", "scale", "shared_lr"):
        if not 0 < getattr(whole, name) < float("inf"):
            raise usage(name, getattr(whole, name), "must be above 0")
    for (
        name
    ) in "gamma1 gamma2 ewc_weight lwf_weight clora_weight min_snr noise_offset prior prior_weight".split():
        if not 0 <= getattr(whole, name) < float("inf"):
            raise usage(name, getattr(whole, name), "must not be negative")
    if whole.method not in LEARN_METHODS:
        raise usage("method", whole.method, f"must be one of {', '.join(LEARN_METHODS)}")
    if whole.optimizer not in OPTIMIZERS:
        raise usage("optimizer", whole.optimizer, f"must be {' or '.join(OPTIMIZERS)}")
    if not 0 <= whole.weight_decay < 1:
        raise usage("weight_decay", whole.weight_decay, "must be from 0 to below 1")
    if whole.targets not in ("attn2", "attn1+attn2"):
        raise usage("targets", whole.targets, "must be attn2 or attn1+attn2")
    if whole.token_groups not in ("block", "layer"):
        raise usage("token-groups", whole.token_groups, "must be block or layer")
    if not 0 <= whole.seed < 2**32:
        raise usage("seed", whole.seed, "must be from 0 to 4294967295")
    return whole


def check_said(said: Collection[str], options: LearnOptions) -> None:
    """Refuses settings of another method that were asked for by name; in a settings file they may stand.

    Raises:
        CidmError: USAGE, naming the option and what it belongs to.
    """
    if "prior_weight" in said and not options.prior:
        raise usage("prior_weight", options.prior_weight, "belongs to --prior, which is 0")
    for flag, chosen, choices in (
        ("method", options.method, LEARN_METHODS),
        ("consolidation", options.consolidation, CONSOLIDATIONS),
    ):
        for owner, names in choices.items():
            for name in names:
                if owner != chosen and name in said:
                    raise CidmError(
                        f"--{name.replace('_', '-')}: belongs to --{flag} {owner}, and this is {chosen}",
                        hint=f"leave it out, or learn with --{flag} {owner}",
                        code=ExitCode.USAGE,
                    )
    for name in CONSOLIDATIONS[options.consolidation]:
        if name in said and not options.gamma2:
            raise usage(name, getattr(options, name), "belongs to --gamma2, which is 0")
