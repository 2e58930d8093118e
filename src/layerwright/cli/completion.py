"""`layerwright completion`, and what a shell is answered when somebody presses Tab: fast, and silent whatever is wrong."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from layerwright.cli.command import command as define
from layerwright.cli.options import option
from layerwright.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "powershell")
_FUNCTION = "_layerwright"
_SCRIPTS = {
    # A word may hold colons (oci-archive:app.tar), where bash begins a new word: so the line up to the cursor is cut into words by layerwright itself,
    # and of each answer what bash takes for words before this one is left out.
    "bash": """\
_layerwright() {
    local line cut type value
    local current=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS=$'\\t' read -r type cut value; do
        case $type in
            dir) compopt -o filenames -o nospace; mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "$current") ;;
            file) compopt -o filenames; mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$current") ;;
            part) compopt -o nospace; COMPREPLY+=("${value:cut}") ;;
            plain) COMPREPLY+=("$(printf %q "${value:cut}")") ;;
        esac
    done < <(_LAYERWRIGHT_COMPLETE=bash COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BEGUN="$current" command "${COMP_WORDS[0]/#\\~/$HOME}" 2>/dev/null)
}
complete -F _layerwright layerwright
""",
    "zsh": """\
#compdef layerwright

_layerwright() {
    local -a plain described
    local type value help
    while IFS=$'\\t' read -r type value help; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            part) compadd -S '' -- "$value" ;;
            plain) if [[ -n $help ]]; then described+=("${value//:/\\\\:}:$help"); else plain+=("$value"); fi ;;
        esac
    done < <(_LAYERWRIGHT_COMPLETE=zsh COMP_LINE="${(j: :)words[1,CURRENT]}" command layerwright 2>/dev/null)
    (( ${#described} )) && _describe -V layerwright described
    (( ${#plain} )) && compadd -V layerwright -- $plain
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _layerwright "$@"
else
    compdef _layerwright layerwright
fi
""",
    "fish": """\
function __layerwright_complete
    set -l line (commandline -cp)
    for answer in (env _LAYERWRIGHT_COMPLETE=fish COMP_LINE="$line" layerwright 2>/dev/null)
        set -l field (string split \\t -- $answer)
        switch $field[1]
            case dir
                __fish_complete_directories $field[2]
            case file
                __fish_complete_path $field[2]
            case '*'
                printf '%s\\t%s\\n' $field[2] $field[3]
        end
    end
end
complete --no-files --command layerwright --arguments '(__layerwright_complete)'
""",
}


@define("completion")
@option("--shell", type=click.Choice(SHELLS), default="bash", metavar="|".join(_SCRIPTS), help="Which shell.", show_default=True, envvar="WERF_SHELL")
def command(shell: str) -> None:
    """Print a script that lets a shell complete commands, options and image names.

    \b
    layerwright completion --shell bash >/etc/bash_completion.d/layerwright
    layerwright completion --shell zsh >~/.zsh/completions/_layerwright
    layerwright completion --shell fish >layerwright.fish
    """
    if shell not in _SCRIPTS:
        raise UsageError(f"there is no completion for {shell}", where="--shell", mend=f"use one of {', '.join(_SCRIPTS)}")
    click.echo(_SCRIPTS[shell], nl=False)


def complete(root: click.Command, shell: str) -> int:
    """Answer the shell: a line for each candidate, `KIND<tab>WORD<tab>HELP`, or for bash `KIND<tab>CHARACTERS TO LEAVE OUT<tab>WORD`.

    Prints nothing about errors.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # also of what this process starts
    try:
        words, begun = words_of(os.environ.get("COMP_LINE", ""))
        items = ShellComplete(root, {"max_content_width": 80}, "layerwright", "_LAYERWRIGHT_COMPLETE").get_completions(words[1:], begun)
        option, equals, value = begun.partition("=") if begun.startswith("-") and "=" in begun else ("", "", begun)  # of --option=value the answers are values
        for item in items:
            if not any(mark in f"{item.value}{item.help or ''}" for mark in "\t\n"):
                sys.stdout.write(_bash_answer(item, value) if shell == "bash" else f"{item.type}\t{option}{equals}{item.value}\t{item.help or ''}\n")
        sys.stdout.flush()
    except BaseException:
        pass  # nobody wants a traceback in a prompt
    return 0


def words_of(line: str) -> tuple[list[str], str]:
    """The whole words before the cursor, and what is begun of the next one."""
    from click.shell_completion import split_arg_string

    words = split_arg_string(line)
    if not words or line[-1:].isspace():
        return words, ""
    return words[:-1], words[-1]


def _unquoted(text: str) -> str:
    """What bash has as the present word: behind a colon or `=`, where it begins a new one."""
    return "" if text in (":", "=") else text.replace("\\", "").strip("'\"")


def _bash_answer(item: CompletionItem[Any], begun: str) -> str:
    cut = max(len(begun) - len(_unquoted(os.environ.get("COMP_BEGUN", begun))), 0)
    return f"{item.type}\t{cut}\t{item.value}\n"


def image_items(ctx: click.Context, begun: str) -> list[CompletionItem[str]]:
    """Images of werf.yaml at HEAD that begin so, without those named already."""
    from layerwright.cli.wiring import open_project

    options = {"directory": ".", "platform": (), **ctx.params}
    given = ctx.params.get("images") or ()
    with open_project(options) as project:
        names = [name or "~" for name in project.select()]
    return [CompletionItem(name) for name in names if name.startswith(begun) and name not in given]


def place_items(begun: str) -> list[CompletionItem[str]]:
    """The kinds of places to export to; behind the colon of one that is a file or a directory, what is there."""
    from layerwright.build.places import KINDS

    written = [one.partition("[")[0] for one in KINDS.replace(" or ", ", ").split(", ")]  # docker://REPO:TAG, oci:DIR, ...
    kind, colon, path = begun.partition(":")
    if colon and (f"{kind}:FILE" in written or f"{kind}:DIR" in written):
        return [CompletionItem(f"{kind}:{one}", type="part") for one in _paths(path)]
    words = [one.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ:") + ("" if "//" in one else ":") for one in written]
    return [CompletionItem(word, type="part") for word in words if word.startswith(begun)]


def _paths(begun: str) -> list[str]:
    """Files and directories, the latter with a slash, that begin so; hidden ones on request."""
    directory, begun_name = os.path.split(begun)
    with os.scandir(directory or ".") as entries:
        found = [(one.name, one.is_dir()) for one in entries if one.name.startswith(begun_name) and (begun_name or not one.name.startswith("."))]
    return sorted(os.path.join(directory, name) + ("/" if is_directory else "") for name, is_directory in found)
