"""The library's front door: open a project, build it, read the result. The command line is a thin user of this module.

Nothing is printed and nothing is global; heavy parts are imported when they are first needed, since most builds find everything built.
"""

from __future__ import annotations

import os
import posixpath
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from layerwright import __version__
from layerwright.build.memo import NamedImage, Place, memo_key, recall, recall_names, remember
from layerwright.build.options import HEALINGS
from layerwright.build.own_store import open_store
from layerwright.build.told import as_filter, one_at_a_time, tell_remembered, tell_warnings, transferred, uncommitted_warning
from layerwright.errors import UsageError
from layerwright.git.repo import open_repo
from layerwright.oci.platform import Platform, host_platform, parse_platform
from layerwright.storage.contract import MissingBlob
from layerwright.storage.records import ContentDigest

if TYPE_CHECKING:
    from layerwright.build.events import Listener
    from layerwright.build.export import Compression
    from layerwright.build.ledger import Ledger
    from layerwright.build.options import BuildOptions, Cancel, Traffic
    from layerwright.build.plan import BuildPlan
    from layerwright.build.repositories import Repositories
    from layerwright.build.result import BuildResult, BuiltImage, Exported
    from layerwright.build.session import Session
    from layerwright.config.model import Config
    from layerwright.git.values import Commit, PathFilter
    from layerwright.registry.client import Registry
    from layerwright.registry.options import Transfer
    from layerwright.storage.kept_states import KeptState
    from layerwright.storage.records import Record

T = TypeVar("T")
Repos = tuple[str, tuple[str, ...], tuple[str, ...], str]  # the repository of the stages, secondary ones, caches, the final one
STATUS_DELAY_S = 0.03  # how long the warning about uncommitted files may hold up the end of a build


