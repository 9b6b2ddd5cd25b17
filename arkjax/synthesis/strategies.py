"""Students by name: in which phases they are trained, from whose calls, with which loss."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Literal

from arkjax.errors import ConfigError
from arkjax.synthesis.selection import Form, Gate, SelectionConfig

Source = Literal["team", "single_agent", "roles"]
Learns = Literal["sequence", "logit", "sequence+logit", "on_policy", "pad", "grpo"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Which examples a phase learns from; phases that share its name share the examples.

    Attributes:
      name: of the examples.
      source: whose calls are read: the team's debates; samples of the single agent; samples of the
        team's roles without communication. All three have the same sampling budget.
      gate: see `SelectionConfig.gate`.
      one_trace: RSFT's single trace a problem (AgentArk eq. 1) instead of DA's several diverse ones
        (eq. 2).
      form: see `SelectionConfig.form`; None takes the run's.
    """

    name: str
    source: Source = "team"
    gate: Gate = "gold"
    one_trace: bool = False
    form: Form | None = None

    def selection(self, config: SelectionConfig) -> SelectionConfig:
        """The filters of these examples, given those of the run."""
        return dataclasses.replace(
            config,
            gate=self.gate,
            max_traces=1 if self.one_trace else config.max_traces,
            form=self.form or config.form,
        )


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training of a student, from the weights that the phase before it ended with.

    Attributes:
      name: of the phase.
      learns: "sequence" the examples' words; "logit" the team's distributions over them;
        "sequence+logit" both; "on_policy" the team's distributions over the student's own words as
        well (GKD, arXiv 2306.13649); "pad" from a process reward model by GRPO (AgentArk, PAD);
        "grpo" from the outcome alone, PAD's control.
      dataset: the examples; None for "pad" and "grpo", which answer all training problems anew.
    """

    name: str
    learns: Learns
    dataset: Dataset | None

    @property
    def needs_tape(self) -> bool:
        """Whether the team's distributions over its examples are learned."""
        return self.learns in ("logit", "sequence+logit")

    @property
    def needs_teacher(self) -> bool:
        """Whether any distribution of the team is learned."""
        return self.needs_tape or self.learns == "on_policy"


_DA = Dataset("da")
_PHASES: tuple[Phase, ...] = (
    Phase("rsft", "sequence", Dataset("rsft", one_trace=True)),
    Phase("rsft_unverified", "sequence", Dataset("rsft_unverified", gate="team", one_trace=True)),
    Phase("da", "sequence", _DA),
    Phase("da_unverified", "sequence", Dataset("da_unverified", gate="team")),
    Phase("corrective", "sequence", Dataset("corrective", form="corrective")),
    Phase("consolidated", "sequence", Dataset("consolidated", form="consolidated")),
    Phase("synthesizer", "sequence", Dataset("synthesizer", form="synthesizer")),
    Phase("deliberation", "sequence", Dataset("deliberation", form="deliberation")),
    Phase(
        "deliberation_unverified",
        "sequence",
        Dataset("deliberation_unverified", gate="team", form="deliberation"),
    ),
    Phase("logit", "logit", _DA),
    Phase("sequence+logit", "sequence+logit", _DA),
    Phase("on_policy", "on_policy", _DA),
    Phase("pad", "pad", None),
    Phase("grpo", "grpo", None),
    Phase("answer_only", "sequence", Dataset("answer_only", form="answer_only")),
    Phase("single_agent", "sequence", Dataset("control_single_agent", "single_agent")),
    Phase("no_debate", "sequence", Dataset("control_no_debate", "roles")),
)
PHASES: dict[str, Phase] = {phase.name: phase for phase in _PHASES}
"""Every phase by the name that `config.student.strategy` has for it."""

# What they learn has no debate in it, or nothing of it but the answer.
CONTROLS = ("answer_only", "single_agent", "no_debate")
_STUDENT, _CONTROL, _THEN = "student_", "control_", "_then_"


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How one student is made.

    Attributes:
      phases: its trainings in order; the first begins with the base model.
    """

    phases: tuple[Phase, ...]

    @property
    def student(self) -> str:
        """The student's name: "student_rsft_then_da", "control_no_debate"."""
        names = _THEN.join(phase.name for phase in self.phases)
        return (_CONTROL if names in CONTROLS else _STUDENT) + names

    @property
    def before(self) -> "Strategy | None":
        """The strategy of the student that the last phase begins with; None for the base model."""
        return Strategy(self.phases[:-1]) if len(self.phases) > 1 else None

    @property
    def last(self) -> Phase:
        """The last phase."""
        return self.phases[-1]


def stack(names: Sequence[str]) -> Strategy:
    """The strategy of phases in order, as `config.student.strategy` gives them.

    Raises:
      ConfigError: if there is no phase of such a name, or none at all.
    """
    for name in names:
        if name not in PHASES:
            where = f"student.strategy: unknown strategy {name!r}"
            parts = re.split(rf"{_THEN}|[,\s]+", name.removeprefix(_STUDENT))
            if name not in parts and all(part in PHASES for part in parts):
                phases = repr(parts[0] if len(parts) == 1 else tuple(parts))
                raise ConfigError(f"{where}: write {phases}, its phases in order")
            raise ConfigError(where + _near(name, list(PHASES)))
    if not names:
        raise ConfigError(
            f"student.strategy: a student needs at least one phase: there are {', '.join(PHASES)}"
        )
    return Strategy(tuple(PHASES[name] for name in names))


def strategy(name: str) -> Strategy:
    """The strategy of a student: `student_` and its phases, joined by `_then_`; or a control.

    Raises:
      ConfigError: if no student can have that name.
    """
    prefix = next((p for p in (_STUDENT, _CONTROL) if name.startswith(p)), "")
    phases = name.removeprefix(prefix).split(_THEN)
    if prefix and all(phase in PHASES for phase in phases):
        made = stack(phases)
        if made.student == name:
            return made
    single = [Strategy((phase,)).student for phase in _PHASES]
    near = [difflib.get_close_matches(phase, list(PHASES), 1) for phase in phases]
    stacks = [_STUDENT + _THEN.join(one for [one] in near)] if all(near) else []
    raise ConfigError(f"students: unknown student {name!r}" + _near(name, single, stacks))


def with_prefixes(students: Sequence[str]) -> dict[str, Strategy]:
    """Strategies by student, with every student that a later phase of another begins with.

    In an order in which each comes after the one that it begins with; those that are asked for
    keep theirs as far as that allows.
    """
    ordered: dict[str, Strategy] = {}
    for name in students:
        made = strategy(name)
        for count in range(1, len(made.phases) + 1):
            of_prefix = Strategy(made.phases[:count])
            ordered.setdefault(of_prefix.student, of_prefix)
    return ordered


def _near(name: str, names: Sequence[str], further: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(name, [*further, *names], 1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"{hint} There are {', '.join(names)}"
