"""The traces of a whole record at once."""

from arkjax.synthesis.counts import Counts
from arkjax.synthesis.selection import Trace, choose, grouped


def select(
    calls, team_answers, grader, config, attribution=None, reader=None, embed=None
) -> tuple[list[Trace], Counts]:
    """All that `choose` yields, and what it counted."""
    counts = Counts()
    chosen = choose(
        grouped(calls), team_answers, grader, config, counts, attribution, reader, embed
    )
    return [trace for of_problem in chosen for trace in of_problem.traces], counts
