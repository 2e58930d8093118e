from __future__ import annotations

from pathlib import Path

import pytest

from layerwright.errors import UsageError
from layerwright.registry.registries_conf import Mirror, Rule, config_files, load_rules, matched_length, parse_rules, rewritten, rule_for

WHOLE = """
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"

[[registry]]
prefix = "example.com/team"
location = "inner.example:5000/t/"
insecure = true

[[registry.mirror]]
location = "first.example"
insecure = true

[[registry.mirror]]
location = "second.example/x"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "*.corp.example"
blocked = true

[[registry]]
location = "digests.example"
mirror-by-digest-only = true
mirror = [{location = "third.example"}]

[aliases]
"alpine" = "docker.io/library/alpine"
"""


def test_all_that_a_file_says() -> None:
    assert parse_rules(WHOLE, "f") == (
        Rule(
            prefix="example.com/team",
            location="inner.example:5000/t",
            insecure=True,
            mirrors=(Mirror(location="first.example", insecure=True), Mirror(location="second.example/x", pull_from="tag-only")),
            source="f",
        ),
        Rule(prefix="*.corp.example", blocked=True, source="f"),
        Rule(prefix="digests.example", location="digests.example", mirrors=(Mirror(location="third.example", pull_from="digest-only"),), source="f"),
    )


def test_files_of_version_1_are_read() -> None:
    old = "[registries.search]\nregistries = ['a']\n[registries.insecure]\nregistries = ['b.example', 'c.example']\n[registries.block]\nregistries = ['c.example']\n"
    assert parse_rules(old, "f") == (
        Rule(prefix="b.example", insecure=True, source="f"),
        Rule(prefix="c.example", insecure=True, blocked=True, source="f"),
    )


@pytest.mark.parametrize(
    ("prefix", "name", "length"),
    [
        ("example.com", "example.com/a/b", 11),
        ("example.com", "example.com:5000/a", 0),
        ("example.com", "example.comma/a", 0),
        ("example.com/a", "example.com/a/b", 13),
        ("example.com/a", "example.com/a", 13),
        ("example.com/a", "example.com/ab", 0),
        ("*.example.com", "x.example.com/a", 13),
        ("*.example.com", "x.y.example.com/a", 15),
        ("*.example.com", "example.com/a", 0),
        ("*.example.com", "other.example/x.example.com/a", 0),
        ("*.example.com/a", "x.example.com/a/b", 15),
        ("*.example.com", "x.example.com.evil.example/a", 0),
    ],
)
def test_what_a_prefix_matches(prefix: str, name: str, length: int) -> None:
    assert matched_length(prefix, name) == length


def test_the_longest_match_counts() -> None:
    rules = [Rule(prefix="example.com"), Rule(prefix="example.com/a/b"), Rule(prefix="example.com/a")]
    found = rule_for(rules, "example.com/a/b/c")
    assert found is not None
    assert found.prefix == "example.com/a/b"
    assert rule_for(rules, "other.example/a") is None
    assert rewritten("x.example.com/a/b", "*.example.com", "inner.example/y") == "inner.example/y/a/b"
    assert rewritten("example.com/a", "example.com", "") == "example.com/a"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[[registry]]\nlocation = \n", 2, "it is not TOML: Invalid value"),
        ("a = 1\nb = [\n", 3, "it is not TOML"),
        ("\n[registry]\nlocation = 'a'\n", 2, r"write \[\[registry\]\]"),
        ("[[registry]]\nlocation = 'a'\n\n[[registry]]\nblocked = true\n", 4, "neither prefix nor location"),
        ("[[registry]]\nprefix = 'a.example'\n", 1, "has no location"),
        ("[[registry]]\nlocation = 'https://a.example'\n", 1, "without https://"),
        ("[[registry]]\nlocation = 'a.example'\ninsecure = 'yes'\n", 1, "insecure is not true or false"),
        ("[[registry]]\nlocation = 'a.example'\n[[ registry ]]\nlocation = 'a.example'\n", 3, "a second .* for a.example"),
        ("[[registry]]\nlocation = 'a.example'\nmirror = 7\n", 1, "mirror is not a list"),
        ("[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\ninsecure = true\n", 1, "has no location"),
        ("[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'never'\n", 1, "write all, digest-only, tag-only"),
        (
            "[[registry]]\nlocation = 'a.example'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'all'\n",
            1,
            "exclude one another",
        ),
    ],
)
def test_what_is_wrong_is_told_by_line(text: str, line: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_rules(text, "/x/registries.conf")
    assert caught.value.where == f"/x/registries.conf:{line}"


def write(path: Path, location: str, *, blocked: bool = False) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[[registry]]\nlocation = '{location}'\nblocked = {str(blocked).lower()}\n")
    return str(path)


def test_which_files_are_read(tmp_path: Path) -> None:
    system, home = tmp_path / "etc", tmp_path / "home"
    main = write(system / "containers/registries.conf", "a.example")
    write(system / "containers/registries.conf.d/readme.txt", "no")
    drop_ins = [write(system / f"containers/registries.conf.d/{name}.conf", "a.example", blocked=name == "20") for name in ("20", "10")]
    own = write(home / ".config/containers/registries.conf.d/30.conf", "b.example")
    env = {"HOME": str(home)}
    assert config_files(env, str(system)) == (main, drop_ins[1], drop_ins[0], own)
    rules = {rule.prefix: rule.blocked for rule in load_rules(config_files(env, str(system)))}
    assert rules == {"a.example": True, "b.example": False}, "the last file's rule counts"
    of_user = write(home / ".config/containers/registries.conf", "c.example")
    assert config_files(env, str(system)) == (of_user, own)
    assert config_files({**env, "XDG_CONFIG_HOME": str(tmp_path / "none")}, str(system)) == (main, drop_ins[1], drop_ins[0])
    assert config_files({**env, "CONTAINERS_REGISTRIES_CONF": "/only"}, str(system)) == ("/only",)
    assert load_rules(config_files({}, str(tmp_path / "nothing"))) == ()
