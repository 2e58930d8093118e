"""How `git` is called for one repository: explicit environment, explicit repository, and no help from the user's habits."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from layerwright.errors import Cancelled, LayerwrightError, MachineLacks
from layerwright.host.run import CommandFailed, Process, Stdin, Stdout, output_of

OLDEST = (2, 36)  # cat-file --batch-command

# What would point git at another repository, index or reading of it (git rev-parse --local-env-vars, and some more). Configuration given by
# environment stays: it carries the credentials and rewritten addresses that fetching for a partial clone needs.
_DROPPED = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_ATTR_SOURCE",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DEFAULT_HASH",
        "GIT_DIFF_OPTS",
        "GIT_DIR",
        "GIT_EXTERNAL_DIFF",
        "GIT_GLOB_PATHSPECS",
        "GIT_GRAFT_FILE",
        "GIT_ICASE_PATHSPECS",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INDEX_VERSION",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_LITERAL_PATHSPECS",
        "GIT_NAMESPACE",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REDIRECT_STDERR",
        "GIT_REDIRECT_STDIN",
        "GIT_REDIRECT_STDOUT",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
_SET = {
    "GIT_NO_REPLACE_OBJECTS": "1",  # replacements are local to a clone; an id must mean the same bytes everywhere
    "GIT_OPTIONAL_LOCKS": "0",  # `status` must not take the index lock from under the user's own git
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "",
    "LC_ALL": "C",  # we read what git says
}


class GitFailed(LayerwrightError):
    """git could not do what was asked of a repository that it accepts."""


class Running:
    """The git processes of a repository and its submodules, so that all can be ended at once: one that fetches for a partial clone may hang.

    No lock, because a signal handler may call `stop`: what is done to the set is atomic in itself.
    """

    def __init__(self) -> None:
        self._processes: set[Process] = set()
        self._is_stopped = False

    def add(self, process: Process) -> Process:
        for one in list(self._processes):
            if one.has_ended:
                self._processes.discard(one)
        self._processes.add(process)
        if self._is_stopped:  # meanwhile, and this one was not among those that were ended
            process.terminate()
        return process

    def stop(self) -> None:
        """End them, and each that is started until `go_on`; whoever reads from one meets its end, and raises GitFailed or CommandFailed."""
        self._is_stopped = True
        for process in list(self._processes):
            process.terminate()

    def go_on(self) -> None:
        self._is_stopped = False


class Git:
    """git for one repository. `git_dir`: its directory or the file `.git` that names it; `work_tree` exists, and is where git runs."""

    def __init__(self, git_dir: str, work_tree: str, env: Mapping[str, str], running: Running | None = None) -> None:
        self.running = running or Running()
        self.git_dir = git_dir
        self.work_tree = work_tree
        self.env = {name: value for name, value in env.items() if name not in _DROPPED} | _SET

    def argv(self, *words: str) -> tuple[str, ...]:
        """A repository of another user is read too, so nothing its configuration names as a program may start by itself: no file system monitor.

        Objects above 8 MiB are streamed by git instead of being held whole in its memory (its own default is 512 MiB), and of packs it maps 128 MiB at most.
        """
        return (
            "git",
            f"--git-dir={self.git_dir}",
            f"--work-tree={self.work_tree}",
            "-c",
            f"safe.directory={self.work_tree}",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.bigFileThreshold=8m",
            "-c",
            "core.packedGitWindowSize=32m",
            "-c",
            "core.packedGitLimit=128m",
            *words,
        )

    def run(self, *words: str, stdin: bytes | None = None) -> bytes:
        """stdout of git. Raises CommandFailed, MachineLacks."""
        with self.start(*words, stdin=stdin) as process:
            return output_of(process)

    def start(self, *words: str, stdin: Stdin = None, stdout: Stdout = "pipe") -> Process:
        return self.running.add(Process(self.argv(*words), env=self.env, cwd=self.work_tree, stdin=stdin, stdout=stdout))

    def refuse_old(self) -> None:
        """Raises MachineLacks if git is older than what we need."""
        text = self.run("version").decode("utf-8", "replace")
        numbers = text.removeprefix("git version ").split(".")[:2]
        if all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < OLDEST:
            raise MachineLacks(
                f"{text.strip()} is too old", mend=f"install git {OLDEST[0]}.{OLDEST[1]} or newer (sudo apt-get install -t <codename>-backports git)"
            )


def failed(failure: CommandFailed, *, what: str, where: str, mend: str = "") -> GitFailed | Cancelled:
    """`failure`, told as what we wanted from git. Ctrl-C at a terminal reaches git as well, sometimes before it reaches us: then nothing is wrong."""
    if failure.code == -signal.SIGINT:
        return Cancelled("git was stopped by SIGINT", where=where)
    return GitFailed(f"{what}: {failure.stderr or failure.what}", where=where, mend=mend or f"try it by hand in {where}: git fsck")


def shown(path: bytes | str) -> str:
    """A path for people, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
