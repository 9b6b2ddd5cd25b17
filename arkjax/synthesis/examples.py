"""The training example: what the student reads, what it must say, and where that came from."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Example:
    """One prompt and one target for the student.

    Attributes:
      prompt_ids: what the student is given; carries no loss.
      target_ids: what it must say, the end token included; every one of them carries `weight`.
      weight: loss weight of each target token.
      provenance: where the example comes from: `problem_id`, the `call_ids` whose words are in the
        target, and the `kind` of selection that kept it (verified, corrective, team_agreement).
    """

    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    weight: float
    provenance: Mapping[str, Any]
