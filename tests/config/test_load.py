"""Finding and reading a project's configuration, and how its faults are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import layerwright
from layerwright.config.load import ConfigError, load_config
from layerwright.errors import UsageError
from tests.config.loading import META, faults_of, load

HERE = Path(__file__).parent
SOURCES = Path(layerwright.__file__).parent.parent


def test_every_fault_of_a_file_is_told_in_one_go_in_its_order() -> None:
    """`LAYERWRIGHT_GOLDEN=write` writes broken.faults anew; read the difference before it is committed."""
    with pytest.raises(ConfigError) as raised:
        load_config({"werf.yaml": (HERE / "broken.yaml").read_bytes()}.get)
    golden = HERE / "broken.faults"
    if os.environ.get("LAYERWRIGHT_GOLDEN") == "write":
        golden.write_text(f"{raised.value}\n")
    assert f"{raised.value}\n" == golden.read_text()


def test_the_error_is_a_usage_error_that_begins_with_the_first_fault() -> None:
    with pytest.raises(UsageError) as raised:
        load("configVersion: 2\nproject: A\n")
    error = raised.value
    assert isinstance(error, ConfigError)
    assert (error.exit_code, error.where, error.what, error.mend) == (2, "werf.yaml:1:16", "configVersion 2 is unknown", "write configVersion: 1")
    assert [str(fault.position) for fault in error.faults] == ["werf.yaml:1:16", "werf.yaml:2:10"]


def test_the_second_candidate_is_read_when_the_first_is_absent() -> None:
    assert load_config({"werf.yml": META.encode()}.get).file == "werf.yml"


def test_a_given_file_is_the_only_candidate() -> None:
    files = {"werf.yaml": META.encode(), "deploy/w.yaml": b"configVersion: 1\nproject: other\n"}
    assert load_config(files.get, file="deploy/w.yaml").project == "other"
    with pytest.raises(UsageError, match=r"no\.yaml is not in the commit"):
        load_config(files.get, file="no.yaml")


def test_an_absent_file_is_told_with_how_to_commit_it() -> None:
    with pytest.raises(UsageError, match=r"werf.yaml is not in the commit") as raised:
        load_config({}.get)
    assert "git add werf.yaml" in raised.value.mend


def test_a_missing_meta_section_is_told_with_a_proposed_name() -> None:
    with pytest.raises(ConfigError) as raised:
        load_config({"werf.yaml": b"image: a\nfrom: b\n"}.get, work_dir="/home/x/My Shop/")
    assert str(raised.value).endswith("begin the file with\n    configVersion: 1\n    project: my-shop\n    ---")
    assert len(faults_of("")) == 1


def test_a_given_project_name_replaces_the_written_one() -> None:
    assert load_config({"werf.yaml": META.encode()}.get, project_name="Other_1").project == "Other_1"
    for name in ("../x", "..", "a\nb"):
        with pytest.raises(UsageError, match="is not a project name"):
            load_config({"werf.yaml": META.encode()}.get, project_name=name)


def test_a_byte_order_mark_is_passed_over_and_other_encodings_are_told() -> None:
    assert load_config({"werf.yaml": b"\xef\xbb\xbf" + META.encode()}.get).project == "shop"
    with pytest.raises(ConfigError, match=r"werf.yaml:3:4: the byte 0xff is not UTF-8, save the file in the encoding UTF-8"):
        load_config({"werf.yaml": META.encode() + "# é".encode()[:3] + b"\xa9\xff"}.get)


def test_includes_are_refused_unless_the_file_is_empty() -> None:
    assert load(META, werf_includes="# none\n\n").project == "shop"
    with pytest.raises(ConfigError, match=r"werf-includes.yaml:2:1: includes of other repositories are not supported yet, copy the included files"):
        load(META, werf_includes="# x\nincludes: []\n")


def test_faults_of_both_files_are_told_together() -> None:
    found = faults_of("configVersion: 1\n", werf_giterminism="x: 1\n")
    assert [one.partition(": ")[0] for one in found] == ["werf-giterminism.yaml:1:1", "1:1"]


def test_a_section_that_is_not_yaml_hides_no_other_fault_and_makes_none() -> None:
    found = faults_of(
        f"{META}---\nimage: a\nfrom: b: c\n---\nimage: d\nfrom: x\nimport:\n- {{from: a, add: /a, after: setup}}\n- {{from: dd, add: /b, after: setup}}\n"
    )
    assert [one.partition(",")[0] for one in found] == [
        "5:8: this is not YAML: mapping values are not allowed in this context",
        '11:10: no image of this file is named "dd"',
    ]
    found = faults_of(f"{META}---\nimage: [a, [\n---\nimage: d\nfromArtifact: dd\n")
    assert len(found) == 1


def test_the_order_of_images_is_the_file_s() -> None:
    config = load(f"{META}---\nimage: b\nfrom: x\n---\nimage: [d, a]\nfrom: x\n---\nartifact: c\nfrom: x\n")
    assert [one.name for one in config.images] == ["b", "d", "a", "c"]
    assert config.image("a").shown == "a"


def test_only_the_document_module_loads_yaml() -> None:
    rooms = "model faults nodes schema readers known order select overlaps checks platforms parse_base parse_spec parse_meta".split()
    imports = "\n".join(f"import layerwright.config.{name}" for name in rooms)
    program = f"import sys\n{imports}\nassert 'yaml' not in sys.modules and 'difflib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(SOURCES)}, timeout=60)
