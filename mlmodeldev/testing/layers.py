"""Do the layers exist that ``callbacks.cka.compare`` names?

Example::

    check(["model=mine"])    # CheckFailed: no layer of Mine matches 'encodr.*' ...
"""

from __future__ import annotations

from collections.abc import Sequence

from mlmodeldev.errors import UsageError
from mlmodeldev.testing.isolated import CheckFailed


def check(overrides: Sequence[str]) -> None:
    """Fail for a pattern that names no layer of the model.

    Raises:
        CheckFailed: in a paragraph.
    """
    from mlmodeldev.alignment.capture import match_layers
    from mlmodeldev.alignment.comparison import read_comparisons
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.testing.learning import build

    settings = compose_settings(overrides)
    _, model = build(settings)
    named = {name: one.model_dump() for name, one in settings.callbacks.cka.compare.items()}
    compare = named or getattr(model, "ALIGNMENT", {})
    for name, comparison in (read_comparisons(compare) if compare else {}).items():
        columns = comparison.patterns_b if comparison.against == "self" else []
        for pattern in [*comparison.patterns_a, *columns]:
            try:
                match_layers(model, [pattern])
            except UsageError as error:
                raise CheckFailed(
                    f"callbacks.cka.compare.{name}: {error}. CKA would refuse the trial. Write the"
                    " layer as named_modules() of the model spells it; '*' stands for one part of"
                    " a name, '**' for several."
                ) from None
