"""The training example: what the student reads, what it must say, and where that came from."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Example:
    """One prompt and one target for the student.

    Attributes:
      prompt_ids: what the student is given; carries no loss.
      target_ids: what it must say, the end token included.
      weight: loss weight of the example.
      provenance: where the example comes from: `problem_id`, the `call_ids` whose words are in the
        target, and the `kind` of trace they are.
      target_weights: for each target token, its share of `weight`; None gives each the whole. Zero
        marks words that are shown but not learned, such as the headers between the turns of a
        document.
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    weight: float
    provenance: Mapping[str, Any]
    target_weights: tuple[float, ...] | None = None
