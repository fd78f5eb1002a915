"""The queue: jobs wait for the one worker, and what becomes of them is remembered. A worker that ends is replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ..errors import CidmError, ExitCode
from .place import Place

KEPT = 50
"""Jobs that are remembered."""
PATIENCE = 20.0
"""Seconds that a worker has to end its work when the server ends: a training saves a checkpoint."""


@dataclass
class Job:
    """A piece of work, and how far it has come. Changed by the queue alone."""

    id: int
    kind: str
    """draw, again, stylize, edit, plan, learn or export."""
    title: str
    asked: dict[str, Any]
    """What the worker is told."""
    state: str = "waiting"
    """waiting, running, done, stopped or failed."""
    label: str = ""
    """What it is at."""
    done: int = 0
    total: int = 0
    losses: list[float] = field(default_factory=list)
    """Of a training, one a step; those of steps before a checkpoint that it went on from are not known."""
    look: str = ""
    """What is being drawn, as a data URL."""
    images: list[str] = field(default_factory=list)
    """Names of those drawn."""
    notes: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    """message and hint."""
    changed: int = 0
    """The queue's count when it changed last."""

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state not in ("waiting", "running")


class Worker(Protocol):
    """A process that does one job after another."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Tells it something; does nothing where it is gone."""

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it tells, until it is gone."""

    def close(self) -> str:
        """Has it end its work and itself, and says how it ended."""


class Process:
    """A worker in a process of its own."""

    def __init__(self, place: Place) -> None:
        command = [sys.executable, "-m", f"{__package__}.worker", json.dumps(asdict(place))]
        # A session of its own: Ctrl-C in the terminal is for the server, which has it end in order.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True
        )

    def send(self, message: Mapping[str, Any]) -> None:
        """A line of JSON."""
        assert self.process.stdin
        with suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Lines of JSON."""
        assert self.process.stdout
        for line in self.process.stdout:
            # Of a process that was killed the last line may be cut.
            with suppress(json.JSONDecodeError):
                yield json.loads(line)

    def close(self) -> str:
        """Closes its standard input, waits, and ends it by force where it does not end."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


class Queue:
    """Jobs in the order they were asked for, and the thread that follows the worker."""

    def __init__(self, start: Callable[[], Worker], shown: Callable[[str], str] = str) -> None:
        """``start`` gives a worker; ``shown`` makes a message fit to be seen."""
        self.jobs: dict[int, Job] = {}
        self.worker = "starting"
        """starting, ready or busy."""
        self.count = 0
        """Grows with every change."""
        self._start, self._shown = start, shown
        self._lock = threading.RLock()
        self._wanted = threading.Condition(self._lock)
        self._process: Worker | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def add(self, kind: str, title: str, asked: dict[str, Any], notes: list[str] | None = None) -> Job:
        """A new job, at the end of the queue."""
        with self._lock:
            job = Job(max(self.jobs, default=0) + 1, kind, title, asked, notes=notes or [])
            self.jobs[job.id] = job
            old = [one.id for one in self.jobs.values() if one.over]
            for one in old[: max(0, len(self.jobs) - KEPT)]:
                del self.jobs[one]
            self._changed(job)
            self._next()
            self._wanted.notify()
        return job

    def get(self, number: int) -> Job:
        """Raises CidmError NOT_FOUND where there is none."""
        if (job := self.jobs.get(number)) is None:
            raise CidmError(f"there is no job {number}", code=ExitCode.NOT_FOUND)
        return job

    def cancel(self, number: int) -> Job:
        """Takes a job out of the queue, or has the worker stop it: a training saves a checkpoint."""
        with self._lock:
            job = self.get(number)
            if job.state == "waiting":
                job.state = "stopped"
                self._changed(job)
            elif job.state == "running" and self._process:
                job.label = "stopping"
                self._process.send({"cancel": job.id})
                self._changed(job)
        return job

    def since(self, count: int) -> list[dict[str, Any]]:
        """Jobs that changed since the queue's count was that, as plain values."""
        with self._lock:
            return [asdict(job) for job in self.jobs.values() if job.changed > count]

    def close(self) -> None:
        """Ends the worker."""
        with self._lock:
            self._closing = True
            process = self._process
            self._wanted.notify()
        if process:
            process.close()
        self._thread.join(PATIENCE)

    def _follow(self) -> None:
        while not self._closing:
            with self._lock:
                if self._closing:
                    return
                self._process, self.worker = self._start(), "starting"
                self.count += 1
            heard = False
            for message in self._process.messages():
                heard = True
                with self._lock:
                    self._hear(message)
            how = self._process.close()
            with self._lock:
                self._process = None
                self._ended(how, lost=not heard)
                # One that cannot even start would be started for ever.
                while not heard and not self._closing and all(job.over for job in self.jobs.values()):
                    self._wanted.wait()

    def _running(self) -> Job | None:
        return next((job for job in self.jobs.values() if job.state == "running"), None)

    def _next(self) -> None:
        waiting = next((job for job in self.jobs.values() if job.state == "waiting"), None)
        if self._process and waiting and not self._running():
            waiting.state = "running"
            self._process.send({"id": waiting.id, "kind": waiting.kind, "asked": waiting.asked})
            self._changed(waiting)
        if self.worker != "starting":
            self.worker = "busy" if self._running() else "ready"

    def _hear(self, message: Mapping[str, Any]) -> None:
        job = self._running()
        if "ready" in message:
            self.worker = "ready"
        elif job and "progress" in message:
            self.worker = "busy"
            label, job.done, job.total = message["progress"]
            job.label = job.label if job.label == "stopping" else label
            job.losses += [message["loss"]] if "loss" in message else []
        elif job and "note" in message:
            job.notes.append(self._shown(message["note"]))
        elif job and "look" in message:
            job.look = message["look"]
        elif job and "image" in message:
            job.images.append(message["image"])
        elif job and ("done" in message or "failed" in message):
            job.result, failed = message.get("done"), message.get("failed")
            job.state = "stopped" if failed and failed["stopped"] else "failed" if failed else "done"
            job.error = failed and {key: self._shown(failed[key] or "") for key in ("message", "hint")}
            job.look = ""
        self._changed(job)
        self._next()

    def _ended(self, how: str, *, lost: bool) -> None:
        """The job under way has failed; where no worker can be had, also those that wait."""
        for job in self.jobs.values():
            if job.state == "running" or (lost and job.state == "waiting"):
                job.state, job.look = "failed", ""
                hint = "resume goes on from its last checkpoint" if job.kind == "learn" else "try again"
                job.error = {"message": f"the worker {how}; a new one takes its place", "hint": hint}
                self._changed(job)
        self.worker = "starting"

    def _changed(self, job: Job | None) -> None:
        self.count += 1
        if job:
            job.changed = self.count
