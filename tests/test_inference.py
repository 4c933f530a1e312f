"""``inference.py`` answers by hand as the trained model does, however it is asked."""

from __future__ import annotations

import io
import json
import random
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule
from sklearn.datasets import load_digits
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from datamodule import Digits
from tests.small_data import sentence, set_up

ROOT = Path(__file__).resolve().parents[1]
RIGHT, WRONG = sentence(random.Random(7), True), sentence(random.Random(7), False)


@pytest.fixture
def ask(monkeypatch, capsys):
    """Run the script as from a shell: exit status, standard output, standard error."""

    def run(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / "inference.py"), run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def by_transformers(folder: Path, texts: list[str]) -> np.ndarray:
    """Probabilities that transformers gives alone, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [model(**tokenizer(t, return_tensors="pt")).logits[0].double() for t in texts]
    return torch.stack(logits).softmax(-1).numpy()


# --- texts


def test_it_tells_right_from_wrong(ask, cola_trial) -> None:
    code, out, _ = ask(cola_trial.folder, RIGHT, WRONG)
    assert code == 0
    lines = [line.split("  ") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["acceptable", "unacceptable"]
    assert [line[2] for line in lines] == [RIGHT, WRONG]
    assert all(0.5 < float(line[1]) <= 1 for line in lines)


@pytest.mark.parametrize("weights", ["best", "last"])
def test_probabilities_are_those_of_transformers(ask, cola_trial, weights) -> None:
    texts = [RIGHT, WRONG, "The poet forgets the.", "unknown wörds"]
    code, out, _ = ask(cola_trial.folder, *texts, "--json", "--weights", weights)
    assert code == 0
    theirs = by_transformers(cola_trial.folder / weights, texts)
    for line, text, row in zip(out.splitlines(), texts, theirs, strict=True):
        answer = json.loads(line)
        assert answer["input"] == text
        assert list(answer["all"]) == ["unacceptable", "acceptable"]
        np.testing.assert_allclose(list(answer["all"].values()), row, atol=1e-5)
        assert answer["label"] == list(answer["all"])[row.argmax()]
        assert answer["probability"] == max(answer["all"].values())


def test_by_path_export_and_id_it_is_the_same(ask, cola_trial) -> None:
    runs = cola_trial.folder.parents[1]
    answers = {
        ask(cola_trial.folder, RIGHT),
        ask(cola_trial.folder / "best", RIGHT),
        ask(cola_trial.folder.name, RIGHT, "--runs-dir", runs),
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 0


def test_a_file_has_an_input_on_each_line(ask, cola_trial, tmp_path) -> None:
    file = tmp_path / "sentences.txt"
    file.write_text(f"{RIGHT}\n\n{WRONG}\n")
    assert ask(cola_trial.folder, "--file", file) == ask(cola_trial.folder, RIGHT, WRONG)


def test_a_prompt_answers_line_by_line_and_forgives(ask, digits_trial, cola_trial) -> None:
    code, out, err = ask(cola_trial.folder, stdin=f"{RIGHT}\n\n  {WRONG} \n")
    assert (code, err) == (0, "")
    assert [line.split("  ")[2] for line in out.splitlines()] == [RIGHT, WRONG]
    code, out, err = ask(digits_trial.folder, stdin="gone.png\nno image\n")
    assert (code, out) == (0, "")
    assert err.splitlines()[0] == "gone.png: no such file"
    assert len(err.splitlines()) == 2


def test_a_long_text_is_cut(ask, cola_trial) -> None:
    code, out, _ = ask(cola_trial.folder, " ".join([RIGHT] * 100))
    assert code == 0
    assert out.startswith(("acceptable", "unacceptable"))


# --- images


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """A seven of the data set as a PNG of 8x8 pixels."""
    digits = load_digits()
    image = digits.images[np.flatnonzero(digits.target == 7)[0]]
    file = tmp_path_factory.mktemp("pictures") / "seven.PNG"
    Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(file)
    return file


def test_an_image_gets_the_probabilities_of_validation(
    ask, digits_trial, picture, data_dir
) -> None:
    """The oracle: the checkpoint's own module, the data module's tensor and prompts."""
    from model import DualEncoder

    code, out, _ = ask(digits_trial.folder, picture, "--json")
    assert code == 0
    answer = json.loads(out)
    state = json.loads((digits_trial.folder / "best" / "training_state.json").read_text())
    model = DualEncoder(**state["model_arguments"]).eval()
    best = digits_trial.folder / "checkpoints" / "best.ckpt"
    model.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    module = set_up(Digits, data_dir)
    number = np.flatnonzero(load_digits().target == 7)[0]
    with torch.inference_mode():
        image = model.embed_images(module.val_set.images[number][None])
        logits = model.logit_scale.exp() * image @ model.embed_classes(module.prompts).T
    assert list(answer["all"]) == module.labels
    # 16 grey levels in 8 bits: half a level of 255 is all that may differ
    np.testing.assert_allclose(list(answer["all"].values()), logits.softmax(-1)[0], atol=5e-3)


def test_one_picture_in_other_encodings_has_one_answer(
    ask, digits_trial, picture, tmp_path
) -> None:
    """16 bits, turned by its EXIF, with alpha: as a person sees it (tests/data has them all)."""
    pixels = np.asarray(Image.open(picture))
    deep, turned, clear = (tmp_path / f"{name}.png" for name in ("deep", "turned", "clear"))
    Image.fromarray(pixels.astype(np.uint16) * 257).save(deep)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored with a quarter turn to the left
    Image.fromarray(np.rot90(pixels)).save(turned, exif=exif)
    opaque = Image.fromarray(np.full_like(pixels, 255))
    Image.merge("LA", (Image.fromarray(pixels), opaque)).save(clear)
    code, out, err = ask(digits_trial.folder, picture, deep, turned, clear, "--json")
    assert code == 0, err
    first, *others = (list(json.loads(line)["all"].values()) for line in out.splitlines())
    assert len(others) == 3
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-4)


def test_captions_are_the_candidates(ask, digits_trial, picture) -> None:
    captions = ["a handwritten seven", "a handwritten one"]
    wanted = [part for caption in captions for part in ("--text", caption)]
    code, out, _ = ask(digits_trial.folder, picture, picture, *wanted, "--json")
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert first == second
    assert list(first["all"]) == captions
    assert sum(first["all"].values()) == pytest.approx(1)
    # two candidates alone share what they have against each other in any company
    more = json.loads(ask(digits_trial.folder, picture, *wanted, "--text", "zero", "--json")[1])
    ratio = [answer["all"][captions[0]] / answer["all"][captions[1]] for answer in (first, more)]
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-3)


def test_a_long_caption_is_cut(ask, digits_trial, picture) -> None:
    code, out, err = ask(digits_trial.folder, picture, "--text", "seven " * 40, "--text", "one")
    assert code == 0, err
    assert out.count("\n") == 1


# --- bad input


@pytest.fixture
def refused(ask):
    def run(*arguments: object) -> str:
        code, out, err = ask(*arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert line.startswith("inference.py: ")
        return line

    return run


def test_no_such_trial(refused, cola_trial) -> None:
    runs = cola_trial.folder.parents[1]
    line = refused("gramar", RIGHT, "--runs-dir", runs)
    assert "no such trial" in line
    assert "did you mean 'grammar'" in line


def test_a_trial_in_two_sweeps(refused, tmp_path) -> None:
    for sweep in ("one", "two"):
        (tmp_path / sweep / "same").mkdir(parents=True)
    line = refused("same", RIGHT, "--runs-dir", tmp_path)
    assert f"in several sweeps, name one by its path: {tmp_path}/one/same" in line


def test_a_trial_without_export(refused, tmp_path) -> None:
    assert "no export here" in refused(tmp_path, RIGHT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": {}}', b"\xff\xfe"])
def test_a_damaged_export(refused, tmp_path, content) -> None:
    (tmp_path / "training_state.json").write_bytes(content)
    assert "training_state.json" in refused(tmp_path, RIGHT)


def test_a_damaged_model(refused, tmp_path, cola_trial) -> None:
    import shutil

    folder = shutil.copytree(cola_trial.folder / "best", tmp_path / "best")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "can't be loaded" in refused(folder, RIGHT)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["gone.png"], "gone.png: no such file"),
        (["text.png"], "text.png: is no image"),
        (["a sentence"], "this model labels images"),
        (["seven.PNG", "a sentence"], "images or texts, not both"),
        (["--file", "gone.txt"], "--file gone.txt"),
        (["--file", "seven.PNG"], "--file seven.PNG"),
        (["--file", "empty.txt"], "this model labels images"),
    ],
)
def test_bad_input_of_an_image_model(
    refused, digits_trial, picture, monkeypatch, arguments, reason
) -> None:
    monkeypatch.chdir(picture.parent)
    Path("text.png").write_text("no image")
    Path("empty.txt").write_text("")
    assert reason in refused(digits_trial.folder, *arguments)


def test_an_image_for_a_text_model(refused, cola_trial, picture) -> None:
    assert "this model labels texts" in refused(cola_trial.folder, picture)


# --- models without predict


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Exports of two models that only have forward, or predict_step."""
    from tests.training.test_load import Dots, Sums, exported

    place = tmp_path_factory.mktemp("plain")
    model = Dots(3)
    return {
        "dots": (exported(place / "dots", model, size=3), model),
        "sums": (exported(place / "sums", Sums()), Sums()),
    }


