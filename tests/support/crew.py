"""Running command lines in several processes at once, as a launcher does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from command import Ran

ROOT = Path(__file__).parents[2]
LONGEST = 300
"""Seconds after which processes that hang are ended."""


def environment(**more: str) -> dict[str, str]:
    """That of a process that finds this program and nothing of the user's settings."""
    path = os.pathsep.join(str(ROOT / place) for place in ("", "registry", "templates", "tests/support"))
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CIDM_")}
    return {**mine, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def run_together(
    *commands: Sequence[object], breaks: dict[int, str] | None = None, count: int = 2
) -> list[list[Ran]]:
    """What each command did in each of the processes. They start once, and run one command after another.

    Args:
        breaks: by the number of the command, what goes wrong in it: a name in ``crew_member.BREAKS``.
    """
    told = json.dumps(
        [
            {
                "port": _free_port(),
                "arguments": [str(a) for a in command],
                "break": (breaks or {}).get(number, ""),
            }
            for number, command in enumerate(commands)
        ]
    )
    members = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crew_member.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1"),
        )
        for rank in range(count)
    ]  # fmt: skip
    for member in members:
        assert member.stdin
        member.stdin.write(told)
        member.stdin.close()
        member.stdin = None
    try:
        ended = [member.communicate(timeout=LONGEST) for member in members]
    finally:
        for member in members:
            member.kill()
    for member, (_, err) in zip(members, ended, strict=True):
        assert member.returncode == 0, err
    each = [[Ran(**found) for found in json.loads(out.splitlines()[-1])] for out, _ in ended]
    return [list(command) for command in zip(*each, strict=True)]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
