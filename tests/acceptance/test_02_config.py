"""werf.yaml, seen from outside: every fault with its place, and what each directive does to the image."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine, Ran
from tests.support.exported import Exported, read_layout
from tests.support.project import Project

README = Path(__file__).parent.parent.parent / "README.md"
GITERMINISM_VERSION = "giterminismConfigVersion: 1\n"


META = "configVersion: 1\nproject: test\n---\n"


def export(lw: CommandLine, image: str = "app", *arguments: str) -> Exported:
    """Build and export one image, and read it."""
    layout = lw.home.parent / f"exported-{len(list(lw.home.parent.iterdir()))}"
    lw("export", image, "--to", f"oci:{layout}", *arguments)
    return read_layout(layout)


def built(ran: Ran) -> list[str]:
    """The stages that a run built, as "image/stage"."""
    return re.findall(r"^Built stage (\S+)", ran.stdout + ran.stderr, re.MULTILINE)


# Faults.

BROKEN = """\
configVersion: 1
project: shop
biuld: {cacheVersion: "1"}
---
image: api
from: scratch
fromLatest: "yes"
dokcer: {CMD: serve}
git:
  add: /src
  to: /app
shell:
  install: 80
  setup: [make]
  setup: [make install]
---
image: web
from: scratch
fromArtifact: assets
import:
- from: assest
  add: /dist
  before: install
- from: assets
  add: dist
  before: install
  after: setup
- {from: assets, add: /x, before: build}
mount:
- {from: build_dir, to: /cache}
- {from: shared_dir, to: var/cache}
docker:
  cmd: [node]
imageSpec:
  config: {user: nobody}
