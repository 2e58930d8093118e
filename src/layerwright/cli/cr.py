"""`layerwright cr`: logins for container registries."""

from __future__ import annotations

import os
import sys

import click
from click.core import ParameterSource

from layerwright.build.registries import make_registry
from layerwright.cli.command import group
from layerwright.cli.options import docker_config_option, option, switch, trust_options
from layerwright.errors import UsageError

HUB = "https://index.docker.io/v1/"
_MOST_BYTES = 1 << 20


@group("cr")
def command() -> None:
    """Logins for container registries."""


@command.command("login")
@click.argument("registry", default=HUB, metavar="[REGISTRY]")
@option("--username", "-u", default="", help="Who logs in.", metavar="NAME")
@option("--password", "-p", default="", help="The password; others on this machine can read a command line.", metavar="TEXT")
@switch("--password-stdin", help="Read the password from standard input.", own=True)
@docker_config_option
@trust_options
@click.pass_context
def login_command(
    ctx: click.Context,
    registry: str,
    username: str,
    password: str,
    password_stdin: bool,
    docker_config: str | None,
    insecure_registry: bool,
    skip_tls_verify_registry: bool,
) -> None:
    """Log in to a registry, Docker Hub if none is named, and keep the login for builds.

    The registry is asked first. The login goes to the credential helper that config.json names, else into config.json.

    \b
    layerwright cr login registry.example -u ann
    layerwright cr login registry.example -u ann --password-stdin <password.txt
    """
    from layerwright.registry.account import keep, prove, registry_of
    from layerwright.registry.credentials import Credentials

    host = registry_of(registry)
    if password and password_stdin:
        raise click.UsageError("--password and --password-stdin exclude one another: give one of them", ctx)
    if password and ctx.get_parameter_source("password") is ParameterSource.COMMANDLINE:
        click.echo("Warning: a password on the command line can be read by others on this machine; use --password-stdin", err=True)
    username = username or _asked("Username", ctx, "--username", hidden=False)
    if ":" in username:
        raise click.UsageError("--username: a user name has no colon", ctx)
    password = password or (_from_stdin(ctx) if password_stdin and not sys.stdin.isatty() else _asked("Password", ctx, "--password-stdin", hidden=True))
    options = make_registry(os.environ, insecure=insecure_registry, skip_tls_verify=skip_tls_verify_registry, docker_config=docker_config).options
    login = Credentials(username=username, password=password)
    if not prove(options, host, login):
        click.echo(f"Warning: {host} asks nobody to log in; the login is kept all the same", err=True)
    place = keep(options, host, login)
    click.echo(f"The login for {host} is in {place}" + ("" if place.startswith("docker-credential-") else ", not encrypted"), err=True)
    click.echo("Successful login")


@command.command("logout")
@click.argument("registry", default=HUB, metavar="[REGISTRY]")
@docker_config_option
def logout_command(registry: str, docker_config: str | None) -> None:
    """Remove the login for a registry, Docker Hub if none is named.

    \b
    layerwright cr logout registry.example
    """
    from layerwright.registry.account import forget, registry_of

    host = registry_of(registry)
    if (left := forget(make_registry(os.environ, docker_config=docker_config).options, host)) is not None:
        click.echo(f"Warning: {left.source} still has a login for {host}", err=True)
    click.echo("Successful logout")


def _asked(what: str, ctx: click.Context, flag: str, *, hidden: bool) -> str:
    """What somebody types at a terminal. Raises click.UsageError where nobody can be asked, or nothing was typed."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"no {what.lower()}, and there is no terminal to ask for it: give {flag}", ctx)
    answer: str = click.prompt(what, hide_input=hidden, err=True, default="", show_default=False)
    if not answer:
        raise click.UsageError(f"no {what.lower()} was given", ctx)
    return answer


def _from_stdin(ctx: click.Context) -> str:
    """The password, without the end of its line."""
    given = sys.stdin.buffer.read(_MOST_BYTES).removesuffix(b"\n").removesuffix(b"\r")
    if not given:
        raise click.UsageError("standard input holds no password", ctx)
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise UsageError("the password is not UTF-8 text", where="standard input", mend="give it in UTF-8") from None
