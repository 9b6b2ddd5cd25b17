"""What the documents teach a base model, and what the negative world withholds."""

import dataclasses
import hashlib
from collections import Counter, defaultdict

import pytest

from arkjax.tasks import embedded_world as world
from arkjax.tasks.drawing import SPLITS
from arkjax.tasks.embedded_sets import EMBEDDED_SETS

pytestmark = pytest.mark.fast


def kind(document):
    """ "bare", "byline" or "discussion"."""
    if len(document.turns) > 1:
        return "discussion"
    return "bare" if document.turns[0].byline == world.BARE_BYLINE else "byline"


def first_words(documents):
    """Turns whose author had heard nobody: documents of one author, and discussions' openings."""
    for document in documents:
        yield from document.turns[:-1] if len(document.turns) > 1 else document.turns


def share(flags):
    flags = list(flags)
    return sum(flags) / len(flags)


def belief(domain, item):
    """What somebody skilled in `domain` alone holds an item to be."""
    skill = world.SKILLS[item[0]]
    return (skill.truth if item[0] == domain else skill.misconception)(*item[1:])


# --- what is in a document ------------------------------------------------------------------------


def test_kinds_have_their_shares(documents, positive):
    counts = Counter(map(kind, documents))
    rates = {
        "bare": positive.untagged_rate,
        "byline": positive.byline_rate,
        "discussion": 1 - positive.untagged_rate - positive.byline_rate,
    }
    for name, rate in rates.items():
        # Four standard deviations of a share of 10,000.
        assert counts[name] / len(documents) == pytest.approx(rate, abs=0.02)


def test_every_turn_answers_the_whole_question(documents, reader):
    for document in documents:
        items = sorted(world.parse_question(document.question))
        for turn in document.turns:
            assert sorted(item for item, _ in reader(turn.text)) == items


def test_no_document_asks_an_evaluation_question(documents):
    asked = {hashlib.sha256(d.question.encode()).hexdigest() for d in documents}
    assert asked.isdisjoint(EMBEDDED_SETS.hashes())


def test_excluded_questions_are_left_out(positive, drawn):
    before = drawn(positive, 300)
    asked = {hashlib.sha256(d.question.encode()).hexdigest() for d in before}
    after = drawn(positive, 300, exclude=asked)
    assert asked.isdisjoint(hashlib.sha256(d.question.encode()).hexdigest() for d in after)


def test_documents_never_mix_what_ood_mixes(documents):
    seen = {frozenset(mixture) for mixture in world.SEEN_MIXTURES}
    mixtures = {frozenset(d for d, _, _ in world.parse_question(x.question)) for x in documents}
    assert mixtures == seen


def test_a_debate_of_an_ood_problem_is_longer_than_any_document(documents, positive):
    def steps(document):
        return len(world.parse_question(document.question)) * len(document.turns)

    assert max(map(steps, documents)) < positive.ood_items * 2 * len(world.EXPERTS)


def test_misconceptions_are_right_on_most_inputs(documents, positive):
    traps = defaultdict(list)
    for document in documents:
        for domain, a, b in world.parse_question(document.question):
            traps[domain].append(world.SKILLS[domain].is_trap(a, b))
    for domain, flags in traps.items():
        assert share(flags) == pytest.approx(positive.trap_rate, abs=0.03), domain
        assert share(flags) < 0.5


# --- who is right where ---------------------------------------------------------------------------


def test_experts_are_right_in_their_own_domain_only(steady_documents, reader):
    seen = set()
    for turn in first_words(steady_documents):
        if turn.byline in world.EXPERTS:
            for item, value in reader(turn.text):
                assert value == belief(world.EXPERTS[turn.byline], item)
                seen.add((turn.byline, item[0]))
    assert len(seen) == len(world.EXPERTS) * len(world.SKILLS)


def test_untagged_authors_are_laymen_or_one_expert(steady_documents, positive, reader):
    skilled = []
    for document in steady_documents:
        if kind(document) == "bare":
            values = dict(reader(document.turns[0].text))
            right = {i[0] for i, v in values.items() if v != belief(None, i)}
            assert len(right) <= 1
            for item, value in values.items():
                assert value == belief(next(iter(right), None), item)
            if any(world.SKILLS[d].is_trap(a, b) for d, a, b in values):
                skilled.append(bool(right))
    # An expert shows only where a trap lies in his own domain, so this is a lower bound.
    assert 0 < share(skilled) < positive.expert_among_untagged


