"""The datasets that come along, the format of their manifests, and the command line."""

import gzip
import hashlib
import json
import subprocess
import sys
import time
import zipfile

import pytest
import yaml

from mlmodeldev.data import FetchError
from mlmodeldev.data.__main__ import main
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import manifest

# Written down a second time, from tensorflow-datasets 4.9.10 and torchtext: a slip in a manifest
# would make a dataset unreachable on the day it is needed.
PUBLISHED = {
    "CoLA.zip": (376971, "f212fcd832b8"),
    "SST-2.zip": (7439277, "d67e16fb5573"),
    "train-images-idx3-ubyte.gz": ({9912422: "440fcabf73cc", 26421880: "3aede38d6186"}, None),
    "train-labels-idx1-ubyte.gz": ({28881: "3552534a0a55", 29515: "a04f17134ac0"}, None),
    "t10k-images-idx3-ubyte.gz": ({1648877: "8d422c7b0a1c", 4422102: "346e55b948d9"}, None),
    "t10k-labels-idx1-ubyte.gz": ({4542: "f7ae60f92e00", 5148: "67da17c76eaf"}, None),
    "cifar-10-binary.tar.gz": (170052171, "c4a38c50a1bc"),
    "annotations_trainval2014.zip": (252872794, "031296bbc80c"),
    "annotations_trainval2017.zip": (252907541, "113a836d9019"),
    "train2014.zip": (13510573713, "ede4087e640b"),
    "val2014.zip": (6645013297, "fe9be8160520"),
    "train2017.zip": (19336861798, "69a8bb58ea5f"),
    "val2017.zip": (815585330, "4f7e2ccb2866"),
    "caption_datasets.zip": (36745453, "4cfd70132527"),
    "cola_public_1.1.zip": (None, None),
}


def test_the_manifests_say_what_was_published():
    for name in manifest.names():
        for entry in manifest.load(name).entries:
            size, digest = PUBLISHED[entry.source.name]
            if isinstance(size, dict):
                digest = size[entry.source.bytes]
                size = entry.source.bytes
            assert entry.source.bytes == size
            assert (entry.source.sha256 or "")[:12] == (digest or "")


@pytest.mark.parametrize("name", manifest.names())
def test_every_manifest_can_be_protected_and_read(name):
    loaded = manifest.load(name)
    assert loaded.title
    assert loaded.licence
    assert loaded.homepage.startswith("https://")
    assert all(entry.source.digest for entry in loaded.entries)


