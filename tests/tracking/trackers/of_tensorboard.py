"""TensorBoard's files of a trial, read by the package's own reader."""

from __future__ import annotations

import textwrap
from pathlib import Path

import yaml

from tests.tracking.trackers.shown import Entrance, Shown, Tracker, flat, nothing


class Tensorboard(Tracker):
    """The event files of ``logger=tensorboard``."""

    name = "tensorboard"
    precision = 1e-6
    away = "TensorBoard: gone"

    def breakage(self, trial: Path) -> Entrance:
        """A file stands where the folder of its files would."""
        trial.mkdir(parents=True)
        (trial / "tensorboard").write_text("")
        return nothing, ()

    def read(self, trial: Path) -> Shown:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        everything = {"scalars": 0, "images": 0, "tensors": 0}
        events = EventAccumulator(str(trial / "tensorboard"), size_guidance=everything)
        events.Reload()
        names = events.Tags()
        shown = Shown(
            metrics={
                name: [(event.step, event.value) for event in events.Scalars(name)]
                for name in names["scalars"]
                if not name.startswith("time/")
            },
            pictures={name: len(events.Images(name)) for name in names["images"]},
        )
        *_, text = events.Tensors("config.yaml/text_summary")
        (content,) = text.tensor_proto.string_val
        shown.settings = flat(yaml.safe_load(textwrap.dedent(content.decode())))
        return shown