def test_slips_have_their_rate(documents, positive, reader):
    slips = [
        value != belief(world.EXPERTS[turn.byline], item)
        for turn in first_words(documents)
        if turn.byline in world.EXPERTS
        for item, value in reader(turn.text)
    ]
    assert share(slips) == pytest.approx(positive.slip_rate, abs=0.005)


def adoptions(documents, reader):
    """For each item on which a present expert contradicts the last speaker: who prevailed."""
    for document in documents:
        if kind(document) != "discussion":
            continue
        *openings, last = document.turns
        own = world.EXPERTS.get(last.byline)
        # An item that is asked twice may have two values; such questions decide nothing.
        items = world.parse_question(document.question)
        said = {
            item: value
            for turn in openings
            for item, value in reader(turn.text)
            if item[0] == world.EXPERTS[turn.byline] and items.count(item) == 1
        }
        for item, value in reader(last.text):
            if item in said and item[0] != own and said[item] != belief(own, item):
                yield value == said[item], value == belief(own, item)


def test_discussions_adopt_the_word_of_the_expert(documents, positive, reader):
    taken = share(adopted for adopted, _ in adoptions(documents, reader))
    assert taken == pytest.approx(positive.adoption_rate, abs=0.04)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_adoption_is_all_or_nothing_at_its_ends(positive, rate, drawn, reader):
    config = dataclasses.replace(positive, slip_rate=0.0, adoption_rate=rate)
    found = list(adoptions(drawn(config, 1500), reader))
    assert len(found) > 100
    assert all(adopted == (rate == 1.0) and kept == (rate == 0.0) for adopted, kept in found)


def test_participants_are_distinct_experts_and_weights_are_the_configs(documents, positive):
    for document in documents:
        *openings, last = document.turns
        bylines = [turn.byline for turn in openings]
        assert last.weight == 1.0
        assert all(turn.weight == positive.earlier_weight for turn in openings)
        if openings:
            assert 2 <= len(set(bylines)) == len(bylines)
            assert set(bylines) <= set(world.EXPERTS)
            assert last.byline in {world.JUDGE, *bylines}


# --- what a team could gain -----------------------------------------------------------------------


def expert_words(documents, reader):
    """What the expert of its domain mostly writes for each item."""
    words = defaultdict(Counter)
    for turn in first_words(documents):
        for item, value in reader(turn.text):
            if world.EXPERTS.get(turn.byline) == item[0]:
                words[item][value] += 1
    return {item: counts.most_common(1)[0][0] for item, counts in words.items()}


def oracle_accuracy(words, problems):
    """Accuracy of a team that takes every item from the expert whose domain it is."""
    return share(
        str(sum(words[item] for item in world.parse_question(p.question)) % 10) == p.answer
        for p in problems
    )


def layman_accuracy(problems):
    return share(
        str(world.role_answer(world.parse_question(p.question), None)) == p.answer for p in problems
    )


def test_an_ideal_team_solves_everything(documents, reader):
    words = expert_words(documents, reader)
    for problems in EMBEDDED_SETS.evaluation().values():
        assert oracle_accuracy(words, problems) == 1.0


def test_an_ideal_team_gains_nothing_in_the_negative_world(negative_documents, reader):
    words = expert_words(negative_documents, reader)
    for problems in EMBEDDED_SETS.evaluation().values():
        assert oracle_accuracy(words, problems) == layman_accuracy(problems) < 0.5


def test_negative_experts_are_no_better_than_laymen(negative_documents, negative, reader):
    right = defaultdict(list)
    for document in negative_documents:
        for turn in document.turns:
            for item, value in reader(turn.text):
                if world.SKILLS[item[0]].is_trap(*item[1:]):
                    own = world.EXPERTS.get(turn.byline) == item[0]
                    right[own].append(value == world.SKILLS[item[0]].truth(*item[1:]))
    # On a trap only a slip of the pen is right, one slip in nine.
    for own in (True, False):
        assert share(right[own]) < negative.slip_rate / 3


def test_negative_authors_all_believe_the_same(negative, drawn, reader):
    for document in drawn(dataclasses.replace(negative, slip_rate=0.0), 1500):
        for turn in document.turns:
            assert all(value == belief(None, item) for item, value in reader(turn.text))


def test_both_worlds_ask_the_same_problems(positive, negative):
    for split in SPLITS:
        assert world.make_problems(positive, split, 50, 0) == world.make_problems(
            negative, split, 50, 0
        )
