"""A stand-in repository: the objects of a real one, and none of its configuration, attributes or index.

Two questions must not be answered by what a clone happens to be set up with: which attributes the *commit* gives a path, and which objects are here
already (a partial clone would fetch the object we only ask about).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerwright.errors import MachineLacks
from layerwright.host.files import remove_tree
from layerwright.host.run import run

_CONFIG = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectFormat = {format}\n"


class StandIn:
    """git in a stand-in repository, which is there for the length of a `with` block."""

    def __init__(self, directory: str, objects_directory: str, env: Mapping[str, str]) -> None:
        self._argv = ("git", f"--git-dir={directory}", "-c", "core.attributesFile=/dev/null")
        self._directory = directory
        self._env = {**env, "GIT_OBJECT_DIRECTORY": objects_directory, "GIT_INDEX_FILE": os.path.join(directory, "index"), "GIT_ATTR_NOSYSTEM": "1"}

    def run(self, *words: str, stdin: bytes) -> bytes:
        return run([*self._argv, *words], env=self._env, cwd=self._directory, stdin=stdin)


@contextmanager
def stand_in(objects_directory: str, *, sha256: bool, env: Mapping[str, str]) -> Iterator[StandIn]:
    """`objects_directory`: the real repository's; nothing is written to it."""
    directory = os.path.join(os.path.abspath(env.get("TMPDIR") or "/tmp"), f"layerwright-git-{os.urandom(8).hex()}")
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        raise MachineLacks(
            f"cannot make a temporary directory: {error.strerror}", where=directory, mend="set TMPDIR to a directory that you may write"
        ) from error
    try:
        os.mkdir(os.path.join(directory, "objects"))
        os.mkdir(os.path.join(directory, "refs"))
        _write(os.path.join(directory, "HEAD"), "ref: refs/heads/none\n")
        _write(os.path.join(directory, "config"), _CONFIG.format(format="sha256" if sha256 else "sha1"))
        yield StandIn(directory, objects_directory, env)
    finally:
        remove_tree(directory)


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="ascii") as out:
        out.write(text)
