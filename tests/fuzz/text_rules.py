"""Targets with rules of their own: manifests of data sources, settings' files, and masked keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from tests.fuzz.mutation import ODD_VALUES, WORDS, spoiled_bytes, spoiled_text, spoiled_tree
from tests.fuzz.target import Target, may_refuse

ROOT = Path(__file__).parents[2]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# --- manifests


@cache
def _manifests() -> tuple[str, ...]:
    own = """\
title: Odd
files:
  - urls: [https://data.test/a.zip, file:///x/a.zip]
    bytes: 12
    sha256: "{}"
    unpack: a
    flatten: true
    max_bytes: 100
    headers: {{Authorization: "Bearer ${{TOKEN}}"}}
layout: [a/b, a/c]
""".format("0" * 64)
    return (
        own,
        *(p.read_text() for p in sorted((ROOT / "mlmodeldev/fetch/manifests").glob("*.yaml"))),
    )


_PLACES = ("../x", "/etc/x", "a/../../b", "a\\b", "C:\\x", "~", ".", "http://[::1", "ftp://x/y", "http:///x",
           "https://u:p@h/x?k=1", "file://../x", "javascript:x", "0" * 64, "g" * 64, "${TOKEN}", "a/" * 3000)  # fmt: skip


def make_manifest(rng: Random) -> bytes:
    """Return a manifest, its text or its values spoilt."""
    text = rng.choice(_manifests())
    if rng.random() < 0.6:
        tree = spoiled_tree(rng, yaml.load(text, Loader=_LOADER), (*ODD_VALUES, *_PLACES))
        return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")
    text = spoiled_text(
        rng, text, (*WORDS, *_PLACES, "!!python/object/apply:os.system [x]", "&a [*a]")
    )
    data = text.encode("utf-8", "surrogatepass")
    return spoiled_bytes(rng, data) if rng.random() < 0.2 else data


def check_manifest(given: bytes, folder: Path) -> None:
    """A manifest that is taken says what PyYAML reads, and names no place outside its folder."""
    from mlmodeldev.fetch.manifest import load

    file = folder / "odd.yaml"
    file.write_bytes(given)
    with may_refuse() as refused:
        manifest = load(file)
        manifest.select(None)
        _ = manifest.bytes
    if refused:
        return
    plain = yaml.safe_load(given.decode())
    assert len(manifest.entries) == len(plain["files"])
    for entry, item in zip(manifest.entries, plain["files"], strict=True):
        for name in (entry.source.name, entry.unpack or "x", *manifest.layout):
            inside = Path(os.path.normpath(folder / "d" / name))
            assert inside.is_relative_to(folder / "d"), name
        assert entry.source.bytes == item.get("bytes")
        assert [item["urls"]] == [*entry.source.urls] or list(item["urls"]) == [*entry.source.urls]


# --- keys in text

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def _key(rng: Random) -> str:
    def some(count: int, letters: str = _LETTERS) -> str:
        return "".join(rng.choice(letters) for _ in range(count))

    return rng.choice((
        lambda: "wandb_v1_" + some(40), lambda: "local-" + some(40), lambda: some(40, "0123456789abcdef"),
        lambda: "hf_" + some(34), lambda: "AKIA" + some(16, _LETTERS[26:]), lambda: "ghp_" + some(36),
        lambda: "github_pat_" + some(50),
    ))()  # fmt: skip


_AROUND = ("", " ", '"', "'", "=", ": ", "\n", "\t", "(", ")", "[", "]", "{", "}", ",", ";", "|", "\\n", "é", "\x1b[31m",
           "\u2028", "export K=", "token: ", "https://api:", "\r", "curl -H 'Authorization: Bearer ", '{"key": "')  # fmt: skip


def make_secret(rng: Random) -> tuple[str, str, str, bool]:
    """Return a key, what stands before and after it, and whether it is the environment's."""
    of_environment = rng.random() < 0.4
    key = _key(rng)
    if of_environment:  # a path is taken for none
        key = rng.choice(_LETTERS) + "".join(rng.choice(_LETTERS + "+/_-.$") for _ in range(24))
    before = "".join(rng.choice((*_AROUND, *WORDS[:12])) for _ in range(rng.randrange(6)))
    after = "".join(rng.choice((*_AROUND, *WORDS[:12])) for _ in range(rng.randrange(6)))
    if before and (before[-1].isalnum() or before[-1] in "/@_-"):
        before += rng.choice(" \"'=:")
    if after and (after[0].isalnum() or after[0] in "/_-"):
        after = rng.choice(" \"',;") + after
    if of_environment and rng.random() < 0.3:
        before += rng.choice(("x", "a/", "9", "u:"))
    return key, before, after, of_environment


def check_secret(given: tuple[str, str, str, bool], folder: Path) -> None:
    """A planted key comes out of nothing: neither of masked text nor of a clean environment."""
    from mlmodeldev.secrets import clean_environment, mask

    key, before, after, of_environment = given
    text = before + key + after
    with mock.patch.dict(os.environ, {"OTHER_API_KEY": key} if of_environment else {}):
        masked = mask(text)
        assert key not in masked, f"{key!r} in {masked!r}"
        kept = clean_environment({"A": text, "PATH": "/bin", "OTHER_API_KEY": key})
        assert kept.get("PATH") == "/bin"
        assert not any(key in value for value in kept.values())


# --- files of settings


@cache
def _files() -> dict[str, str]:
    """The project's own files of settings, by their place under conf/."""
    return {
        str(path.relative_to(ROOT / "conf")): path.read_text()
        for path in sorted((ROOT / "conf").rglob("*.yaml"))
    }


_YAML = ("defaults: [x]", "defaults:\n  - model: nope", "- _self_", "${optimizer.lr}", "${oc.env:HOME}", "???", "_target_: os.system",
         "_target_: [1]", "[", "{", "&a [*a]", "!!python/name:os.system", "@package _global_", "override /model: x", "optional x: y")  # fmt: skip


def make_settings_file(rng: Random) -> tuple[str, bytes]:
    """Return one of the project's files of settings, spoilt."""
    name = rng.choice(list(_files()))
    text = _files()[name]
    if rng.random() < 0.5:
        tree = spoiled_tree(rng, yaml.load(text, Loader=_LOADER) or {}, (*ODD_VALUES[:60], *_YAML))
        head = "# @package _global_\n" if "@package" in text else ""
        return name, (head + yaml.safe_dump(tree)).encode("utf-8", "surrogatepass")
    return name, spoiled_text(rng, text, (*WORDS, *_YAML)).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def project(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    """Give a project's folder whose files are this one's but for one file of settings."""
    place = folder / "project"
    for each, text in _files().items():
        file = place / "conf" / each
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if each == name else text.encode())
    for each in ("trainer.py", "model.py", "datamodule.py"):
        (place / each).write_text((ROOT / each).read_text())
    with mock.patch.dict(os.environ, {"MLMODELDEV_PROJECT": str(place)}):
        yield place


def check_settings_file(given: tuple[str, bytes], folder: Path) -> None:
    """A project's settings are composed, or the line says which file or key is wrong."""
    from mlmodeldev.settings.composition import compose_settings

    name, content = given
    group, _, choice = name.removesuffix(".yaml").rpartition("/")
    with project(folder, name, content), may_refuse():
        compose_settings([f"{group}={choice}"] if group else [], partial=True)


TARGETS = [
    Target(
        "manifests",
        ("mlmodeldev.fetch.manifest", "mlmodeldev.fetch.source"),
        make_manifest,
        check_manifest,
    ),
    Target(
        "keys in text", ("mlmodeldev.secrets.patterns",), make_secret, check_secret, fills=False
    ),
    Target(
        "files of settings",
        (
            "mlmodeldev.settings.composition",
            "mlmodeldev.settings.command_line",
            "mlmodeldev.settings.validation",
            "mlmodeldev.settings.conf_files",
        ),
        make_settings_file,
        check_settings_file,
    ),
]
