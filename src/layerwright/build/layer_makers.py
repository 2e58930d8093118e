"""Making one layer and putting it into the store: git's, imported files, emptied mount points, and what commands leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerwright.build.events import Detail, StageFailed, StageOutput, Warned
from layerwright.build.git_layer import account_number, git_entries
from layerwright.build.git_update import Update
from layerwright.build.session import Session, commit_environment
from layerwright.build.stage_log import StageLog
from layerwright.build.trees import CommandRun, CommandsDone, Left
from layerwright.config.model import Commands, ExternalBase, Image, Import
from layerwright.errors import LayerwrightError, UsageError
from layerwright.globs import Globs
from layerwright.layers.compose import compose
from layerwright.layers.entry import DIRECTORY, FILE, Entry, NewEntry
from layerwright.layers.index import FileIndex
from layerwright.layers.selection import NotInImage, Selection, files_checksum, graft, select
from layerwright.layers.stack import StackedIndex
from layerwright.layers.tar import TarWriter, UnwritableEntry
from layerwright.oci.digest import DiffId
from layerwright.storage.records import LayerKind, LayerRef, Record

HOW_TO_LOOK = "; --introspect-error opens a shell in what it left"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StageFailedError(LayerwrightError):
    """A command of a stage ended with an error. `log` is what the stage's commands printed, of very much the end; `states` are the ids of the states that were kept of it."""

    def __init__(self, what: str, *, where: str, mend: str, log: str, states: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, mend=mend)
        self.log = log
        self.states = states


KeepFailed = Callable[[CommandRun, StageFailedError, CommandsDone, Left | None], tuple[str, ...]]


def told_of(error: LayerwrightError, image: Image) -> LayerwrightError:
    """The same error, and the base image that brought the layer."""
    base = f"{image.base.position}: {image.base.text}" if isinstance(image.base, ExternalBase) else f"image {image.shown!r}"
    return type(error)(error.what, where=", ".join(filter(None, (base, error.where))), mend=error.mend)


def write_layer(session: Session, entries: Sequence[NewEntry], *, kind: LayerKind, stage: str, digest: str, time_s: int) -> LayerRef:
    """Write `entries` as a tar into the store, with its index."""
    with session.store.new_blob() as out:
        writer = TarWriter(out)
        for number, one in enumerate(entries):
            if number % 256 == 0:
                session.cancel.check()
            writer.add(one)
        summary = writer.close()
    session.cabinet.keep_index(FileIndex(summary.diff_id, summary.entries, summary.texts))
    return LayerRef(diff_id=summary.diff_id, kind=kind, stage=stage, digest=digest, size=summary.size, time_s=time_s)


def git_layer(session: Session, image: Image, update: Update, below: StackedIndex, stage: str, digest: str, *, time_s: int) -> LayerRef:
    """Made once for all images and platforms of a run whose layers have the same entries and contents."""
    where = f"{image.git[0].position}, image {image.shown!r}"
    made = git_entries(session.repo, session.commit.id, update, below, time_s=time_s, where=where)

    def make() -> LayerRef:
        return write_layer(session, made.entries, kind="git", stage=stage, digest=digest, time_s=time_s)

    layer, by_another = session.made_once(made.key(), make)
    if by_another:
        text = f"{image.shown}/{stage}: layer {layer.diff_id} was made for another image, and is taken"
        session.tell(Detail(topic="layer", text=text, image=image.name))
    return layer._replace(stage=stage, digest=digest, time_s=time_s)


# Mount points.


def mounts_layer(session: Session, image: Image, start: Record, digest: str) -> LayerRef | None:
    """What the base has at the mount points goes: builds see the mount there. None where there is nothing."""
    if not image.mounts or not start.chain:
        return None
    view = session.cabinet.stack(start.chain)
    paths = [view.resolve(mount.to.strip("/").encode(), follow_last=True) for mount in image.mounts]
    filled = [path for path in paths if (seen := view.lookup(path)) is not None and seen.kind == DIRECTORY and view.children(path)]
    if not filled:
        return None
    time_s = max(session.commit.time_s, start.chain[-1].time_s + 1)
    kept = [NewEntry(entry) for path in filled if (entry := view.lookup(path)) is not None]
    entries = compose(adds=kept, removals=(), opaque=filled, below=view, time_s=time_s)
    return write_layer(session, entries, kind="mounts", stage="from", digest=digest, time_s=time_s)


