from __future__ import annotations

from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.registry.daemon_json import DaemonSettings, config_files, load_settings, parse_settings


def test_what_a_file_says_of_registries() -> None:
    text = '{"debug": true, "registry-mirrors": ["https://a.example", "http://b:5000/x/"], "insecure-registries": ["10.0.0.0/8"]}'
    assert parse_settings(text, "f") == DaemonSettings(mirrors=("https://a.example", "http://b:5000/x/"), insecure=("10.0.0.0/8",))
    assert parse_settings("", "f") == parse_settings("{}", "f") == DaemonSettings()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{\n  "a": 1,\n}', 3, "it is not JSON"),
        ("[]", 1, "not a JSON object"),
        ('{\n "registry-mirrors": "a"}', 2, "registry-mirrors is not a list"),
        ('{\n\n "insecure-registries": [7]}', 3, "insecure-registries is not a list"),
        ('{\n "registry-mirrors": ["ftp://a"]}', 2, "write https://HOST"),
        ('{\n "registry-mirrors": ["https://ann:secret@a.example"]}', 2, "write https://HOST"),
    ],
)
def test_what_is_wrong_is_told_by_line(text: str, line: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_settings(text, "/x/daemon.json")
    assert caught.value.where == f"/x/daemon.json:{line}"
    assert "secret" not in str(caught.value)


def test_the_users_file_and_the_systems_count_together(tmp_path: Path) -> None:
    files = config_files({"HOME": str(tmp_path)}, str(tmp_path / "etc"))
    assert files == (f"{tmp_path}/.config/docker/daemon.json", f"{tmp_path}/etc/docker/daemon.json")
    for path, host in zip(files, ("own", "system"), strict=True):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(f'{{"registry-mirrors": ["http://{host}", "http://both"], "insecure-registries": ["{host}"]}}')
    assert load_settings(files) == DaemonSettings(mirrors=("http://own", "http://both", "http://system"), insecure=("own", "system"))
    assert load_settings(config_files({}, "/nonexistent")) == DaemonSettings()
