"""Options that several commands share. Each has two environment twins: `--some-flag` is LAYERWRIGHT_SOME_FLAG, and WERF_SOME_FLAG is honoured."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NOT_YET = {
    "--repo": "a registry as the stage storage",
    "--secondary-repo": "a second registry to read stages from",
    "--cache-repo": "a cache registry",
    "--final-repo": "a registry for final images",
    "--add-custom-tag": "custom tags",
    "--synchronization": "synchronization servers",
    "--dev": "building uncommitted work",
    "--env": "templates, which --env is for,",
    "--follow": "following new commits",
    "--virtual-merge": "virtual merges",
    "--require-built-images": "failing instead of building",
    "--use-build-report": "reading a build report back",
    "--introspect-error": "a shell in a failed stage",
    "--introspect-before-error": "a shell before a failed stage",
    "--introspect-stage": "a shell in a stage",
    "--ssh-key": "SSH keys for commands",
    "--config-templates-dir": "templates",
}
_REFUSED_IN_ENV = ("--repo", "--final-repo", "--secondary-repo", "--cache-repo", "--require-built-images", "--virtual-merge", "--dev")


def twins(flag: str) -> list[str]:
    name = flag.lstrip("-").replace("-", "_").upper()
    return [f"LAYERWRIGHT_{name}", f"WERF_{name}"]


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option with its environment twins; `own`: werf has no variable for it, so LAYERWRIGHT_X alone."""
    flag = next(name for name in names if name.startswith("--")).partition("/")[0]
    settings.setdefault("envvar", twins(flag)[:1] if settings.pop("own", False) else twins(flag))
    settings.setdefault("show_envvar", False)
    return click.option(*names, **settings)


class Switch(click.types.BoolParamType):
    """1, true, yes (any case) are true; everything else in the environment is false. A flag of any other type has no say in what the environment means."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        return value if isinstance(value, bool) else str(value).strip().lower() in ("1", "true", "yes", "t", "y", "on")


def switch(*names: str, **settings: Any) -> Callable[[F], F]:
    return option(*names, is_flag=True, type=Switch(), default=False, **settings)


def with_numbered(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """For an option that can be given often: the variables LAYERWRIGHT_X_1, LAYERWRIGHT_X_… (any ending) are values, too; those given come last, and win."""
    prefix = twins(max(param.opts, key=len))[0] + "_"
    return (*(os.environ[name] for name in sorted(os.environ) if name.startswith(prefix)), *value)


class Parallel(click.ParamType[int]):
    """How many images at once: a number; as werf has it, true is the default number and false is one."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        if text in ("", "true", "yes"):
            return 0
        if text in ("false", "no"):
            return 1
        if text == "-1":
            return 64
        if not text.isdigit() or int(text) < 1:
            self.fail(f"{value!r} is not a number of images to build at once: write 1, 2, 3 …", param, ctx)
        return int(text)


def _refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        flag = param.opts[0]
        raise click.UsageError(f'{flag}: {NOT_YET[flag]} is not supported yet (README, "Not yet"); leave out {flag} and unset {" and ".join(twins(flag))}', ctx)


def not_yet(command: F) -> F:
    """Refuse by name what werf has and we do not yet."""
    for flag in NOT_YET:
        flagged = flag in (
            "--dev",
            "--follow",
            "--virtual-merge",
            "--require-built-images",
            "--use-build-report",
            "--introspect-error",
            "--introspect-before-error",
        )
        settings: dict[str, Any] = {"is_flag": True, "type": Switch()} if flagged else {"multiple": True}
        envvar = twins(flag) if flag in _REFUSED_IN_ENV else None
        command = click.option(flag, hidden=True, expose_value=False, callback=_refuse, envvar=envvar, **settings)(command)
    return command


def project_options(command: F) -> F:
    """Which project, and how its configuration is read."""
    for add in reversed(
        (
            option("--dir", "directory", default=".", help="Directory of the project.", metavar="DIR"),
            option("--git-work-tree", "work_tree", default=None, help="Work tree of the repository; found from --dir if not given.", metavar="DIR"),
            option("--config", "config_file", default=None, help="Configuration file instead of werf.yaml, committed.", metavar="FILE"),
            switch("--loose-giterminism", help="Lift what werf-giterminism.yaml does not allow."),
            option(
                "--platform",
                multiple=True,
                help="OS/ARCH[/VARIANT] to build for.",
                metavar="PLATFORM",
                envvar=[*twins("--platform"), "DOCKER_DEFAULT_PLATFORM"],
            ),
            option("--project-name", "-N", default="", hidden=True),
            option("--home", "home", default=None, help="The store.  [default: $XDG_DATA_HOME/layerwright]", metavar="DIR", envvar="LAYERWRIGHT_HOME"),
        )
    ):
        command = add(command)
    return command


def registry_options(command: F) -> F:
    for add in reversed(
        (
            switch("--insecure-registry", help="Plain HTTP for registries that are not on this machine too."),
            switch("--skip-tls-verify-registry", help="Do not check the certificates of registries."),
            option(
                "--docker-config",
                default=None,
                help="Directory of Docker's config.json, for credentials.",
                metavar="DIR",
                envvar=[*twins("--docker-config"), "DOCKER_CONFIG"],
            ),
        )
    ):
        command = add(command)
    return command


def build_options(command: F) -> F:
    for add in reversed(
        (
            option("--parallel", "-p", type=Parallel(), default=0, help="How many images are built at once.", metavar="N"),
            option("--parallel-tasks-limit", type=Parallel(), default=0, hidden=True),
            option("--backend-network", "network", type=click.Choice(["", "host", "none"]), default="", help="Network of build containers, for all images."),
            option("--runtime", default="", help="OCI runtime: a name or a path.  [default: crun or runc, whichever works here]", metavar="PROGRAM"),
        )
    ):
        command = add(command)
    return command


def log_options(command: F) -> F:
    for add in reversed(
        (
            option("--log-color-mode", "color_mode", type=click.Choice(["auto", "on", "off"]), default="auto", help="Colours.", show_default=True),
            switch("--log-quiet", "-q", "quiet", help="Only warnings and errors; the log of a stage if it fails."),
            switch("--log-verbose", "verbose", help="Say why each stage is built."),
        )
    ):
        command = add(command)
    return command