@pytest.fixture
def written(tmp_path):
    """Write a manifest and return its path."""

    def call(content, name="small.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return call


@pytest.fixture
def small(server, written, tmp_path):
    """A set of the shape of CoLA and MNIST, served on loopback."""
    packed = tmp_path / "s.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("CoLA/train.tsv", "gj04\t1\t\tOur friends won't buy it.\n")
        file.writestr("CoLA/dev.tsv", "gj04\t0\t*\tThe box rolled the floor.\n")
        file.writestr("__MACOSX/CoLA/._train.tsv", "x")
    bodies = {"CoLA.zip": packed.read_bytes(), "labels.gz": gzip.compress(bytes(100))}
    files = []
    for name, body in bodies.items():
        server.add(name, body)
        digest = hashlib.sha256(body).hexdigest()
        files.append({"urls": [server.url(name)], "bytes": len(body), "sha256": digest})
    files[0]["unpack"] = "text"
    return written({"files": files, "layout": ["text/train.tsv", "text/dev.tsv", "labels.gz"]})


def test_prepare_brings_the_layout_once(small, server, tmp_path):
    folder = manifest.prepare(small, tmp_path / "data", progress=False)
    assert folder == tmp_path / "data" / "small"
    assert (folder / "text/train.tsv").read_text().startswith("gj04\t1")
    assert sorted(p.name for p in (folder / "text").iterdir()) == [
        ".unpacked.json",
        "dev.tsv",
        "train.tsv",
    ]
    before = time.perf_counter()
    manifest.prepare(small, tmp_path / "data", offline=True)
    assert time.perf_counter() - before < 0.05
    assert len(server.requests) == 2


def test_archives_can_go_and_are_not_missed(small, server, tmp_path):
    folder = manifest.prepare(small, tmp_path / "data", keep_archives=False, progress=False)
    assert not (folder / "CoLA.zip").exists()
    assert (folder / "labels.gz").exists()
    manifest.prepare(small, tmp_path / "data", offline=True, touch=True)
    assert len(server.requests) == 2


def test_only_some_files(small, server, tmp_path):
    folder = manifest.prepare(small, tmp_path / "data", only=["labels.gz"], progress=False)
    assert not (folder / "text").exists()
    assert [request.path for request in server.requests] == ["/labels.gz"]
    with pytest.raises(UsageError, match=r"did you mean 'CoLA\.zip'"):
        manifest.prepare(small, tmp_path / "data", only=["Cola.zip"])


def test_an_archive_with_other_content_is_reported(small, written, tmp_path):
    content = yaml.safe_load(small.read_text())
    content["layout"].append("text/test.tsv")
    path = written(content)
    with pytest.raises(FetchError, match=r"text/test\.tsv is missing"):
        manifest.prepare(path, tmp_path / "data", progress=False)


WRONG = {
    "files: []": "at least one entry",
    "titel: x": "did you mean 'title'",
    "title: x": "files is missing",
    "files: [{url: x}]": "did you mean 'urls'",
    "files: [{bytes: 1}]": "urls is missing",
    "files: [x]": "each of files is a mapping",
    "files: [{urls: [ftp://x/y]}]": "http://, https:// or file://",
    "files: [{urls: [http://x/y], unpack: ../z}]": "would leave the folder",
    "files: [{urls: [http://x/y]}]\nlayout: [/etc]": "would leave the folder",
    "- 1": "a manifest is a mapping",
    "a: [": "not YAML",
}


@pytest.mark.parametrize("content", WRONG)
def test_a_wrong_manifest_is_reported_with_its_path(written, content):
    path = written(content)
    with pytest.raises(UsageError) as caught:
        manifest.load(path)
    assert WRONG[content] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


ONE, TWO = "urls: [http://x/one.zip]", "urls: [http://y/two.zip]"
CLASHES = {
    f"[{{{ONE}, unpack: a}}, {{{TWO}, unpack: a}}]": "one.zip and two.zip are both unpacked into a",
    f"[{{{ONE}, unpack: a/b}}, {{{TWO}, unpack: ./a//b/}}]": "both unpacked into a/b",
    f"[{{{ONE}, unpack: a/b/c}}, {{{TWO}, unpack: a}}]": "list two.zip before it",
    f"[{{{ONE}, unpack: two.zip}}, {{{TWO}}}]": "two.zip is one of the files",
    f"[{{{ONE}, unpack: two.zip/a}}, {{{TWO}}}]": "two.zip is one of the files",
    f"[{{{ONE}, unpack: one.zip}}]": "one.zip is one of the files",
    f"[{{{ONE}, unpack: ./}}]": "one.zip can't be unpacked into '.', where it lies itself",
    "[{urls: [http://x/a/t.zip], unpack: a}, {urls: [http://x/b/t.zip], unpack: b}]": (
        "files 1 and 2 are both called t.zip; give one of them another name (name)"
    ),
    f"[{{{ONE}}}, {{{TWO}, name: one.zip}}]": "both called one.zip",
}


@pytest.mark.parametrize("files", CLASHES)
def test_two_files_of_one_place_are_refused(written, files):
    path = written(f"files: {files}")
    with pytest.raises(UsageError) as caught:
        manifest.load(path)
    assert CLASHES[files] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_within_that_of_an_earlier_file_stays(written, tmp_path):
    files = []
    for name, place in (("one", "a"), ("two", "a/b"), ("three", "ab")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}.txt", name)
        files.append({"urls": [(tmp_path / f"{name}.zip").as_uri()], "unpack": place})
    path = written({"files": files})
    for _ in range(2):
        folder = manifest.prepare(path, tmp_path / "data", progress=False)
        places = ("a/one.txt", "a/b/two.txt", "ab/three.txt")
        assert [(folder / place).read_text() for place in places] == ["one", "two", "three"]


def test_command_line(small, tmp_path, capsys):
    assert main(["fetch", str(small), "--directory", str(tmp_path / "d"), "--remove-archives"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'd' / 'small'}\n"
    assert main(["fetch", "colla"]) == 2
    assert "did you mean 'cola'" in capsys.readouterr().err
    assert main(["fetch", "cola", "--offline", "--directory", str(tmp_path / "e")]) == 2
    assert f"at {tmp_path / 'e/cola/CoLA.zip'}" in capsys.readouterr().err


def test_list(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "coco_2017       20.4 GB      4  COCO captions 2017" in text
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(manifest.names())
    assert next(row for row in rows if row["name"] == "cola")["bytes"] == 376971


def test_help_is_quick():
    command = [sys.executable, "-m", "mlmodeldev.data", "--help"]
    before = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.perf_counter() - before < 1
    assert "fetch" in done.stdout
