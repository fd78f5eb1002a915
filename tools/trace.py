"""How a command walks through the house: which files it enters, and how often it goes there and back.

``python -m tools.trace learn`` (or ``generate``) runs the command on the embedded base in a few steps, in a temporary
folder, and prints one JSON object: ``files`` of ours that were entered, ``ways`` (ordered pairs of files, the first
calls into the second) and ``back`` (the pairs of files that call into each other both ways). Pairs are counted once,
however often they are walked: the length of a training does not matter.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
OURS = tuple(str(ROOT / part) + os.sep for part in ("cidm_cli", "registry", "templates"))
QUICK = ("--steps", "3")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.trace", description=__doc__)
    parser.add_argument("what", choices=("learn", "generate"))
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["CIDM_CACHE"] = "cache"
        images = ROOT / "cidm_cli" / "bases" / "mini_cifc" / "concepts"
        run("init")
        first = ("learn", "dog", str(images / "dog"), *QUICK)
        second = ("learn", "cat", str(images / "cat"), *QUICK)
        draw = ("generate", "-p", "a photo of a <dog>", *QUICK)
        for before in (first,) if what == "learn" else (first, second):
            run(*before)
        ways = walked(*(second if what == "learn" else draw))
    files = {file for way in ways for file in way}
    back = {frozenset(way) for way in ways if way[::-1] in ways}
    pairs = sorted(sorted(str(Path(file).relative_to(ROOT)) for file in pair) for pair in back)
    print(json.dumps({"command": what, "files": len(files), "ways": len(ways), "back": pairs}))


def walked(*command: str) -> set[tuple[str, str]]:
    """The ordered pairs of our files of which the first calls into the second while a command runs."""
    ways: set[tuple[str, str]] = set()

    def seen(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or frame.f_back is None:
            return
        here, there = frame.f_back.f_code.co_filename, frame.f_code.co_filename
        if here != there and here.startswith(OURS) and there.startswith(OURS):
            ways.add((here, there))

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        run(*command)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return ways


def run(*command: str) -> None:
    """Runs a command line; what it prints is dropped. Raises SystemExit where it fails."""
    from cidm_cli.shell.main import main as program

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = program([*command, "--registry", "registry"])
    if code:
        raise SystemExit(said.getvalue())


if __name__ == "__main__":
    main()