# Imports.


@dataclass(frozen=True, slots=True)
class ImportSelection:
    """What one import takes, and the layers of its source."""

    wanted: Import
    layers: tuple[LayerRef, ...]
    selection: Selection
    checksum: str


def select_import(session: Session, one: Import, source: Record) -> ImportSelection:
    layers = _layers_until(source, one.stage)
    view = session.cabinet.stack(layers)
    include, exclude = Globs(one.include_paths), Globs(one.exclude_paths + one.implied_excludes)

    def takes(path: bytes) -> bool:
        return (not one.include_paths or include.match(path)) and not ((one.exclude_paths or one.implied_excludes) and exclude.match(path))

    try:
        selection = select(view, one.add.strip("/").encode("utf-8", "surrogateescape"), takes)
    except NotInImage as error:
        raise UsageError(f"import of {one.add!r} from image {one.image!r}: {error.what}", where=str(one.position), mend=error.mend) from error
    return ImportSelection(one, layers, selection, files_checksum(selection))


def _layers_until(source: Record, stage: str) -> tuple[LayerRef, ...]:
    """The layers of `source` up to `stage`; all of them if it is "" or the image has no such stage."""
    names = [step.stage for step in source.steps]
    if stage not in names:
        return source.chain
    kept = set(names[: names.index(stage) + 1])
    return tuple(layer for layer in source.chain if layer.image_level or layer.stage in kept)


def import_layer(session: Session, image: Image, imports: Sequence[ImportSelection], previous: Record, stage: str, digest: str) -> LayerRef | None:
    """The files of all imports of one stage as one layer; of two for one path the later import's counts."""
    view = session.cabinet.stack(previous.chain)
    time_s = max(session.commit.time_s, (previous.chain[-1].time_s if previous.chain else 0) + 1)
    with session.store.work() as work:
        adds = [new for one in imports for new in _grafted(session, image, one, view, work.path)]
        if not adds:
            return None
        entries = compose(adds=adds, removals=(), below=view, time_s=time_s)
        try:
            return write_layer(session, entries, kind="imports", stage=stage, digest=digest, time_s=time_s)
        except UnwritableEntry:
            session.cabinet.check(layer.diff_id for one in imports for layer in one.layers)  # a damaged source is made again
            raise


def _grafted(session: Session, image: Image, one: ImportSelection, view: StackedIndex, spool: str) -> list[NewEntry]:
    where = f"{one.wanted.position}, image {image.shown!r}"
    uid = account_number(one.wanted.owner, view.uid_of, kind="owner", file="/etc/passwd", where=where)
    gid = account_number(one.wanted.group, view.gid_of, kind="group", file="/etc/group", where=where)
    wanted: dict[DiffId, list[Entry]] = {}
    for item in one.selection.items:
        if item.entry.kind == FILE:
            wanted.setdefault(one.layers[item.layer].diff_id, []).append(item.source)
    content = session.cabinet.contents(wanted, spool)
    to = one.wanted.to.strip("/").encode("utf-8", "surrogateescape")
    return graft(one.selection, to=to, uid=uid, gid=gid, below=view, content=lambda item: content(one.layers[item.layer].diff_id, item.source))


# Commands.


