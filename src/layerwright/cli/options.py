"""Options that several commands share. Each has two environment twins: `--some-flag` is LAYERWRIGHT_SOME_FLAG, and WERF_SOME_FLAG is honoured."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from layerwright.cli.lines import RFC3339

F = TypeVar("F", bound=Callable[..., Any])

NOT_YET = {
    "--synchronization": "synchronization servers",
    "--dev": "building uncommitted work",
    "--env": "templates, which --env is for,",
    "--follow": "following new commits",
    "--virtual-merge": "virtual merges",
    "--use-build-report": "reading a build report back",
    "--ssh-key": "SSH keys for commands",
    "--config-templates-dir": "templates",
}
REFUSED_IN_ENV = ("--virtual-merge", "--dev")


def twins(flag: str) -> list[str]:
    name = flag.lstrip("-").replace("-", "_").upper()
    return [f"LAYERWRIGHT_{name}", f"WERF_{name}"]


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option with its environment twins; `own`: werf has no variable for it, so LAYERWRIGHT_X alone. `group`: where the help has it."""
    flag = next(name for name in names if name.startswith("--")).partition("/")[0]
    settings.setdefault("envvar", twins(flag)[:1] if settings.pop("own", False) else twins(flag))
    settings.setdefault("show_envvar", False)
    if (kind := _PATHS.get(settings.get("metavar", ""))) is not None:
        settings.setdefault("shell_complete", kind)
    return click.option(*names, cls=Option, **settings)


class Option(click.Option):
    """An option that stands in one of the groups of the help."""

    def __init__(self, *arguments: Any, group: str = "", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


def in_group(group: str, command: F) -> F:
    """The option that was added to `command` last stands in this group of the help."""
    command.__click_params__[-1].group = group  # type: ignore[attr-defined]  # where click keeps them until the command is made
    return command


def _complete_directory(ctx: click.Context, param: click.Parameter, begun: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="dir")]


