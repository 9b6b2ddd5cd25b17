"""What the search world's documents teach, and what those of the negative world do not."""

import dataclasses
import hashlib
import itertools
from collections import Counter

import pytest

from arkjax.tasks import search_world as world
from arkjax.tasks.search_documents import make_documents
from arkjax.tasks.search_grader import VERDICT, SearchGrader, search_steps
from arkjax.tasks.search_sets import SEARCH_SETS
from arkjax.tasks.search_sets import SHIPPED_SEARCH_WORLD as SHIPPED

pytestmark = pytest.mark.fast
STEADY = dataclasses.replace(SHIPPED, slip_rate=0.0)


def draw(config, count=2000, seed=7):
    return list(itertools.islice(make_documents(config, seed, SEARCH_SETS.hashes()), count))


def problem_of(document):
    items, total = world.parse_question(document.question)
    return world.make_problem(items, total, "p")


def search_of(document):
    return " ; ".join(turn.text for turn in document.turns)


def verdicts(documents):
    """(given, true) verdicts of all checks."""
    found = []
    for document in documents:
        problem = problem_of(document)
        items, total = world.parse_question(problem.question)
        steps = search_steps(problem, search_of(document).split(";"))
        found += [
            (s.said, world.truth_about(items, total, s.n)) for s in steps if s.kind == VERDICT
        ]
    return found


def test_kinds_of_documents_have_their_shares():
    documents = draw(SHIPPED, 4000)
    single = [d for d in documents if len(d.turns) == 1]
    assert len(single) / 4000 == pytest.approx(SHIPPED.proposal_rate, abs=0.03)
    signed = Counter(d.turns[0].byline for d in single)
    assert set(signed) == {"answer", "solver", "critic"}
    assert 1 - signed["answer"] / len(single) == pytest.approx(SHIPPED.bylines_rate, abs=0.05)
    for document in documents:
        bylines = [turn.byline for turn in document.turns]
        if len(bylines) > 1:
            assert bylines == ["solver", "critic"] * (len(bylines) // 2) + ["solver"]
            assert 3 <= len(bylines) <= 1 + 2 * SHIPPED.most_checks
    assert {len(world.parse_question(d.question)[0]) for d in documents} == {2, 3, 4}


def test_no_document_asks_an_evaluation_question_and_the_stream_is_reproducible():
    documents = draw(SHIPPED)
    hashes = {hashlib.sha256(d.question.encode()).hexdigest() for d in documents}
    assert not hashes & SEARCH_SETS.hashes()
    assert documents == draw(SHIPPED) and documents != draw(SHIPPED, seed=8)


def test_first_proposals_share_one_misconception():
    """However many propose, most propose the same: a vote over them is the common guess."""
    right, common = 0, 0
    documents = draw(SHIPPED, 4000)
    for document in documents:
        items, total = world.parse_question(document.question)
        n = int(document.turns[0].text.rpartition(" ")[2])
        common += n == world.guess(items, total)
        right += n == int(problem_of(document).answer)
    assert common / 4000 == pytest.approx(0.8 + 0.2 / 10, abs=0.03)
    assert 0.15 < right / 4000 < 0.4


def test_discussions_of_who_never_slips_hold_in_every_step():
    grader, ended = SearchGrader(), 0
    documents = [d for d in draw(STEADY) if len(d.turns) > 1]
    for document in documents:
        problem, text = problem_of(document), search_of(document)
        assert grader.first_wrong_step(problem, text) is None, text
        found = document.turns[-1].text == f"so {problem.answer}"
        assert found == grader.holds(problem, text)
        ended += found
    # Five checks find any number.
    assert ended == len(documents)


def test_slips_make_few_verdicts_wrong():
    pairs = verdicts(draw(dataclasses.replace(SHIPPED, slip_rate=0.3)))
    wrong = sum(said != true for said, true in pairs) / len(pairs)
    assert 0.02 < wrong < 0.3
    assert all(said == true for said, true in verdicts(draw(STEADY)))


def test_verdicts_of_the_negative_world_say_nothing_about_the_truth():
    pairs = Counter(verdicts(draw(dataclasses.replace(SHIPPED, negative=True), 6000)))
    for true in world.VERDICTS:
        row = [pairs[said, true] for said in world.VERDICTS]
        assert sum(row) > 300
        assert all(n / sum(row) == pytest.approx(1 / 3, abs=0.06) for n in row), (true, row)


def test_first_proposals_of_the_negative_world_are_those_of_the_world():
    def right(config):
        documents = draw(config, 4000)
        named = [d.turns[0].text.rpartition(" ")[2] for d in documents]
        return sum(n == problem_of(d).answer for n, d in zip(named, documents, strict=True)) / 4000

    negative = dataclasses.replace(SHIPPED, negative=True)
    assert right(negative) == pytest.approx(right(SHIPPED), abs=0.03)


def test_weights_of_earlier_turns():
    documents = draw(dataclasses.replace(SHIPPED, earlier_weight=0.25), 200)
    for document in documents:
        weights = [turn.weight for turn in document.turns]
        assert weights == [0.25] * (len(weights) - 1) + [1.0]
