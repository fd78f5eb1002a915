"""One of several processes: runs command lines one after another, as given on stdin, and prints what they did as JSON.

stdin: a JSON list of {"port", "arguments", "break"}: "break" names what goes wrong in it, see BREAKS.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from cidm_cli.shell.main import main


def nan_loss() -> Any:
    from cidm_cli.learn import step as training

    sound = training.denoising

    def spoiled(trainee: Any, *rest: Any) -> torch.Tensor:
        loss = sound(trainee, *rest)
        return loss * math.nan if trainee.step == 1 else loss

    return mock.patch.object(training, "denoising", spoiled)


def full_disk() -> Any:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "weights")

    return mock.patch("cidm_registry.Registry.commit", refuse)


def stop_after_two() -> Any:
    """Ctrl-C that reaches one process only, after two steps."""

    @contextlib.contextmanager
    def graceful() -> Iterator[Callable[[], bool]]:
        asked = iter([False, True])
        yield lambda: next(asked)

    return mock.patch("cidm_cli.commands.invocation.graceful", graceful)


BREAKS: dict[str, tuple[int, Callable[[], Any]]] = {
    "nan loss": (1, nan_loss),
    "full disk": (0, full_disk),
    "stopped": (1, stop_after_two),
}
"""In which process, and what."""


def run(command: dict[str, Any]) -> dict[str, Any]:
    os.environ["MASTER_PORT"] = str(command["port"])
    where, damage = BREAKS.get(command["break"], (-1, None))
    out, err = io.StringIO(), io.StringIO()
    broken = damage() if damage and where == int(os.environ["RANK"]) else contextlib.nullcontext()
    with broken, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command["arguments"])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [run(command) for command in json.load(sys.stdin)]
    print(json.dumps(found), flush=True)
    os._exit(0)  # as the program ends, see cidm_cli.shell.main.run
