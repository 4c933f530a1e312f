"""A token file: documents as one long array of token numbers, written as a stream.

Example::

    tokenizer = byte_tokenizer()
    facts = write_tokens(folder, read_pieces(files, None), encoder(tokenizer), end=256, count=257)
    tokens, ends = np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "ends.npy")

An end-of-text token follows each document.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from mlmodeldev.errors import UsageError

END_OF_TEXT = "<|endoftext|>"

Encode = Callable[[list[str]], Sequence[Any]]
"""Returns for each text its token numbers."""

_BATCH = 1 << 18


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer whose tokens are the 256 bytes, by their values, and end-of-text."""
    letters = byte_letters()
    vocabulary = {letter: value for value, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    return _byte_level(tokenizer)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, as GPT-2's (Radford 2019): no text is unknown to it.

    Args:
        texts: read once; memory grows with the number of different words only.
        vocab_size: of bytes, merged pairs and end-of-text; at least 257.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=byte_letters(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _byte_level(tokenizer)


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level vocabularies, by its value.

    Printable bytes of Latin-1 stand for themselves, the others for the letters from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(value if value in printable else next(others)) for value in range(256)]


def _byte_level(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    wrap: Any = PreTrainedTokenizerFast  # its constructor has no types
    wrapped: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def encode_bytes(texts: list[str]) -> list[np.ndarray]:
    """Return each text's bytes: what `byte_tokenizer` gives, without its objects for each byte."""
    return [np.frombuffer(text.encode(), np.uint8) for text in texts]


def encoder(tokenizer: Any) -> Encode:
    """Return what encodes texts by a tokenizer, without special tokens."""

    def encode(texts: list[str]) -> Sequence[Any]:
        tokens: Sequence[Any] = tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return tokens

    return encode


def write_tokens(
    folder: Path, pieces: Iterable[tuple[str, bool]], encode: Encode, end: int, count: int
) -> dict[str, int]:
    """Write ``tokens.npy`` and ``ends.npy``: where each document ends, its end-of-text included.

    Args:
        folder: where to.
        pieces: see `text_stream.read_pieces`.
        encode: the tokenizer.
        end: number of the end-of-text token.
        count: of different tokens; the file's type is the smallest that holds them.

    Returns:
        numbers of ``tokens`` and ``documents``.

    Raises:
        UsageError: there is no text.
    """
    kind = np.dtype(np.uint16 if count <= 1 << 16 else np.uint32)
    closing = np.array([end], kind).tobytes()
    ends = array("q")
    written = 0
    with (folder / "tokens.npy").open("wb+") as file:
        _write_head(file, kind, 0)
        for texts, last in _batches(pieces):
            for tokens, is_last in zip(encode(texts), last, strict=True):
                values = np.asarray(tokens, kind)
                file.write(values.tobytes() + (closing if is_last else b""))
                written += len(values) + is_last
                if is_last:
                    ends.append(written)
        if not ends:
            raise UsageError("data.files: there is no text in these files")
        _write_head(file, kind, written)
    np.save(folder / "ends.npy", np.frombuffer(ends, np.int64))
    return {"tokens": written, "documents": len(ends)}


def _write_head(file: IO[bytes], kind: np.dtype[Any], length: int) -> None:
    """Write the head of an array of this length; numpy leaves room in it for any length."""
    file.seek(0)
    head = {"descr": kind.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, head)


def _batches(pieces: Iterable[tuple[str, bool]]) -> Iterator[tuple[list[str], list[bool]]]:
    """Group pieces: a tokenizer takes many short texts at once in a fraction of the time."""
    texts: list[str] = []
    last: list[bool] = []
    size = 0
    for text, ends in pieces:
        texts.append(text)
        last.append(ends)
        size += len(text)
        if size >= _BATCH:
            yield texts, last
            texts, last, size = [], [], 0
    if texts:
        yield texts, last