---
artifact: assets
from: scratch
final: false
git:
- {add: /a, to: /app}
- {add: /b, to: /app}
- {add: src, to: /other, includePaths: [/x, "[y"]}
---
image: web
---
image: [one, 1.10, one]
from: scratch
platform: linux/amd64
network: bridge
---
image: app
from: a: b
---
project: twice
"""
# Position, a part of what is wrong, a part of how to mend it.
FAULTS = (
    ("3:1", 'the key "biuld" is unknown', 'did you mean "build"?'),
    ("7:13", "fromLatest wants true or false", "without quotes"),
    ("8:1", 'the key "dokcer" is unknown', 'did you mean "docker"?'),
    ("10:3", "git wants a list", 'begin each item with "- "'),
    ("13:12", "shell.install wants texts", '"80"'),
    ("15:3", 'the key "setup" is here twice, first on line 14', "keep one"),
    ("19:1", 'both "from" and "fromArtifact"', "keep one"),
    ("21:9", 'no image of this file is named "assest"', 'did you mean "assets"?'),
    ("25:8", "import.add wants an absolute path", '"/dist"'),
    ("27:3", 'import has both "before" and "after"', "once"),
    ("28:35", 'import.before cannot be "build"', "install and setup"),
    ("30:4", "mount.from build_dir is not permitted", "werf-giterminism.yaml"),
    ("31:10", 'mount.from cannot be "shared_dir"', "tmp_dir and build_dir"),
    ("31:26", "mount.to wants an absolute path", '"/var/cache"'),
    ("32:1", 'both "docker" and "imageSpec"', "imageSpec.config"),
    ("33:3", 'the key "cmd" is unknown in docker', 'did you mean "CMD"?'),
    ("39:1", 'an artifact cannot have "final"', "take it away"),
    ("42:3", "both fill", 'another "to"'),
    ("43:9", "git.add wants an absolute path", '"/src"'),
    ("43:41", 'paths relative to "add"', '"x"'),
    ("43:45", "is not a path pattern", "closed"),
    ("45:1", "has no base", "from: scratch"),
    ("45:1", 'the name "web" is taken', "a name of its own"),
    ("47:14", "the number 1.10", '"1.10"'),
    ("49:11", "platform wants a list", "[linux/amd64]"),
    ("50:10", 'the network "bridge"', "host or none"),
    ("53:8", "this is not YAML", "quotes"),
    ("55:1", "its kind is unknown", "configVersion: 1"),
)


def test_every_fault_of_a_file_is_told_in_one_go(project: Project, lw: CommandLine) -> None:
    project.write("werf.yaml", BROKEN)
    project.commit()
    ran = lw("build", code=2)
    told = [line for line in re.sub(r"^Error: ", "", ran.stderr).splitlines() if line.startswith("werf.yaml:")]
    for position, what, mend in FAULTS:
        lines = [line for line in told if line.startswith(f"werf.yaml:{position}: ") and what in line]
        assert len(lines) == 1, f"{position} {what}\n{ran.stderr}"
        whole = ran.stderr[ran.stderr.index(lines[0]) :].partition("\nwerf.yaml:")[0]
        assert mend in whole.partition(what)[2], f"{position} {mend}\n{whole}"
    assert len(told) == len(FAULTS), ran.stderr
    positions = [tuple(map(int, line.split(":")[1:3])) for line in told]
    assert positions == sorted(positions)


# Faults that need a file of their own, since others would hide them: the images, where, and what.
ALONE: dict[str, tuple[str, str, str]] = {
    "a circle of bases": ("image: a\nfrom: b\n---\nimage: b\nfromImage: c\n---\nimage: c\nfrom: a\n", "11:1", "a -> b -> c -> a"),
    "a circle through an import": (
        "image: a\nfrom: scratch\nimport: [{from: b, add: /x, after: setup}]\n---\nimage: b\nfrom: a\n",
        "9:1",
        "a -> b -> a",
    ),
    "an import from itself": ("image: a\nfrom: scratch\nimport: [{from: a, add: /x, after: setup}]\n", "6:10", "a -> a"),
    "itself as base": ("image: a\nfromImage: a\n", "5:12", "cannot be built on itself"),
    "an image named scratch": ("image: scratch\nfrom: alpine:3\n", "4:1", 'cannot be named "scratch"'),
    "a second final image beside the nameless one": ("image: ~\nfrom: scratch\n---\nimage: b\nfrom: scratch\n", "4:1", "must be the only final one"),
    "image and artifact": ("image: a\nartifact: b\nfrom: scratch\n", "5:1", 'both "image" and "artifact"'),
    "no base": ("image: a\n", "4:1", "has no base"),
    "a base that is no reference": ("image: a\nfrom: No/Upper\n", "5:7", "No/Upper"),
    "an unknown artifact as base": ("image: a\nfromArtifact: b\n", "5:15", 'no image of this file is named "b"'),
    "an import without source": ("image: a\nfrom: scratch\nimport: [{add: /x, after: setup}]\n", "6:10", "import.from is missing"),
    "an import without moment": ("image: a\nfrom: scratch\n---\nimage: b\nfrom: scratch\nimport: [{from: a, add: /x}]\n", "9:10", "neither"),
    "an import of everything": (
        "image: a\nfrom: scratch\n---\nimage: b\nfrom: scratch\nimport: [{from: a, add: /, after: setup}]\n",
        "9:20",
        "the whole image",
    ),
    "a mapping and an import to one place": (
        "image: a\nfrom: scratch\n---\nimage: b\nfrom: scratch\ngit: [{to: /app}]\nimport: [{from: a, add: /app, after: setup}]\n",
        "10:10",
        'both fill "/app"',
    ),
    "two mounts of one place": ("image: a\nfrom: scratch\nmount: [{from: tmp_dir, to: /x}, {from: tmp_dir, to: /x}]\n", "6:50", "mounted twice"),
    "an artifact with docker": ("artifact: a\nfrom: scratch\ndocker: {CMD: x}\n", "6:1", 'an artifact cannot have "docker"'),
    "git without to": ("image: a\nfrom: scratch\ngit: [{add: /x}]\n", "6:7", "git.to is missing"),
    "a dependency of beforeInstall": (
        "image: a\nfrom: scratch\ngit: [{to: /x, stageDependencies: {beforeInstall: y}}]\n",
        "6:36",
        'the key "beforeInstall" is unknown in git.stageDependencies',
    ),
    "a tab": ("image: a\n\tfrom: scratch\n", "5:1", "this is not YAML"),
    "an unknown alias": ("image: a\nfrom: *base\n", "5:7", "&base"),
}


# The same of whole files.
OF_THE_PROJECT: dict[str, tuple[str | bytes, str, str]] = {
    "no project section": ("image: a\nfrom: scratch\n", "1:1", "the section with configVersion and project is missing"),
    "another version": ("configVersion: 2\nproject: a\n", "1:16", "configVersion 2 is unknown"),
    "a bad name": ("configVersion: 1\nproject: A_b\n", "2:10", '"a-b"'),
    "two project sections": ("configVersion: 1\nproject: a\n---\nconfigVersion: 1\nproject: b\n", "4:1", "configVersion is here twice"),
    "a section that is a list": ("configVersion: 1\nproject: a\n---\n- image: b\n", "4:1", "a section must be keys with values"),
    "another encoding": (b"configVersion: 1\nproject: \xe9\n", "2:10", "not UTF-8"),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository with a project for each of ALONE, OF_THE_PROJECT and REFUSED_IN_FILES, in a directory of its name."""
    project = Project(tmp_path_factory.mktemp("cases"))
    for name, (images, _, _) in ALONE.items():
        project.write(f"{name}/werf.yaml", META + images)
    for name, (content, _, _) in OF_THE_PROJECT.items():
        project.write(f"{name}/werf.yaml", content)
    for name, (files, _, _) in REFUSED_IN_FILES.items():
        for path, text in files.items():
            project.write(f"{name}/{path}", META + text if path == "werf.yaml" else text)
    project.commit()
    return project.path


@pytest.mark.parametrize("name", ALONE | OF_THE_PROJECT)
def test_a_fault_of_images_taken_together_or_of_a_file_names_its_place(lw: CommandLine, cases: Path, name: str) -> None:
    _, position, what = (ALONE | OF_THE_PROJECT)[name]
    (line,) = [one for one in lw("config", "list", code=2, directory=cases / name).stderr.splitlines() if "werf.yaml:" in one]
    assert line.startswith(f"Error: werf.yaml:{position}: ")
    assert what in line


def test_a_missing_project_section_is_shown_with_the_directory_as_name(lw: CommandLine, project: Project) -> None:
    project.write("werf.yaml", "image: a\nfrom: scratch\n")
    project.commit()
    assert "    configVersion: 1\n    project: project\n    ---" in lw("config", "list", code=2).stderr


# Names.


def test_images_are_listed_in_the_order_of_the_file(project: Project, lw: CommandLine) -> None:
    project.werf("image: [back/api, back/jobs]\nfrom: scratch\n---\nartifact: assets\nfrom: scratch\n---\nimage: base\nfrom: scratch\nfinal: false\n")
    project.commit()
    assert lw("config", "list").stdout.split() == ["back/api", "back/jobs", "assets", "base"]
    assert lw("config", "list", "--final-images-only").stdout.split() == ["back/api", "back/jobs"]


