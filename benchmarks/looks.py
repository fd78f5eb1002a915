"""Who is who in the scale test: classes, and the looks of their individuals, in Fluent Emoji."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """Something a drawing wears."""

    code: str
    """Code point of its own drawing."""
    x: float
    """Its centre, as a share of the wearer's width …"""
    y: float
    """… and of its height."""
    width: float
    """As a share of the wearer's width."""
    hue: float | None = None
    """In turns; its own colours where None."""


@dataclass(frozen=True)
class Look:
    """How one individual looks."""

    code: str
    """Code point of the Fluent drawing."""
    coat: str = ""
    """What its main colour is dyed; its own where empty."""
    pattern: tuple[str, str] | None = None
    """A pattern and its colour."""
    wears: Thing | None = None


def bow(x: float, y: float, width: float = 0.4, hue: float | None = None) -> Thing:
    """A ribbon bow."""
    return Thing("1f380", x, y, width, hue)


def hat(x: float, y: float, width: float = 0.5) -> Thing:
    """A top hat."""
    return Thing("1f3a9", x, y, width)


def cap(x: float, y: float, width: float = 0.5, hue: float | None = None) -> Thing:
    """A cap."""
    return Thing("1f9e2", x, y, width, hue)


def crown(x: float, y: float, width: float = 0.45) -> Thing:
    """A crown."""
    return Thing("1f451", x, y, width)


#: Five classes a row. An earlier row comes earlier in the order of learning, and has more individuals.
ROWS: tuple[dict[str, tuple[Look, ...]], ...] = (
    {
        "dog": (
            Look("1f436"),
            Look("1f436", "cream"),
            Look("1f415"),
            Look("1f9ae"),
            Look("1f436", "grey"),
            Look("1f436", "black"),
            Look("1f415", "brown"),
            Look("1f436", wears=cap(0.5, 0.02, 0.62)),
            Look("1f429"),
            Look("1f415", "white", ("spots", "black")),
        ),
        "cat": (
            Look("1f431"),
            Look("1f431", "grey"),
            Look("1f408"),
            Look("1f408-200d-2b1b"),
            Look("1f431", "white"),
            Look("1f431", "black"),
            Look("1f408", "grey"),
            Look("1f431", pattern=("stripes", "brown")),
            Look("1f408", "white"),
            Look("1f431", wears=bow(0.5, 0.02, 0.45)),
        ),
        "bird": (
            Look("1f426"),
            Look("1f99c"),
            Look("1f426", "blue"),
            Look("1f99c", "green"),
            Look("1f426-200d-2b1b"),
            Look("1f54a-fe0f"),
            Look("1f426", pattern=("belly", "white")),
            Look("1f99c", "teal"),
            Look("1f426", "yellow"),
            Look("1f985"),
        ),
        "car": (
            Look("1f697"),
            Look("1f697", "yellow"),
            Look("1f699"),
            Look("1f697", "green"),
            Look("1f693"),
            Look("1f697", "white"),
            Look("1f699", "red"),
            Look("1f697", pattern=("half", "white")),
            Look("1f699", "cream"),
            Look("1f697", "black"),
        ),
        "cake": (
            Look("1f370"),
            Look("1f382"),
            Look("1f370", "brown"),
            Look("1f382", "pink"),
            Look("1f370", "green"),
            Look("1f382", "teal"),
            Look("1f370", "pink"),
            Look("1f382", "brown"),
            Look("1f370", "purple"),
            Look("1f382", pattern=("half", "red")),
        ),
    },
    {
        "bear": (
            Look("1f43b"),
            Look("1f43b-200d-2744-fe0f"),
            Look("1f43b", "black"),
            Look("1f43b", wears=hat(0.5, -0.12)),
            Look("1f43b", "ginger"),
            Look("1f43b-200d-2744-fe0f", wears=crown(0.5, -0.02)),
            Look("1f43b", "grey"),
            Look("1f43b", wears=bow(0.5, 0.98, 0.45, 0.6)),
        ),
        "rabbit": (
            Look("1f430"),
            Look("1f430", "brown"),
            Look("1f407"),
            Look("1f430", "grey"),
            Look("1f407", "tan"),
            Look("1f430", wears=bow(0.5, 0.98, 0.5)),
            Look("1f430", "black"),
            Look("1f407", "black"),
        ),
        "fish": (
            Look("1f41f"),
            Look("1f41f", "ginger"),
            Look("1f420"),
            Look("1f41f", pattern=("stripes", "white")),
            Look("1f420", "red"),
            Look("1f41f", "green"),
            Look("1f421"),
            Look("1f420", "pink"),
        ),
        "shoe": (
            Look("1f45f"),
            Look("1f45f", "red"),
            Look("1f45e"),
            Look("1f45f", "blue"),
            Look("1f97e"),
            Look("1f45e", "black"),
            Look("1f45f", "yellow"),
            Look("1f97e", "green"),
        ),
        "hat": (
            Look("1f9e2"),
            Look("1f9e2", "red"),
            Look("1f452"),
            Look("1f3a9"),
            Look("1f452", "white"),
            Look("1f9e2", "green"),
            Look("1f452", "purple"),
            Look("1f9e2", pattern=("stripes", "yellow")),
        ),
    },
    {
        "teddy bear": (
            Look("1f9f8"),
            Look("1f9f8", "white"),
            Look("1f9f8", "brown"),
            Look("1f9f8", wears=bow(0.5, 0.53, 0.32)),
            Look("1f9f8", "pink"),
            Look("1f9f8", wears=cap(0.5, 0.0, 0.5)),
        ),
        "backpack": (
            Look("1f392"),
            Look("1f392", "blue"),
            Look("1f392", "green"),
            Look("1f392", pattern=("spots", "white")),
            Look("1f392", "black"),
            Look("1f392", "blue", ("band", "yellow")),
        ),
        "duck": (
            Look("1f986"),
            Look("1f986", "yellow"),
            Look("1f986", "brown"),
            Look("1f986", wears=bow(0.22, 0.45, 0.4, 0.0)),
            Look("1f986", "blue"),
            Look("1f986", wears=hat(0.25, -0.08, 0.45)),
        ),
        "flower": (
            Look("1f337"),
            Look("1f337", "yellow"),
            Look("1f33c"),
            Look("1f33c", "pink"),
            Look("1f33a"),
            Look("1f337", "purple"),
        ),
        "ice cream": (
            Look("1f366"),
            Look("1f368"),
            Look("1f366", pattern=("half", "brown")),
            Look("1f366", "pink"),
            Look("1f368", "green"),
            Look("1f366", "teal"),
        ),
    },
    {
        "horse": (Look("1f434"), Look("1f434", "white"), Look("1f40e"), Look("1f434", "ginger")),
        "house": (Look("1f3e0"), Look("1f3e0", "blue"), Look("1f3e1"), Look("1f3e0", "pink")),
        "ball": (Look("26bd"), Look("26bd", "red"), Look("1f3c0"), Look("26bd", "green")),
        "guitar": (Look("1f3b8"), Look("1f3b8", "blue"), Look("1f3bb"), Look("1f3b8", "yellow")),
        "robot": (Look("1f916"), Look("1f916", "yellow"), Look("1f916", "teal"), Look("1f916", wears=hat(0.5, -0.1))),
    },
)  # fmt: skip
