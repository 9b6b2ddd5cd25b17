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
    objection is the step in which an objector who was right makes the corrected claim; of one that
    states no answer of its own, such as a critic, all it says. Where it is the corrected step, to
    the word or in a task whose steps have a form of their own, it is not said twice. Who was not
    right either is not quoted.

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
    objection = _objection(correction, after[same], accepted, reader, preferred)
    pieces = [*shown, Piece(tuple(connecting)), *objection, *rest]
    return pieces, same if aligned else None


def _objection(
    correction: Correction,
    corrected: Step,
    accepted: Accepted,
    reader: StepReader,
    preferred: Collection[str],
) -> list[Piece]:
    """What disagreed with the wrong step; nothing if nobody has anything to add."""
    for objector in sorted(correction.objections, key=lambda c: c.call_id not in preferred):
        steps = reader(objector)
        if not steps:
            continue
        if "answer" not in objector.parsed and objector.parse_ok:
            # Nobody asked a critic for an answer that could be right; what it says was heeded.
            return [of_call(objector, 0, steps[-1].end)]
        if not accepted(objector):
            continue
        said = next((step for step in steps if step.key == corrected.key), None)
        if said is not None:
            again = said.ids == corrected.ids or reader.read is not None
            return [] if again else [of_step(said)]
    return []
