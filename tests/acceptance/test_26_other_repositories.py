"""Other repositories beside that of the stages: secondary ones, caches, the final one; further tags; and builds that may build nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.base_images import BaseImages
from tests.support.commandline import CommandLine
from tests.support.layouts import skopeo
from tests.support.project import Project
from tests.support.registry_server import RegistryServer
from tests.support.repo import NAMES, Requests, got, manifest, names_in, tags

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_runtime]

WERF = """
image: app
from: {base}
git:
- add: /src
  to: /app
  stageDependencies:
    install: deps.txt
shell:
  install:
  - echo COMMANDS RUN; head -c 300000 /dev/urandom > /installed
imageSpec:
  config:
    cmd: [cat, /app/hello.txt]
---
image: backend/web_1
from: {base}
git:
- add: /src
  to: /srv
import:
- image: app
  add: /installed
  to: /taken
  after: setup
---
image: tool
final: false
from: {base}
imageSpec:
  config:
    cmd: [ls]
"""
WRITING = ("POST", "PUT", "PATCH", "DELETE")
NOWHERE = "127.0.0.1:1/no/where"
QUICK = {"LAYERWRIGHT_REGISTRY_TIMEOUT": "5", "LAYERWRIGHT_REGISTRY_RETRIES": "1"}


@pytest.fixture
def shop(project: Project, lw: CommandLine, base_images: BaseImages) -> CommandLine:
    project.werf(WERF.format(base=base_images.busybox))
    project.write("src/hello.txt", "hello\n")
    project.write("src/deps.txt", "one\n")
    project.commit()
    return lw


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("abroad")) as server:
        yield server


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that wants a login."""
    with RegistryServer(tmp_path_factory.mktemp("closed"), users={"anna": "secret"}) as server:
        yield server


def manifest_digest(registry: RegistryServer, repository: str, tag: str) -> str:
    accepted = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
    return "sha256:" + hashlib.sha256(got(registry, f"/v2/{repository}/manifests/{tag}", *accepted)).hexdigest()


def written(requests: Requests) -> list[str]:
    return [str(one) for one in requests.all if one.method in WRITING]


def blobs_read(requests: Requests, size: int, registry: RegistryServer, repository: str, tag: str) -> list[str]:
    """The layers of an image, from `size` bytes on, that were read from its repository."""
    large = [layer["digest"] for layer in manifest(registry, repository, tag)["layers"] if layer["size"] >= size]
    assert large
    return [str(one) for one in requests.of("GET", "/blobs/") if one.path.rpartition("/")[2] in large]


def copied(registry: RegistryServer, repository: str) -> dict[str, str]:
    """Every name of the repository but those of indexes, and its manifest."""
    return {name: manifest_digest(registry, repository, name) for name in tags(registry, repository) if not name.startswith("index-")}


# Secondary repositories.


