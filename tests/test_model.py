"""The models: losses against other people's, metrics by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import matthews_corrcoef
from torch.nn.functional import normalize
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from examples.text_classifier import TextClassifier
from model import DualEncoder, contrastive_loss
from tests.small_data import pairs

SMALL = {"hidden_size": 16, "num_layers": 1}


def directions(seed: int, count: int, dim: int = 6) -> torch.Tensor:
    draws = np.random.default_rng(seed).normal(size=(count, dim))
    return normalize(torch.from_numpy(draws), dim=-1)


# --- the contrastive loss


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("scale", [1.0, 14.3])
def test_different_labels_give_the_loss_of_clip(count, scale) -> None:
    images, texts = directions(0, count), directions(1, count)
    exact = torch.tensor(scale, dtype=torch.float64)
    ours = contrastive_loss(images, texts, exact, torch.randperm(count))
    theirs = image_text_contrastive_loss(scale * texts @ images.T)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_shared_labels_spread_the_target_over_all_matches() -> None:
    """Two examples of one label, one of another; the sum is written out by hand."""
    images, texts = directions(2, 3).numpy(), directions(3, 3).numpy()
    logits = np.exp(2.0 * images @ texts.T)
    to_texts, to_images = logits / logits.sum(1, keepdims=True), logits / logits.sum(0)
    rows = [
        -(np.log(share[0, 0]) + np.log(share[0, 1])) / 2
        - (np.log(share[1, 0]) + np.log(share[1, 1])) / 2
        - np.log(share[2, 2])
        for share in (to_texts, to_images.T)
    ]
    ours = contrastive_loss(
        torch.from_numpy(images),
        torch.from_numpy(texts),
        torch.tensor(2.0),
        torch.tensor([7, 7, 4]),
    )
    assert float(ours) == pytest.approx(sum(rows) / 6, rel=1e-12)


def test_order_does_not_matter() -> None:
    images, texts, labels = directions(4, 12), directions(5, 12), torch.arange(12) % 5
    order = torch.from_numpy(np.random.default_rng(6).permutation(12))
    whole = contrastive_loss(images, texts, torch.tensor(10.0), labels)
    mixed = contrastive_loss(images[order], texts[order], torch.tensor(10.0), labels[order])
    torch.testing.assert_close(mixed, whole, rtol=1e-12, atol=1e-12)


def test_descent_pulls_a_label_together_and_pushes_labels_apart() -> None:
    free = directions(7, 8).requires_grad_()
    texts, labels = directions(8, 8), torch.arange(8) % 4
    same = labels[:, None] == labels[None, :]

    def gap() -> float:
        alike = (normalize(free.detach(), dim=-1) @ texts.T).double()
        return float(alike[same].mean() - alike[~same].mean())

    before = gap()
    optimizer = torch.optim.SGD([free], lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        contrastive_loss(normalize(free, dim=-1), texts, torch.tensor(5.0), labels).backward()
        optimizer.step()
    assert gap() > before + 0.3
    # a match that is not the example's own caption is not pushed away: its target is 1/2
    logits = torch.zeros(8, 8, requires_grad=True)
    contrastive_loss(logits, torch.eye(8), torch.tensor(1.0), labels).backward()
    assert (logits.grad[same] < 0).all()
    assert (logits.grad[~same] > 0).all()


# --- forward and metrics


@pytest.mark.parametrize("kind", [DualEncoder, TextClassifier])
def test_an_example_is_seen_alike_in_any_batch(kind) -> None:
    model, batch = kind(**SMALL).eval(), pairs(7)
    with torch.inference_mode():
        whole = model(batch)
        alone = model({name: values[4:5] for name, values in batch.items()})
    if kind is TextClassifier:
        whole, alone = (whole,), (alone,)
    for all_, one in zip(whole, alone, strict=True):
        torch.testing.assert_close(one[0], all_[4])


@pytest.mark.parametrize("kind", [DualEncoder, TextClassifier])
def test_padding_does_not_matter(kind) -> None:
    model, batch = kind(**SMALL).eval(), pairs(3)
    longer = dict(batch)
    longer["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, 6), value=0)
    longer["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 6), value=0)
    with torch.inference_mode():
        torch.testing.assert_close(model(longer), model(batch))


def test_embeddings_have_length_one() -> None:
    images, texts = DualEncoder(**SMALL, projection=12)(pairs(5))
    assert images.shape == texts.shape == (5, 12)
    for embedded in (images, texts):
        torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(5))


def test_zero_shot_takes_the_class_whose_captions_are_nearest() -> None:
    """The oracle averages the captions and looks for the largest cosine in numpy."""
    model, batch = DualEncoder(**SMALL, num_classes=4).eval(), pairs(6)
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 100, (4, 3, 5), generator=draw)
    prompts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        model.class_embeddings = model.embed_classes(prompts)
        model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        model.log = lambda *a, **k: None
        result = model.validation_step(batch, 0)
        images = model.embed_images(batch["image"]).double().numpy()
        captions = np.stack(
            [
                np.stack([model.embed_texts({n: v[c, p : p + 1] for n, v in prompts.items()})[0]
                          for p in range(3)]).mean(0)
                for c in range(4)
            ]
        )  # fmt: skip
    cosine = images @ (captions / np.linalg.norm(captions, axis=1, keepdims=True)).T
    assert result["prediction"].tolist() == cosine.argmax(1).tolist()
    chances = np.exp(cosine / 0.07)
    chances /= chances.sum(1, keepdims=True)
    np.testing.assert_allclose(result["probability"], chances.max(1), rtol=2e-3)


@pytest.mark.parametrize("guess", [0, 1])
def test_guessing_one_class_has_no_correlation(guess) -> None:
    """scikit-learn and GLUE call it 0; whatever the share of the classes."""
    metric = TextClassifier(**SMALL).metrics["matthews"]
    truth = torch.tensor([1] * 7 + [0] * 3)
    metric.update(torch.full((10,), guess), truth)
    assert float(metric.compute()) == matthews_corrcoef(truth, [guess] * 10) == 0


def test_metrics_are_of_the_whole_stage_not_of_batches() -> None:
    """Unequal batches: a mean of batch means would be another number."""
    model = TextClassifier(**SMALL).eval()
    logged = {}
    model.log = lambda name, value, **_: logged.update({name: value})
    logits, labels = [], []
    with torch.inference_mode():
        for seed, count in enumerate((7, 2, 5)):
            batch = pairs(count, seed=seed)
            model.validation_step(batch, seed)
            logits.append(model(batch).double().numpy())
            labels.append(batch["label"].numpy())
    scores, truth = np.concatenate(logits), np.concatenate(labels)
    guess = scores.argmax(1)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(14), truth]
    got = {name: float(metric.compute()) for name, metric in logged.items()}
    assert got["val/accuracy"] == pytest.approx((guess == truth).mean())
    assert got["val/matthews"] == pytest.approx(matthews_corrcoef(truth, guess))
    assert got["val/loss"] == pytest.approx(losses.mean(), rel=1e-5)
