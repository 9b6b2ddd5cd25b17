"""What the student is asked to minimise, as data: hard labels, divergences, their weights."""

import dataclasses
import math
from typing import NamedTuple

from arkjax.errors import ConfigError

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "adaptive_kl", "tvd")


class Term(NamedTuple):
    """One of the divergences that are added up, and its share."""

    weight: float
    name: str


@dataclasses.dataclass(frozen=True)
class Objective:
    """Per-token loss `cross_entropy * CE(labels) + weight * D(teacher, student)`.

    Attributes:
      cross_entropy: weight of the hard-label cross-entropy (always at temperature 1).
      divergence: D, one of `DIVERGENCES` or a weighted sum of several, such as
        "0.7*forward_kl + 0.3*jsd", which costs one pass like each of them alone; `none` needs no
        teacher.
      weight: weight of D.
      kd_temperature: divides both logits inside D; never the sampler's temperature.
      beta: the mixing weight of `jsd`, M = beta p + (1 - beta) q.
      alpha: the mixing weight of `skew_kl` and `skew_rkl`.
      scale_by_temperature_squared: multiply D by kd_temperature^2, which keeps its gradient's scale
        when the temperature changes (Hinton et al. 1503.02531, section 2).
      normalize: divide `jsd` by beta (1 - beta): its scale otherwise goes to zero at both ends.
      token_clip: tokens where D exceeds this count as this much and push no further; None: off.

    Raises:
      ConfigError: a field is outside its range, or nothing would be minimised.
    """

    cross_entropy: float = 1.0
    divergence: str = "none"
    weight: float = 1.0
    kd_temperature: float = 1.0
    beta: float = 0.5
    alpha: float = 0.1
    scale_by_temperature_squared: bool = False
    normalize: bool = False
    token_clip: float | None = None

    def __post_init__(self):
        _parse(self.divergence)
        for name in ("cross_entropy", "weight"):
            _require(name, getattr(self, name), 0.0, math.inf, includes_low=True)
        _require("kd_temperature", self.kd_temperature, 0.0, math.inf)
        _require("beta", self.beta, 0.0, 1.0)
        _require("alpha", self.alpha, 0.0, 1.0)
        if self.token_clip is not None:
            _require("token_clip", self.token_clip, 0.0, math.inf)
        if self.cross_entropy == 0 and not self.needs_teacher:
            raise ConfigError(
                "objective has nothing to minimise: give objective.cross_entropy > 0, "
                "or objective.divergence with objective.weight > 0"
            )

    @property
    def terms(self) -> tuple[Term, ...]:
        """The divergences that D adds up, each name once, as they stand there; () for `none`."""
        return _parse(self.divergence)

    @property
    def needs_teacher(self) -> bool:
        """Whether the divergence takes part, so that a teacher must be given."""
        return self.divergence != "none" and self.weight > 0


def _parse(text: str) -> tuple[Term, ...]:
    """`terms` of the text: "none", or names with "+" between them and "NUMBER*" before them."""
    if not isinstance(text, str):
        raise ConfigError(f"objective.divergence is {text!r}; expected a text, such as 'jsd'")
    if text.strip() == "none":
        return ()
    terms: list[Term] = []
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        if name not in DIVERGENCES:
            raise ConfigError(
                f"objective.divergence is {text!r}, with {name!r} where a name should be; expected "
                f"none, one of {', '.join(DIVERGENCES)}, or a sum such as "
                "'0.7*forward_kl + 0.3*jsd'"
            )
        try:
            weight = float(factor) if star else 1.0
        except ValueError:
            weight = math.nan
        if not 0.0 < weight < math.inf:
            raise ConfigError(
                f"objective.divergence is {text!r}, with {factor.strip()!r} before {name}; "
                "expected a positive number (leave a term out to switch it off)"
            )
        if any(name == term.name for term in terms):
            raise ConfigError(f"objective.divergence is {text!r}; it names {name} twice")
        terms.append(Term(weight, name))
    return tuple(terms)


def _require(name: str, value: float, low: float, high: float, includes_low: bool = False) -> None:
    above = value >= low if includes_low else value > low
    if not (above and value < high):
        bracket = "[" if includes_low else "("
        raise ConfigError(f"objective.{name} is {value}; expected in {bracket}{low:g}, {high:g})")
