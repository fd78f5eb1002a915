"""The registry itself: what can be asked of it and done to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import blobs, garbage, removal, runs
from .audit import audit
from .disk import TEMP, Disk, claim, explained, put, settle, write_temp
from .errors import Busy, Damaged, Exists, Invalid, NotFound, RegistryError
from .head import HEAD_FILE, new_head, read_head
from .journal import Journal, entry_path, read_journal, read_stored, tombstone_path
from .migration import migrate
from .names import canonical_key, display_name
from .records import BaseRef, Draft, Plan, Problem, Record, Renaming, checked_draft, encode
from .runs import Run
from .strict_json import hash_of
from .tensors import check_safetensors
from .timeliness import check_head, check_older, former_version

FOLDERS = ("blobs", "concepts", "runs")

ATTEMPTS = 100
"""At claiming a number. Each that fails means another process got on with its work."""

PATIENCE = 30.0
"""Seconds a single operation waits for the lock. Whoever wants to wait longer takes the lock first."""


@dataclass(frozen=True)
class Registry:
    """A folder of concepts learned on one base.

    Methods that read never write. Methods that write are whole or without effect: killed at any moment, with
    the lock working or not, they leave every other concept as it was. The first of them to find an older format
    brings it up to today's, after a copy. Each method may raise RegistryError when the file system refuses.
    """

    root: Path
    """The folder."""
    base: BaseRef
    """The model its concepts belong to."""
    disk: Disk = field(default_factory=Disk, repr=False, compare=False)
    """How it touches the file system."""
    tell: Callable[[str], None] = field(default=lambda line: None, repr=False, compare=False)
    """Called with what a user should know: each record that cannot be read and is left out, and a change of format."""
    _told: set[str] = field(default_factory=set, repr=False, compare=False)
    """What was told already."""

    @classmethod
    def create(cls, path: str | Path, base: BaseRef, *, disk: Disk | None = None) -> "Registry":
        """A new, empty registry. Raises Exists where there is one, Invalid where something else is."""
        disk = disk or Disk()
        root = Path(path)
        if (root / HEAD_FILE).exists():
            raise Exists(f"{root} already is a registry")
        if root.exists() and not root.is_dir():
            raise Invalid(f"{root} is not a folder", "give another place with --registry")
        with explained(f"making a registry in {root}"):
            # What a creation cut short may have left is taken over; anything else is somebody's folder.
            ours = {"lock", *FOLDERS}
            if root.is_dir() and (
                foreign := [n for n in disk.names(root) if n not in ours and not n.startswith(TEMP)]
            ):
                raise Invalid(
                    f"{root} holds other things, {foreign[0]!r} for one", "give an empty or a new folder"
                )
            for name in FOLDERS:
                disk.mkdir(root / name)
            if not claim(disk, root / HEAD_FILE, new_head(base, _timestamp(disk))):
                raise Exists(f"{root} already is a registry")
        return cls(root, base, disk)

    @classmethod
    def open(
        cls, path: str | Path, *, disk: Disk | None = None, tell: Callable[[str], None] = lambda line: None
    ) -> "Registry":
        """The registry in a folder. Raises NotFound, Damaged, or NewerFormat for one from a newer program."""
        disk = disk or Disk()
        return cls(Path(path), read_head(disk, Path(path)).base, disk, tell)

    # reading

    def records(self, all_versions: bool = False) -> list[Record]:
        """The newest version of each concept, or all versions, by number. Unreadable ones are left out, and told."""
        journal = self._journal()
        return list(journal.records if all_versions else journal.newest())

    def chosen(self, names: Sequence[str]) -> list[Record]:
        """The concepts of these names, each once, else all there are; by number.

        Raises NotFound, InvalidName; Damaged where all are meant and a record cannot be read: what is made of all
        concepts must not lack one and look whole.
        """
        journal = self._journal(tell=bool(names))
        if names:
            wanted = {journal.get(name).origin for name in names}
            return [record for record in journal.newest() if record.origin in wanted]
        for problem in journal.problems:
            raise Damaged(
                f"{problem.path}: {problem.message}", f"{problem.hint}; or name the concepts that are meant"
            )
        return list(journal.newest())

    def listing(self, all_versions: bool = False) -> tuple[list[Record], list[Problem]]:
        """What `records` says, and the records that cannot be read: every entry is in one of them."""
        journal = self._journal(tell=False)
        return list(journal.records if all_versions else journal.newest()), list(journal.problems)

    def get(self, name: str) -> Record:
        """The newest version of a concept. Raises NotFound, with a suggestion; InvalidName."""
        return self._journal().get(name)

    def get_with_older(self, name: str) -> tuple[Record, tuple[Record, ...]]:
        """What `get` says, and those still here of the concepts that it was consolidated against, oldest first."""
        journal = self._journal()
        record = journal.get(name)
        return record, journal.older(record.against)

    def check_free(self, name: str) -> None:
        """Raises Damaged if a concept whose record cannot be read has that name, or may have it; InvalidName."""
        self._journal().check_free(name)

    def head(self) -> int:
        """The highest number ever used; 0 for a registry that never held a concept."""
        return self._journal().head

    def read_blob(self, sha: str) -> bytes:
        """A blob's content, checked against its name. Raises Damaged, naming the file."""
        return blobs.read_blob(self.disk, self.root, sha)

    def blob_path(self, sha: str) -> Path:
        """Where a blob is."""
        return blobs.blob_path(self.root, sha)

    def verify(self) -> list[Problem]:
        """Reads and checks everything. Empty when all is well."""
        with explained(f"verifying {self.root}"):
            return audit(self.disk, self.root, self.base.fingerprint, self._journal(tell=False))

    # writing

    def lock(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Keeps other writers out; re-entrant. `timeout` in seconds, None waits for ever. Raises Busy."""
        return self.disk.lock(self.root / "lock", timeout)

    def training_lock(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Makes trainings wait for each other, so that each learns against the one before; other writers go on.

        Raises Busy.
        """
        return self.disk.lock(self.root / "training.lock", timeout)

    def writable(self) -> bool:
        """Whether concepts can be committed here. Tries it with a file that is removed again."""
        try:
            for name in FOLDERS:
                self.disk.mkdir(self.root / name)
                self.disk.unlink(write_temp(self.disk, self.root / name, b""))
        except OSError:
            return False
        return True

    def commit(
        self,
        draft: Draft,
        blob: bytes,
        *,
        expected_head: int,
        update: bool = False,
        preview: bytes | None = None,
    ) -> Record:
        """Adds a concept, or a new version of one. All is checked before anything is written.

        `expected_head` is what `head()` said when training began. A change of name or a removal since then
        does no harm; any other new entry means the concept was not consolidated against everything it has to
        live with.

        Raises Conflict if there is such an entry or an older concept became another, Exists if the name is taken
        and `update` is not set, Invalid for a draft, blob or preview that cannot be stored, Damaged if the blob of
        an older concept was altered or the name may be that of a record that cannot be read, Busy.
        """
        draft = checked_draft(draft)
        try:
            check_safetensors(blob)
        except Invalid as error:
            raise Invalid(
                f"the weights of {draft.name!r} cannot be stored: {error.message}", error.hint
            ) from error
        if preview is not None:
            blobs.check_preview(preview)
        keep = {blobs.sha256_of(data): data for data in (blob, preview) if data is not None}
        sha, shot = blobs.sha256_of(blob), None if preview is None else blobs.sha256_of(preview)
        with self._writing(f"committing {draft.name!r}"):
            journal = self._journal()
            encode(self._next_record(journal, draft, expected_head, update, sha, shot))
            check_older(self.disk, self.root, journal, draft)
            for data in keep.values():
                blobs.put_blob(self.disk, self.root, data)
            for _ in range(ATTEMPTS):
                journal = self._journal()
                record = self._next_record(journal, draft, expected_head, update, sha, shot)
                if self._claim(record, journal):
                    self._keep(keep)
                    return record
        raise self._overtaken()

    def annotate(
        self, record: Record, *, scores: dict[str, Any] | None = None, preview: bytes | None = None
    ) -> Record:
        """Adds scores (by name, over those of the same name) or a preview picture to a record.

        Raises NotFound if the record was removed, Conflict if it is not the one that was read, Invalid.
        """
        if preview is not None:
            blobs.check_preview(preview)
        with self._writing(f"annotating {record.name!r}"):
            entry, previous = read_stored(self.disk, self.root, record)
            changed = replace(entry, scores={**entry.scores, **(scores or {})})
            encode(changed, previous)
            if preview is not None:
                changed = replace(changed, preview=blobs.put_blob(self.disk, self.root, preview))
            put(self.disk, entry_path(self.root, record.sequence), encode(changed, previous))
            settle(self.disk, self.root / "concepts")
            if preview is not None:
                self._keep({blobs.sha256_of(preview): preview})
        return replace(changed, name=record.name, key=record.key)

    def rename(self, old: str, new: str) -> Record:
        """Gives a concept, all versions of it, another name.

        Raises NotFound, Exists, InvalidName, Damaged if the new name may be that of a record that cannot be read, Busy.
        """
        name = display_name(new)
        with self._writing(f"renaming {old!r}"):
            record = self._journal().get(old)
            return record if record.name == name else self._claim_name(record.origin, name)

    def remove_plan(self, name: str) -> Plan:
        """What `remove` would do. Raises NotFound, InvalidName."""
        journal = self._journal()
        return removal.plan_removal(self.disk, self.root, journal, journal.get(name))

    def remove(self, name: str) -> Plan:
        """Removes a concept with all versions; blobs stay until `gc`. Raises NotFound, InvalidName, Busy."""
        with self._writing(f"removing {name!r}"):
            journal = self._journal()
            record = journal.get(name)
            plan = removal.plan_removal(self.disk, self.root, journal, record)
            removal.remove_concept(self.disk, self.root, journal, record.origin)
        return plan

    def removed(self) -> list[Record]:
        """What `restore` can bring back: the newest version of each removed concept, under its last name, by number."""
        with explained(f"looking through {self.root}"):
            found = removal.removed(self.disk, self.root, self._journal())
        return [one.record for one in found]

    def restore(self, name: str) -> Record:
        """Brings a removed concept back under its old number, with those of its versions whose blobs are there.

        Of several removed ones of that name, the one that was learned last.

        Raises NotFound, Exists if the name was given to another meanwhile, Damaged if a blob was altered or the name
        may be that of a record that cannot be read, InvalidName, Busy, also during a training.
        """
        key, hint = canonical_key(name), "wait until it has finished"
        with self._no_training(f"it would not know of {name!r}", hint), self._writing(f"restoring {name!r}"):
            journal = self._journal()
            found = [one for one in removal.removed(self.disk, self.root, journal) if one.record.key == key]
            if not found:
                raise NotFound(f"{name!r} cannot be brought back", "`cidm restore` lists what can")
            last = found[-1].record
            journal.check_unused(last.name, last.origin)
            needed = {sha: self.read_blob(sha) for sha in last.blobs}
            for data in needed.values():
                blobs.put_blob(self.disk, self.root, data)  # renews its age
            removal.bring_back(self.disk, self.root, found[-1])
            try:
                # Takes a number, so that none who looked before can take the name, lock or no lock.
                record = self._claim_name(last.origin, last.name)
            except RegistryError:
                removal.remove_concept(self.disk, self.root, self._journal(), last.origin)
                raise
            self._keep(needed)
        return record

    def gc_plan(self, *, grace: float = garbage.GRACE, runs: bool = False) -> Plan:
        """What `gc` would delete. Raises Damaged if any record is unreadable; Busy."""
        with self._no_run(runs), explained(f"looking through {self.root}"):
            return garbage.plan_collection(self.disk, self.root, grace, runs)

    def gc(self, *, grace: float = garbage.GRACE, runs: bool = False) -> Plan:
        """Deletes what no concept uses and is older than `grace` seconds, with `runs` also training runs.

        Raises Damaged, having deleted nothing, if any record is unreadable; Busy, with `runs` also during a training.
        """
        with self._no_run(runs), self._writing("collecting garbage"):
            return garbage.collect(self.disk, self.root, grace, runs)

    def _no_run(self, wanted: bool) -> AbstractContextManager[None]:
        """Keeps trainings out if wanted: however old its folder is, the run of one that goes on is in use."""
        hint = "wait until it has finished, or leave the runs alone (without --runs)"
        return self._no_training("its run is in use", hint) if wanted else nullcontext()

    @contextmanager
    def _no_training(self, why: str, hint: str) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self.training_lock(0))
            except Busy as error:
                raise Busy(f"a training is going on in {self.root}: {why}", hint) from error
            yield

    # training runs

    def start_run(self, config: dict[str, Any]) -> Run:
        """A new training run with these settings, which must name the concept's `key`."""
        with self._writing("starting a training run"):
            return runs.start_run(self.disk, self.root, config)

    def runs(self) -> list[Run]:
        """Training runs that were started and not finished, oldest first."""
        with explained(f"listing the runs in {self.root}"):
            return runs.read_runs(self.disk, self.root)[0]

    def find_run(self, key: str) -> Run | None:
        """The newest run for the concept with that key, or None."""
        found = [run for run in self.runs() if run.config["key"] == key]
        return found[-1] if found else None

    # steps

    def _journal(self, *, tell: bool = True) -> Journal:
        try:
            journal = read_journal(self.disk, self.root)
        except OSError as error:
            raise Damaged(
                f"{self.root / 'concepts'} cannot be read: {error.strerror}",
                "restore the folder from a backup",
            ) from error
        for problem in journal.problems if tell else ():
            line = f"{problem.path}: {problem.message}; {problem.hint}"
            if line not in self._told:
                self._told.add(line)
                self.tell(line)
        return journal

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        with self.lock(PATIENCE), explained(doing):
            # Read each time: a newer program may have been here since this one opened the registry.
            head = read_head(self.disk, self.root)
            if head.outdated:
                self.tell(migrate(self.disk, self.root, head))
            yield

    def _next_record(
        self, journal: Journal, draft: Draft, expected_head: int, update: bool, blob: str, preview: str | None
    ) -> Record:
        check_head(self.root, journal, draft, expected_head)
        former = former_version(journal, draft.name, update)
        sequence = journal.head + 1
        return Record(
            **vars(draft),
            key=canonical_key(draft.name),
            sequence=sequence,
            version=1 if former is None else former.version + 1,
            origin=sequence if former is None else former.origin,
            blob=blob,
            base=self.base.fingerprint,
            config_hash=hash_of(draft.config),
            created=_timestamp(self.disk),
            preview=preview,
            scores={},
        )

    def _claim(self, entry: Record | Renaming, journal: Journal) -> bool:
        path = entry_path(self.root, entry.sequence)
        if not claim(self.disk, path, encode(entry, journal.last)):
            return False
        if tombstone_path(self.root, entry.sequence).exists():
            # Somebody used this number and removed that concept between our look and our claim.
            with suppress(FileNotFoundError):
                self.disk.unlink(path)
            return False
        return True

    def _claim_name(self, origin: int, name: str) -> Record:
        """Writes down what a concept is called from now on."""
        for _ in range(ATTEMPTS):
            journal = self._journal()
            journal.check_unused(name, origin)
            versions = journal.versions(origin)
            if not versions:
                raise NotFound(f"{name!r} has been removed")
            key = canonical_key(name)
            if self._claim(Renaming(journal.head + 1, origin, name, key, _timestamp(self.disk)), journal):
                return replace(versions[-1], name=name, key=key)
        raise self._overtaken()

    def _overtaken(self) -> Busy:
        return Busy(
            f"other processes keep writing to the registry {self.root}", "wait a moment, then try again"
        )

    def _keep(self, needed: dict[str, bytes]) -> None:
        """Writes again what a collection took away before it could see our record."""
        for sha, data in needed.items():
            if not self.blob_path(sha).exists():
                blobs.put_blob(self.disk, self.root, data)


def _timestamp(disk: Disk) -> str:
    return disk.date().isoformat(timespec="seconds")
