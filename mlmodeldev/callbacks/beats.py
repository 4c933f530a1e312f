"""Tell whoever watches the trial which phase it is in (`mlmodeldev.trial.watch`).

The first of the callbacks: what others do in a hook belongs to the phase that the hook begins.

Example::

    Trainer(callbacks=[Beats(), ...])
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback

from mlmodeldev.trial.beats import Phase, beat

_STEP, _DATA = int(Phase.STEP), int(Phase.DATA)
_VALIDATION_STEP, _VALIDATION_DATA = int(Phase.VALIDATION_STEP), int(Phase.VALIDATION_DATA)
_TEST_STEP, _TEST_DATA = int(Phase.TEST_STEP), int(Phase.TEST_DATA)


class Beats(Callback):
    """Beat where a phase begins; a microsecond a beat."""

    def on_train_start(self, *_: Any) -> None:
        beat(Phase.EPOCH_START)

    def on_train_epoch_start(self, *_: Any) -> None:
        beat(Phase.EPOCH_START)

    def on_train_batch_start(self, *_: Any) -> None:
        beat(_STEP)

    def on_train_batch_end(self, *_: Any) -> None:
        beat(_DATA)

    def on_validation_start(self, *_: Any) -> None:
        beat(Phase.VALIDATION_START)

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        beat(_VALIDATION_STEP)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        beat(_VALIDATION_DATA)

    def on_validation_epoch_end(self, *_: Any) -> None:
        beat(Phase.VALIDATION_END)

    def on_train_epoch_end(self, *_: Any) -> None:
        beat(Phase.EPOCH_END)

    def on_train_end(self, *_: Any) -> None:
        beat(Phase.END)

    def on_test_start(self, *_: Any) -> None:
        beat(Phase.TEST_START)

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        beat(_TEST_STEP)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        beat(_TEST_DATA)

    def on_test_end(self, *_: Any) -> None:
        beat(Phase.END)
