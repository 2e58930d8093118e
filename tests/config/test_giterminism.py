"""werf-giterminism.yaml."""

from __future__ import annotations

import pytest

from layerwright.config.faults import Faults
from layerwright.config.giterminism import Permissions, read_permissions

WHOLE = """
giterminismConfigVersion: "1"
cli: {allowCustomTags: true}
config:
  allowUncommitted: true
  allowUncommittedTemplates: [".werf/**/*.tmpl"]
  goTemplateRendering: {allowEnvVariables: [A, /B.*/], allowUncommittedFiles: ["**/*"]}
  secrets: {allowEnvVariables: [A], allowFiles: [~/x], allowValueIds: [b]}
  stapel:
    allowFromLatest: true
    git: {allowBranch: true}
    mount: {allowBuildDir: true, allowFromPaths: [/a/**]}
  dockerfile: {allowUncommitted: [x], allowUncommittedDockerignoreFiles: [y], allowContextAddFiles: [z]}
helm: {allowUncommittedFiles: [w]}
includes: {allowIncludesUpdate: true}
"""


def permissions(text: str | None, *, loose: bool = False) -> tuple[Permissions, list[str], list[str]]:
    faults = Faults()
    found = read_permissions(text, faults, loose=loose)
    return found, [str(one) for one in faults.found], [one.text for one in faults.warnings]


def test_every_key_is_accepted() -> None:
    found, faults, _ = permissions(WHOLE)
    assert (found, faults) == (Permissions(present=True, from_latest=True, build_dir=True), [])


def test_permissions_to_read_the_disk_are_warned_of() -> None:
    _, _, warnings = permissions("giterminismConfigVersion: 1\nconfig: {allowUncommitted: true, dockerfile: {allowUncommitted: [x]}}\n")
    assert warnings == [
        "config.allowUncommitted has no effect yet: every file is read from the commit, so commit what shall count",
        "config.dockerfile.allowUncommitted has no effect yet: every file is read from the commit, so commit what shall count",
    ]


def test_what_is_not_written_is_not_permitted() -> None:
    assert permissions(None)[0] == Permissions()
    assert permissions("giterminismConfigVersion: 1\nconfig:\n  stapel: ~\n") == (Permissions(present=True), [], [])


def test_loose_permits_everything_and_still_reads_the_file() -> None:
    found, faults, _ = permissions("giterminismConfigVersion: 2\n", loose=True)
    assert (found.from_latest, found.build_dir) == (True, True)
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: giterminismConfigVersion is missing, begin the file with giterminismConfigVersion: 1"),
        ("giterminismConfigVersion: 2\n", '1:27: giterminismConfigVersion "2" is unknown, write giterminismConfigVersion: 1'),
        (
            "giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLatest: 'yes'}}\n",
            "2:36: config.stapel.allowFromLatest wants true or false, and this is a text",
        ),
        (
            "giterminismConfigVersion: 1\nincludes: {allowIncludesUpdate: 1}\n",
            "2:33: includes.allowIncludesUpdate wants true or false, and this is the number 1",
        ),
        (
            "giterminismConfigVersion: 1\nhelm: {allowUncommittedFiles: x}\n",
            "2:31: helm.allowUncommittedFiles wants a list, and this is a text, write it as a list: allowUncommittedFiles: [x]",
        ),
        ("giterminismConfigVersion: 1\nhelm: {allowUncommittedFiles: ['[']}\n", '2:32: helm.allowUncommittedFiles: "[" is not a path pattern'),
        (
            "giterminismConfigVersion: 1\nconfig: {goTemplateRendering: {allowEnvVariables: [/(/]}}\n",
            '2:52: config.goTemplateRendering.allowEnvVariables: "/(/" is not a regular',
        ),
        ("- a\n", "1:1: a section must be keys with values, and this is a list"),
        ("a: b: c\n", "1:5: this is not YAML: "),
    ],
)
def test_a_fault_says_where_what_and_how_to_mend_it(text: str, fault: str) -> None:
    (found,) = permissions(text)[1]
    assert found.startswith(f"werf-giterminism.yaml:{fault}"), found


def test_unknown_keys_are_warned_of() -> None:
    _, faults, warnings = permissions("giterminismConfigVersion: 1\nconfig: {stapel: {allowFromLates: true}}\n")
    assert (faults, warnings) == ([], ['the key "allowFromLates" is unknown in config.stapel and has no effect: did you mean "allowFromLatest"?'])
