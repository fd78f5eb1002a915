"""What all long work needs: a registry, its base, how it is computed, who hears of it, what is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cidm_registry import Busy, Record, Registry
from cidm_registry.disk import Disk

from ..options.computing import Computing
from ..options.flags import chosen
from ..options.settings import Settings
from ..terminal.progress import counting
from .computing import Machine, machine
from .processes import SOLO, Crew

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..models.base import Base

Update = Callable[..., None]
"""Told how many parts of a piece of work are done, and by name whatever numbers belong to the last, such as a loss."""


def _unheard(_text: str) -> None:
    return None


@contextmanager
def _unseen(_label: str, _total: int) -> Iterator[Update]:
    yield lambda done, **numbers: None


def _unasked() -> AbstractContextManager[Callable[[], bool]]:
    return nullcontext(lambda: False)


@dataclass(frozen=True)
class Listener:
    """Who hears how the work goes, and may stop it."""

    note: Callable[[str], None] = _unheard
    """Good to know."""
    warn: Callable[[str], None] = _unheard
    """May need attention."""
    stage: Callable[[str, int], AbstractContextManager[Update]] = _unseen
    """Opened with a label and a number of parts while a piece of work is done."""
    stopping: Callable[[], AbstractContextManager[Callable[[], bool]]] = _unasked
    """Open during a training; what it gives is asked after each step, and True saves a checkpoint and ends it."""
    look: Callable[[Image], None] | None = None
    """Shown now and then what is being drawn; where it is None, nothing is prepared to be shown."""

    @classmethod
    def of(
        cls,
        on_progress: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
        on_note: Callable[[str], None] = _unheard,
        on_warning: Callable[[str], None] = _unheard,
        should_stop: Callable[[], bool] = lambda: False,
        on_look: Callable[[Image], None] | None = None,
    ) -> Listener:
        """From plain functions. ``on_progress`` gets a label, the parts done, all parts, and numbers by name."""

        @contextmanager
        def stage(label: str, total: int) -> Iterator[Update]:
            def update(done: int, **numbers: float) -> None:
                if on_progress:
                    on_progress(label, done, total, numbers)

            yield update

        return cls(on_note, on_warning, stage, lambda: nullcontext(should_stop), on_look)


UNHEARD = Listener()
"""Nobody."""


def open_registry(path: Path, warn: Callable[[str], None]) -> Registry:
    """The registry in a folder; ``warn`` hears what is amiss with it. Raises what `Registry.open` raises."""
    return Registry.open(path, disk=Disk(warn), tell=warn)


@dataclass
class Session:
    """A registry at work. The base is loaded when it is first needed, and kept."""

    registry: Registry
    computing: Computing = field(default_factory=Computing)
    listener: Listener = field(default_factory=Listener)
    settings: Settings = field(default_factory=lambda: Settings({}, Path(), ()))
    """Taken where an option is not said."""
    crew: Crew = SOLO
    """The processes that work together."""
    _machines: dict[str, Machine] = field(default_factory=dict)
    _bases: dict[Machine, Base] = field(default_factory=dict)
    """One at most, shared with the sessions that this one is ``on``."""

    @property
    def kind(self) -> str:
        """The family of the base."""
        return self.registry.base.kind

    @property
    def concepts(self) -> list[Record]:
        """The concepts learned so far, in the order they were learned."""
        return self.registry.records()

    def said(self, options: type, section: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options by field: what is given, else what is set; nothing where neither says it."""
        return chosen(options, section, dict(given), self.settings)

    def machine(self, work: str) -> Machine:
        """How a piece of work, "learn" or "draw", is computed; what there is to note of it is noted once."""
        if work not in self._machines:
            self._machines[work] = machine(self.computing, self.kind, work, self.listener.note)
        return self._machines[work]

    def base(self, work: str = "draw") -> Base:
        """The base, loaded as that work needs it. Raises what ``open_base`` raises."""
        return self.open(self.machine(work))

    def open(self, machine: Machine) -> Base:
        """The base, loaded to compute in one way; another way's goes before it comes."""
        from ..models.base import WHOLE
        from ..models.opening import open_base

        if machine not in self._bases:
            self._bases.clear()
            base = open_base(
                self.registry, device=self.crew.device(machine.device), precision=machine.precision,
                offload=machine.offload, whole=machine.whole or WHOLE, compiled=machine.compiled,
            )  # fmt: skip
            if self.computing.offload and not base.offload:
                self.listener.note(
                    f"--offload: {base.device.type} computes in main memory; there is nothing to move"
                )
            self._bases[machine] = base
        return self._bases[machine]

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        """Shows a piece of work; what it gives is called when one more of its parts is done."""
        with self.listener.stage(label, total) as update:
            yield counting(update)

    def on(self, registry: Registry) -> Session:
        """The same on another registry of the same base, which is not loaded again."""
        if registry.base.fingerprint != self.registry.base.fingerprint:
            raise ValueError(f"{registry.root} is not on the same base")
        return replace(self, registry=registry)

    def release(self) -> Base:
        """The base, given away: the next that needs one loads another."""
        base = self.base()
        self._bases.clear()
        return base

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the registry's lock of trainings; says so when another process has it and this one waits."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.registry.training_lock(0.2))
            except Busy:
                self.listener.note("another concept is being learned in this registry; waiting for it")
                stack.enter_context(self.registry.training_lock(None))
            yield
