"""A language model of one's own text files: nothing lost, nothing leaked, honest perplexity."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.text_files import BUNDLED, TextFiles
from mlmodeldev.data.loader import EpochIndex
from mlmodeldev.data.text_stream import read_pieces
from mlmodeldev.data.token_blocks import TokenBlocks
from mlmodeldev.data.token_file import bpe_tokenizer, encode_bytes, write_tokens
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from tests.small_data import set_up

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "language-models.md").read_text(encoding="utf-8")
END = 256
TINY = (
    "experiment=causal_lm",
    "logger=csv",
    "model.hidden_size=16",
    "model.num_layers=1",
    "data.block_size=32",
    "training.max_epochs=2",
    "callbacks.cka.enabled=false",
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Forty files of different lengths, each with a line that says its number."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        body = f"file {number:02} says naïve things. " * (3 + number % 7)
        (folder / f"{number:02}.txt").write_text(body, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trial(shared_trials, texts):
    """A tiny model after two epochs."""
    ended = shared_trials.run(*TINY, f"data.files={texts}", name="writer")
    assert ended.code == 0, ended.output
    return ended


def batch_of(part) -> dict[str, torch.Tensor]:
    return part.make_batch([EpochIndex(number, 0) for number in range(len(part))])


def targets_of(part) -> list[int]:
    """All targets of a part, in order."""
    return [token for token in batch_of(part)["targets"].flatten().tolist() if token != -100]


# --- data


def test_each_token_is_the_target_of_one_place_and_follows_its_input(texts, tmp_path) -> None:
    made = set_up(TextFiles, tmp_path, files=str(texts), split_by="documents", block_size=50)
    documents = {tuple(file.read_bytes()) for file in texts.glob("*.txt")}
    seen = []
    for part in (made.train_set, made.val_set, made.test_set):
        stream = targets_of(part)
        assert stream[-1] == END
        begin = 0
        for place, token in enumerate(stream):
            if token == END:
                seen.append(tuple(stream[begin:place]))
                begin = place + 1
        batch = batch_of(part)
        inputs = batch["input_ids"].flatten().tolist()
        assert inputs[: len(stream)] == [END, *stream[:-1]]
        assert set(inputs[len(stream) :]) <= {END, stream[-1]}
        assert batch["input_ids"].shape == (len(part), 50) == batch["targets"].shape
    assert len(seen) == 40
    assert set(seen) == documents  # whole documents, each in one part


def test_blocks_of_one_text_are_split_without_overlap(tmp_path) -> None:
    """Which token is a target where: told by its place, for the text is a count."""
    tokens = np.arange(1003)
    blocks = [
        TokenBlocks(tokens, np.array([[0, 1003]]), 10, END, index)
        for index in (np.arange(0, 101, 2), np.arange(1, 101, 2))
    ]
    first, second = map(targets_of, blocks)
    assert sorted(first + second) == tokens.tolist()
    other = set_up(TextFiles, tmp_path, files=str(BUNDLED), split_seed=1)
    made = set_up(TextFiles, tmp_path)
    parts = [made.train_set, made.val_set, made.test_set]
    indices = [set(part.index.tolist()) for part in parts]
    assert len(set.union(*indices)) == sum(map(len, indices)) == math.ceil(148477 / 128)
    assert sum(len(targets_of(part)) for part in parts) == len(BUNDLED.read_bytes()) + 1
    assert set(other.val_set.index.tolist()) != indices[1]


@pytest.mark.parametrize("separator", [None, "\n\n", "<|endoftext|>"])
@pytest.mark.parametrize("size", [7, 64, 10_000])
def test_pieces_are_the_documents(tmp_path, separator, size) -> None:
    text = "one two\n\nthrée four <|endoftext|>five\n\n\n\nsix  seven<|endoftext|>" * 3
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    documents, begun = [], ""
    for piece, ends in read_pieces(sorted(tmp_path.glob("*.txt")), separator, size):
        begun += piece
        if ends:
            documents.append(begun)
            begun = ""
    assert begun == ""
    expected = [part for _ in "ab" for part in (text.split(separator) if separator else [text])]
    assert documents == [document for document in expected if document]


def test_long_documents_give_the_tokens_of_the_whole() -> None:
    text = BUNDLED.read_text(encoding="utf-8")
    tokenizer = bpe_tokenizer([text], 400)
    cut = [
        token
        for piece, _ in read_pieces([BUNDLED], None, size=5000)
        for token in tokenizer(piece, add_special_tokens=False)["input_ids"]
    ]
    assert cut == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(cut) == text


def test_memory_does_not_grow_with_the_text(tmp_path) -> None:
    def peak(megabytes: int) -> int:
        file, folder = tmp_path / f"{megabytes}.txt", tmp_path / f"made-{megabytes}"
        folder.mkdir()
        with file.open("wb") as opened:
            for _ in range(megabytes):
                opened.write(b"a word or two. " * 69906)
        tracemalloc.start()
        write_tokens(folder, read_pieces([file], None), encode_bytes, END, 257)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        assert len(tokens) == file.stat().st_size + 1
        assert tokens[-1] == END
        return most

    small, large = peak(2), peak(24)
    assert large < small + 500_000
    assert large < 8_000_000


def test_the_byte_tokenizer_of_an_export_gives_bytes(trial) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trial.folder / "best")
    text = "naïve <b>\t\n  日本 " + "".join(map(chr, range(300)))
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokens == list(text.encode())
    assert tokenizer.decode(tokens) == text
    assert (tokenizer.eos_token_id, len(tokenizer)) == (END, 257)


def test_bpe_is_the_same_in_another_process(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from mlmodeldev.data.token_file import bpe_tokenizer;"
        f"text = Path({str(BUNDLED)!r}).read_text();"
        "bpe_tokenizer([text], 300).save_pretrained(sys.argv[1])"
    )
    for name in "ab":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], cwd=ROOT, check=True)
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in "ab")
    assert first == second
    made = set_up(TextFiles, tmp_path, tokenizer="bpe", vocab_size=300)
    assert made.info["vocab_size"] == 300
    whole = [token for part in (made.train_set, made.val_set) for token in targets_of(part)]
    assert max(whole) < 300
    named = set_up(TextFiles, tmp_path, tokenizer=str(tmp_path / "a"))
    assert batch_of(named.val_set)["targets"].equal(batch_of(made.val_set)["targets"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"files": "nowhere/*.txt"}, "data.files=nowhere/"),
        ({"files": []}, "data.files="),
        ({"split_by": "documents"}, "1 documents are too few"),
        ({"block_size": 100_000}, "2 blocks are too few"),
        ({"tokenizer": "nobody/none"}, "'nobody/none' can't be loaded"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, reason) -> None:
    with pytest.raises(UsageError) as caught:
        set_up(TextFiles, tmp_path, **arguments)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "reason"), [(b"abc\xff", "no UTF-8"), (b"", "no text")])
def test_a_file_that_is_no_text(tmp_path, content, reason) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        set_up(TextFiles, tmp_path, files=str(tmp_path / "x.txt"))
    assert not list(tmp_path.rglob("tokens.npy"))


# --- model


def test_perplexity_is_that_of_all_tokens(trial, texts, tmp_path) -> None:
    """The oracle: transformers alone, one block at a time, in double precision."""
    model = AutoModelForCausalLM.from_pretrained(trial.folder / "last").double().eval()
    made = set_up(TextFiles, tmp_path, files=str(texts), block_size=32)
    for part, stage in ((made.val_set, "val"), (made.test_set, "test")):
        logarithms = []
        with torch.inference_mode():
            for number in range(len(part)):
                example = part[EpochIndex(number, 0)]
                rows = model(example["input_ids"][None]).logits[0].log_softmax(-1)
                pairs = zip(rows, example["targets"].tolist(), strict=True)
                logarithms += [float(row[token]) for row, token in pairs if token != -100]
        loss = -math.fsum(logarithms) / len(logarithms)
        if stage == "val":
            logged = trial.log[-1]
        else:
            assert trial.record["metric"]["epoch"] == 2  # the best weights are the last
            logged = {k: float(v) for k, v in trial.rows[-1].items()}
        assert logged[f"{stage}/loss"] == pytest.approx(loss, rel=1e-5)
        assert logged[f"{stage}/perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_uneven_batches_weigh_by_their_tokens(trials, texts) -> None:
    logs = [
        trials.run(
            *TINY,
            f"data.files={texts}",
            "data.split_by=documents",
            "training.limit_train_batches=2",
            "training.max_epochs=1",
            "training.test=false",
            f"processing.batch_size={size}",
            "optimizer.lr=1e-12",
            name=f"size-{size}",
        ).log[-1]
        for size in (3, 16)
    ]
    assert logs[0]["val/perplexity"] == pytest.approx(logs[1]["val/perplexity"], rel=1e-5)


def test_a_killed_trial_ends_the_same(trials, trial, texts) -> None:
    wanted = (*TINY, f"data.files={texts}", "training.checkpoint_every_n_steps=1")
    assert trials.run(*wanted, kill_at=9).code == -9
    ended = trials.run(*wanted)
    assert ended.code == 0, ended.output
    for name in ("last/model.safetensors", "best/model.safetensors", "samples.csv"):
        assert (ended.folder / name).read_bytes() == (trial.folder / name).read_bytes()


def test_samples_are_continuations_of_validation_blocks(trial, texts) -> None:
    with (trial.folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    whole = "".join(file.read_text(encoding="utf-8") for file in sorted(texts.glob("*.txt")))
    assert len(table) == 4
    for row in table:
        assert list(row) == ["prompt", "continuation", "text"]
        assert row["continuation"]
        begun = (row["prompt"] + row["text"]).replace("<|endoftext|>", "").strip("\ufffd")
        assert begun in whole


def test_a_pretrained_model_goes_on_from_its_weights(trials, trial, texts) -> None:
    ended = trials.run(
        *TINY,
        f"data.files={texts}",
        f"model.pretrained={trial.folder / 'best'}",
        "optimizer.lr=1e-12",
        "training.max_epochs=1",
        name="further",
    )
    assert ended.code == 0, ended.output
    assert ended.log[-1]["val/loss"] == pytest.approx(trial.log[-1]["val/loss"], rel=1e-5)


# --- inference


def ask(trial, *arguments: str, capsys) -> str:
    import inference

    capsys.readouterr()
    inference.main([str(trial.folder), *arguments])
    return capsys.readouterr().out


def test_inference_goes_on_the_same_way_again(trial, capsys) -> None:
    first = ask(trial, "file 0", "--tokens", "100", capsys=capsys)
    assert first.startswith("file 0")
    assert len(first) > 20
    assert ask(trial, "file 0", "--tokens", "100", capsys=capsys) == first
    assert ask(trial, "file 0", "--tokens", "100", "--seed", "1", capsys=capsys) != first
    both = ask(trial, "other", "file 0", "--tokens", "100", "--json", capsys=capsys)
    answer = json.loads(both.splitlines()[1])
    assert answer["input"] + answer["continuation"] + "\n" == first
    assert (answer["seed"], answer["tokens"]) == (0, 100)


def test_greedy_continuation_is_the_likeliest_token_each_time(trial, capsys) -> None:
    out = ask(trial, "file", "--tokens", "20", "--temperature", "0", "--json", capsys=capsys)
    model = AutoModelForCausalLM.from_pretrained(trial.folder / "best").eval()
    ids = [END, *b"file"]
    with torch.inference_mode():
        for _ in range(20):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = bytes(ids[5:]).decode(errors="replace")
    assert json.loads(out)["continuation"] == expected


@pytest.mark.parametrize("arguments", [["x", "--tokens", "0"], ["x.png"]])
def test_bad_input_to_inference(trial, arguments, capsys) -> None:
    with pytest.raises(UsageError) as caught:
        ask(trial, *arguments, capsys=capsys)
    assert "\n" not in str(caught.value)


# --- docs/language-models.md


def test_the_commands_of_the_page(trial, tmp_path, capsys) -> None:
    import inference

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("file 01\n\nfile 02\n")
    lines = re.findall(r"^python (\S+) (.*)$", PAGE, re.M)
    assert {script for script, _ in lines} == {"trainer.py", "inference.py"}
    for script, rest in lines:
        words = shlex.split(rest.replace(prompts.name, str(prompts)), comments=True)
        if script == "trainer.py":
            assert compose_settings(words).training.monitor == "val/loss"
        else:
            inference.main([str(trial.folder), *words[1:]])
            assert capsys.readouterr().out
    for setting in re.findall(r"`data\.(\w+)`", PAGE.partition("## Perplexity")[0]):
        assert setting in compose_settings(["experiment=causal_lm"]).data


def test_the_python_of_the_page(trial) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    there: dict[str, object] = {}
    exec(code.replace("runs/single/TRIAL", str(trial.folder)), there)
    tokens = there["tokenizer"]("Once", return_tensors="pt")  # type: ignore[operator]
    assert there["model"](**tokens).logits.shape == (1, 4, 257)  # type: ignore[operator]


def test_the_sweep_of_the_page(tmp_path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "lm.yaml"
    file.write_text(block)
    command = [sys.executable, "-m", "mlmodeldev.sweep", "check", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ok, grid, 4 trials" in done.stdout


def test_a_pretrained_model_brings_its_tokenizer() -> None:
    settings = compose_settings(["experiment=causal_lm", "model.pretrained=some/gpt"])
    assert settings.data["tokenizer"] == "some/gpt"
    assert compose_settings(["experiment=causal_lm"]).data["tokenizer"] is None
