"""Several processes at one command, as `accelerate launch` starts them; a process alone needs nothing of this.

All run the same code, each on its share of the work. Whenever they meet, each also says whether it has failed: what
goes wrong in one of them, wherever that is, ends all with the same error, and none waits for ever.

What they exchange is small: the gradients of a concept, about a million numbers. It goes through main memory, by gloo,
whatever the device: that works alike on GPUs and CPUs, also for two processes on one GPU. Accelerate starts them and
does nothing else here: it exchanges through the GPUs where there are some; told to use the CPU, it may set torch's
threads, on which bytes depend; it gathers objects by pickle; and when one process fails it lets the others wait.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import CidmError, ExitCode

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=7)
"""How long one process waits for another, which may wait for somebody else's training."""

_FINE, _FLAGGED, _FAILED = range(3)


class Agreed(CidmError):
    """An error that every process has heard of."""


@dataclass(frozen=True)
class Crew:
    """The processes that work at one command, as one of them sees them."""

    count: int = 1
    rank: int = 0
    """Which of them this is, from 0."""
    local: int = 0
    """Which of those on this machine, from 0."""

    @property
    def main(self) -> bool:
        """Whether this is the one that prints, commits and reports."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether this one does piece ``number`` of a piece of work: they are dealt out in turn."""
        return number % self.count == self.rank

    def meet(self, flag: bool = False) -> bool:
        """Waits until all are here. Returns whether any of them raised its flag.

        Raises:
            Agreed: when one has failed, here or since they last met.
        """
        if self.count == 1:
            return flag
        highest = _highest(_FLAGGED if flag else _FINE)
        if highest == _FAILED:
            raise self._first_error(None)
        return highest == _FLAGGED

    def exchange(self, own: bytes) -> list[bytes]:
        """What each process has, in their order. Raises as ``meet``."""
        self.meet()
        return [own] if self.count == 1 else _gathered(own, self.count)

    def gathered(self, own: Any) -> list[Any]:
        """What each process has, as JSON has it, in their order. Raises as ``meet``."""
        return [json.loads(found) for found in self.exchange(json.dumps(own).encode())]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Makes each tensor, in place, the sum of those that the processes have there. Raises as ``meet``."""
        if self.count == 1:
            return
        import torch

        flat = torch.cat([tensor.detach().reshape(-1).to("cpu", torch.float32) for tensor in tensors])
        self.meet()
        with _talking():
            torch.distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree_on(self, settings: Mapping[str, Any]) -> None:
        """Refuses to go on where the processes do not work at the same.

        Raises:
            CidmError: USAGE, naming what differs; else as ``meet``.
        """
        first, *others = self.gathered(settings)
        for number, other in enumerate(others, 2):
            if differing := [name for name in first if other[name] != first[name]]:
                raise CidmError(
                    f"process {number} of {self.count}: has another {' and '.join(differing)} than the first",
                    hint="all of them need the same registry, images and settings, and one --precision",
                    code=ExitCode.USAGE,
                )

    def device(self, name: str) -> str:
        """This process's own GPU, which becomes the current one, where ``name`` leaves open which; else ``name``.

        Raises:
            CidmError: USAGE when there are more processes than GPUs.
        """
        if self.count == 1 or name not in ("auto", "cuda"):
            return name
        import torch

        if not torch.cuda.is_available():
            return "cpu" if name == "auto" else name
        if self.local >= torch.cuda.device_count():
            raise CidmError(
                f"process {self.rank + 1} of {self.count}: no GPU is left for it, of {torch.cuda.device_count()} here",
                hint="launch as many processes as there are GPUs, or name one for all: --device cuda:0",
                code=ExitCode.USAGE,
            )
        torch.cuda.set_device(self.local)
        return f"cuda:{self.local}"

    def agreed(self, error: CidmError) -> CidmError:
        """Tells the others, wherever they meet next, that this one has failed. Returns what all of them end with."""
        if self.count == 1 or isinstance(error, Agreed):
            return error
        try:
            _highest(_FAILED)
            return self._first_error(error)
        except Agreed:
            return error  # the others are gone already, and what ended this one says more

    def leave(self) -> None:
        """The last they do together: the launcher ends all as soon as one has failed and gone."""
        if self.count == 1:
            return
        import torch

        with suppress(Agreed):
            self.meet()
        torch.distributed.destroy_process_group()

    @contextmanager
    def only_main_prints(self) -> Iterator[None]:
        """While open, what the others print goes nowhere."""
        if self.main:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield

    def _first_error(self, own: CidmError | None) -> Agreed:
        """The error of the first process that has one; all have to ask."""
        told = None if own is None else [own.message, own.hint, int(own.code), own.details]
        found = [json.loads(one) for one in _gathered(json.dumps(told, default=str).encode(), self.count)]
        number, (message, hint, code, details) = next((n, e) for n, e in enumerate(found) if e is not None)
        where = f"process {number + 1} of {self.count}: " if number else ""
        return Agreed(where + message, hint, ExitCode(code), details)


SOLO = Crew()
"""One process, as nearly always."""


def launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher says that there are several processes."""
    return environment.get("WORLD_SIZE", "1") != "1"


def found(environment: Mapping[str, str]) -> Crew:
    """The processes that a launcher says there are.

    Raises:
        CidmError: USAGE for an environment that is half a launcher's.
    """
    if not launched(environment):
        return SOLO
    try:
        count, rank = int(environment["WORLD_SIZE"]), int(environment["RANK"])
        crew = Crew(count, rank, int(environment.get("LOCAL_RANK", rank)))
        if not 0 <= rank < count:
            raise ValueError
    except (KeyError, ValueError):
        raise CidmError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']!r}, and RANK {environment.get('RANK')!r}",
            hint="start several processes with accelerate launch, or unset WORLD_SIZE",
            code=ExitCode.USAGE,
        ) from None
    return crew


def join(environment: Mapping[str, str]) -> Crew:
    """The processes that a launcher says there are, once they have found each other.

    Raises:
        CidmError: as ``found``; FAILED when they do not reach each other.
    """
    crew = found(environment)
    if crew.count > 1:
        import torch

        try:
            torch.distributed.init_process_group("gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise CidmError(
                f"process {crew.rank + 1} of {crew.count}: does not reach the others ({str(error).splitlines()[0]})",
                hint="MASTER_ADDR and MASTER_PORT say where they meet; accelerate launch sets both",
            ) from error
    return crew


def _highest(own: int) -> int:
    """The highest of the processes' numbers."""
    import torch

    number = torch.tensor([own])
    with _talking():
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
    return int(number)


def _gathered(own: bytes, count: int) -> list[bytes]:
    """What each process has. As numbers, not as objects: those would be unpickled."""
    import torch

    size = torch.tensor([len(own)])
    sizes = [torch.zeros_like(size) for _ in range(count)]
    with _talking():
        torch.distributed.all_gather(sizes, size)
        longest = max(int(one) for one in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8) if own else padded[:0]
        everyone = [torch.empty_like(padded) for _ in range(count)]
        if longest:
            torch.distributed.all_gather(everyone, padded)
    return [one[: int(n)].numpy().tobytes() for one, n in zip(everyone, sizes, strict=True)]


@contextmanager
def _talking() -> Iterator[None]:
    """Makes a process that is gone an error of this one."""
    try:
        yield
    except RuntimeError as error:
        raise Agreed(
            "another process of this command is gone", hint="what it or the launcher printed says why"
        ) from error