def test_an_example_of_numbers(ask, plain, tmp_path) -> None:
    folder, model = plain["dots"]
    row = [0.5, 1.0, -2.0]
    np.save(tmp_path / "x.npy", np.array(row))
    torch.save(torch.tensor(row), tmp_path / "x.pt")
    (tmp_path / "x.json").write_text(json.dumps(row))
    given = [str(tmp_path / f"x.{ending}") for ending in ("npy", "pt", "json")] + ["[0.5, 1, -2]"]
    code, out, err = ask(folder, *given)
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["input"] for answer in answers] == given
    wanted = (model.layer.weight.detach() @ torch.tensor(row)).tolist()
    for answer in answers:
        assert answer["output"] == pytest.approx(wanted, abs=1e-6)


def test_an_example_of_several_parts(ask, plain) -> None:
    code, out, err = ask(plain["sums"][0], '{"a": [1, 2], "b": 4}')
    assert code == 0, err
    assert json.loads(out)["output"] == {"sum": 7, "parts": [3, 4], "text": "whole"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("seven.png", "seven.png: this model takes an example in a .pt, .npy or .json file"),
        ("some words", "some words: this model takes an example"),
        ("gone.npy", "gone.npy: no such file"),
        ("bad.npy", "bad.npy: can't be read"),
        ("bad.pt", "bad.pt: can't be read"),
        ("bad.json", "bad.json: "),
        ('["a"]', "the example: "),
        ("[[1, 2], [3]]", "the example: "),
        ("[1.0, 2.0]", "Dots: its forward does not take this example (RuntimeError: "),
        ('{"a": 1.0}', "Dots: its forward does not take this example (TypeError: "),
    ],
)
def test_bad_examples(refused, plain, tmp_path, monkeypatch, given, reason) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bad.npy", "bad.pt", "bad.json"):
        Path(name).write_bytes(b"\xff{")
    line = refused(plain["dots"][0], given)
    assert reason in line


