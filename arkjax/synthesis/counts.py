"""How many problems and calls each filter kept and dropped."""

import collections
import dataclasses


@dataclasses.dataclass
class Passed:
    """What one filter did.

    Attributes:
      problems: problems of which a call came to it; `problems_dropped` came out with none.
      calls: calls that came to it; `calls_dropped` did not come out.
    """

    problems: int = 0
    problems_dropped: int = 0
    calls: int = 0
    calls_dropped: int = 0


@dataclasses.dataclass
class Counts:
    """What the filters of one selection did.

    Attributes:
      problems: problems looked at; `problems_kept` gave at least one trace.
      too_few_agreeing: problems dropped for too few agreeing calls.
      calls: calls looked at; `calls_accepted` passed the gate.
      unfinished: calls dropped because they ran into their token limit.
      repeated: accepted calls whose words stood there already.
      beyond_limit: accepted, distinct calls beyond `max_traces`.
      corrective: traces kept that correct an earlier error; `traces` counts all kept.
      sampled_tokens: tokens generated for all calls looked at: the sampling budget. Calls that were
        encoded anew count with the student's tokens.
      near_duplicates: traces dropped since they say nearly what another says.
      beyond_difficulty: traces dropped with problems beyond `max_per_difficulty`.
      examples: training examples made, if any were.
      forms: how many examples were made in the form asked for ("made"), how many traces took their
        place as they were ("fell_back"), and why a form could not be had, problem by problem.
      filters: all filters in the order in which they are passed.
    """

    problems: int = 0
    problems_kept: int = 0
    too_few_agreeing: int = 0
    calls: int = 0
    calls_accepted: int = 0
    unfinished: int = 0
    repeated: int = 0
    beyond_limit: int = 0
    corrective: int = 0
    traces: int = 0
    sampled_tokens: int = 0
    near_duplicates: int = 0
    beyond_difficulty: int = 0
    examples: int = 0
    forms: dict[str, int] = dataclasses.field(default_factory=dict)
    filters: dict[str, Passed] = dataclasses.field(default_factory=dict)

    def passed(self, name: str, came: int, kept: int) -> None:
        """Count that of `came` calls of one problem a filter kept `kept`."""
        entry = self.filters.setdefault(name, Passed())
        entry.problems += came > 0
        entry.problems_dropped += came > 0 and kept == 0
        entry.calls += came
        entry.calls_dropped += came - kept

    def form(self, name: str, times: int = 1) -> None:
        """Count what became of a problem's form."""
        if times:
            self.forms[name] = self.forms.get(name, 0) + times

    def passed_all(self, name: str, came: list[str], kept: list[str]) -> None:
        """Count what a filter over all problems did, given the problem of each call."""
        before, after = collections.Counter(came), collections.Counter(kept)
        for problem in before:
            self.passed(name, before[problem], after[problem])
