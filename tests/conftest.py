"""Fixtures that real builds share: a registry, base images, a git project, the command line. Everything is made when first asked for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from tests.support.base_images import BaseImages, push_busybox, push_debian
from tests.support.commandline import CommandLine
from tests.support.emulation import Emulation, Lacking, emulated
from tests.support.machine import lacks_root, lacks_runtime
from tests.support.project import Project
from tests.support.registry_server import RegistryServer

# A run in the background of a script is started with these ignored, and every program it starts would ignore them, too.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# Nothing is left in the source tree, and a loaded machine fails no test by being slow.
hypothesis.settings.register_profile("layerwright", database=None, deadline=None)
hypothesis.settings.load_profile("layerwright")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, lacking in (("needs_root", lacks_root()), ("needs_runtime", lacks_runtime())):
        if lacking:
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(pytest.mark.skip(reason=lacking))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry on loopback for the whole run. A test that pushes takes a repository name of its own."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def base_images(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> BaseImages:
    """base/busybox of the registry, in several configurations."""
    return push_busybox(registry, tmp_path_factory.mktemp("base-images"))


@pytest.fixture(scope="session")
def debian(registry: RegistryServer) -> str:
    """The reference of base/debian:12. The first run on a machine takes half a minute to make it."""
    return push_debian(registry)


@pytest.fixture
def new_project(tmp_path: Path) -> Callable[[str], Project]:
    """Makes git repositories below the test's directory, by name."""
    return lambda name: Project(tmp_path / name)


@pytest.fixture
def project(new_project: Callable[[str], Project]) -> Project:
    """An empty git repository."""
    return new_project("project")


@pytest.fixture
def lw(tmp_path: Path, project: Project) -> CommandLine:
    """The command line, standing in `project`, with an empty store."""
    user_home = tmp_path / "user"
    user_home.mkdir()
    return CommandLine(home=tmp_path / "home", user_home=user_home, directory=project.path)


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    """Another architecture, whose programs run on this machine as long as the test does."""
    with ExitStack() as undo:
        try:
            found = undo.enter_context(emulated())
        except Lacking as lacking:
            pytest.skip(str(lacking))
        yield found
