"""`imageSpec` and `docker`: the image's OCI configuration. Source: werf.yaml reference, "imageSpec", "docker" and "build" (merging)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layerwright.config.faults import Faults
from layerwright.config.model import Docker, Healthcheck, ImageSpec
from layerwright.config.nodes import Items, Node
from layerwright.config.readers import flag, integer, many, name_or_regexp, one_or_many, string, text, text_map
from layerwright.config.schema import Key, Table, read_each, section

_texts = many(text)
_rules = many(name_or_regexp)
_strings = one_or_many(string)


class HealthcheckKeys(Table):
    title = "imageSpec.config.healthcheck"
    test = Key[tuple[str, ...]](_texts, ())
    interval = Key[int | None](integer, None)
    timeout = Key[int | None](integer, None)
    startperiod = Key[int | None](integer, None)
    retries = Key[int | None](integer, None)


class SharedSpecConfigKeys(Table):
    """What `build.imageSpec.config` and an image's own have in common."""

    title = "build.imageSpec.config"
    labels = Key[Mapping[str, str]](text_map, {})
    removeLabels = Key[tuple[str, ...]](_rules, ())
    keepEssentialWerfLabels = Key(flag, False)
    clearWerfLabels = Key(flag, False)  # accepted, and without effect in werf as well


class SpecConfigKeys(SharedSpecConfigKeys):
    title = "imageSpec.config"
    env = Key[Mapping[str, str]](text_map, {})
    removeEnv = Key[tuple[str, ...]](_rules, ())
    volumes = Key[tuple[str, ...]](_texts, ())
    removeVolumes = Key[tuple[str, ...]](_texts, ())
    expose = Key[tuple[str, ...] | None](_texts, None)
    user = Key(text, "")
    workingDir = Key(text, "")
    stopSignal = Key(text, "")
    cmd = Key[tuple[str, ...]](_texts, ())
    entrypoint = Key[tuple[str, ...]](_texts, ())
    clearCmd = Key(flag, False)
    clearEntrypoint = Key(flag, False)
    clearUser = Key(flag, False)
    clearWorkingDir = Key(flag, False)
    healthcheck = Key[HealthcheckKeys | None](section(HealthcheckKeys), None)


class SharedSpecKeys(Table):
    title = "build.imageSpec"
    author = Key(text, "")
    clearHistory = Key(flag, False)
    config = Key[SharedSpecConfigKeys | None](section(SharedSpecConfigKeys), None)


class SpecKeys(Table):
    title = "imageSpec"
    author = Key(text, "")
    clearHistory = Key(flag, False)
    config = Key[SpecConfigKeys | None](section(SpecConfigKeys), None)


def shared_spec(keys: SharedSpecKeys) -> ImageSpec:
    spec = ImageSpec(author=keys.author, clear_history=keys.clearHistory, position=keys.position)
    return _with_label_rules(spec, keys.config) if keys.config else spec


def image_spec(keys: SpecKeys) -> ImageSpec:
    spec = ImageSpec(author=keys.author, clear_history=keys.clearHistory, position=keys.position)
    config = keys.config
    if config is None:
        return spec
    return replace(
        _with_label_rules(spec, config),
        env=config.env,
        remove_env=config.removeEnv,
        volumes=config.volumes,
        remove_volumes=config.removeVolumes,
        expose=config.expose,
        user=config.user,
        working_dir=config.workingDir,
        stop_signal=config.stopSignal,
        cmd=config.cmd,
        entrypoint=config.entrypoint,
        clear_cmd=config.clearCmd,
        clear_entrypoint=config.clearEntrypoint,
        clear_user=config.clearUser,
        clear_working_dir=config.clearWorkingDir,
        healthcheck=_healthcheck(config.healthcheck) if config.healthcheck else None,
    )


def _with_label_rules(spec: ImageSpec, keys: SharedSpecConfigKeys) -> ImageSpec:
    return replace(spec, labels=keys.labels, remove_labels=keys.removeLabels, keep_essential_werf_labels=keys.keepEssentialWerfLabels)


def _healthcheck(keys: HealthcheckKeys) -> Healthcheck:
    return Healthcheck(test=keys.test, interval_s=keys.interval, timeout_s=keys.timeout, start_period_s=keys.startperiod, retries=keys.retries)


def merged_spec(shared: ImageSpec | None, own: ImageSpec | None) -> ImageSpec | None:
    """`build.imageSpec` merged into a final image's own. The shared author and labels win, as in werf, whose documentation says the reverse."""
    if shared is None or own is None:
        return own or shared
    return replace(
        own,
        author=shared.author or own.author,
        clear_history=own.clear_history or shared.clear_history,
        keep_essential_werf_labels=own.keep_essential_werf_labels or shared.keep_essential_werf_labels,
        labels={**own.labels, **shared.labels},
        remove_labels=own.remove_labels + tuple(rule for rule in dict.fromkeys(shared.remove_labels) if rule not in own.remove_labels),
    )


def _shell_or_exec(node: Node, name: str, faults: Faults) -> str | tuple[str, ...] | None:
    """The shell form is one text, the exec form a list; an empty text is not written."""
    return read_each(string, node, f"{name}[]", faults) if isinstance(node, Items) else string(node, name, faults) or None


class DockerKeys(Table):
    title = "docker"
    VOLUME = Key[tuple[str, ...]](_strings, ())
    EXPOSE = Key[tuple[str, ...]](_strings, ())
    ENV = Key[Mapping[str, str]](text_map, {})
    LABEL = Key[Mapping[str, str]](text_map, {})
    CMD = Key[str | tuple[str, ...] | None](_shell_or_exec, None)
    ENTRYPOINT = Key[str | tuple[str, ...] | None](_shell_or_exec, None)
    WORKDIR = Key(text, "")
    USER = Key(text, "")
    HEALTHCHECK = Key(text, "")
    exactValues = Key(flag, False)


def docker(keys: DockerKeys) -> Docker:
    return Docker(
        volume=keys.VOLUME,
        expose=keys.EXPOSE,
        env=keys.ENV,
        label=keys.LABEL,
        cmd=keys.CMD,
        entrypoint=keys.ENTRYPOINT,
        workdir=keys.WORKDIR,
        user=keys.USER,
        healthcheck=keys.HEALTHCHECK,
        exact_values=keys.exactValues,
        position=keys.position,
    )
