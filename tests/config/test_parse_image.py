"""Image sections: what good ones become, and what is told of bad ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.config.faults import Fault
from layerwright.config.load import ConfigError, load_config
from layerwright.config.model import ExternalBase, Healthcheck, InternalBase, Position, ScratchBase
from layerwright.oci.platform import host_platform
from tests.config.loading import GITERMINISM, META, faults_of, image_faults, load, load_image, load_images, warnings_of

HOST = str(host_platform())  # none of those that the tests name beside "local"


@pytest.mark.parametrize(
    ("keys", "base"),
    [
        ("from: alpine", "alpine:latest"),
        ("from: alpine:3.20", "alpine:3.20"),
        ("from: host:5000/a/b", "host:5000/a/b:latest"),
        (f"from: alpine@sha256:{'0' * 64}", f"alpine@sha256:{'0' * 64}"),
        ("fromImage: alpine", "alpine:latest"),
        ("from: app", "app:latest"),
    ],
)
def test_a_base_of_a_registry_is_named_with_its_tag(keys: str, base: str) -> None:
    assert load_images(f"image: app\n{keys}\n")[0].base == ExternalBase(text=base, position=Position("werf.yaml", 5, 1))


@pytest.mark.parametrize("form", ["from", "fromImage", "fromArtifact", "fromImageArtifact"])
@pytest.mark.parametrize("kind", ["image", "artifact"])
def test_every_form_of_base_may_name_an_image_of_the_file(form: str, kind: str) -> None:
    app = load_images(f"image: app\n{form}: base\n---\n{kind}: base\nfrom: scratch\n")[0]
    assert app.base == InternalBase(image="base", position=Position("werf.yaml", 5, 1))
    assert app.needs == ("base",)


def test_from_scratch_is_no_image() -> None:
    assert load_images("image: app\nfrom: scratch\n")[0].base == ScratchBase(position=Position("werf.yaml", 5, 1))


def test_the_rule_for_an_image_with_its_base_s_name_holds_for_each_name_of_a_section() -> None:
    node, other = load_images("image: [node, a]\nfrom: node\n")
    assert isinstance(node.base, ExternalBase)
    assert node.base.text == "node:latest"
    assert other.base == InternalBase(image="node", position=Position("werf.yaml", 5, 1))


def test_an_image_may_have_no_name() -> None:
    assert load_images("image: ~\nfrom: alpine\n")[0].name == ""
    assert load_images("image: ''\nfrom: alpine\n")[0].shown == "~"
    assert "deprecated: name it" in warnings_of(f"{META}---\nimage: ~\nfrom: alpine\n")[0]


def test_several_names_give_equal_images() -> None:
    first, second = load_images("image: [a, b]\nfrom: alpine\nshell: {install: make}\n")
    assert (first.name, second.name) == ("a", "b")
    assert first.commands == second.commands


def test_an_artifact_is_neither_final_nor_follows_the_repository() -> None:
    artifact = load_images("artifact: a\nfrom: alpine\n")[0]
    assert (artifact.artifact, artifact.final, artifact.git_after_patch) == (True, False, False)
    assert not load_image("disableGitAfterPatch: true").git_after_patch


def test_cache_versions_fall_back_to_the_project_s() -> None:
    config = load(
        "configVersion: 1\nproject: x\nbuild: {cacheVersion: 7}\n---\nimage: a\nfrom: b\n---\nimage: c\nfrom: d\ncacheVersion: 1.10\nfromCacheVersion: yes\n"
    )
    assert [one.cache_version for one in config.images] == ["7", "1.10"]
    assert config.images[1].from_cache_version == "yes"


def test_platforms_are_normalised_and_fall_back_to_the_project_s() -> None:
    config = load(
        "configVersion: 1\nproject: x\nbuild: {platform: [linux/aarch64]}\n---\nimage: a\nfrom: b\n---\nimage: c\nfrom: d\nplatform: [linux/arm/v7]\n---\nimage: e\nfrom: f\nplatform: [local]\n"
    )
    assert [one.platforms for one in config.images] == [("linux/arm64",), ("linux/arm/v7",), ()]
    assert [one.platform for one in config.images] == ["linux/arm64", "linux/arm/v7", ""]


@pytest.mark.parametrize(
    ("project", "own", "platforms"),
    [
        ("", "[linux/arm64, linux/amd64, linux/arm/v7]", ("linux/arm64", "linux/amd64", "linux/arm/v7")),
        ("", "[linux/x86_64, linux/arm64/v8, Linux/AMD64, linux/aarch64]", ("linux/amd64", "linux/arm64")),
        ("", "[linux/mips64le, local]", ("linux/mips64le", HOST)),
        ("", f"[local, linux/mips64le, {HOST}]", (HOST, "linux/mips64le")),
        ("", "[local, local]", ()),
        ("", "[]", ()),
        ("[linux/mips64le, local]", "~", ("linux/mips64le", HOST)),
        ("[linux/s390x, linux/arm64]", "[]", ("linux/s390x", "linux/arm64")),
        ("[linux/s390x, linux/arm64]", "[linux/arm64]", ("linux/arm64",)),
        ("[linux/s390x, linux/arm64]", "[local]", ()),
    ],
)
def test_several_platforms_keep_their_order_and_stand_once(project: str, own: str, platforms: tuple[str, ...]) -> None:
    config = load(f"configVersion: 1\nproject: x\nbuild: {{platform: {project}}}\n---\nimage: [a, b]\nfrom: c\nplatform: {own}\n")
    assert [one.platforms for one in config.images] == [platforms, platforms]


def test_an_image_needs_its_own_platforms_of_what_it_names_and_no_others() -> None:
    both = "platform: [linux/arm64, linux/amd64]\n"
    load(f"{META}---\nimage: a\nfrom: b\nplatform: [linux/amd64]\n---\nimage: c\nfrom: b\n{both}---\nimage: b\nfrom: x\n{both}")


def test_git_mappings_are_cleaned_and_keep_their_order() -> None:
    mapping = load_image(
        """
        git:
        - add: /src//./x/
          to: /app/
          owner: 1000
          group: www-data
          includePaths: [b/, ./a/*.c]
          excludePaths: "**/*.md"
          stageDependencies:
            install: package.json
            setup: [src, "*.txt"]
        """
    ).git[0]
    assert (mapping.add, mapping.to, mapping.owner, mapping.group) == ("/src/x", "/app", "1000", "www-data")
    assert (mapping.include_paths, mapping.exclude_paths) == (("b", "a/*.c"), ("**/*.md",))
    assert mapping.stage_dependencies == {"install": ("package.json",), "setup": ("src", "*.txt")}
    assert mapping.position == Position("werf.yaml", 7, 3)


def test_a_git_mapping_takes_the_whole_repository_by_default() -> None:
    assert load_image("git: [{to: /app}]").git[0].add == "/"


def test_shell_stages_know_the_line_of_each_command() -> None:
    commands = load_image("shell:\n  install:\n  - a\n  - |\n    b\n    c\n  setup: d\n  setupCacheVersion: 2\n").commands
    assert commands["install"].commands == ("a", "b\nc\n")
    assert commands["install"].lines == (8, 10)
    assert (commands["setup"].lines, commands["setup"].cache_version) == ((12,), "2")
    assert list(commands) == ["install", "setup"]


def test_a_cache_version_alone_makes_stages_exist() -> None:
    assert list(load_image("shell: {cacheVersion: 1}").commands) == ["beforeInstall", "install", "beforeSetup", "setup"]
    assert list(load_image("shell: {beforeSetupCacheVersion: 1}").commands) == ["beforeSetup"]
    assert load_image("shell: {cacheVersion: 1}").commands["setup"].common_cache_version == "1"


@pytest.mark.parametrize("source", ["from: base", "image: base", "artifact: base"])
def test_an_import_takes_files_of_an_image(source: str) -> None:
    app = load_images(
        f"image: app\nfrom: alpine\nimport:\n- {source}\n  add: /a/\n  after: setup\n  stage: install\n  includePaths: x\n---\nimage: base\nfrom: scratch\nfinal: false\n"
    )[0]
    (found,) = app.imports
    assert (found.image, found.add, found.to, found.when, found.at, found.stage, found.include_paths) == (
        "base",
        "/a",
        "/a",
        "after",
        "setup",
        "install",
        ("x",),
    )
    assert app.needs == ("base",)


def test_docker_keeps_shell_and_exec_forms_apart() -> None:
    docker = load_image('docker: {CMD: [a, "b \\"c"], ENTRYPOINT: /run.sh x, ENV: {A: 1, B: yes}, EXPOSE: "80", VOLUME: [/a, /b], exactValues: true}').docker
    assert docker is not None
    assert (docker.cmd, docker.entrypoint) == (("a", 'b "c'), "/run.sh x")
    assert (docker.env, docker.expose, docker.volume, docker.exact_values) == ({"A": "1", "B": "yes"}, ("80",), ("/a", "/b"), True)


def test_docker_tells_an_empty_list_from_nothing() -> None:
    docker = load_image("docker: {CMD: []}").docker
    assert docker is not None
    assert (docker.cmd, docker.entrypoint) == ((), None)


def test_docker_is_applied_though_git_after_patch_is_disabled_and_a_warning_says_so() -> None:
    text = f"{META}---\nimage: a\nfrom: b\ndisableGitAfterPatch: true\ndocker: {{USER: x}}\n"
    assert load(text).images[0].docker is not None
    assert 'werf.yaml:7:1: werf ignores "docker" in an image with disableGitAfterPatch; it is applied here' in warnings_of(text)


def test_image_spec_is_read_whole() -> None:
    spec = load_image(
        """
        imageSpec:
          author: me
          clearHistory: true
          config:
            labels: {a: "%image%"}
            removeLabels: [x, "/^y.*/"]
            env: {PATH: "${PATH}:/x"}
            expose: []
            cmd: [a]
            clearUser: true
            healthcheck: {test: [CMD, x], interval: 30, startperiod: 5, retries: 1.0}
        """
    ).image_spec
    assert spec is not None
    assert (spec.author, spec.clear_history, spec.labels, spec.remove_labels) == ("me", True, {"a": "%image%"}, ("x", "/^y.*/"))
    assert (spec.env, spec.expose, spec.cmd, spec.clear_user) == ({"PATH": "${PATH}:/x"}, (), ("a",), True)
    assert spec.healthcheck == Healthcheck(test=("CMD", "x"), interval_s=30, start_period_s=5, retries=1)


def test_the_project_s_image_spec_is_merged_into_final_images_and_wins() -> None:
    config = load(
        "configVersion: 1\nproject: x\nbuild:\n  imageSpec: {author: all, config: {labels: {a: all, b: all}, removeLabels: [r, s]}}\n"
        "---\nimage: a\nfrom: x\nimageSpec: {author: own, clearHistory: true, config: {labels: {a: own, c: own}, removeLabels: [q, r], user: u}}\n"
        "---\nimage: b\nfrom: x\n---\nimage: c\nfrom: x\nfinal: false\n"
    )
    merged, made, untouched = (one.image_spec for one in config.images)
    assert merged is not None
    assert (merged.author, merged.clear_history, merged.user) == ("all", True, "u")
    assert (merged.labels, merged.remove_labels) == ({"a": "all", "b": "all", "c": "own"}, ("q", "r", "s"))
    assert made is not None
    assert made.author == "all"
    assert untouched is None


def test_mounts_are_read_when_permitted() -> None:
    text = "mount:\n- {from: tmp_dir, to: /a/}\n- {from: build_dir, to: /b}\n"
    assert [(one.kind, one.to) for one in load_image(text, werf_giterminism=GITERMINISM).mounts] == [("tmp_dir", "/a"), ("build_dir", "/b")]
    assert len(load_image(text, loose=True).mounts) == 2


def test_from_latest_is_read_when_permitted() -> None:
    for image in (load_image("fromLatest: on", werf_giterminism=GITERMINISM), load_image("fromLatest: on", loose=True)):
        assert isinstance(image.base, ExternalBase)
        assert image.base.latest


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("form: x", '6:1: the key "form" is unknown, did you mean "from"?'),
        ("zzz: x", '6:1: the key "zzz" is unknown, take it away; known here are image, artifact, from, '),
        ("fromImage: x", '6:1: this image has both "from" and "fromImage", keep one of them, best as "from"'),
        ("fromArtifact: x", '6:1: this image has both "from" and "fromArtifact", keep one of them'),
        ("artifact: x", '6:1: this section has both "image" and "artifact", keep "image"; '),
        ("final: 1", "6:8: final wants true or false, and this is the number 1, write final: true, or final: false, without quotes"),
        ('final: "true"', "6:8: final wants true or false, and this is a text, write final: true"),
        ("cacheVersion: [a]", "6:15: cacheVersion wants one text, and this is a list, write one value: cacheVersion: VALUE"),
        ("platform: linux/amd64", "6:11: platform wants a list, and this is a text, write it as a list: platform: [linux/amd64]"),
        ('platform: ["linux/amd64,linux/arm64"]', '6:12: platform "linux/amd64,linux/arm64" holds a comma, write each platform as an item'),
        ("platform: [linux]", "6:12: platform: 'linux' is not a platform, write OS/ARCH"),
        ("platform: [linux/amd64, arm64]", "6:25: platform: 'arm64' is not a platform, write OS/ARCH"),
        ("platform: [linux/amd64, [linux/arm64]]", "6:25: platform wants one text, and this is a list"),
        ("git: {to: /a}", '6:6: git wants a list, and this is a map of keys, begin each item with "- "'),
        ("git: [~]", "6:7: git[] wants a map of keys, and this is empty, write its keys below it"),
        ("git: [{add: /a}]", "6:7: git.to is missing, write where the files go in the image"),
        ("git: [{add: a, to: /b}]", '6:13: git.add wants an absolute path, and this is "a", begin it with "/": "/a"'),
        ("git: [{to: /b, includePaths: [../a]}]", '6:31: git.includePaths wants paths relative to "add", and this is "../a", write it relative to "add": "a"'),
        ("git: [{to: /b, excludePaths: [/a]}]", '6:31: git.excludePaths wants paths relative to "add", and this is "/a"'),
        ('git: [{to: /b, excludePaths: "{a"}]', '6:30: git.excludePaths: "{a" is not a path pattern, a { is not closed; write \\{ for the character'),
        (
            "git: [{to: /b, stageDependencies: {beforeInstall: a}}]",
            '6:36: the key "beforeInstall" is unknown in git.stageDependencies, did you mean "install"?',
        ),
        ("git: [{to: /a}, {to: /a}]", '6:17: this git mapping and the git mapping on line 6 both fill "/a", give one of them another "to"'),
        ("shell: {install: 80}", '6:18: shell.install wants texts, and this is the number 80, put quotes around it: "80"'),
        ("shell: {install: [a, yes, ~]}", '6:22: shell.install wants texts, and this is the boolean yes, put quotes around it: "yes"'),
        ("shell: {instal: a}", '6:9: the key "instal" is unknown in shell, did you mean "install"?'),
        ("shell: [a]", "6:8: shell wants a map of keys, and this is a list, write its keys below it"),
        ("import: [{add: /a, before: setup}]", "6:10: import.from is missing, name the image of this file"),
        ("import: [{from: ap, add: /a, before: setup}]", '6:17: no image of this file is named "ap", did you mean "app"?'),
        ("import: [{from: zzz, add: /a, before: setup}]", '6:17: no image of this file is named "zzz", add a section with "image: zzz"'),
        ("import: [{from: app, image: app, add: /a, before: setup}]", '6:22: import has both "from" and "image", keep one of them'),
        ("import: [{from: app, add: /a}]", '6:10: import has neither "before" nor "after", say once when the files come'),
        ("import: [{from: app, add: /a, before: setup, after: setup}]", '6:46: import has both "before" and "after"'),
        ("import: [{from: app, add: /a, before: start}]", '6:39: import.before cannot be "start", write one of install and setup'),
        (
            "import: [{from: app, add: /a, before: setup, stage: x}]",
            '6:53: import.stage cannot be "x", write one of beforeInstall, install, beforeSetup and setup',
        ),
        ("import: [{from: app, add: /, before: setup}]", '6:22: import.add "/" would take the whole image, name a directory or file'),
        ("import: [{from: app, before: setup}]", "6:10: import.add is missing"),
        ("import: [{from: app, add: /a, before: setup}]", "6:10: images need each other in a circle: app -> app"),
        ("mount: [{to: /a}]", '6:9: mount.from is missing, write "from: tmp_dir"'),
        ("mount: [{from: custom_dir, to: /a}]", '6:16: mount.from cannot be "custom_dir", write one of tmp_dir and build_dir'),
        ("mount: [{from: tmp_dir}]", "6:9: mount.to is missing"),
        ("mount: [{from: tmp_dir, to: /}]", '6:25: mount.to "/" would hide the whole image'),
        ("mount: [{from: tmp_dir, to: /a}, {from: tmp_dir, to: /a/}]", '6:50: "/a" is mounted twice, first on line 6'),
        ("docker: {cmd: x}", '6:10: the key "cmd" is unknown in docker, did you mean "CMD"?'),
        ("docker: {EXPOSE: 80}", '6:18: docker.EXPOSE wants texts, and this is the number 80, put quotes around it: "80"'),
        ("docker: {USER: a}\nimageSpec: {author: b}", '6:1: this section has both "docker" and "imageSpec", move what "docker" says into imageSpec.config'),
        (
            "imageSpec: {config: {healthcheck: {startPeriod: 1}}}",
            '6:36: the key "startPeriod" is unknown in imageSpec.config.healthcheck, did you mean "startperiod"?',
        ),
        (
            'imageSpec: {config: {healthcheck: {interval: "30s"}}}',
            "6:46: imageSpec.config.healthcheck.interval wants a whole number, and this is a text, write digits",
        ),
        ("imageSpec: {config: {cmd: a b}}", "6:27: imageSpec.config.cmd wants a list, and this is a text, write it as a list: cmd: [a b]"),
        ("imageSpec: {config: {removeEnv: [/(/]}}", '6:34: imageSpec.config.removeEnv: "/(/" is not a regular expression: '),
        ("imageSpec: {config: {env: {A: [b]}}}", "6:31: imageSpec.config.env.A wants one text, and this is a list"),
        (
            "herebyIAdmitThatFromLatestMightBreakReproducibility: true",
            "6:1: herebyIAdmitThatFromLatestMightBreakReproducibility is of werf 1.1, and is now a permission of the project, take it away",
        ),
    ],
)
def test_a_fault_of_an_image_says_where_what_and_how_to_mend_it(keys: str, fault: str) -> None:
    found = image_faults(keys)
    assert any(one.startswith(fault) for one in found), found


@pytest.mark.parametrize(
    ("keys", "place", "subject"),
    [
        ("ansible: {install: []}", "6:1", "ansible: Ansible tasks are"),
        ("secrets: [{env: X}]", "6:1", "secrets: build secrets are"),
        ("dependencies: [{image: x}]", "6:1", "dependencies: dependencies are"),
        ("ssh: default", "6:1", "ssh: SSH agents in builds are"),
        ("network: default", "6:10", 'the network "default" is'),
        ("git: [{url: https://x/y, to: /a}]", "6:8", "git.url: remote git repositories are"),
        ("git: [{tag: v1, to: /a}]", "6:8", "git.tag: remote git repositories are"),
        ("git: [{branch: v1, to: /a}]", "6:8", "git.branch: remote git repositories are"),
        ("git: [{commit: v1, to: /a}]", "6:8", "git.commit: remote git repositories are"),
        ("git: [{basicAuth: {username: v1}, to: /a}]", "6:8", "git.basicAuth: remote git repositories are"),
        ("mount: [{fromPath: /x, to: /a}]", "6:10", "mount.fromPath: mounts of a path of the host are"),
        ("import: [{from: 'nginx:1', add: /a, before: setup}]", "6:11", "imports from an image of a registry (nginx:1) are"),
        (f"import: [{{image: 'x@sha256:{'0' * 64}', add: /a, before: setup}}]", "6:11", "imports from an image of a registry"),
    ],
)
def test_what_is_not_built_yet_is_refused_by_name(keys: str, place: str, subject: str) -> None:
    (fault,) = image_faults(keys)
    assert fault.startswith(f"{place}: {subject}")
    assert " not supported yet, " in fault


def test_a_dockerfile_section_is_refused_and_its_name_stays_known() -> None:
    (fault,) = faults_of(f"{META}---\nimage: d\ndockerfile: Dockerfile\n---\nimage: a\nfrom: x\nimport: [{{from: d, add: /a, before: setup}}]\n")
    assert fault == '5:1: images from a Dockerfile are not supported yet, write the image with "from", "git" and "shell"'


def test_empty_values_of_what_is_not_supported_ask_for_nothing() -> None:
    assert image_faults("ansible: {}\nsecrets: []\nssh:\ndependencies: ~\ngit: [{url: '', to: /a}]") == []


def test_from_latest_is_refused_with_the_lines_to_add() -> None:
    (fault,) = image_faults("fromLatest: true")
    assert fault.startswith("6:1: fromLatest is not permitted by werf-giterminism.yaml: ")
    assert fault.endswith(":\n    giterminismConfigVersion: 1\n    config:\n      stapel:\n        allowFromLatest: true")
    (fault,) = image_faults("fromLatest: true", werf_giterminism="giterminismConfigVersion: '1'\n")
    assert fault.endswith("(or give --loose-giterminism):\n    config:\n      stapel:\n        allowFromLatest: true")
    (fault,) = image_faults("fromLatest: true\nherebyIAdmitThatFromLatestMightBreakReproducibility: true")
    assert fault.startswith("7:1: ")
    assert fault.endswith("allowFromLatest: true")


def test_build_dir_is_refused_with_the_lines_to_add() -> None:
    (fault,) = image_faults("mount: [{from: build_dir, to: /a}]")
    assert fault.startswith("6:10: mount.from build_dir is not permitted")
    assert fault.endswith("        mount:\n          allowBuildDir: true")


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ("image: a\n", '4:1: this image has no base, write "from: NAME:TAG"'),
        ("image: ~\n", "4:1: this image has no base"),
        ("image: []\nfrom: x\n", "4:8: this section has no image name, write the name into the list"),
        ("image: 1.10\nfrom: x\n", '4:8: image wants texts, and this is the number 1.10, put quotes around it: "1.10"'),
        ("image: [a, no]\nfrom: x\n", '4:12: image wants texts, and this is the boolean no, put quotes around it: "no"'),
        ("image: {a: b}\nfrom: x\n", "4:8: image wants texts, and this is a map of keys"),
        ("image: scratch\nfrom: x\n", '4:1: an image cannot be named "scratch"'),
        ("image: [a, a]\nfrom: x\n", '4:1: the name "a" is taken: line 4 has an image of this name'),
        ("image: a\nfrom: x\n---\nartifact: a\nfrom: x\n", '7:1: the name "a" is taken: line 4 has an image of this name'),
        ("image: ~\nfrom: x\n---\nimage: a\nfrom: x\n", "4:1: an image without a name must be the only final one"),
        ("artifact: ~\nfrom: x\n", "4:1: the artifact has no name, write artifact: NAME"),
        ("artifact: a\nfrom: x\nfinal: false\n", '6:1: an artifact cannot have "final", take it away'),
        ("artifact: a\nfrom: x\ndocker: {USER: a}\n", '6:1: an artifact cannot have "docker"'),
        ("artifact: a\nfrom: x\ndisableGitAfterPatch: true\n", '6:1: an artifact cannot have "disableGitAfterPatch"'),
        ("image: a\nfromImage: a\n", '5:12: the image "a" cannot be built on itself, for the image of a registry write "from: a:TAG"'),
        ("image: a\nfromArtifact: bulder\n---\nartifact: builder\nfrom: x\n", '5:15: no image of this file is named "bulder", did you mean "builder"?'),
        ("image: a\nfrom: b\n---\nimage: b\nfrom: a\n", "8:1: images need each other in a circle: a -> b -> a"),
        ("image: a\nfrom: Nginx\n", "5:7: from: 'Nginx' is not an image reference: a repository has lower-case letters"),
        (
            "image: a\nfrom: x\nplatform: [linux/s390x]\nimport: [{from: b, add: /a, before: setup}]\n---\nimage: b\nfrom: x\nfinal: false\nplatform: [linux/arm64]\n",
            '7:10: "a" is for linux/s390x, and its import source "b" is for linux/arm64 only, write "platform: [linux/arm64, linux/s390x]" into "b", or the same',
        ),
        (
            "image: a\nfrom: b\nplatform: [linux/s390x, linux/arm64, linux/riscv64]\n---\nimage: b\nfrom: x\nplatform: [linux/arm64]\n",
            '5:1: "a" is for linux/s390x and linux/riscv64, and its base "b" is for linux/arm64 only, write "platform: [linux/arm64, linux/s390x, linux/riscv64]"',
        ),
        (
            "image: a\nfrom: x\nplatform: [local, linux/mips64le]\nimport: [{from: b, add: /a, before: setup}]\n---\nimage: b\nfrom: x\n",
            f'7:10: "a" is for linux/mips64le, and its import source "b" is for {HOST} only, write "platform: [{HOST}, linux/mips64le]" into "b"',
        ),
        (
            "image: a\nfrom: x\n---\nimages: b\nfrom: x\n",
            '7:1: this section has none of "configVersion", "image" and "dockerfile", so its kind is unknown, did you mean "image" by "images"?',
        ),
        (
            "image: a\nfrom: x\n---\nfrom: x\n",
            '7:1: this section has none of "configVersion", "image" and "dockerfile", so its kind is unknown, name the image',
        ),
    ],
)
def test_a_fault_of_names_and_bases_says_where_what_and_how_to_mend_it(sections: str, fault: str) -> None:
    (found,) = faults_of(f"{META}---\n{sections}")
    assert found.startswith(fault), found


def test_nameless_with_intermediate_images_is_good() -> None:
    assert len(load_images("image: ~\nfrom: x\n---\nimage: a\nfinal: false\nfrom: x\n---\nartifact: b\nfrom: x\n")) == 3


def test_a_cycle_through_several_kinds_of_reference_is_told_once() -> None:
    text = f"{META}---\nimage: a\nfrom: b\n---\nimage: b\nfrom: x\nimport: [{{from: c, add: /a, before: setup}}]\n---\nimage: c\nfromArtifact: a\n---\nimage: d\nfrom: a\n"
    (fault,) = faults_of(text)
    assert fault.startswith("12:1: images need each other in a circle: a -> b -> c -> a, take one of these")


def test_a_long_chain_of_images_costs_no_recursion() -> None:
    sections = "".join(f"---\nimage: i{number}\nfrom: i{number + 1}\n" for number in range(3000))
    assert len(load(f"{META}{sections}---\nimage: i3000\nfrom: x\n").images) == 3001


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        ("docker: {USER: x}", '6:1: "docker" is deprecated: write imageSpec.config instead'),
        ("asLayers: true", "6:1: asLayers is of werf 1.1 and has no effect"),
        ("git: [{to: /a/}]", '6:8: the slash at the end of git.to has no effect: files go to "/a" itself'),
        ("git: [{to: /a, stageDependencies: {setup: x}}]", "6:7: git.stageDependencies.setup has no effect: there are no commands in shell.setup"),
    ],
)
def test_what_is_odd_is_warned_of(keys: str, warning: str) -> None:
    (found,) = warnings_of(f"{META}---\nimage: a\nfrom: b\n{keys}\n")
    assert found.startswith(f"werf.yaml:{warning}")


def test_deprecated_words_are_warned_of_once() -> None:
    warnings = warnings_of(f"{META}---\nartifact: a\nfrom: b\n---\nartifact: c\nfrom: d\n---\nimage: e\nfromArtifact: a\n")
    assert warnings == ['werf.yaml:4:1: artifact is deprecated: write "image", "final: false" and "disableGitAfterPatch: true" instead']


WORDS = st.sampled_from(
    "image artifact from fromImage fromArtifact fromLatest final git shell import mount docker imageSpec config add to install setup before after"
    " configVersion project build platform cleanup labels env CMD app base /a a.c true 1 ~ [a] {a} &x *x << | > - network stage dockerfile".split()
)
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 100) | st.sampled_from(["app", "base", "/a", "../b", "[", "setup", "install", "", "x:1", "tmp_dir"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(WORDS, VALUES, max_size=6), max_size=4))
def test_any_sections_are_read_or_told_to_be_wrong(sections: list[dict[str, object]]) -> None:
    text = META + "".join(f"---\n{json.dumps(one)}\n" for one in sections)
    _read_or_told(text)


@given(st.lists(st.tuples(st.sampled_from(["", "  ", "- ", "  - "]), WORDS, st.sampled_from([": ", ":\n", " ", "\n", ""]), WORDS), max_size=12))
def test_any_lines_are_read_or_told_to_be_wrong(lines: list[tuple[str, ...]]) -> None:
    _read_or_told(META + "---\n" + "\n".join("".join(line) for line in lines))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_told_to_be_wrong(content: bytes) -> None:
    for files in ({"werf.yaml": content}, {"werf.yaml": META.encode(), "werf-giterminism.yaml": content}):
        assert all(fault.mend for fault in _faults_of_files(files))


def _read_or_told(text: str) -> None:
    faults = _faults_of_files({"werf.yaml": text.encode()})
    assert all(fault.what and fault.mend and fault.position.line >= 1 and fault.position.column >= 1 for fault in faults)
    assert list(faults) == sorted(faults, key=lambda one: one.position)


def _faults_of_files(files: dict[str, bytes]) -> tuple[Fault, ...]:
    """None if all is well; anything but a ConfigError is a failure of the test."""
    try:
        load_config(files.get)
    except ConfigError as error:
        return error.faults
    return ()
