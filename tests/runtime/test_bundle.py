from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from layerwright.runtime.bundle import Bind, Container, hosts_text, runtime_config, write_bundle
from layerwright.runtime.seccomp import default_filter


def config(**fields: Any) -> dict[str, Any]:
    return runtime_config(Container(root="/root", args=("/bin/sh", "-c", "true"), **fields), "/etc-files")


def test_the_process_is_what_the_container_says() -> None:
    process = config(env={"B": "2", "A": "x=y"}, cwd="/w", uid=1, gid=2, groups=(3, 4), terminal=True)["process"]
    assert process["args"] == ["/bin/sh", "-c", "true"]
    assert process["env"] == ["B=2", "A=x=y"]
    assert process["user"] == {"uid": 1, "gid": 2, "additionalGids": [3, 4], "umask": 0o022}
    assert (process["cwd"], process["terminal"]) == ("/w", True)


def test_capabilities_are_dockers_without_device_nodes_and_none_is_inherited() -> None:
    capabilities = config()["process"]["capabilities"]
    assert set(capabilities) == {"bounding", "effective", "permitted"}
    assert len(capabilities["bounding"]) == 13
    assert not {"CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"} & set(capabilities["bounding"])


def test_in_a_user_namespace_a_container_shows_the_sysfs_there_is_and_has_the_host_name_there_is() -> None:
    made = config(user_namespace=True)
    (sysfs,) = [mount for mount in made["mounts"] if mount["destination"] == "/sys"]
    assert (sysfs["type"], sysfs["source"], {"rbind", "ro"} <= set(sysfs["options"])) == ("bind", "/sys", True)
    assert "hostname" not in made
    assert {"type": "uts"} not in made["linux"]["namespaces"]
    assert os.uname().nodename in hosts_text(Container(root="/root", args=(), user_namespace=True), "")


def test_where_the_group_of_terminals_is_not_mapped_they_have_none() -> None:
    for there in (True, False):
        (devpts,) = [mount for mount in config(tty_group=there)["mounts"] if mount["destination"] == "/dev/pts"]
        assert ("gid=5" in devpts["options"]) is there


@pytest.mark.parametrize(("network", "own"), [("host", False), ("none", True)])
def test_only_network_none_has_a_network_of_its_own(network: str, own: bool) -> None:
    assert ({"type": "network"} in config(network=network)["linux"]["namespaces"]) is own


def test_binds_come_last_and_bring_no_devices() -> None:
    mounts = config(binds=(Bind(source="/host/a", to="/a", read_only=True), Bind(source="/host/b", to="/etc/hosts")))["mounts"]
    assert [mount["destination"] for mount in mounts[-4:]] == ["/etc/hosts", "/etc/resolv.conf", "/a", "/etc/hosts"]
    assert mounts[-2]["options"] == ["bind", "ro", "rprivate", "nodev"]
    assert mounts[-1]["options"] == ["rbind", "rw", "rprivate", "nodev"]


def test_there_is_no_cgroup_to_make() -> None:
    assert "cgroupsPath" not in config()["linux"]
    assert "resources" not in config()["linux"]


def test_the_container_finds_its_own_name() -> None:
    assert "127.0.0.1 layerwright\n" in hosts_text(Container(root="/", args=()), "")
    assert hosts_text(Container(root="/", args=()), "10.0.0.1 db\n").endswith("10.0.0.1 db\n")


def test_a_bundle_without_network_knows_nothing_of_the_hosts(tmp_path: Path) -> None:
    write_bundle(Container(root="/root", args=("/x",), network="none", env={"X": "\udcff"}), str(tmp_path))
    assert (tmp_path / "resolv.conf").read_text() == ""
    assert (tmp_path / "hosts").read_text().count("\n") == 3
    assert json.loads((tmp_path / "config.json").read_text())["root"]["path"] == "/root"


def test_a_filter_names_all_architectures_of_a_machine_or_is_none() -> None:
    found = default_filter("x86_64")
    assert found is not None
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert default_filter("s390x") is None
    assert (config()["linux"]["seccomp"] is None) is (default_filter(os.uname().machine) is None)
