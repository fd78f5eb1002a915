"""The door for Python programs: ``from cidm_cli import Workspace``.

Nothing here prints. Whatever can be refused without a model is refused before torch is imported: a verb that takes
long comes in two halves, one that checks (``task``, ``drawing``, ``styling``, ``editing``) and one that computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cidm_registry import BaseRef, Exists, Record, Registry
from cidm_registry.disk import Disk

from .bases import family
from .errors import CidmError, ExitCode
from .files.places import cache_folder, user_registry
from .machine.session import Listener, Session, open_registry
from .options.computing import Computing
from .options.declared import settled
from .options.draw import DrawOptions, resolve_draw
from .options.learn import WatchOptions
from .options.merge import MergeOptions
from .options.over import EditOptions, StylizeOptions
from .options.settings import Settings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from .draw.checking import Checked
    from .draw.drawing import Drawing
    from .draw.explain import Explained
    from .draw.images import Picture
    from .draw.over_jobs import EditTask, StyleTask
    from .draw.structure import Sketch
    from .files.given import Given
    from .judge.layout_scores import NeglectScores
    from .judge.report import Evaluation
    from .layout import Layout
    from .learn.assignment import Task
    from .learn.run import Plan
    from .share.files import MergedFile, Written
    from .share.importing import Imported
    from .share.interference import Analysis

Over = TypeVar("Over", StylizeOptions, EditOptions)


class Workspace:
    """A registry of concepts, and the base they are learned on, loaded when it is first needed and kept.

    Options of ``learn``, ``generate`` and the others are those of the command line, by their names there with
    underscores: ``steps=200``, ``token_lr=1e-3``.
    """

    def __init__(self, session: Session) -> None:
        """Use ``open`` or ``create``."""
        self.session = session

    @classmethod
    def open(cls, path: str | Path | None = None, *, settings: Settings | None = None, **how: Any) -> Self:
        """The registry in a folder, else the user's own.

        Args:
            settings: taken where an option is not given (``options.settings.load_settings``); none unless given.
            how: of ``Computing`` (device, precision, offload, compile, vram) and of ``Listener.of`` (on_progress,
                on_note, on_warning, should_stop, on_look).

        Raises:
            RegistryError: where there is none, or none that can be read.
        """
        computing, listener = _how(how)
        place = user_registry() if path is None else Path(path)
        session = Session(open_registry(place, listener.warn), computing, listener)
        return cls(session if settings is None else replace(session, settings=settings))

    @classmethod
    def create(cls, path: str | Path, base: str = "mini", *, vae: str = "", **how: Any) -> Self:
        """A new registry in a folder; one that is there for the same base is opened.

        Args:
            base: mini, sd15, sdxl, OWNER/NAME[@REVISION] on the hub, a diffusers folder or a .safetensors checkpoint.
            vae: a folder or hub name in place of the base's own.
            how: as for ``open``.

        Raises:
            CidmError: for a base that there is not, or a registry that is there for another one.
        """
        from .models.identity import identify

        computing, listener = _how(how)
        registry, _ = made(Path(path), identify(base, vae, listener.note), listener)
        return cls(Session(registry, computing, listener))

    @property
    def concepts(self) -> list[Record]:
        """The concepts learned so far, in the order they were learned."""
        return self.session.concepts

    @property
    def registry(self) -> Registry:
        """The registry, for what needs no model: ``get``, ``rename``, ``remove``, ``restore``, ``verify``, ``gc``."""
        return self.session.registry

    def learn(
        self,
        name: str,
        images: str | Path,
        *,
        noun: str | None = None,
        style: bool = False,
        update: bool = False,
        resume: bool = False,
        restart: bool = False,
        cache: bool = True,
        watch: WatchOptions | None = None,
        **options: Any,
    ) -> Record:
        """Learns one new concept from a folder of images, or one image, and keeps every older one as it is.

        Args:
            noun: what kind of thing it is; else what the captions, the folder or the name say.
            style: it is an image style, not an object.
            update: learn a new version of a concept that there is.
            resume: go on from the last checkpoint, if there is one; ``restart`` drops it.
            cache: keep encoded images on disk, and use those that are there.
            watch: what ``watching`` gives; else only the concept's preview image is drawn, once it is learned.

        Raises:
            CidmError: INTERRUPTED when stopped, with a checkpoint; for images, captions or options that cannot be
                learned from.
            RegistryError: when it cannot be committed.
        """
        task = self.task(
            name, images, noun=noun, style=style, update=update, resume=resume, restart=restart, **options
        )
        return self.train(task, cache=cache, watch=watch)

    def task(
        self,
        name: str,
        images: str | Path,
        *,
        noun: str | None = None,
        style: bool = False,
        update: bool = False,
        resume: bool = False,
        restart: bool = False,
        **options: Any,
    ) -> Task:
        """What ``learn`` would train, checked. Arguments and errors are ``learn``'s."""
        from .learn.assignment import assign

        return assign(
            self.session, name, Path(images), options,
            noun=noun, style=style, update=update, resume=resume, restart=restart,
        )  # fmt: skip

    def watching(self, name: str, **options: Any) -> WatchOptions:
        """How a training is watched: preview (prompts), preview_every, preview_to, preview_image, tensorboard."""
        from .learn.watching import watch

        return watch(self.registry, name, options)

    def plan(self, task: Task) -> Plan:
        """What a training would take, measured by three steps of it; nothing is kept."""
        from .learn import run

        session = self.session
        base = session.base("learn")
        with session.stage("trying steps", run.TRIED) as tried:
            events = run.Events(on_step=lambda step, loss: tried(), on_note=session.listener.note)
            return run.plan(session.registry, base, task, events, session.crew)

    def train(self, task: Task, *, cache: bool = True, watch: WatchOptions | None = None) -> Record:
        """Learns a task's concept and commits it, then draws its preview image, unless ``watch`` says otherwise."""
        from .learn import admission, run
        from .learn.preview_image import with_preview_image
        from .learn.watching import unwatched, watcher

        session, crew, listener = self.session, self.session.crew, self.session.listener
        watch = watch or WatchOptions()
        with session.alone() if crew.main else nullcontext():
            crew.meet()
            admission.check(session.registry, task.name, task.options, update=task.update, crew=crew)
            base = session.base("learn")
            watching: AbstractContextManager[Any] = nullcontext(unwatched)
            if crew.main:
                previews = session.said(DrawOptions, "draw", {})
                watching = watcher(session.registry, base, task, watch, previews)
            with (
                watching as after_step,
                listener.stopping() as stop,
                listener.stage(f"learning <{task.name}>", task.options.steps) as update,
            ):
                events = run.Events(
                    on_step=lambda step, loss: update(step, loss=loss),
                    on_note=listener.note, stop=stop, after_step=after_step,
                )  # fmt: skip
                folder = cache_folder() / "latents" if cache else None
                record = run.learn(session.registry, base, task, events, folder, crew)
        return with_preview_image(session, base, record) if watch.preview_image and crew.main else record

    def preview(self, name: str) -> bytes:
        """The image in a concept's record: a PNG that says how it was drawn, or what a bundle brought along.

        Raises:
            CidmError: NOT_FOUND where the record has none.
            RegistryError: for an unknown concept, or a damaged image.
        """
        record = self.registry.get(name)
        if record.preview is None:
            raise CidmError(f"<{record.name}> has no preview image", code=ExitCode.NOT_FOUND)
        return self.registry.read_blob(record.preview)

    def generate(
        self, *what: str | Path | Layout, merged: str | Path | None = None, **options: Any
    ) -> list[Picture]:
        """Draws prompts (text), layout files (paths) and layouts, layouts first. Each image has facts, and ``save``.

        Args:
            merged: a file of ``merge``, drawn with in place of the concepts' own weights.
            options: win over what a layout says.

        Raises:
            CidmError: NOT_FOUND for an unknown concept, USAGE for what cannot be drawn.
        """
        from .layout import load_layout

        prompts = [one for one in what if isinstance(one, str)]
        layouts = [
            load_layout(str(one)) if isinstance(one, Path) else one
            for one in what
            if not isinstance(one, str)
        ]
        return list(self.draw(self.drawing(prompts, layouts, merged=merged, **options)))

    def drawing(
        self,
        prompts: Sequence[str] = (),
        layouts: Sequence[Layout] = (),
        *,
        merged: str | Path | None = None,
        sketch: Sketch | None = None,
        control: str | None = None,
        **options: Any,
    ) -> Drawing:
        """What ``generate`` would draw, checked: layouts first, then prompts.

        Args:
            sketch: a structure that the prompts' images follow.
            control: the model that follows structures where neither a layout nor the sketch names one.
        """
        from .draw.drawing import drawing

        file = None if merged is None else Path(merged)
        return drawing(self.session, prompts, layouts, options, merged=file, sketch=sketch, control=control)

    def draw(self, drawing: Drawing) -> Iterator[Picture]:
        """Draws the images one after another; of several processes, each draws its own share."""
        from .draw import images
        from .draw.jobs import check_size

        session, crew, note = self.session, self.session.crew, self.session.listener.note
        base = session.base()
        jobs = [
            replace(job, options=resolve_draw(asked, session.kind, base.pixels))
            for job, asked in zip(drawing.jobs, drawing.asked, strict=True)
        ]
        for job in jobs:
            check_size(job.options.size, base.multiple)
        static = images.read_static(drawing.merged, base) if drawing.merged else None
        notes: list[str] = []
        with session.stage("drawing", images.work(jobs)) as step:
            yield from images.draw(
                session.registry, base, jobs, static=static, on_step=step, crew=crew,
                on_note=note if crew.count == 1 else notes.append, on_look=session.listener.look,
            )  # fmt: skip
        for text in dict.fromkeys(text for some in crew.gathered(notes) for text in some):
            note(text)

    @staticmethod
    def grid(pictures: Sequence[Picture]) -> bytes:
        """One sheet of drawn images as a PNG file: a row a prompt, under each image its seed."""
        from .terminal.pages import grid

        return grid((picture.image, picture.facts) for picture in pictures)

    def check_layout(self, path: str | Path, text: str | None = None) -> Checked:
        """All that is wrong with a layout file, or with a text of that name, and what may not come out as meant."""
        from .draw.checking import checked

        return checked(path, text, self.registry, [record.name for record in self.concepts])

    @staticmethod
    def facts(image: str | Path) -> dict[str, Any]:
        """What an image that was drawn here says of how. Raises CidmError NOT_FOUND or INVALID for another file."""
        from .draw.png import read_facts

        return read_facts(Path(image))

    @staticmethod
    def redrawing(images: Sequence[str | Path]) -> list[tuple[dict[str, Any], Path]]:
        """What ``redraw`` takes, of images that can be drawn again from what they say."""
        from .draw.drawing import to_redraw

        return to_redraw([Path(image) for image in images])

    def redraw(self, told: Sequence[tuple[dict[str, Any], Path]]) -> Iterator[Picture]:
        """Draws images again from what they say (``redrawing``): on one machine, the same bytes."""
        from .draw.again import redraw
        from .draw.drawing import as_drawn

        machine = self.session.machine("draw")
        for number, (facts, beside) in enumerate(told):
            if self.session.crew.mine(number):
                base = self.session.open(as_drawn(machine, facts))
                yield replace(redraw(self.session.registry, base, facts, beside), number=number)

    def stylize(
        self, images: Sequence[str | Path], style: str, prompt: str | None = None, **options: Any
    ) -> list[Picture]:
        """Gives images a learned style. A prompt says what is to be seen, and names the style."""
        return list(self.paint(self.styling(images, style, prompt, **options)))

    def styling(
        self, images: Sequence[str | Path], style: str, prompt: str | None = None, **options: Any
    ) -> StyleTask:
        """What ``stylize`` would draw, checked."""
        from .draw.over_jobs import plan_style

        given, asked = self._over(StylizeOptions, "stylize", images, style, options)
        task = plan_style(self.registry, given, style, prompt, asked)
        if not task.record.style:
            self.session.listener.note(f"<{task.record.name}> was learned as an object, not as a style")
        return task

    def edit(
        self, images: Sequence[str | Path], concept: str, prompt: str | None = None, *,
        box: str | None = None, mask: str | Path | None = None, **options: Any,
    ) -> list[Picture]:  # fmt: skip
        """Draws a learned object into a part of images: a box "x0,y0,x1,y1" in shares or pixels, or a mask's file."""
        return list(self.paint(self.editing(images, concept, prompt, box=box, mask=mask, **options)))

    def editing(
        self, images: Sequence[str | Path], concept: str, prompt: str | None = None, *,
        box: str | None = None, mask: str | Path | None = None, **options: Any,
    ) -> EditTask:  # fmt: skip
        """What ``edit`` would draw, checked."""
        from .draw.over_jobs import plan_edit
        from .files.given import read_mask

        if (box is None) == (mask is None):
            raise CidmError("give either --box or --mask", "--box 0,0,0.5,1 is the left half", ExitCode.USAGE)
        given, asked = self._over(EditOptions, "edit", images, concept, options)
        part = None if mask is None else read_mask(Path(mask))
        task = plan_edit(self.registry, given, concept, prompt, asked, box=box, mask=part)
        if task.record.style:
            self.session.listener.note(f"<{task.record.name}> was learned as a style, not as an object")
        return task

    def paint(self, task: StyleTask | EditTask) -> Iterator[Picture]:
        """Draws over the given images, one after another."""
        from .draw import images, over

        session, base = self.session, self.session.base()
        jobs = over.jobs(session.registry, base, task)
        with session.stage("drawing", images.work(jobs)) as step:
            yield from images.draw(session.registry, base, jobs, on_step=step, on_note=session.listener.note)

    def _over(
        self, cls: type[Over], verb: str, images: Sequence[str | Path], name: str, options: Mapping[str, Any]
    ) -> tuple[list[Given], Over]:
        """The given images, read, and how they are drawn over."""
        from .draw.drawing import check_drawable
        from .draw.over_jobs import refuse_swapped
        from .files.given import read_given

        session, paths = self.session, [Path(image) for image in images]
        refuse_swapped(verb, paths, name, self.registry)
        given = [read_given(path) for path in paths]
        for one in given:
            if one.animated:
                session.listener.note(f"{one.path}: animated; only its first frame is used")
        if warning := family(session.kind).doubts([one.image.size for one in given]):
            session.listener.warn(warning)
        asked = settled(cls, session.machine("draw").completed(session.said(cls, verb, options)))
        check_drawable(asked.size, self.registry)
        return given, asked

    def explain(self, prompt: str, **options: Any) -> Explained:
        """Which concepts each layer would draw on for a prompt, and how strongly. Options: method, power."""
        from .draw.jobs import Job, check

        session = self.session
        if not session.concepts:
            raise CidmError(
                "the registry holds no concept yet", "learn one: cidm learn NAME FOLDER", ExitCode.NOT_FOUND
            )
        asked = session.said(DrawOptions, "draw", options)
        check(session.registry, [Job(prompt, resolve_draw(asked, session.kind, 64))])
        from .draw.explain import explain

        base = session.base()
        whole = resolve_draw(asked, session.kind, base.pixels)
        return explain(session.registry, base, Job(prompt, whole))

    def pipeline(self, prompt: str) -> DiffusionPipeline:
        """A stock diffusers pipeline that knows a prompt's concepts: their LoRAs as adapters, their tokens as words.

        Call it with that prompt, or another that names them. Where each layer of a concept has tokens of its own, the
        word has their mean, and a note says what that costs.

        Raises:
            CidmError: NOT_FOUND for an unknown concept.
        """
        from .draw.jobs import named_in
        from .share.pipeline import pipeline

        named = named_in(self.session.concepts, prompt)
        return pipeline(self.registry, self.session.release(), named, self.session.listener.note)

    def merge(
        self,
        out: str | Path,
        names: Sequence[str] = (),
        *,
        prompt: str | None = None,
        weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> MergedFile:
        """Merges concepts, or all there are, into one LoRA file, with their tokens as embedding files beside it.

        Args:
            prompt: whose similarities ``method="ewa"`` merges by.
            weights: a factor on a concept's weights, by name.

        Raises:
            CidmError: USAGE where a file would be replaced that was not merged here.
        """
        from .share.places import merged_places
        from .share.selection import to_merge

        session = self.session
        selection = to_merge(session.registry, names, weights or {}, prompt, self._merging(options))
        places = merged_places(session.registry, Path(out), selection.records)

        from .share import merge
        from .share.files import write_merged

        base = session.base()
        with session.stage("looking at features", max(merge.work(selection), 1)) as step:
            merged = merge.merge(session.registry, base, selection, on_step=step)
        return write_merged(session.registry, base, merged, places)

    def analyze(self, names: Sequence[str] = (), **options: Any) -> Analysis:
        """How concepts, or all there are, get in each other's way when they are merged. Nothing is written."""
        session, asked = self.session, self._merging(options)
        records = session.registry.chosen(names)
        if len(records) < 2:
            raise CidmError(
                f"--analyze compares concepts with each other, and there is {len(records)}",
                "learn or name at least two",
                ExitCode.NOT_FOUND,
            )
        from .share import interference

        base = session.base()
        with session.stage("drawing", interference.work(records, asked)) as step:
            return interference.analyze(session.registry, base, records, asked, on_step=step)

    def _merging(self, options: Mapping[str, Any]) -> MergeOptions:
        return settled(MergeOptions, self.session.said(MergeOptions, "merge", options))

    def export(
        self,
        out: str | Path,
        names: Sequence[str] = (),
        *,
        to: str = "kohya",
        merged: str | Path | None = None,
        force: bool = False,
    ) -> list[Written]:
        """Writes concepts, or all there are, as files that other programs load.

        Args:
            out: a file, or a folder for several.
            to: kohya, comfyui, diffusers, peft, embedding or bundle.
            merged: a file of ``merge`` to write in place of concepts.
            force: write over files that are there.
        """
        from .share.places import check_free, file_names, targets
        from .share.selection import to_export

        session = self.session
        records = [] if merged is not None else to_export(session.registry, names, to)
        titles = [record.name for record in records] if merged is None else [Path(merged).stem]
        places = targets(to, Path(out), titles)
        check_free([path for place in places for path in place.paths(file_names(to))], force=force)

        from .models.opening import outlined
        from .share import files

        if to == "bundle":
            return files.write_bundle(session.registry, records, places[0])
        if not family(session.kind).elsewhere:
            session.listener.note(
                "note: the embedded base is known to this program alone; others cannot load it"
            )
        if to == "embedding":
            return files.write_tokens(session.registry, session.base(), records, places)
        file = None if merged is None else Path(merged)
        return files.write_loras(session.registry, outlined(session.registry), to, records, file, places)

    def import_(
        self,
        file: str | Path,
        *,
        name: str | None = None,
        noun: str | None = None,
        style: bool = False,
        only: str | None = None,
    ) -> Imported:
        """Takes a LoRA file of another program, or a bundle of whole concepts, into the registry.

        Args:
            name: what to call it, else what the file says.
            noun: what kind of thing a LoRA shows, else what its name says.
            style: it is an image style, not an object.
            only: the one concept of a bundle to take.
        """
        from .share import importing

        session = self.session
        source = importing.read(Path(file))
        if source.kind == "bundle" and (noun is not None or style):
            raise CidmError(
                "--class and --style are for LoRA files; a bundle knows what it holds", code=ExitCode.USAGE
            )
        wanted = importing.names(session.registry, source, name, only)
        importing.check(session.registry, source, wanted)
        # A training under way counts on no concept being added meanwhile.
        with session.alone():
            importing.names(session.registry, source, name, only)
            return importing.bring(session, source, wanted, noun, style=style)

    def evaluate(
        self,
        out: str | Path,
        *,
        data: str | Path | None = None,
        prompts: str | None = None,
        names: Sequence[str] | None = None,
        noun: str | None = None,
        merged: str | Path | None = None,
        **options: Any,
    ) -> tuple[Evaluation, dict[str, Path]] | None:
        """Judges concepts by reference images; writes report and images into a folder, and goes on where it was.

        Args:
            data: reference images by concept; on mini its own.
            prompts: a file of prompts, or a set of them: object, pet or style.
            names: only these concepts.
            noun: class noun of every concept, over data and registry.
            merged: a file of ``merge``, judged in place of the concepts' weights.

        Returns:
            What was found, and the files written; None in a process that is not the first of several.
        """
        from .judge import run, subjects

        folder, session = Path(out), self.session
        asked = run.judging(session, folder, options)
        chosen = subjects.choose(
            session.registry, None if data is None else Path(data),
            prompts=prompts, names=names, noun=noun, limit=asked.limit_prompts,
        )  # fmt: skip
        skipped = [f"{name} is not judged: {why}" for name, why in chosen.skipped]
        for text in (*chosen.notes, *skipped):
            session.listener.note(text)
        return run.evaluate(session, folder, chosen, asked, None if merged is None else Path(merged))

    def evaluate_layouts(
        self,
        out: str | Path,
        layouts: Mapping[str, Layout],
        *,
        rivals: Sequence[str] | None = None,
        data: str | Path | None = None,
        noun: str | None = None,
        **options: Any,
    ) -> tuple[NeglectScores, dict[str, Path]] | None:
        """Looks into the boxes of layouts, given by name: is each region's concept the one found there?

        Args:
            rivals: ways of drawing each layout to compare, else all of ``judge.rivals.RIVALS``.
            data: as for ``evaluate``, and ``noun`` too.
        """
        from .judge import run, subjects
        from .judge.rivals import RIVALS

        folder, session = Path(out), self.session
        asked = run.judging(session, folder, options)
        chosen = subjects.choose(
            session.registry, None if data is None else Path(data), noun=noun, limit=asked.limit_prompts
        )
        for text in chosen.notes:
            session.listener.note(text)
        ways = [*RIVALS] if rivals is None else rivals
        return run.evaluate_layouts(session, folder, chosen, layouts, asked, ways)


def made(path: Path, reference: BaseRef, listener: Listener) -> tuple[Registry, bool]:
    """The registry in a folder for a base, and whether it was made just now.

    Raises:
        CidmError: FAILED where one is there for another base.
    """
    try:
        return Registry.create(path, reference, disk=Disk(listener.warn)), True
    except Exists:
        registry = open_registry(path, listener.warn)
    if registry.base.fingerprint != reference.fingerprint:
        raise CidmError(
            f"{path} is a registry for another base, {registry.base.source}",
            "give another folder with --registry",
        )
    return registry, False


def _how(said: dict[str, Any]) -> tuple[Computing, Listener]:
    """Keyword arguments told apart. Raises TypeError for one that is neither's."""
    names = [one.name for one in fields(Computing)]
    computing = settled(Computing, {name: said[name] for name in names if name in said})
    return computing, Listener.of(**{name: value for name, value in said.items() if name not in names})
