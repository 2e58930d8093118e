"""Build order, and the graph."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from layerwright.config.model import Config, Image, InternalBase, Position, ScratchBase
from layerwright.config.order import graph_text, sets, with_needs
from tests.config.loading import META, load

WHERE = Position("f", 1, 1)
SHOP = load(
    f"{META}---\nimage: app\nfrom: base\nimport:\n- {{from: tools, add: /a, after: setup}}\n- {{from: base, add: /b, after: setup}}\n"
    "---\nimage: lone\nfrom: alpine\n---\nimage: base\nfrom: scratch\n---\nimage: tools\nfrom: base\n"
)


def test_each_set_needs_only_the_ones_before_it() -> None:
    assert sets(SHOP, ["app"]) == (("base",), ("tools",), ("app",))
    assert sets(SHOP, [one.name for one in SHOP.images]) == (("lone", "base"), ("tools",), ("app",))
    assert sets(SHOP, []) == ()


def test_needs_stand_before_those_who_need_them() -> None:
    assert with_needs(SHOP, ["app", "lone"]) == ("lone", "base", "tools", "app")
    assert with_needs(SHOP, ["base"]) == ("base",)


def test_the_graph_leaves_empty_parts_out() -> None:
    assert graph_text(SHOP, ["app", "base"]) == "- image: app\n  dependsOn:\n    from: base\n    import:\n    - tools\n    - base\n- image: base\n"
    assert graph_text(SHOP, []) == "[]\n"


@given(st.lists(st.text(min_size=0, max_size=8), unique=True, max_size=6), st.data())
def test_any_graph_is_ordered_and_is_yaml(names: list[str], data: st.DataObject) -> None:
    images = []
    for number, name in enumerate(names):
        base = data.draw(st.sampled_from([None, *names[:number]]))
        images.append(Image(name=name, base=ScratchBase(position=WHERE) if base is None else InternalBase(image=base, position=WHERE), position=WHERE))
    config = Config(project="x", images=tuple(reversed(images)))
    order = with_needs(config, names)
    assert sorted(order) == sorted(names)
    assert all(order.index(need) < order.index(image.name) for image in images for need in image.needs)
    if all(name.isprintable() for name in names):
        expected = [{"image": one.name} | ({"dependsOn": {"from": one.needs[0]}} if one.needs else {}) for one in config.images]
        assert yaml.load(graph_text(config, names), yaml.BaseLoader) == expected