def test_a_secondary_of_the_same_registry_is_copied_by_mounts_and_not_written_to(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    theirs, ours = registry.reference("own/theirs"), registry.reference("own/ours")
    first = names_in(shop("build", "--repo", theirs).stdout)
    secondary, primary = Requests(registry, "own/theirs"), Requests(registry, "own/ours")
    another = shop.with_home(tmp_path / "another")
    ran = another("build", "--repo", ours, "--secondary-repo", theirs)
    assert "0 stages built" in ran.stdout
    assert "COMMANDS RUN" not in ran.stdout
    assert {name: digest for name, (_, digest) in names_in(ran.stdout).items()} == {name: digest for name, (_, digest) in first.items()}
    assert all(full.startswith(f"{ours}:") for full, _ in names_in(ran.stdout).values())
    assert written(secondary) == []
    assert blobs_read(secondary, 100_000, registry, "own/theirs", first["app"][0].rpartition(":")[2]) == []
    assert [one.status for one in primary.of("POST", "mount=")] == [201] * len(primary.of("POST", "mount="))
    assert copied(registry, "own/ours") == copied(registry, "own/theirs"), "stages, too"
    assert sum(path.stat().st_size for path in (tmp_path / "another").rglob("*") if path.is_file()) < 200_000, "layers passed through the disk"


def test_a_secondary_of_another_registry_is_copied_past_the_disk(shop: CommandLine, registry: RegistryServer, abroad: RegistryServer, tmp_path: Path) -> None:
    theirs, ours = abroad.reference("own/theirs"), registry.reference("own/from-abroad")
    first = names_in(shop("build", "--repo", theirs).stdout)
    secondary = Requests(abroad, "own/theirs")
    another = shop.with_home(tmp_path / "another")
    ran = another("build", "--repo", ours, "--secondary-repo", theirs)
    assert "0 stages built" in ran.stdout
    assert {name: digest for name, (_, digest) in names_in(ran.stdout).items()} == {name: digest for name, (_, digest) in first.items()}
    assert written(secondary) == []
    read = blobs_read(secondary, 100_000, abroad, "own/theirs", first["app"][0].rpartition(":")[2])
    assert len(set(read)) == len(read) > 0, "each once"
    assert copied(registry, "own/from-abroad") == copied(abroad, "own/theirs")
    assert sum(path.stat().st_size for path in (tmp_path / "another").rglob("*") if path.is_file()) < 200_000, "layers passed through the disk"
    assert not list((tmp_path / "another").glob("trees.*/*"))


def test_a_stage_of_a_secondary_is_built_upon(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    theirs, ours = registry.reference("own/theirs-old"), registry.reference("own/ours-new")
    shop("build", "app", "--repo", theirs)
    project.write("src/hello.txt", "hello again\n")
    project.commit()
    secondary = Requests(registry, "own/theirs-old")
    ran = shop.with_home(tmp_path / "another")("build", "app", "--repo", ours, "--secondary-repo", theirs)
    assert [line for line in ran.stdout.splitlines() if line.startswith("Built stage")] != []
    assert "COMMANDS RUN" not in ran.stdout
    assert "Built stage app/gitLatestPatch" in ran.stdout
    assert written(secondary) == []
    stages = [name for name in tags(registry, "own/theirs-old") if name.startswith("stage-")]
    assert {name: copied(registry, "own/ours-new")[name] for name in stages} == {name: copied(registry, "own/theirs-old")[name] for name in stages}


def test_what_was_built_without_a_repository_is_pushed_and_not_built_again(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    shop("build")
    ran = shop("build", "--repo", registry.reference("own/pushed"))
    assert "0 stages built" in ran.stdout
    assert "COMMANDS RUN" not in ran.stdout
    assert [name.partition("-")[0] for name in tags(registry, "own/pushed")].count("stage") >= 4
    installed = shop("run", "app", "--", "md5sum", "/installed").stdout
    empty = shop.with_home(tmp_path / "empty")
    assert empty("run", "app", "--repo", registry.reference("own/pushed"), "--", "md5sum", "/installed").stdout == installed


def test_a_secondary_that_cannot_be_asked_is_left_out_and_a_missing_login_told(shop: CommandLine, registry: RegistryServer, closed: RegistryServer) -> None:
    private = closed.reference("their/own")
    ran = shop("build", "--repo", registry.reference("own/alone"), "--secondary-repo", NOWHERE, "--secondary-repo", private, env=QUICK)
    assert len(names_in(ran.stdout)) == 3
    warnings = ran.stderr.splitlines()
    assert len(warnings) == 2, ran.stderr
    assert f"the secondary repository {NOWHERE} is left out: " in ran.stderr
    assert f"the secondary repository {private} is left out: " in ran.stderr
    assert f"layerwright cr login {closed.address}" in ran.stderr


# Caches.


def test_a_cache_is_filled_and_read_first(shop: CommandLine, project: Project, registry: RegistryServer, abroad: RegistryServer, tmp_path: Path) -> None:
    repo, cache = registry.reference("own/far"), abroad.reference("own/near")
    shop("build", "--repo", repo, "--cache-repo", cache)
    stages = [name for name in tags(registry, "own/far") if name.startswith("stage-")]
    assert [name for name in tags(abroad, "own/near") if name.startswith("stage-")] == stages
    assert [name for name in tags(abroad, "own/near") if NAMES.match(name) and "-" not in name] == [], "finished images are no stages"
    project.write("src/hello.txt", "hello again\n")
    project.commit()
    far, near = Requests(registry, "own/far"), Requests(abroad, "own/near")
    another = shop.with_home(tmp_path / "another")
    ran = another("build", "app", "--repo", repo, "--cache-repo", cache, "--save-build-report", "--build-report-path", str(tmp_path / "report.json"))
    assert "Built stage app/gitLatestPatch" in ran.stdout
    sources = {stage["Name"]: stage["SourceType"] for stage in json.loads((tmp_path / "report.json").read_text())["Images"]["app"]["Stages"]}
    assert sources["install"] == "cache-repo"
    assert near.of("GET", "/manifests/stage-") != []
    assert far.of("GET", "/manifests/stage-") == []
    assert written(near) == []


def test_what_a_cache_has_and_the_repository_lacks_is_published_there(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    cache = registry.reference("own/shared-cache")
    shop("build", "app", "--repo", registry.reference("own/one"), "--cache-repo", cache)
    ran = shop.with_home(tmp_path / "another")("build", "app", "--repo", registry.reference("own/two"), "--cache-repo", cache)
    assert "COMMANDS RUN" not in ran.stdout
    assert [name for name in tags(registry, "own/two") if name.startswith("stage-")] == [
        name for name in tags(registry, "own/one") if name.startswith("stage-")
    ]


def test_a_cache_that_cannot_be_reached_only_warns(shop: CommandLine, registry: RegistryServer) -> None:
    ran = shop("build", "--repo", registry.reference("own/uncached"), "--cache-repo", NOWHERE, env=QUICK)
    assert len(names_in(ran.stdout)) == 3
    (warning,) = ran.stderr.splitlines()
    assert warning.startswith(f"Warning: the cache repository {NOWHERE} is left out: ")


# The final repository, and further tags.


def test_the_final_repository_gets_finished_final_images_alone(shop: CommandLine, registry: RegistryServer, tmp_path: Path) -> None:
    repo, final = registry.reference("own/stages"), registry.reference("own/final")
    report = tmp_path / "report.json"
    ran = shop("build", "--repo", repo, "--final-repo", final, "--save-build-report", "--build-report-path", str(report))
    named = names_in(ran.stdout)
    assert {name: full.rpartition(":")[0] for name, (full, _) in named.items()} == {"app": final, "backend/web_1": final, "tool": repo}
    assert tags(registry, "own/final") == sorted(full.rpartition(":")[2] for name, (full, _) in named.items() if name != "tool")
    reported = json.loads(report.read_text())["Images"]
    for name, (full, digest) in named.items():
        image = reported[name]
        assert (image["DockerRepo"], image["DockerImageName"], image["DockerImageDigest"]) == (full.rpartition(":")[0], full, digest)
        assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{full}"))["Digest"] == digest
        there = tags(registry, "own/stages")
        assert all(
            f"{stage['DockerImageName']}".startswith(f"{repo}:") and stage["DockerTag"] in there
            for stage in image["Stages"]
            if stage["DockerTag"][:6] == "stage-"
        )
    assert shop("stage", "image", "app", "--repo", repo, "--final-repo", final).stdout.strip() == named["app"][0]
    requests = Requests(registry, "own/final")
    again = shop.with_home(tmp_path / "another")("build", "--repo", repo, "--final-repo", final)
    assert names_in(again.stdout) == named
    assert [one.method for one in requests.all] == ["HEAD", "HEAD"]


def test_an_image_that_lost_a_layer_is_made_again_for_the_final_repository(
    shop: CommandLine, registry: RegistryServer, abroad: RegistryServer, tmp_path: Path
) -> None:
    repo, final = registry.reference("own/damaged"), abroad.reference("own/whole")
    tag = names_in(shop("build", "app", "--repo", repo).stdout)["app"][0].rpartition(":")[2]
    layer = next(layer["digest"] for layer in reversed(manifest(registry, "own/damaged", tag)["layers"]) if layer["size"] > 100_000)
    links = registry.storage / "docker/registry/v2/repositories/own/damaged/_layers/sha256" / layer[7:]
    (links / "link").unlink()
    ran = shop.with_home(tmp_path / "another")("build", "app", "--repo", repo, "--final-repo", final)
    assert "it is made again" in ran.stderr
    full, digest = names_in(ran.stdout)["app"]
    skopeo("copy", "--src-tls-verify=false", f"docker://{full}", f"dir:{tmp_path / 'copy'}")
    assert manifest_digest(abroad, "own/whole", tag) == digest


def test_further_tags_are_in_the_final_repository_and_move(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    repo, final = registry.reference("own/tagged"), registry.reference("own/tagged-final")
    asked = (
        "build",
        "--repo",
        repo,
        "--final-repo",
        final,
        "--add-custom-tag",
        "%image_safe_slug%-stable",
        "--add-custom-tag",
        "v1-%image_safe_slug%-%image_content_based_tag%",
    )
    report = tmp_path / "report.json"
    first = names_in(shop(*asked, "--save-build-report", "--build-report-path", str(report)).stdout)
    images = json.loads(report.read_text())["Images"]
    assert images["tool"]["CustomTags"] == []
    for name in ("app", "backend/web_1"):
        content = first[name][0].rpartition(":")[2]
        slug, versioned = images[name]["CustomTags"]
        assert versioned == f"v1-{slug.removesuffix('-stable')}-{content}"
        assert slug.startswith("app-stable" if name == "app" else "backend-web-1-")
        for tag in (slug, versioned):
            assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{final}:{tag}"))["Digest"] == first[name][1]
    assert [name for name in tags(registry, "own/tagged") if not NAMES.match(name)] == []
    project.write("src/hello.txt", "hello again\n")
    project.commit()
    second = names_in(shop(*asked).stdout)
    assert second["app"][1] != first["app"][1]
    assert manifest_digest(registry, "own/tagged-final", "app-stable") == second["app"][1]
    assert manifest_digest(registry, "own/tagged-final", first["app"][0].rpartition(":")[2]) == first["app"][1], "the old image keeps its name"


def test_without_a_final_repository_further_tags_are_in_the_primary(shop: CommandLine, registry: RegistryServer) -> None:
    repo = registry.reference("own/tagged-primary")
    ran = shop("build", "backend/web_1", "--repo", repo, "--add-custom-tag", "latest")
    assert json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{repo}:latest"))["Digest"] == names_in(ran.stdout)["backend/web_1"][1]
    assert [name for name in tags(registry, "own/tagged-primary") if not NAMES.match(name)] == ["latest"], "and not of what it needs"


# Builds that may build nothing.


def test_images_that_have_to_be_there(shop: CommandLine, project: Project, registry: RegistryServer, tmp_path: Path) -> None:
    repo, final = registry.reference("own/required"), registry.reference("own/required-final")
    ran = shop("build", "app", "--repo", repo, "--require-built-images", code=1)
    assert "not built at commit" in ran.stderr
    assert f"run first: layerwright build app --repo {repo}" in ran.stderr
    assert "Building stage" not in ran.stdout
    shop("build", "--repo", repo)
    empty = shop.with_home(tmp_path / "empty")
    requests = Requests(registry)
    ran = empty("build", "--repo", repo, "-Z")
    assert len(names_in(ran.stdout)) == 3
    assert {one.method for one in requests.all} == {"HEAD"}

    ran = empty("build", "app", "--repo", repo, "--final-repo", final, "-Z", code=1)
    assert f"is not in the final repository {final}" in ran.stderr
    assert f"run first: layerwright build app --repo {repo} --final-repo {final}" in ran.stderr
    ran = empty("build", "app", "--repo", repo, "--add-custom-tag", "stable", "-Z", code=1)
    assert f"the tag stable of {repo} names nothing, not image 'app'" in ran.stderr
    assert f"run first: layerwright build app --repo {repo} --add-custom-tag stable" in ran.stderr
    shop("build", "app", "--repo", repo, "--final-repo", final, "--add-custom-tag", "stable")
    empty("build", "app", "--repo", repo, "--final-repo", final, "--add-custom-tag", "stable", "-Z")
    project.write("src/hello.txt", "hello again\n")
    project.commit()
    shop("build", "app", "--repo", repo, "--final-repo", final)
    ran = empty("build", "app", "--repo", repo, "--final-repo", final, "--add-custom-tag", "stable", "-Z", code=1)
    assert "names sha256:" in ran.stderr


def test_images_that_have_to_be_there_without_a_repository(shop: CommandLine) -> None:
    ran = shop("build", "-Z", code=1)
    assert "not built at commit" in ran.stderr
    assert "run first: layerwright build app tool backend/web_1\n" in ran.stderr
    shop("build", "app")
    ran = shop("run", "app", "-Z", "--", "true")
    assert "Building stage" not in ran.stderr
    ran = shop("run", "backend/web_1", "-Z", "--", "true", code=1)
    assert "run first: layerwright build backend/web_1\n" in ran.stderr


# Wrong use.

WRONG = [
    (("--final-repo", "{r}/final"), "name it with --repo REGISTRY/PATH"),
    (("--secondary-repo", "{r}/other"), "name it with --repo REGISTRY/PATH"),
    (("--repo", "{r}/repo:1"), "names a tag or a digest"),
    (("--repo", "{r}/repo", "--final-repo", "{r}/final:1"), "--final-repo: "),
    (("--repo", "{r}/repo", "--secondary-repo", "{r}/x", "--cache-repo", "{r}/x"), "nothing is written to such a repository"),
    (("--repo", "{r}/repo", "--secondary-repo", "{r}/x", "--final-repo", "{r}/x"), "nothing is written to such a repository"),
    (("--add-custom-tag", "stable"), "name it with --repo REGISTRY/PATH"),
    (("--repo", "{r}/repo", "--add-custom-tag", "stable"), "would be the tag of several images"),
    (("tool", "--repo", "{r}/repo", "--add-custom-tag", "stable"), "no final image is asked for"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG)
def test_wrong_use_is_told_before_anything_is_asked(arguments: tuple[str, ...], told: str, shop: CommandLine, registry: RegistryServer) -> None:
    requests = Requests(registry)
    ran = shop("build", *(one.format(r=registry.address) for one in arguments), code=2)
    assert told in ran.stderr
    assert requests.all == []


def test_the_repository_named_again_is_itself(shop: CommandLine, registry: RegistryServer) -> None:
    repo = registry.reference("own/itself")
    ran = shop("build", "--repo", repo, "--secondary-repo", repo, "--cache-repo", repo, "--final-repo", repo)
    assert len(names_in(ran.stdout)) == 3
    assert [name for name in tags(registry, "own/itself") if not NAMES.match(name)] == []
    assert ran.stderr == ""