def run_commands(session: Session, image: Image, commands: Commands, previous: Record, digest: str, keep_failed: KeepFailed) -> LayerRef | None:
    """Run a user stage over the layers of `previous`; None if it left nothing. Raises StageFailedError; `keep_failed` keeps its states first."""
    if not commands.commands:
        return None
    view = session.cabinet.stack(previous.chain)
    log = StageLog()

    def on_lines(lines: Sequence[str]) -> None:
        log.extend(lines)
        for line in lines:
            session.tell(StageOutput(image=image.name, stage=commands.stage, text=line))

    run = CommandRun(
        commands=commands.commands,
        shell=_shell(view, image, commands),
        env=command_environment(session, previous),
        mounts=previous.mounts,
        project=session.config.project,
        network=session.options.network or image.network or "host",
        layers=tuple(layer.diff_id for layer in previous.chain),
        image=image.name,
        keeps=session.options.introspect.error,
    )
    session.tell(Detail(topic="container", text=f"{image.shown}/{commands.stage}: {_shown(run)}", image=image.name))

    def on_failed(done: CommandsDone, left: Left | None) -> None:
        error = _failed(session, image, commands, done, log.text())
        error.states = keep_failed(run, error, done, left)
        raise error

    done = session.trees.run(run, on_lines=on_lines, cancel=session.cancel, on_failed=on_failed)
    for notice in done.notices:
        session.tell(Warned(text=notice, image=image.name))
    if done.layer is None:
        return None
    return LayerRef(diff_id=done.layer, kind="commands", stage=commands.stage, digest=digest, size=done.size, time_s=session.clock_ms() // 1000)


def _shown(run: CommandRun) -> str:
    """What a container is given, for whoever looks for a fault; of variables only the names, as values may be secret."""
    names = " ".join(item.partition("=")[0] for item in run.env)
    mounts = "".join(f", {kind} at {to}" for kind, to in run.mounts)
    return f"{run.shell}, layers: {len(run.layers)}, network {run.network}, env {names} {mounts}".rstrip()


def _failed(session: Session, image: Image, commands: Commands, done: CommandsDone, log: str) -> StageFailedError:
    for notice in done.notices:
        session.tell(Warned(text=notice, image=image.name))
    session.tell(StageFailed(image=image.name, stage=commands.stage, log=log))
    where, number = str(commands.position), done.failed_command
    shown: str = commands.stage
    if number is not None:
        shown, line = _failed_line(commands, number, done.failed_line)
        where = f"{commands.position.file}:{line}"
    ended = f"killed by signal {done.status - 128}" if done.status > 128 else f"exit status {done.status}"
    return StageFailedError(
        f"image {image.shown!r}, stage {commands.stage}: `{shown}` failed: {ended}",
        where=where,
        mend="its output stands above; nothing was published" + ("" if session.options.introspect.wanted else HOW_TO_LOOK),
        log=log,
    )


def _failed_line(commands: Commands, number: int, failed_line: int | None) -> tuple[str, int]:
    """What to show of the command that failed, and its line in werf.yaml. Where the shell told no line, the command's first."""
    text = commands.commands[number]
    lines = text.splitlines() or [""]
    begins = commands.lines[number] if number < len(commands.lines) else commands.position.line
    if failed_line is not None and failed_line <= len(lines):
        next_begins = commands.lines[number + 1] if number + 1 < len(commands.lines) else begins + len(lines)
        line = begins + failed_line - 1
        return lines[failed_line - 1].strip(), line if line < next_begins else begins  # a folded text has other lines than the file
    first = next((line.strip() for line in lines if line.strip()), "")
    return first if len(text.strip().splitlines()) < 2 else f"{first} …", begins


def command_environment(session: Session, previous: Record) -> tuple[str, ...]:
    """The whole environment of commands that run upon `previous`."""
    env = previous.config.env
    names = {item.partition("=")[0] for item in env}
    added = [] if "PATH" in names else [PATH]
    if not names & {"LANG", "LC_ALL"}:
        added += ["LANG=C.UTF-8", "LC_ALL=C.UTF-8"]
    return (*env, *added, *(f"{name}={value}" for name, value in commit_environment(session.commit).items()))


def find_shell(view: StackedIndex) -> str | None:
    for shell in ("/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"):
        found = view.lookup(view.resolve(shell[1:].encode(), follow_last=True))
        if found is not None and found.kind in ("file", "hardlink"):
            return shell
    return None


def _shell(view: StackedIndex, image: Image, commands: Commands) -> str:
    if (found := find_shell(view)) is not None:
        return found
    raise UsageError(
        f"the image has neither bash nor sh, which {commands.stage} needs",
        where=f"{commands.position}, image {image.shown!r}",
        mend="use a base image with a shell, or bring the files in with git and import, which need none",
    )