def test_captions_for_a_model_without_labels(refused, plain) -> None:
    assert "--text: captions are for models" in refused(plain["dots"][0], "x.npy", "--text", "a")


class Stepless(LightningModule):
    """Nothing of it can be called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)


def test_what_a_sweep_advertises_is_taken_and_nothing_else(ask, plain, tmp_path) -> None:
    from mlmodeldev.callbacks.export import inference_of
    from mlmodeldev.slurm.commands.launch import _ways_to_use
    from tests.training.test_load import exported

    _, model = plain["dots"]
    np.save(tmp_path / "x.npy", np.ones(3))
    for number, module in enumerate((model, Stepless())):
        trial = tmp_path / str(number)
        trial.mkdir()
        best = exported(trial / "best", module, f"{__name__}.Stepless" if number else "",
                        **({} if number else {"size": 3}))  # fmt: skip
        file = best / "training_state.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "inference": inference_of(module)})
        )
        advertised = [line.split() for line in _ways_to_use(trial)]
        assert f'mlmodeldev.load("{best}")' in advertised[-1]
        commands = [words for words in advertised if words[0] == "python"]
        code = ask(trial, tmp_path / "x.npy")[0]
        assert [words[1:3] for words in commands] == (
            [["inference.py", str(trial)]] if not code else []
        )
        assert (code, number) in ((0, 0), (2, 1))