def _complete_file(ctx: click.Context, param: click.Parameter, begun: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


_PATHS = {"DIR": _complete_directory, "FILE": _complete_file, "PROGRAM": _complete_file}


def complete_images(ctx: click.Context, param: click.Parameter, begun: str) -> list[Any]:
    """Names of the images of werf.yaml at HEAD; none where that cannot be read."""
    from layerwright.cli.completion import image_items

    return image_items(ctx, begun)


def complete_places(ctx: click.Context, param: click.Parameter, begun: str) -> list[Any]:
    """Where `export --to` can lead."""
    from layerwright.cli.completion import place_items

    return place_items(begun)


def image_argument(*names: str, **settings: Any) -> Callable[[F], F]:
    """`click.argument` for what names images: a shell completes them."""
    return click.argument(*names, shell_complete=complete_images, **settings)


class Switch(click.types.BoolParamType):
    """1, true, yes (any case) are true; everything else in the environment is false. A flag of any other type has no say in what the environment means."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        return value if isinstance(value, bool) else str(value).strip().lower() in ("1", "true", "yes", "t", "y", "on")


def switch(*names: str, **settings: Any) -> Callable[[F], F]:
    return option(*names, is_flag=True, type=Switch(), default=False, **settings)


def with_numbered(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """For an option that can be given often: the variables LAYERWRIGHT_X_1, LAYERWRIGHT_X_… (any ending) are values, too; those given come last, and win."""
    return (*_numbered(param), *value)


def then_numbered(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The same for values of which the first is the best: those given come first."""
    return (*value, *_numbered(param))


def _numbered(param: click.Parameter) -> list[str]:
    prefixes = tuple(f"{name}_" for name in param.envvar or ())
    return [os.environ[name] for name in sorted(os.environ) if name.startswith(prefixes)]


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


def not_supported(flag: str, ctx: click.Context) -> click.UsageError:
    return click.UsageError(f'{flag}: {NOT_YET[flag]} is not supported yet (README, "Not yet"); leave out {flag} and unset {" and ".join(twins(flag))}', ctx)


def not_yet(command: F) -> F:
    """The variables of REFUSED_IN_ENV are refused too, as they would change what the command does."""
    command.refuses_not_yet = True  # type: ignore[attr-defined]  # cli.command.Command reads it
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
        command = in_group("Project", add(command))
    return command


def repo_options(command: F) -> F:
    """Where stages are kept, and where else they and finished images may be."""
    for add in reversed(
        (
            option("--repo", default="", help="Keep stages and images in this registry repository, REGISTRY/PATH.", metavar="REPO"),
            option("--secondary-repo", multiple=True, callback=then_numbered, help="Take stages from here too; nothing is written there.", metavar="REPO"),
            option("--cache-repo", multiple=True, callback=then_numbered, help="Read stages from here first, and keep copies here.", metavar="REPO"),
            option("--final-repo", default="", help="Copy finished images here.", metavar="REPO"),
        )
    ):
        command = in_group("Repository", add(command))
    return command


def outcome_options(command: F) -> F:
    """What is to become of finished images."""
    for add in reversed(
        (
            option(
                "--add-custom-tag",
                multiple=True,
                callback=with_numbered,
                help="A further tag: may hold %image%, %image_slug%, %image_safe_slug%, %image_content_based_tag%.",
                metavar="TAG",
            ),
            switch("--require-built-images", "-Z", help="Fail instead of building."),
        )
    ):
        command = in_group("Repository", add(command))
    return command


def docker_config_option(command: F) -> F:
    return option(
        "--docker-config",
        default=None,
        help="Directory of Docker's config.json, for credentials.",
        metavar="DIR",
        envvar=[*twins("--docker-config"), "DOCKER_CONFIG"],
    )(command)


def trust_options(command: F) -> F:
    """Which registries are trusted without what others have to show."""
    for add in reversed(
        (
            switch("--insecure-registry", help="Plain HTTP for registries that are not on this machine too."),
            switch("--skip-tls-verify-registry", help="Do not check the certificates of registries."),
        )
    ):
        command = in_group("Registry", add(command))
    return command


def registry_options(command: F) -> F:
    for add in reversed(
        (
            trust_options,
            docker_config_option,
            option(
                "--container-registry-mirror",
                multiple=True,
                callback=then_numbered,
                help="Ask this mirror of docker.io first; any number of times.",
                metavar="HOST",
            ),
        )
    ):
        command = in_group("Registry", add(command))
    return command


def build_options(command: F) -> F:
    for add in reversed(
        (
            option("--parallel", "-p", type=Parallel(), default=0, help="How many images are built at once.", metavar="N"),
            option("--parallel-tasks-limit", type=Parallel(), default=0, hidden=True),
            option(
                "--backend-network", "network", type=click.Choice(["", "host", "none"]), default="", metavar="host|none", help="Network of build containers."
            ),
            option("--runtime", default="", help="OCI runtime: a name or a path.  [default: crun or runc, whichever works here]", metavar="PROGRAM"),
        )
    ):
        command = in_group("Build", add(command))
    return command


def introspect_options(command: F) -> F:
    """Looking into stages: `cli.looking`."""
    for add in reversed(
        (
            switch("--introspect-error", help="Open a shell in the state that a failed command left."),
            switch("--introspect-before-error", help="Open a shell in the state before the commands of a stage that failed."),
            option(
                "--introspect-stage",
                multiple=True,
                callback=with_numbered,
                help="Open a shell after this stage. Can be repeated; ~ is the nameless image.",
                metavar="[IMAGE/]STAGE",
            ),
        )
    ):
        command = in_group("Build", add(command))
    return command


def log_options(command: F) -> F:
    for add in reversed(
        (
            switch("--log-quiet", "-q", "quiet", help="Only warnings and errors; the log of a stage if it fails."),
            switch("--log-verbose", "verbose", help="Say why each stage is built."),
            switch("--log-debug", "debug", help="Say what is asked of registries and what runs in containers, too."),
            option("--log-format", type=click.Choice(["text", "json"]), default="text", help="json: one object a line, on standard error."),
            option("--log-color-mode", "color_mode", type=click.Choice(["auto", "on", "off"]), default="auto", help="auto: on a terminal, unless NO_COLOR."),
            option("--log-folding", "folding", type=click.Choice(["auto", "gitlab", "github", "off"]), default="auto", help="Fold in CI.", own=True),
            switch("--log-time", help="Begin each line with the time."),
            option("--log-time-format", default=RFC3339, help="As strftime or Go have it.  [default: RFC 3339]", metavar="FORMAT"),
            option("--log-terminal-width", "terminal_width", type=int, default=-1, help="Columns; -1 is the terminal's own.", metavar="N"),
            option("--log-progress-every", "progress_every", type=float, default=10.0, help="Signs of life in a log; 0: none.", metavar="SECONDS", own=True),
        )
    ):
        command = in_group("Log", add(command))
    return command
