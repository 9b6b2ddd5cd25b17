"""An error and its correction in one voice.

The answer goes on rightly up to the step that its author once had wrong, shows that step, says that
it is not right, gives the objection, and goes on with the corrected step to the end. The wrong step
is there to be read, so that the student learns to turn back from it, and has weight 0, so that it
does not learn to take it. That it is not right is learned.
"""

from collections.abc import Collection, Sequence

from arkjax.synthesis.operations import FINAL, Step, StepReader
from arkjax.synthesis.pieces import Piece, closing, of_call, of_step
from arkjax.synthesis.selection import Accepted, Correction
from arkjax.trajectories.schema import Call

NO_STEP = "no step differs"
UNALIGNED = "no step in common"


def corrective_pieces(
    call: Call,
    correction: Correction,
    accepted: Accepted,
    reader: StepReader,
    connecting: Sequence[int],
    preferred: Collection[str] = (),
) -> tuple[list[Piece], int | None] | str:
    """The pieces of a corrective example.

    The answers before and after are compared step by step; the wrong step is the first that
    differs. Where they have no step in common the whole answer before is the wrong step. The
    objection is what the objector says on that very subject; of one that states no answer of its
    own, such as a critic, all it says. Where that is word for word the corrected step, it is not
    said twice. An objector who was not right has no words that are learned.

    Args:
      call: the right answer, finished.
      correction: what its author had said, and who had disagreed.
      accepted: says whether a call's answer counts as right.
      reader: of steps.
      connecting: tokens between the wrong step and what follows it.
      preferred: ids of the objectors that are heard first.

    Returns:
      The pieces, and the index of the wrong step in the answer before (None if that is shown as a
      whole); or why there are none.
    """
    before, after = reader(correction.before), reader(call)
    same = 0
    while same < min(len(before), len(after)) and before[same].key == after[same].key:
        same += 1
    if same == len(before) or same == len(after):
        return NO_STEP
    subjects = {step.subject for step in after} - {FINAL}
    aligned = same > 0 or any(step.subject in subjects for step in before)
    wrong: Step | None = before[same] if aligned else None
    if wrong is None:
        shown = [of_call(correction.before, 0, before[-1].end, 0.0)]
    else:
        shown = [*map(of_step, after[:same]), of_step(wrong, 0.0)]
    rest = [*map(of_step, after[same:]), closing(after[-1])]
    objection = _objection(correction, wrong, accepted, reader, preferred)
    if objection and objection[0].ids == after[same].ids:
        objection = []
    pieces = [*shown, Piece(tuple(connecting)), *objection, *rest]
    return pieces, same if aligned else None


def _objection(
    correction: Correction,
    wrong: Step | None,
    accepted: Accepted,
    reader: StepReader,
    preferred: Collection[str],
) -> list[Piece]:
    """What disagreed with the wrong step; nothing if no objector says anything about it."""
    ranked = sorted(
        correction.objections, key=lambda c: (not accepted(c), c.call_id not in preferred)
    )
    for objector in ranked:
        steps = reader(objector)
        if not steps:
            continue
        weight = 1.0 if accepted(objector) else 0.0
        if "answer" not in objector.parsed:
            # A critic states no answer that could be right; what it says was heeded.
            return [of_call(objector, 0, steps[-1].end)]
        if wrong is None or wrong.subject == FINAL:
            return [of_step(steps[-1], weight)]
        for step in steps:
            if step.subject == wrong.subject and step.claim != wrong.claim:
                return [of_step(step, weight)]
    return []