def test_several_names_are_several_images_with_equal_files(project: Project, lw: CommandLine) -> None:
    project.write("src/a", "a")
    project.werf("image: [one, two]\nfrom: scratch\ngit: [{add: /src, to: /app}]\nimageSpec: {config: {labels: {name: '%image% of %project%'}}}\n")
    project.commit()
    for name in ("one", "two"):
        image = export(lw, name)
        assert image.contents == {"app/a": b"a"}
        assert image.settings["Labels"]["name"] == f"{name} of test"


def test_the_nameless_image_is_built_and_exported(project: Project, lw: CommandLine) -> None:
    project.write("a", "a")
    project.werf("image: ~\nfrom: base\n---\nimage: base\nfrom: scratch\nfinal: false\ngit: [{add: /a, to: /b}]\n")
    project.commit()
    assert lw("config", "list").stdout.split() == ["~", "base"]
    assert export(lw, "~").contents == {"b": b"a"}


# Bases.


def test_every_form_of_base_gives_the_files_of_that_base(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    own = base_images.push("base/self:latest", [])
    self_name = own.removesuffix(":latest")
    project.write("part/a", "a")
    project.write("own/b", "b")
    git = "git: [{add: /own, to: /own}]"
    project.werf(
        f"""
        image: part
        from: scratch
        git: [{{add: /part, to: /part}}]
        ---
        artifact: old
        fromImage: part
        {git}
        ---
        image: from-image
        fromImage: part
        {git}
        ---
        image: from-name
        from: part
        {git}
        ---
        image: from-artifact
        fromArtifact: old
        ---
        image: from-image-artifact
        fromImageArtifact: old
        ---
        image: from-scratch
        from: scratch
        {git}
        ---
        image: from-registry
        from: {base_images.busybox}
        {git}
        ---
        image: {self_name}
        from: {self_name}
        {git}
        """
    )
    project.commit()
    part, own_file = {"part/a": b"a"}, {"own/b": b"b"}
    for name in ("from-image", "from-name", "from-artifact", "from-image-artifact", "old"):
        assert export(lw, name).contents == part | own_file, name
    assert export(lw, "from-scratch").contents == own_file
    assert export(lw, self_name).contents == own_file
    registry = export(lw, "from-registry")
    assert registry.contents["own/b"] == b"b"
    assert registry.files["usr/bin/sh"].link == "busybox"
    assert registry.settings["Env"] == ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def test_the_base_is_pulled_by_digest_and_by_the_tag_latest(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    reference = base_images.push("base/tags:latest", [], {"Labels": {"which": "latest"}}).removesuffix(":latest")
    base_images.push("base/tags:2", [], {"Labels": {"which": "2"}})
    two = _digest_of(base_images, "base/tags", "2")
    project.werf(f"image: plain\nfrom: {reference}\n---\nimage: fixed\nfrom: {reference}@{two}\n")
    project.commit()
    assert export(lw, "plain").settings["Labels"]["which"] == "latest"
    assert export(lw, "fixed").settings["Labels"]["which"] == "2"


def _digest_of(base_images: BaseImages, name: str, tag: str) -> str:
    import hashlib
    import urllib.request

    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"}
    request = urllib.request.Request(f"http://{base_images.registry.address}/v2/{name}/manifests/{tag}", headers=accept)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return f"sha256:{hashlib.sha256(answer.read()).hexdigest()}"


ALLOW_LATEST = f"{GITERMINISM_VERSION}config:\n  stapel:\n    allowFromLatest: true\n"


def test_from_latest_takes_the_new_image_of_a_tag_and_plain_from_does_not(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    reference = base_images.push("base/moving:1", [], {"Labels": {"which": "old"}})
    project.write("werf-giterminism.yaml", ALLOW_LATEST)
    project.werf(f"image: latest\nfrom: {reference}\nfromLatest: true\n---\nimage: plain\nfrom: {reference}\n")
    project.commit()
    lw("build")
    assert built(lw("build")) == []
    base_images.push("base/moving:1", [], {"Labels": {"which": "new"}})
    assert built(lw("build")) == ["latest/from"]
    assert export(lw, "latest").settings["Labels"]["which"] == "new"
    assert export(lw, "plain").settings["Labels"]["which"] == "old"


def test_from_latest_is_refused_unless_the_commit_or_the_caller_permits_it(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\nfromLatest: true\n")
    project.commit()
    error = lw("build", code=2).stderr
    assert "werf.yaml:6:1: fromLatest is not permitted" in error
    assert "--loose-giterminism" in error
    lines = error.partition("    giterminismConfigVersion: 1\n")
    assert lines[1] + lines[2] == textwrap.indent(ALLOW_LATEST, "    ")
    assert built(lw("build", "--loose-giterminism")) == ["app/from"]
    project.write("werf-giterminism.yaml", ALLOW_LATEST)
    lw("build", code=2)  # on disk only
    project.commit()
    lw("build")


def test_lines_to_add_to_a_giterminism_file_that_is_there_need_no_version(project: Project, lw: CommandLine) -> None:
    project.write("werf-giterminism.yaml", f"{GITERMINISM_VERSION}config: {{stapel: {{allowFromLatest: false}}}}\n")
    project.werf("image: app\nfrom: scratch\nfromLatest: true\n")
    project.commit()
    error = lw("build", code=2).stderr
    assert "allowFromLatest: true" in error
    assert "giterminismConfigVersion" not in error


def test_faults_of_the_giterminism_file_are_told_with_those_of_werf_yaml(project: Project, lw: CommandLine) -> None:
    project.write("werf-giterminism.yaml", "giterminismConfigVersion: 2\nconfig: {stapel: {allowFromLatest: 'yes'}}\n")
    project.werf("image: app\nfrmo: scratch\n")
    project.commit()
    error = lw("build", code=2).stderr
    for place in ("werf-giterminism.yaml:1:27: ", "werf-giterminism.yaml:2:36: ", "werf.yaml:5:1: "):
        assert place in error


def test_each_cache_version_builds_what_it_is_for_anew(project: Project, lw: CommandLine) -> None:
    def build(common: str, own: str, base: str) -> list[str]:
        project.write(
            "werf.yaml",
            f"configVersion: 1\nproject: test\nbuild: {{cacheVersion: '{common}'}}\n---\nimage: a\nfrom: scratch\n"
            f"---\nimage: b\nfrom: scratch\ncacheVersion: '{own}'\n---\nimage: c\nfrom: scratch\ncacheVersion: own\nfromCacheVersion: '{base}'\n",
        )
        project.commit()
        return built(lw("build", "--parallel", "1"))

    assert build("1", "b1", "1") == ["a/from", "b/from", "c/from"]
    assert build("2", "b1", "1") == ["a/from"]
    assert build("2", "b2", "1") == ["b/from"]
    assert build("2", "b2", "2") == ["c/from"]
    assert build("1", "b1", "1") == []


# Git.


def test_git_takes_what_its_mapping_says(project: Project, lw: CommandLine) -> None:
    for path in ("src/a.py", "src/a.txt", "src/lib/b.py", "src/lib/b_test.py", "src/deep/er/c.py", "docs/d.py", "top"):
        project.write(path, path)
    project.werf(
        """
        image: app
        from: scratch
        git:
        - {add: /src, to: /app, owner: "1000", group: 7, includePaths: ["**/*.py"], excludePaths: ["**/*_test.py", deep]}
        - {add: /top, to: /etc/conf}
        - {add: /docs, to: /app/docs}
        """
    )
    project.commit()
    image = export(lw)
    assert image.contents == {"app/a.py": b"src/a.py", "app/lib/b.py": b"src/lib/b.py", "app/docs/d.py": b"docs/d.py", "etc/conf": b"top"}
    for path in ("app", "app/a.py", "app/lib", "app/lib/b.py"):
        assert image.files[path][2:4] == (1000, 7), path
    for path in ("etc", "etc/conf", "app/docs", "app/docs/d.py"):
        assert image.files[path][2:4] == (0, 0), path


def test_owners_by_name_are_those_of_the_image(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.write("a")
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /a, to: /srv/a, owner: www-data, group: www-data}}]\n")
    project.commit()
    assert export(lw).files["srv/a"][2:4] == (33, 33)
    project.werf(f"image: app\nfrom: {base_images.busybox}\ngit: [{{add: /a, to: /srv/a, owner: nosuch}}]\n")
    project.commit()
    error = lw("build", code=2).stderr
    assert "werf.yaml:6:7" in error
    assert "owner 'nosuch' is not in the image's /etc/passwd" in error


def test_a_mapping_leaves_out_what_another_fills_below_it(project: Project, lw: CommandLine) -> None:
    project.write("src/a", "a")
    project.write("src/assets/x", "from src")
    project.write("assets/y", "from assets")
    project.werf("image: app\nfrom: scratch\ngit:\n- {add: /src, to: /app}\n- {add: /assets, to: /app/assets}\n")
    project.commit()
    assert export(lw).contents == {"app/a": b"a", "app/assets/y": b"from assets"}


@pytest.mark.parametrize("add", ["/nothing", "/src/none"])
def test_a_mapping_that_matches_no_file_is_an_error(project: Project, lw: CommandLine, add: str) -> None:
    project.write("src/a")
    project.werf(f"image: app\nfrom: scratch\ngit:\n- {{add: {add}, to: /app}}\n")
    project.commit()
    error = lw("build", code=None)
    assert error.code in (1, 2)
    assert f"git.add '{add}'" in error.stderr
    assert "werf.yaml:7:3" in error.stderr


def test_a_single_file_cannot_become_the_root(project: Project, lw: CommandLine) -> None:
    project.write("a")
    project.werf("image: app\nfrom: scratch\ngit: [{add: /a, to: /}]\n")
    project.commit()
    assert "werf.yaml:6:7" in lw("build", code=2).stderr


@pytest.mark.needs_runtime
def test_a_stage_runs_again_when_a_file_it_depends_on_changes(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.write("src/lock", "1")
    project.write("src/conf/a", "1")
    project.write("src/code", "1")
    project.werf(
        f"""
        image: app
        from: {base_images.busybox}
        git:
        - {{add: /src, to: /app, excludePaths: conf/ignored, stageDependencies: {{install: lock, setup: [conf]}}}}
        shell:
          beforeInstall: test ! -e /app
          install: cat /app/lock /app/code > /installed
          setup: cat /app/conf/a > /set
        """
    )
    project.commit()
    lw("build")

    def change(path: str) -> list[str]:
        project.write(path, "2")
        project.commit()
        return built(lw("build"))

    assert change("src/code") == ["app/gitLatestPatch"]
    assert [one for one in change("src/conf/a") if "Patch" not in one] == ["app/setup"]
    assert [one for one in change("src/lock") if "Patch" not in one] == ["app/install", "app/setup"]
    project.write("src/conf/ignored", "1")  # not in the mapping, so no input of setup
    project.commit()
    assert built(lw("build")) == []
    contents = export(lw).contents
    assert (contents["installed"], contents["set"], contents["app/code"]) == (b"22", b"2", b"2")


@pytest.mark.needs_runtime
def test_without_git_after_patch_sources_are_as_of_the_last_stage_that_ran(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.write("src/lock", "1")
    project.write("src/code", "1")
    project.werf(
        f"""
        image: app
        from: {base_images.busybox}
        disableGitAfterPatch: true
        git: [{{add: /src, to: /app, stageDependencies: {{install: lock}}}}]
        shell: {{install: cat /app/code > /installed}}
        """
    )
    project.commit()
    lw("build")
    project.write("src/code", "2")
    project.commit()
    assert built(lw("build")) == []
    assert export(lw).contents["app/code"] == b"1"
    project.write("src/lock", "2")
    project.commit()
    assert "app/install" in built(lw("build"))
    contents = export(lw).contents
    assert (contents["app/code"], contents["installed"]) == (b"2", b"2")


# Commands.


@pytest.mark.needs_runtime
def test_each_cache_version_of_shell_runs_its_stages_again(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    stages = ["beforeInstall", "install", "beforeSetup", "setup"]

    def build(**versions: str) -> list[str]:
        shell = {**{stage: f"echo {stage} >> /order" for stage in stages}, **versions}
        lines = "".join(f'  {key}: "{value}"\n' for key, value in shell.items())
        project.werf(f"image: app\nfrom: {base_images.busybox}\nshell:\n{lines}")
        project.commit()
        return [name.partition("/")[2] for name in built(lw("build"))]

    assert build() == ["from", *stages]
    assert export(lw).contents["order"].decode().split() == stages
    assert build(setupCacheVersion="1") == ["setup"]
    assert build(beforeSetupCacheVersion="1") == ["beforeSetup", "setup"]
    assert build(installCacheVersion="1") == stages[1:]
    assert build(beforeInstallCacheVersion="1") == stages
    assert build(cacheVersion="1") == stages
    assert build(cacheVersion="1") == []


@pytest.mark.needs_runtime
def test_commands_are_a_text_or_a_list_and_share_one_shell(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(
        f"""
        image: app
        from: {base_images.busybox}
        shell:
          install:
          - cd /tmp; NAME=value
          - |
            for one in a b; do
              echo "$one $NAME $PWD" >> /out
            done
          setup: test "$PWD" = / && echo "yes; $(id -u)" > /single
        """
    )
    project.commit()
    contents = export(lw).contents
    assert contents["out"] == b"a value /tmp\nb value /tmp\n"
    assert contents["single"] == b"yes; 0\n"


@pytest.mark.needs_runtime
def test_a_failing_command_is_named_with_its_line(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(f"image: app\nfrom: {base_images.busybox}\nshell:\n  install:\n  - 'true'\n  - echo before; exit 7\n")
    project.commit()
    error = lw("build", code=1)
    assert "werf.yaml:9" in error.stderr
    assert "exit status 7" in error.stderr
    assert "app/install | before" in error.stdout


@pytest.mark.needs_runtime
def test_network_none_leaves_only_loopback_and_host_is_the_hosts(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(
        "---\n".join(
            f"image: {name}\nfrom: {base_images.busybox}\n{network}\n"
            f"shell: {{install: readlink /proc/self/ns/net > /net; tail -n +3 /proc/net/dev > /{name}}}\n"  # commands that differ: the network is no input of a stage
            for name, network in (("alone", "network: none"), ("host", "network: host"), ("unsaid", ""))
        )
    )
    project.commit()
    alone, host, unsaid = (export(lw, name).contents for name in ("alone", "host", "unsaid"))
    ours = f"{Path('/proc/self/ns/net').readlink()}\n".encode()
    assert (host["net"], unsaid["net"]) == (ours, ours)
    assert alone["net"] != ours
    assert [line.partition(b":")[0].strip() for line in alone["alone"].splitlines()] == [b"lo"]
    given = export(lw.with_home(lw.home / "other"), "unsaid", "--backend-network", "none")
    assert given.contents["net"] != ours


@pytest.mark.needs_runtime
def test_mounts_are_seen_by_commands_and_leave_nothing_in_the_image(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.write("werf-giterminism.yaml", f"{GITERMINISM_VERSION}config: {{stapel: {{mount: {{allowBuildDir: true}}}}}}\n")

    def build(version: int) -> dict[str, bytes]:
        project.werf(
            f"""
            image: base
            from: {base_images.busybox}
            mount:
            - {{from: build_dir, to: /kept}}
            - {{from: tmp_dir, to: /fresh}}
            shell:
              install: echo {version} >> /kept/log; echo {version} >> /fresh/log; cat /kept/log > /kept-log; cat /fresh/log > /fresh-log
            ---
            image: app
            from: base
            shell: {{install: cat /kept/log > /inherited}}
            """
        )
        project.commit()
        return export(lw).contents

    assert build(1)["fresh-log"] == b"1\n"
    contents = build(2)
    assert contents["kept-log"] == contents["inherited"] == b"1\n2\n"
    assert contents["fresh-log"] == b"2\n"
    assert not [path for path in contents if path.startswith(("kept/", "fresh/"))]


@pytest.mark.needs_runtime
def test_what_the_base_has_at_a_mount_point_is_emptied(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.write("full/a", "a")
    project.werf(
        f"""
        image: full
        from: {base_images.busybox}
        git: [{{add: /full, to: /cache}}]
        ---
        image: app
        from: full
        mount: [{{from: tmp_dir, to: /cache}}]
        shell: {{install: ls -a /cache > /seen}}
        """
    )
    project.commit()
    assert export(lw, "full").below("cache") == {"a": b"a"}
    image = export(lw)
    assert image.contents["seen"].split() == [b".", b".."]
    assert image.below("cache") == {}
    assert image.files["cache"].kind == "directory"


# Imports.


def test_an_import_takes_what_it_says(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    for path in ("out/a.html", "out/a.map", "out/sub/b.html", "out/sub/skip/c.html", "one"):
        project.write(path, path)
    project.link("out/link.html", "a.html")
    project.werf(
        f"""
        image: builder
        from: scratch
        git: [{{add: /, to: /w, owner: 5, group: 6}}]
        ---
        image: app
        from: {base_images.busybox}
        import:
        - {{from: builder, add: /w/out, to: /site, after: install, owner: www-data, group: "9", includePaths: "**/*.html", excludePaths: [sub/skip]}}
        - {{image: builder, add: /w/one, before: setup}}
        - {{artifact: builder, add: /, to: /all, includePaths: [w/one], after: setup}}
        """
    )
    project.commit()
    image = export(lw)
    assert image.below("site") == {"a.html": b"out/a.html", "sub/b.html": b"out/sub/b.html"}
    assert image.files["site/link.html"][0::6] == ("symlink", "a.html")
    assert image.below("w") == {"one": b"one"}
    assert image.below("all") == {"w/one": b"one"}
    assert {image.files[path][2:4] for path in ("site/a.html", "site/sub", "site/link.html")} == {(33, 9)}
    assert image.files["w/one"][2:4] == (5, 6)


@pytest.mark.needs_runtime
def test_imports_come_when_they_say_and_as_of_the_stage_they_say(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    moments = ("before: install", "after: install", "before: setup", "after: setup")
    imports = "".join(f"- {{from: builder, add: /out, to: /i/{moment.replace(': ', '-')}, {moment}}}\n" for moment in moments)
    project.werf(
        f"image: builder\nfrom: {base_images.busybox}\nshell:\n  beforeInstall: mkdir /out; echo early > /out/x\n  setup: echo late > /out/x\n"
        f"---\nimage: app\nfrom: {base_images.busybox}\nimport:\n{imports}- {{from: builder, stage: beforeInstall, add: /out, to: /i/staged, after: setup}}\n"
        "shell:\n" + "".join(f"  {stage}: ls /i > /{stage} 2>/dev/null || true\n" for stage in ("beforeInstall", "install", "beforeSetup", "setup"))
    )
    project.commit()
    contents = export(lw).contents
    seen = [contents[stage].decode().split() for stage in ("beforeInstall", "install", "beforeSetup", "setup")]
    assert seen == [[], ["before-install"], ["after-install", "before-install"], ["after-install", "before-install", "before-setup"]]
    assert contents["i/after-setup/x"] == b"late\n"
    assert contents["i/staged/x"] == b"early\n"


def test_an_importer_is_built_anew_only_if_the_files_it_takes_change(project: Project, lw: CommandLine) -> None:
    project.write("out/a", "1")
    project.write("other", "1")
    project.werf(
        "image: builder\nfrom: scratch\ngit: [{add: /, to: /w, excludePaths: werf.yaml}]\n"
        "---\nimage: app\nfrom: scratch\nimport: [{from: builder, add: /w/out, to: /o, after: setup}]\n"
    )
    project.commit()
    lw("build")
    project.write("other", "2")
    project.commit()
    assert not [one for one in built(lw("build")) if one.startswith("app/dep")]
    project.write("out/a", "2")
    project.commit()
    assert "app/dependenciesAfterSetup" in built(lw("build"))
    assert export(lw).contents == {"o/a": b"2"}


def test_an_import_of_what_is_not_there_is_an_error(project: Project, lw: CommandLine) -> None:
    project.write("a")
    project.werf("image: b\nfrom: scratch\ngit: [{add: /a, to: /a}]\n---\nimage: app\nfrom: scratch\nimport: [{from: b, add: /nothing, after: setup}]\n")
    project.commit()
    error = lw("build", code=None)
    assert error.code in (1, 2)
    assert "werf.yaml:10:10" in error.stderr
    assert "/nothing" in error.stderr


# Configuration of the image.


def test_docker_sets_every_field_it_names(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(
        f"""
        image: app
        from: {base_images.variant("full")}
        docker:
          VOLUME: /cache
          EXPOSE: ["80", 9000/udp]
          ENV: {{ONE: 1, YES: yes, GREETING: "hello there"}}
          LABEL: {{app: shop, version: 1.10}}
          CMD: [serve, '--name="x"']
          ENTRYPOINT: ["/bin/run"]
          WORKDIR: /app
          USER: www-data
          HEALTHCHECK: --interval=5s --retries=2 CMD /bin/true
        ---
        image: shells
        from: {base_images.busybox}
        docker: {{CMD: echo $HOME, HEALTHCHECK: NONE}}
        """
    )
    project.commit()
    settings = export(lw).settings
    assert settings["Volumes"].keys() == {"/data", "/cache"}
    assert settings["ExposedPorts"].keys() == {"8080/tcp", "80/tcp", "9000/udp"}
    assert {"ONE=1", "YES=yes", "GREETING=hello there", "LANG=C"} <= set(settings["Env"])
    assert "GREETING=good day" not in settings["Env"]
    assert settings["Labels"].items() >= {"app": "shop", "version": "1.10", "org.example.base": "busybox"}.items()
    assert (settings["Cmd"], settings["Entrypoint"]) == (["serve", '--name="x"'], ["/bin/run"])
    assert (settings["WorkingDir"], settings["User"], settings["StopSignal"]) == ("/app", "www-data", "SIGQUIT")
    assert settings["Healthcheck"] == {"Test": ["CMD-SHELL", "/bin/true"], "Interval": 5_000_000_000, "Retries": 2}
    settings = export(lw, "shells").settings
    assert settings["Cmd"] == ["/bin/sh", "-c", "echo $HOME"]
    assert settings["Healthcheck"] == {"Test": ["NONE"]}


def test_image_spec_sets_and_removes_every_field_it_names(project: Project, lw: CommandLine, base_images: BaseImages) -> None:
    project.werf(
        f"""
        image: app
        from: {base_images.variant("full")}
        imageSpec:
          author: us
          clearHistory: true
          config:
            labels: {{name: "%project%/%image%"}}
            removeLabels: [maintainer, "/org\\\\..*/"]
            env: {{PATH: "/app/bin:${{PATH}}", NEW: x}}
            removeEnv: [GREETING]
            volumes: [/new]
            removeVolumes: [/data]
            expose: ["9000/udp"]
            user: www-data
            workingDir: /app
            stopSignal: SIGINT
            cmd: [a, b]
            entrypoint: [/run]
            healthcheck: {{test: [CMD, /bin/true], interval: 30, timeout: 5, startperiod: 10, retries: 3}}
        ---
        image: cleared
        from: {base_images.variant("full")}
        imageSpec: {{config: {{clearCmd: true, clearEntrypoint: true, clearUser: true, clearWorkingDir: true}}}}
        """
    )
    project.commit()
    image = export(lw)
    settings = image.settings
    assert image.config["author"] == "us"
    assert image.config.get("history", []) == []
    assert {name: value for name, value in settings["Labels"].items() if not name.startswith("werf")} == {"name": "test/app"}
    assert sorted(settings["Env"]) == ["LANG=C", "NEW=x", "PATH=/app/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert settings["Volumes"].keys() == {"/new"}
    assert settings["ExposedPorts"].keys() == {"9000/udp"}
    assert (settings["User"], settings["WorkingDir"], settings["StopSignal"]) == ("www-data", "/app", "SIGINT")
    assert (settings["Cmd"], settings["Entrypoint"]) == (["a", "b"], ["/run"])
    seconds = 1_000_000_000
    expected = {"Test": ["CMD", "/bin/true"], "Interval": 30 * seconds, "Timeout": 5 * seconds, "StartPeriod": 10 * seconds, "Retries": 3}
    assert settings["Healthcheck"] == expected
    cleared = export(lw, "cleared").settings
    assert cleared.get("Cmd") in (None, [])
    assert cleared.get("Entrypoint") in (None, [], [""])
    assert not cleared.get("User")
    assert not cleared.get("WorkingDir")
    assert cleared["StopSignal"] == "SIGQUIT"


def test_the_projects_image_spec_is_merged_into_final_images_only(project: Project, lw: CommandLine) -> None:
    project.write(
        "werf.yaml",
        """
        configVersion: 1
        project: test
        build: {imageSpec: {author: all, config: {labels: {team: shop, both: project}}}}
        ---
        image: app
        from: step
        imageSpec: {config: {labels: {own: "1", both: image}}}
        ---
        image: step
        from: scratch
        final: false
        ---
        artifact: old
        from: scratch
        """,
    )
    project.commit()
    app = export(lw)
    assert app.config["author"] == "all"
    assert app.settings["Labels"].items() >= {"team": "shop", "own": "1", "both": "project"}.items()
    for name in ("step", "old"):
        image = export(lw, name)
        assert "author" not in image.config
        assert "team" not in image.settings.get("Labels", {})


def test_platform_enters_the_image(project: Project, lw: CommandLine) -> None:
    project.write("a")
    project.werf("image: app\nfrom: scratch\nplatform: [linux/arm64]\ngit: [{add: /a, to: /a}]\n")
    project.commit()
    assert export(lw).config["architecture"] == "arm64"
    assert export(lw, "app", "--platform", "linux/arm/v7").config["architecture"] == "arm"


def test_an_old_key_without_effect_is_a_warning(project: Project, lw: CommandLine) -> None:
    project.werf("artifact: old\nfrom: scratch\nasLayers: true\n")
    project.commit()
    warnings = lw("build").stderr
    assert "Warning: werf.yaml:4:1: artifact is deprecated" in warnings
    assert "Warning: werf.yaml:6:1: asLayers" in warnings


# What is not built yet. Each: what is in werf.yaml (or other files), the arguments, what the error names, and the line of README.md that says so.

STAPEL = "image: app\nfrom: scratch\n"
REFUSED_IN_FILES: dict[str, tuple[dict[str, str], str, str]] = {
    "dockerfile": ({"werf.yaml": "image: app\ndockerfile: Dockerfile\n"}, "werf.yaml:5:1: images from a Dockerfile", "images from a Dockerfile"),
    "templates": ({"werf.yaml": STAPEL + "cacheVersion: {{ .Env }}\n"}, "werf.yaml:6:15: Go templates", "Go templates"),
    "ansible": ({"werf.yaml": STAPEL + "ansible: {install: [{shell: 'true'}]}\n"}, "werf.yaml:6:1: ansible", "`ansible:`"),
    "secrets": ({"werf.yaml": STAPEL + "secrets: [{env: TOKEN}]\n"}, "werf.yaml:6:1: secrets", "`secrets:`"),
    "dependencies": ({"werf.yaml": STAPEL + "dependencies: [{image: b, before: setup}]\n"}, "werf.yaml:6:1: dependencies", "`dependencies:`"),
    "git.url": ({"werf.yaml": STAPEL + "git: [{url: https://example.org/a.git, to: /a}]\n"}, "werf.yaml:6:8: git.url", "`git[].url`"),
    "git.branch": ({"werf.yaml": STAPEL + "git: [{branch: main, to: /a}]\n"}, "werf.yaml:6:8: git.branch", "`git[].url`"),
    "fromPath": ({"werf.yaml": STAPEL + "mount: [{fromPath: /var/cache, to: /a}]\n"}, "werf.yaml:6:10: mount.fromPath", "`mount[].fromPath`"),
    "imports": (
        {"werf.yaml": STAPEL + "import: [{from: 'nginx:1', add: /a, after: setup}]\n"},
        "werf.yaml:6:11: imports from an image of a registry (nginx:1)",
        "imports from images that are not in the file",
    ),
    "network": ({"werf.yaml": STAPEL + "network: bridge\n"}, 'werf.yaml:6:10: the network "bridge"', "networks of containers other than"),
    "ssh": ({"werf.yaml": STAPEL + "ssh: [default]\n"}, "werf.yaml:6:1: ssh", "SSH keys for commands"),
    "includes": ({"werf.yaml": STAPEL, "werf-includes.yaml": "includes: []\n"}, "werf-includes.yaml:1:1: includes", "`includes`"),
    "lock": ({"werf.yaml": STAPEL, "layerwright.lock": "{}\n"}, "layerwright.lock:1:1: layerwright.lock", "`layerwright.lock`"),
    "lfs": (
        {
            "werf.yaml": STAPEL + "git: [{add: /lfs/big, to: /big}]\n",
            ".gitattributes": "big filter=lfs\n",
            "big": "version https://git-lfs.github.com/spec/v1\n",
        },
        "lfs/big: kept by Git LFS",
        "files kept in Git LFS",
    ),
}
REFUSED_ARGUMENTS: dict[tuple[str, ...], str] = {
    ("build", "--synchronization", "kubernetes://x"): "synchronization servers",
    ("build", "--dev"): "`--dev`",
    ("run", "--dev", "app"): "`--dev`",
    ("build", "--env", "prod"): "Go templates",
    ("build", "--config-templates-dir", "x"): "Go templates",
    ("build", "--follow"): "`--follow`",
    ("build", "--virtual-merge"): "virtual merges",
    ("build", "--use-build-report"): "`--use-build-report`",
    ("build", "--ssh-key", "x"): "SSH keys for commands",
    ("cleanup",): "`cleanup`",
    ("purge",): "`purge`",
    ("stages",): "`stages`",
    ("compose", "up"): "`compose`",
    ("ci-env", "gitlab"): "`ci-env`",
    ("slugify", "x"): "`slugify`",
    ("synchronization",): "synchronization servers",
    ("includes",): "`includes`",
    ("plan",): "`layerwright plan`",
    ("explain",): "`explain`",
    ("lock",): "`layerwright.lock`",
    ("converge",): "everything about deployment",
}


def not_yet() -> list[str]:
    """The items of README's list "Not yet"."""
    part = README.read_text().partition("## Not yet\n")[2].partition("\n## ")[0]
    return [line.removeprefix("- ") for line in part.splitlines() if line.startswith("- ")]


@pytest.mark.parametrize("name", REFUSED_IN_FILES)
def test_a_directive_that_is_not_built_is_refused_by_name_and_listed(lw: CommandLine, cases: Path, name: str) -> None:
    _, named, listed = REFUSED_IN_FILES[name]
    error = lw("build", code=2, directory=cases / name).stderr
    assert named in error
    assert "not supported yet" in error
    assert any(listed in item for item in not_yet()), listed


@pytest.mark.parametrize("arguments", REFUSED_ARGUMENTS, ids=" ".join)
def test_an_option_or_command_that_is_not_built_is_refused_by_name_and_listed(lw: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = lw(*arguments, code=2)
    named = next((one for one in arguments if one.startswith("--")), arguments[0])
    assert named in ran.stderr
    assert "not supported yet" in ran.stderr
    assert "Not yet" in ran.stderr
    assert ran.stdout == ""
    assert any(REFUSED_ARGUMENTS[arguments] in item for item in not_yet()), REFUSED_ARGUMENTS[arguments]


@pytest.mark.parametrize("variable", ["WERF_DEV", "LAYERWRIGHT_DEV", "WERF_VIRTUAL_MERGE"])
def test_what_is_not_built_is_refused_in_the_environment_too(lw: CommandLine, variable: str) -> None:
    error = lw("build", code=2, env={variable: "true"}).stderr
    assert variable in error
    assert "not supported yet" in error


def test_every_item_of_not_yet_is_refused_by_some_test() -> None:
    listed = [*REFUSED_ARGUMENTS.values(), *(one[2] for one in REFUSED_IN_FILES.values())]
    assert [item for item in not_yet() if not any(one in item for one in listed)] == []


def test_switches_are_read_from_the_environment(project: Project, lw: CommandLine) -> None:
    project.werf("image: app\nfrom: scratch\nfromLatest: true\n")
    project.commit()
    for name, value in (("WERF", "1"), ("WERF", "yes"), ("LAYERWRIGHT", "True")):
        lw("build", env={f"{name}_LOOSE_GITERMINISM": value})
    for value in ("0", "false", "nonsense"):
        lw("build", code=2, env={"WERF_LOOSE_GITERMINISM": value})
    lw("build", "--loose-giterminism", env={"WERF_DEV": "0", "WERF_REPO": ""})
