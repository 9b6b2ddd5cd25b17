"""What an answer's own steps tell of its reasoning, where a task can check them exactly."""

from collections.abc import Iterator
from typing import NamedTuple

from arkjax.synthesis.steps import step_texts
from arkjax.tasks.problems import Grader, StepChecker, StepGrader
from arkjax.teams.debate import Debate
from arkjax.trajectories.schema import Call


class Figure(NamedTuple):
    """One measure of one answer.

    Attributes:
      measure: its name; see `arkjax.evaluation.measures.MEANINGS`.
      value: what was measured.
      weight: how much it counts where answers are put together; a share of steps counts by steps.
    """

    measure: str
    value: float
    weight: float


def final_call(debate: Debate, grader: Grader) -> Call | None:
    """The call that states what a debate came to: the first to do so in the last round that does.

    Where no call states the answer, or there is none, the last call. None if nobody spoke.
    """
    spoken = [call for call in debate.calls if not call.is_action]
    for last in sorted({call.round for call in spoken}, reverse=True):
        for call in spoken:
            said = call.parsed.get("answer") if call.round == last else None
            if said is not None and debate.answer is not None and grader.equal(said, debate.answer):
                return call
    return spoken[-1] if spoken else None


def proxies(debate: Debate, grader: Grader) -> Iterator[Figure]:
    """The figures of what a system answered to one problem.

    Steps are those of the final answer alone; a grader that reads none gives no figure of them.
    """
    corrected = _opening_corrected(debate)
    if corrected is not None:
        yield Figure("wrong_openings_corrected", corrected, 1.0)
    final = final_call(debate, grader)
    if final is None or not isinstance(grader, StepGrader):
        return
    problem, right = debate.problem, debate.correct
    yield Figure("sound_answers", float(grader.holds(problem, final.text)), 1.0)
    steps = step_texts(final.text)
    if not steps:
        return
    verdicts = grader.right_steps(problem, steps)
    yield Figure("right_steps", sum(verdicts) / len(steps), len(steps))
    if isinstance(grader, StepChecker):
        follows = grader.consistent_steps(problem, steps)
        yield Figure("steps_verified", sum(follows) / len(steps), len(steps))
    first = next((i for i, verdict in enumerate(verdicts) if not verdict), None)
    if first is not None and not right:
        yield Figure("first_wrong_step", first + 1.0, 1.0)
    if not all(verdicts[:-1]):
        yield Figure("wrong_starts_corrected", float(right), 1.0)


def _opening_corrected(debate: Debate) -> float | None:
    """Whether talk mended an opening of which at least half was wrong; None if there was none."""
    stated = [c for c in debate.calls if not c.is_action and c.correct is not None]
    rounds = {call.round for call in stated}
    if len(rounds) < 2:
        return None
    opening = [call for call in stated if call.round == min(rounds)]
    if 2 * sum(bool(call.correct) for call in opening) > len(opening):
        return None
    return float(debate.correct)
