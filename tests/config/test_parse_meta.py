"""The meta section."""

from __future__ import annotations

import pytest

from layerwright.config.parse_meta import project_name_from
from tests.config.loading import faults_of, load

WHOLE = """
configVersion: 1.0
project: my-shop2
build:
  cacheVersion: 1
  platform: [linux/amd64, local]
  staged: true
  imageSpec: {author: me, clearHistory: no, config: {labels: {a: 1}, removeLabels: [/x/], keepEssentialWerfLabels: true, clearWerfLabels: true}}
cleanup:
  disable: false
  disableKubernetesBasedPolicy: true
  keepImagesBuiltWithinLastNHours: 0
  keepPolicies:
  - references: {branch: /^(main|master)$/, limit: {last: -1, in: 168h, operator: Or}}
    imagesPerReference: {last: 2, in: 1h30m, operator: And}
  - references: {tag: v1}
gitWorktree: {forceShallowClone: ~, allowUnshallow: false, allowFetchOriginBranchesAndTags: true}
deploy: {helmChartDir: .helm, helmRelease: "[[ project ]]", namespaceSlug: true, helmChartConfig: {appVersion: 1.0}}
"""


def test_every_key_is_accepted() -> None:
    assert load(WHOLE).project == "my-shop2"


def test_the_meta_section_may_stand_anywhere() -> None:
    assert load("image: a\nfrom: b\n---\nproject: x\nconfigVersion: 1\n").project == "x"


@pytest.mark.parametrize("name", ["a", "123", "a-b", "a" * 50])
def test_good_project_names(name: str) -> None:
    assert load(f"configVersion: 1\nproject: {name}\n").project == name


@pytest.mark.parametrize(("name", "proposal"), [("Shop_1", "shop-1"), ("-a", "a"), ("a" * 51, "a" * 50), ("a.b", "a-b"), ("Ж", "project")])
def test_bad_project_names_are_told_with_a_good_one(name: str, proposal: str) -> None:
    (fault,) = faults_of(f"configVersion: 1\nproject: {name}\n")
    assert fault.startswith(f'2:10: the project name "{name}" is not allowed, ')
    assert fault.endswith(f'"{proposal}"')
    assert project_name_from(name) == proposal


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("configVersion: 2\nproject: a\n", "1:16: configVersion 2 is unknown, write configVersion: 1"),
        ('configVersion: "1"\nproject: a\n', "1:16: configVersion wants a whole number, and this is a text, write digits without quotes"),
        ("configVersion: ~\nproject: a\n", "1:1: configVersion is missing, write configVersion: 1"),
        ("configVersion: 1\n", '1:1: project is missing, name the project, for example "project: shop"'),
        ("configVersion: 1\nproject: a\nimage: b\n", '3:1: the key "image" is unknown, take it away; known here are configVersion, project, build'),
        (
            "configVersion: 1\nproject: a\n---\nconfigVersion: 1\nproject: b\n",
            "4:1: configVersion is here twice, first on line 1, put all project settings into one section",
        ),
        (
            "project: a\n",
            '1:1: this section has none of "configVersion", "image" and "dockerfile", so its kind is unknown, add "configVersion: 1" next to "project"',
        ),
        ("configVersion: 1\nproject: a\nbuild: {platfrom: [x]}\n", '3:9: the key "platfrom" is unknown in build, did you mean "platform"?'),
        ("configVersion: 1\nproject: a\nbuild: {platform: [linux/amd64, arm64]}\n", "3:33: build.platform: 'arm64' is not a platform, write OS/ARCH"),
        ("configVersion: 1\nproject: a\nbuild: {platform: ['linux/amd64,linux/arm64']}\n", '3:20: build.platform "linux/amd64,linux/arm64" holds a comma'),
        ("configVersion: 1\nproject: a\nbuild: {imageSpec: {config: {env: {}}}}\n", '3:30: the key "env" is unknown in build.imageSpec.config'),
        (
            "configVersion: 1\nproject: a\ncleanup: {keepImagesBuiltWithinLastNHours: -1}\n",
            "3:44: cleanup.keepImagesBuiltWithinLastNHours wants a number of 0 or more, and this is -1",
        ),
        ("configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{}]}\n", "3:26: cleanup.keepPolicies.references is missing"),
        ("configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {}}]}\n", '3:39: cleanup.keepPolicies.references has neither "branch" nor "tag"'),
        (
            "configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {tag: a, branch: b}}]}\n",
            '3:40: cleanup.keepPolicies.references has both "branch" and "tag"',
        ),
        (
            "configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {tag: /(/}}]}\n",
            '3:45: cleanup.keepPolicies.references.tag: "/(/" is not a regular expression',
        ),
        (
            "configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {tag: a, limit: {in: 7d}}}]}\n",
            '3:60: cleanup.keepPolicies.references.limit.in wants a duration, and this is "7d", write numbers with the units',
        ),
        (
            "configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {tag: a, limit: {operator: and}}}]}\n",
            '3:66: cleanup.keepPolicies.references.limit.operator cannot be "and", write one of And and Or',
        ),
        ("configVersion: 1\nproject: a\ndeploy: {namespace: ''}\n", "3:21: deploy.namespace is empty, write its value, or take the key away"),
    ],
)
def test_a_fault_of_the_meta_section_says_where_what_and_how_to_mend_it(text: str, fault: str) -> None:
    (found,) = faults_of(text)
    assert found.startswith(fault), found


def test_unknown_keys_of_images_per_reference_are_only_warned_of() -> None:
    config = load("configVersion: 1\nproject: a\ncleanup: {keepPolicies: [{references: {tag: a}, imagesPerReference: {lst: 1, operator: x}}]}\n")
    assert [one.text for one in config.warnings] == [
        'the key "lst" is unknown in cleanup.keepPolicies.imagesPerReference and has no effect: did you mean "last"?'
    ]