class Project:
    """One project at HEAD of its repository, with its store. A context manager; safe to use from one thread at a time.

    `directory`: the project's, in a git work tree. `config_file` and `directory` as given on the command line; `env` is what credentials
    and HOME are read from (default: the process's). `platform`: OS/ARCH, or several. `repo`: the registry repository that keeps the stages, and the
    others as in docs/repo.md. Raises UsageError where there is no git repository or no commit, and for what is no platform and no repository.
    """

    def __init__(
        self,
        directory: str = ".",
        *,
        work_tree: str | None = None,
        config_file: str | None = None,
        home: str | None = None,
        platform: str | Sequence[str] | None = None,
        repo: str = "",
        secondary_repo: Sequence[str] = (),
        cache_repo: Sequence[str] = (),
        final_repo: str = "",
        loose_giterminism: bool = False,
        project_name: str = "",
        insecure_registry: bool = False,
        skip_tls_verify_registry: bool = False,
        docker_config: str | None = None,
        container_registry_mirror: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        self._closing = ExitStack()
        self._loose = loose_giterminism
        self._project_name = project_name
        self._insecure, self._skip_tls, self._docker_config = insecure_registry, skip_tls_verify_registry, docker_config
        self._mirrors = tuple(container_registry_mirror)
        self.platforms = _platforms(platform)
        self.platform: Platform = self.platforms[0] if self.platforms else host_platform()
        self.platform_forced = bool(self.platforms)
        self._repos: Repos = (repo, tuple(secondary_repo), tuple(cache_repo), final_repo)
        if not repo and any(self._repos):
            raise UsageError("other repositories need one that stages are kept in", where="--repo", mend="name it with --repo REGISTRY/PATH")
        self._repositories: Repositories | None = None
        self._ledger: Ledger | None = None
        self.repo = self._closing.enter_context(open_repo(directory, work_tree=work_tree, env=self._env))
        self._config_file = _relative_to_project(config_file, self.repo.work_tree, self.repo.prefix) if config_file else None
        self.store = open_store(home, self._env)
        self._closing.callback(self.store.close)
        self._status = self.repo.start_status()
        self._closing.callback(self._status.close)
        self._commit: Commit | None = None
        self._config: Config | None = None
        self._guard = threading.Lock()
        self._registry: Registry | None = None
        self._listener: Listener | None = None
        self._cancel: Cancel | None = None

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing.close()

    @property
    def commit(self) -> Commit:
        if self._commit is None:
            self._commit = self.repo.head()
        return self._commit

    @property
    def config(self) -> Config:
        """werf.yaml at the commit. Raises ConfigError with every fault of the file."""
        if self._config is None:
            from layerwright.config.load import load_config

            self._config = load_config(
                lambda path: self.repo.read_file(self.commit.id, self._in_work_tree(path)),
                loose_giterminism=self._loose,
                file=self._config_file,
                project_name=self._project_name,
                work_dir=os.fsdecode(os.path.join(os.fsencode(self.repo.work_tree), self.repo.prefix)),
            )
        return self._config

    def _in_work_tree(self, path: str) -> bytes:
        """A path of the project directory, relative to the work tree."""
        return posixpath.normpath(posixpath.join(self.repo.prefix, path.encode("utf-8", "surrogateescape")))

    def select(self, patterns: Sequence[str] = (), *, final_only: bool = False) -> tuple[str, ...]:
        """Names of images that the patterns mean, in the order of werf.yaml."""
        from layerwright.config.select import select_images

        return select_images(self.config, patterns, final_only=final_only)

    # Building.

    def build(
        self, images: Sequence[str] = (), *, options: BuildOptions | None = None, on_event: Listener = lambda event: None, cancel: Cancel | None = None
    ) -> BuildResult:
        """Build `images` (patterns; none is all) and what they need. Raises LayerwrightError; nothing half-built is left behind."""
        self._check_tags(images, options)
        for _ in range(HEALINGS):
            result = self._build(images, options, on_event, cancel)
            try:
                return self._finished(images, result, options, on_event, cancel)
            except MissingBlob as damage:  # the build has only asked whether the image is there
                from layerwright.build.events import Warned

                on_event(Warned(text=f"{damage.what}; it is made again"))
        return self._finished(images, self._build(images, options, on_event, cancel), options, on_event, cancel)

    def _build(self, images: Sequence[str], options: BuildOptions | None, on_event: Listener, cancel: Cancel | None) -> BuildResult:
        key = self._memo_key(images)
        looks_into_stages = options is not None and bool(options.introspect.stages)
        remembered = None if looks_into_stages else self._recalled(key, on_event, cancel)
        if remembered is not None:
            return remembered
        from layerwright.build.run import build

        try:
            names = self.select(images)
        except UsageError:
            self._warn_uncommitted([as_filter(one) for one in self._config_filters()], on_event)
            raise
        tell_warnings(on_event, self._warnings())
        with self.session(options=options, on_event=on_event, cancel=cancel) as session:
            result = build(session, names)
        self._remember(key, result)
        self._warn_uncommitted([as_filter(one) for one in self._filters(result)], on_event)
        return result

    def _check_tags(self, images: Sequence[str], options: BuildOptions | None) -> None:
        """What is wrong with further tags is told before anything is built."""
        if options is None or not options.custom_tags:
            return
        if not self._repos[0]:
            raise UsageError("a tag is of a repository", where="--add-custom-tag", mend="name it with --repo REGISTRY/PATH")
        from layerwright.build.custom_tags import check_custom_tags

        final = [name for name in self.select(images) if self.config.image(name).final]
        if not final:
            raise UsageError("no final image is asked for, and no other gets a tag", where="--add-custom-tag", mend="name an image without `final: false`")
        check_custom_tags(options.custom_tags, final)

    def _finished(self, images: Sequence[str], result: BuildResult, options: BuildOptions | None, on_event: Listener, cancel: Cancel | None) -> BuildResult:
        """`result`, its images where else they were asked to be: in the final repository, under other tags."""
        if not self._repos[3] and not (options is not None and options.custom_tags):
            return result
        from layerwright.build.placing import place

        with self.session(options=options, on_event=on_event, cancel=cancel) as session:
            return place(session, self.repositories(), result, self.select(images))

    def plan(self, images: Sequence[str] = (), *, cancel: Cancel | None = None) -> BuildPlan:
        """What `build` would do for `images` (patterns; none is all) and what they need. Nothing is built, pulled or written. Raises LayerwrightError."""
        from layerwright.build.planner import plan

        with self.session(cancel=cancel) as session:
            return plan(session, self.select(images))

    @contextmanager
    def session(self, *, options: BuildOptions | None = None, on_event: Listener = lambda event: None, cancel: Cancel | None = None) -> Iterator[Session]:
        """What a build works in: for tools that do part of a build themselves."""
        from layerwright.build.opening import opened_session
        from layerwright.build.options import BuildOptions as Options
        from layerwright.build.options import Cancel as NewCancel

        asked = cancel or NewCancel()
        self._listener, self._cancel = one_at_a_time(on_event), asked.below()
        if self._ledger is None:
            from layerwright.build.ledger import Ledger as NewLedger

            self._ledger = NewLedger()
        with (
            self.repo.going_on(),
            asked.calling(self.repo.stop),
            opened_session(
                repo=self.repo,
                commit=self.commit,
                config=self.config,
                platform=self.platform,
                platform_forced=self.platform_forced,
                store=self.store,
                registry=self.registry,
                traffic=self.registry_traffic,
                options=options or Options(),
                cancel=self._cancel,
                tell=self._listener,
                platforms=self.platforms,
                repositories=self.repositories() if self._repos[0] else None,
                ledger=self._ledger,
            ) as session,
        ):
            yield session

    def find(self, image: str) -> BuiltImage | None:
        """The finished image of this name at the commit if it is built, else None. Builds nothing."""
        from layerwright.build.run import find

        (name,) = self.select([image or "~"])
        with self.session() as session:
            found = find(session, name)
        if found is None or not self._repos[3]:
            return found
        from layerwright.build.placing import find_final

        return find_final(self.repositories(), found)

    def export(
        self,
        image: BuiltImage | Record,
        to: str,
        *,
        compression: Compression = "gzip",
        out: BinaryIO | None = None,
        on_event: Listener = lambda event: None,
        cancel: Cancel | None = None,
    ) -> Exported:
        """Send a finished image, built again if it turns out damaged, to one of the destinations of docs/exports.md. Of one for several platforms all go.

        `compression` is of the layers that were built here. `out` takes the bytes where the destination is `-` instead of a file.
        Raises UsageError, MachineLacks, RegistryError, Cancelled; what is not whole has no name then.
        """
        from layerwright.build.destinations import Outside, export_to
        from layerwright.build.places import parse_place
        from layerwright.build.result import records_of

        place = parse_place(to)
        docker_config = {"DOCKER_CONFIG": self._docker_config} if self._docker_config else {}
        outside = Outside(env=self._env | docker_config, registry=self.registry, out=out)

        def act(image: BuiltImage | Record) -> Exported:
            with self.session(on_event=on_event, cancel=cancel) as session:
                return export_to(session, records_of(image), place, outside, compression=compression)

        return self._healed(image, act, on_event=on_event, cancel=cancel)

    def run(
        self,
        image: BuiltImage | Record,
        command: Sequence[str] = (),
        *,
        options: BuildOptions | None = None,
        on_event: Listener = lambda event: None,
        cancel: Cancel | None = None,
        entrypoint: Sequence[str] | None = None,
        env: Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        network: str = "host",
        files: tuple[int, int, int] = (0, 1, 2),
    ) -> int:
        """Run a container of a finished image, built again if it turns out damaged, on this process's stdin, stdout and stderr; the exit status.

        Of an image for several platforms that of this machine's.
        """
        from layerwright.build.result import record_for
        from layerwright.build.run_image import run_image

        def act(image: BuiltImage | Record) -> int:
            with self.session(options=options, on_event=on_event, cancel=cancel) as session:
                record = record_for(image, host_platform())
                return run_image(session, record, command, entrypoint=entrypoint, env=env, user=user, workdir=workdir, network=network, files=files)

        return self._healed(image, act, options=options, on_event=on_event, cancel=cancel)

    def _healed(
        self,
        image: BuiltImage | Record,
        act: Callable[[BuiltImage | Record], T],
        *,
        options: BuildOptions | None = None,
        on_event: Listener,
        cancel: Cancel | None,
    ) -> T:
        """Do `act` with the image; where a storage turns out to lack a part of it or to have it damaged, build it again, and once more.

        A record says only what the image was called when it was built first.
        """
        from layerwright.build.result import BuiltImage as Built

        name = image.name if isinstance(image, Built) else image.image
        for _ in range(HEALINGS):
            try:
                return act(image)
            except MissingBlob as damage:
                from layerwright.build.events import Warned

                on_event(Warned(text=f"{damage.what}; it is made again", image=name))
                image = self.build([name or "~"], options=options, on_event=on_event, cancel=cancel).image(name)
        return act(image)

    def enter(
        self,
        state: KeptState,
        command: Sequence[str] = (),
        *,
        on_event: Listener = lambda event: None,
        cancel: Cancel | None = None,
        runtime: str = "",
        files: tuple[int, int, int] = (0, 1, 2),
    ) -> int:
        """Run `command`, or the image's shell, in a kept state (`store.kept_states`) on this process's stdin, stdout and stderr; the exit status."""
        from layerwright.build.entrance import enter
        from layerwright.build.options import BuildOptions as Options

        with self.session(options=Options(runtime=runtime or state.runtime), on_event=on_event, cancel=cancel) as session:
            return enter(self.store, session.trees, state, command, cancel=session.cancel, files=files)

    def registry(self) -> Registry:
        """Every registry of this project's runs, over one pool of connections."""
        with self._guard:
            if self._registry is None:
                from layerwright.build.registries import make_registry

                self._registry = make_registry(
                    self._env,
                    insecure=self._insecure,
                    skip_tls_verify=self._skip_tls,
                    docker_config=self._docker_config,
                    mirrors=self._mirrors,
                    on_bytes=self._transferred,
                    on_request=self._requested,
                    on_moved=self._moved,
                    cancelled=lambda: self._cancel is not None and self._cancel.is_set(),
                )
                self._closing.callback(self._registry.close)
            return self._registry

    def repositories(self) -> Repositories:
        """The repositories of `repo` and the others. Raises UsageError for what is none."""
        if self._repositories is None:
            from layerwright.build.repositories import Repositories as Opened

            repo, secondary, cache, final = self._repos
            self._repositories = Opened(self.registry, repo=repo, secondary=secondary, cache=cache, final=final)
        return self._repositories

    def _moved(self, direction: Literal["in", "out"], size: int) -> None:
        if self._ledger is not None:
            self._ledger.moved(direction, size)

    def _transferred(self, transfer: Transfer) -> None:
        if self._listener is not None:
            self._listener(transferred(transfer))

    def _requested(self, method: str, url: str, status: int) -> None:
        if self._listener is not None:
            from layerwright.build.at_work import image_at_work
            from layerwright.build.events import Detail

            self._listener(Detail(topic="registry", text=f"{method} {url} {status}", image=image_at_work()))

    def registry_traffic(self) -> Traffic:
        from layerwright.build.options import Traffic

        if self._registry is None:
            return Traffic()
        return Traffic(requests=self._registry.requests, bytes_in=self._registry.bytes_in, bytes_out=self._registry.bytes_out)

    # The path of a build with nothing to do.

    def _memo_key(self, images: Sequence[str]) -> str:
        return memo_key(
            commit=self.commit.id,
            version=__version__,
            prefix=self.repo.prefix.decode("utf-8", "backslashreplace"),
            images=list(images),
            platform=[str(one) for one in self.platforms],
            repo=self._repos[0],
            host=str(host_platform()),
            config=self._config_file or "",
            loose=self._loose,
            project=self._project_name,
        )

    def _recalled(self, key: str, on_event: Listener, cancel: Cancel | None) -> BuildResult | None:
        started = time.monotonic()
        if self._repos[0]:
            return self._recalled_from_repo(key, on_event, cancel, started)
        found = recall(self.store, key)
        if found is None:
            return None
        tell_warnings(on_event, found.warnings)
        return tell_remembered(on_event, self.commit.id, found, started, lambda: self._warn_uncommitted(found.filters, on_event))

    def _recalled_from_repo(self, key: str, on_event: Listener, cancel: Cancel | None, started: float) -> BuildResult | None:
        """The same where the repository has every image that is remembered: it is asked for their names only, all at once."""
        remembered = recall_names(self.store, key)
        if remembered is None:
            return None
        from layerwright.build.options import Cancel as NewCancel
        from layerwright.build.remembered import found_in_repo

        asked = cancel or NewCancel()
        self._listener, self._cancel = one_at_a_time(on_event), asked.below()
        tiers = self.repositories().tiers(self.store, self.registry, self._cancel, lambda text: None)
        tell_warnings(on_event, remembered.warnings)
        return found_in_repo(
            tiers, self.commit.id, remembered, on_event, self.registry_traffic, started, lambda: self._warn_uncommitted(remembered.filters, on_event)
        )

    def _remember(self, key: str, result: BuildResult) -> None:
        from layerwright.config.model import ExternalBase

        bases = [self.config.image(image.name).base for image in result.images]
        if not any(isinstance(base, ExternalBase) and base.latest for base in bases):
            remember(
                self.store,
                key,
                [_named(image) for image in result.images],
                [as_filter(one) for one in self._filters(result)],
                self._warnings(),
                project=self.config.project,
            )

    def _filters(self, result: BuildResult) -> list[PathFilter]:
        from layerwright.stages.git_archive import path_filter

        mapped = (path_filter(mapping) for image in result.images for mapping in self.config.image(image.name).git)
        return [*dict.fromkeys(mapped), *self._config_filters()]

    def _config_filters(self) -> list[PathFilter]:
        """The files that the configuration is read from."""
        from layerwright.config.giterminism import FILE
        from layerwright.config.load import CANDIDATES
        from layerwright.git.values import PathFilter as Filter

        files = (self._config_file,) if self._config_file else CANDIDATES
        return [Filter(base=self._in_work_tree(file)) for file in (*files, FILE)]

    def _warnings(self) -> list[tuple[str, Place | None]]:
        loose = "--loose-giterminism lifts every gate; better allow what is needed in werf-giterminism.yaml, which is committed"
        told: list[tuple[str, Place | None]] = [(loose, None)] if self._loose else []
        return told + [(warning.text, (warning.position.file, warning.position.line, warning.position.column)) for warning in self.config.warnings]

    def _warn_uncommitted(self, filters: Sequence[Mapping[str, Any]], on_event: Listener) -> None:
        differing = self._status.paths(STATUS_DELAY_S)
        if not differing or not filters:
            return
        warning = uncommitted_warning(differing, filters)
        if warning is not None:
            on_event(warning)


def _named(image: BuiltImage) -> NamedImage:
    platforms = tuple((one.platform, ContentDigest(one.content_digest)) for one in image.platforms)
    return NamedImage(image.name, image.final, ContentDigest(image.content_digest), platforms)


def _platforms(given: str | Sequence[str] | None) -> tuple[Platform, ...]:
    named = given.split(",") if isinstance(given, str) else [one for item in given or () for one in item.split(",")]
    return tuple(dict.fromkeys(parse_platform(one) for one in named if one.strip()))


def _relative_to_project(file: str, work_tree: str, prefix: bytes) -> str:
    """A configuration file, given relative to the current directory, as a path in the project directory. Raises UsageError if it lies outside of the work tree."""
    directory, name = os.path.split(os.path.abspath(file))
    path = os.path.join(os.path.realpath(directory), name)
    if os.path.commonpath([path, work_tree]) != work_tree:
        raise UsageError("the configuration file is outside of the git work tree", where=file, mend=f"name a committed file below {work_tree} with --config")
    return os.path.relpath(path, os.path.join(work_tree, os.fsdecode(prefix)))


open_project = Project  # the name to use: with every choice it has, as type checkers see it
