"""Group-relative policy optimisation: advantages, credit of steps, and the published variants.

Everything here is about numbers of one step: what each answer earned, group by group, becomes an
advantage for each of its tokens and that token's share in the loss. `policy_loss` makes the
gradient of them.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.storage import added


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """How rewards become a loss; `VARIANTS` has what was published under which name.

    Attributes:
      std: divide a group's rewards by their standard deviation, not only take the mean off. Without
        it (Dr. GRPO, arXiv 2503.20783) problems that are nearly always or nearly never solved do
        not weigh more than others: the better choice for small groups.
      aggregation: what one token weighs. "token": all tokens of the step alike (DAPO, arXiv
        2503.14476, eq. 8); "sequence": all answers alike, each the mean over its tokens (GRPO,
        arXiv 2402.03300, eq. 3), which makes long wrong answers cheap; "constant": every token
        1 / (answers * max_tokens) (Dr. GRPO).
      ratio: of new to old probability. "token": of each token; "sequence": the geometric mean over
        the answer (GSPO, arXiv 2507.18071, eq. 7).
      clip_low, clip_high: the ratio counts from 1 - clip_low to 1 + clip_high (PPO, arXiv
        1707.06347, eq. 7; apart as in DAPO).
      importance_cap: a ratio counts as at most this much where it is not clipped, that is for
        answers that are to become rarer (truncated importance sampling); None: as it is.
      drop_zero_variance: groups whose answers all have the same advantage, zero, take no part: they
        count in no mean and feel no KL.
      resample_rounds: dynamic sampling (DAPO, section 3.2): up to so many times a step asks other
        problems in place of those whose groups have advantages of zero. 0: never; steps learn from
        the fewer groups the more problems are always, or never, solved.
      overlong_share: soft punishment of long answers (DAPO, eq. 13): over the last so many of
        max_tokens the reward falls by up to 1; 0: none.
      kl_coefficient: beta, weight of the KL to the reference; 0: no reference is needed.
      kl: "exact": the reverse KL of each token's whole distribution. On the token alone: "k2", half
        the squared log-ratio, whose gradient is that of the reverse KL; "k3", which the first GRPO
        has, with the gradient of the forward KL.
      outcome_weight: weight of the outcome's normalised advantage.
      process_weight: weight of the process rewards' normalised min-form credit.

    Raises:
      ConfigError: if a value is outside its range.
    """

    std: bool = True
    aggregation: Literal["token", "sequence", "constant"] = "token"
    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = 0.2
    clip_high: float = 0.28
    importance_cap: float | None = None
    drop_zero_variance: bool = True
    resample_rounds: int = added(0)
    overlong_share: float = 0.0
    kl_coefficient: float = 0.0
    kl: Literal["exact", "k2", "k3"] = "exact"
    outcome_weight: float = 1.0
    process_weight: float = 0.2

    def __post_init__(self) -> None:
        choices = {
            "aggregation": ("token", "sequence", "constant"),
            "ratio": ("token", "sequence"),
            "kl": ("exact", "k2", "k3"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"grpo.{name} is {getattr(self, name)!r}: expected one of {', '.join(allowed)}"
                )
        at_least_zero = ("clip_high", "kl_coefficient", "outcome_weight", "process_weight")
        for name in (*at_least_zero, "resample_rounds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"grpo.{name} is {getattr(self, name)}: expected 0 or more")
        for name in ("clip_low", "overlong_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"grpo.{name} is {getattr(self, name)}: expected in [0, 1]")
        if self.importance_cap is not None and not 1 <= self.importance_cap < math.inf:
            raise ConfigError(
                f"grpo.importance_cap is {self.importance_cap}: expected 1 or more, or None"
            )
        if self.outcome_weight == self.process_weight == 0:
            raise ConfigError(
                "grpo.outcome_weight and grpo.process_weight are both 0: nothing would be learned"
            )


_PUBLISHED = GRPOConfig(
    aggregation="sequence", clip_high=0.2, drop_zero_variance=False, process_weight=0.0
)
VARIANTS = {
    # arXiv 2402.03300: section 4.2 has the coefficient, eq. 4 the estimator.
    "grpo": dataclasses.replace(_PUBLISHED, kl_coefficient=0.04, kl="k3"),
    # arXiv 2503.20783, section 3.2.
    "dr_grpo": dataclasses.replace(_PUBLISHED, std=False, aggregation="constant"),
    # arXiv 2503.14476: section 4.1 has the ranges; the last 4,096 of 20,480 tokens are punished.
    # The paper samples until a batch is full; here a step has an end.
    "dapo": dataclasses.replace(
        _PUBLISHED,
        aggregation="token",
        clip_high=0.28,
        drop_zero_variance=True,
        resample_rounds=9,
        overlong_share=0.2,
    ),
    # arXiv 2507.18071, section 5.1.
    "gspo": dataclasses.replace(_PUBLISHED, ratio="sequence", clip_low=3e-4, clip_high=4e-4),
}
"""The published algorithms as fields; `dataclasses.replace` changes some of them."""


def variant(name: str) -> GRPOConfig:
    """The published algorithm of that name. Raises ConfigError if there is none."""
    if name not in VARIANTS:
        raise ConfigError(
            f"unknown variant {name!r} of GRPO: expected one of {', '.join(VARIANTS)}"
        )
    return VARIANTS[name]


class StepRewards(NamedTuple):
    """What a process reward model says about one answer.

    Attributes:
      ends: exclusive token ends of the answer's S steps, ascending; what follows the last, such as
        the end token, belongs to no step.
      rewards: of each step.
    """

    ends: tuple[int, ...]
    rewards: tuple[float, ...]


class Advantages(NamedTuple):
    """What a step's answers are worth, group by group.

    Attributes:
      tokens: for each answer [length] float64, the advantage of each of its tokens.
      kept: for each answer, whether its group takes part in the loss.
      flat: for each group, whether the advantages of its answers are all zero.
    """

    tokens: list[np.ndarray]
    kept: list[bool]
    flat: list[bool]


def group_advantages(rewards: np.ndarray, std: bool) -> np.ndarray:
    """Rewards `[..., G]` less their group's mean, divided by its standard deviation if `std`.

    GRPO (arXiv 2402.03300, section 4.1.2); without the division Dr. GRPO (arXiv 2503.20783). The
    standard deviation is that of the group itself (divisor G). A group whose rewards are all the
    same has advantages of exactly zero.
    """
    rewards = np.asarray(rewards, np.float64)
    centred = rewards - rewards.mean(axis=-1, keepdims=True)
    # Not by the standard deviation, which rounding makes a little more than zero.
    same = np.ptp(rewards, axis=-1, keepdims=True) == 0
    if std:
        centred = centred / np.where(same, 1.0, rewards.std(axis=-1, keepdims=True))
    return np.where(same, 0.0, centred)


def overlong_penalty(lengths: np.ndarray, max_tokens: int, share: float) -> np.ndarray:
    """What is added to the rewards of long answers, in [-1, 0] (DAPO, arXiv 2503.14476, eq. 13).

    Nothing up to (1 - share) * max_tokens tokens, then falling linearly to -1 at max_tokens.
    """
    lengths = np.asarray(lengths, np.float64)
    if share == 0:
        return np.zeros_like(lengths)
    buffer = share * max_tokens
    return -np.clip((lengths - (max_tokens - buffer)) / buffer, 0.0, 1.0)


def step_values(rewards: Sequence[float]) -> np.ndarray:
    """[S] the value of each step: the least reward of it and all later steps.

    Min-form credit assignment (PURE, arXiv 2504.15275, section 3): the sum of future rewards, the
    usual value, is raised by every further step that is not bad, and training on it collapses.
    """
    return np.minimum.accumulate(np.asarray(rewards, np.float64)[::-1])[::-1]


def group_step_advantages(group: Sequence[Sequence[float]], std: bool) -> list[np.ndarray]:
    """For each answer of a group [S] its steps' values, normalised over all steps of the group.

    Mean and standard deviation are over the steps of all answers, as in GRPO with process rewards
    (arXiv 2402.03300, section 4.1.3). An answer without any step counts as one step of value 0.
    """
    values = [step_values(rewards) if len(rewards) else np.zeros(1) for rewards in group]
    normed = group_advantages(np.concatenate(values), std)
    return np.split(normed, np.cumsum([len(value) for value in values])[:-1])


def on_tokens(values: np.ndarray, ends: Sequence[int], length: int) -> np.ndarray:
    """[length] each token's share of `values` [S]: that of its step.

    Tokens behind the last step, as the end token, have that of the last step: they close it.
    """
    ends = [*ends[:-1], length]
    return np.repeat(values, np.diff(ends, prepend=0))


def advantages(
    config: GRPOConfig,
    outcomes: np.ndarray,
    lengths: Sequence[int],
    max_tokens: int,
    steps: Sequence[StepRewards] | None = None,
) -> Advantages:
    """outcome_weight * norm(outcome) + process_weight * norm(min-form credit), for every token.

    Args:
      config: the weights and how to normalise.
      outcomes: [P, G] rewards of P groups of G answers.
      lengths: P * G numbers of tokens, group by group.
      max_tokens: most tokens of an answer.
      steps: P * G process rewards, where they count.

    Raises:
      DataError: a reward is not finite, or steps and answers do not fit together.
    """
    outcomes = np.asarray(outcomes, np.float64)
    groups, size = outcomes.shape
    if not np.isfinite(outcomes).all():
        raise DataError(f"a reward of an answer is not finite: {outcomes[~np.isfinite(outcomes)]}")
    lengths = np.asarray(lengths).reshape(groups, size)
    punished = outcomes + overlong_penalty(lengths, max_tokens, config.overlong_share)
    whole = config.outcome_weight * group_advantages(punished, config.std)
    tokens = [np.full(n, a) for n, a in zip(lengths.flat, whole.flat, strict=True)]
    if config.process_weight:
        if steps is None or len(steps) != len(tokens):
            raise DataError(f"expected process rewards of {len(tokens)} answers")
        for g in range(groups):
            members = range(g * size, (g + 1) * size)
            for i in members:
                _check_steps(steps[i], len(tokens[i]), i)
            rewards = [steps[i].rewards for i in members]
            for i, values in zip(members, group_step_advantages(rewards, config.std), strict=True):
                ends = steps[i].ends or (len(tokens[i]),)
                tokens[i] += config.process_weight * on_tokens(values, ends, len(tokens[i]))
    flat = [not any(a.any() for a in tokens[g * size : (g + 1) * size]) for g in range(groups)]
    dropped = [config.drop_zero_variance and flat[i // size] for i in range(len(tokens))]
    return Advantages(tokens, [not one for one in dropped], flat)


def token_shares(
    aggregation: Literal["token", "sequence", "constant"],
    lengths: Sequence[int],
    kept: Sequence[bool],
    max_tokens: int,
) -> list[float]:
    """What one token of each answer weighs in the loss; 0 in answers that are not kept.

    The denominators are those of the whole step, so that losses of parts of it can be added up.
    They sum to one but for "constant", where they do so only if every answer has max_tokens.
    """
    number = max(sum(kept), 1)
    total = max(sum(n for n, keep in zip(lengths, kept, strict=True) if keep), 1)
    each = {
        "token": lambda n: 1 / total,
        "sequence": lambda n: 1 / (number * n),
        "constant": lambda n: 1 / (number * max_tokens),
    }[aggregation]
    return [each(n) if keep else 0.0 for n, keep in zip(lengths, kept, strict=True)]


def _check_steps(steps: StepRewards, length: int, answer: int) -> None:
    ends, rewards = steps
    ascending = all(a < b for a, b in zip((0, *ends), (*ends, length + 1), strict=True))
    if len(ends) != len(rewards) or not ascending or not np.isfinite(rewards).all():
        raise DataError(
            f"answer {answer} of {length} tokens has process rewards {list(rewards)} of steps that "
            f"end at {list(ends)}: expected one finite reward a step, and ends that ascend to at "
            f"most {length}"
        )
