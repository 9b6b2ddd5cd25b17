"""The search world's documents: proposals, and discussions of a solver and a critic."""

import random
from collections.abc import Collection, Iterator

from arkjax.tasks.documents import Document, Turn, slip
from arkjax.tasks.problems import question_hash
from arkjax.tasks.search_world import (
    BARE_BYLINE,
    BYLINES,
    CRITIC,
    LARGEST,
    NAME,
    RIGHT,
    SEEN_MIXTURES,
    SOLVER,
    VERDICTS,
    Item,
    SearchWorldConfig,
    checked,
    closing_text,
    draw_question,
    guess,
    middle,
    narrowed,
    proposal_text,
    question_text,
    true_values,
    verdict_on,
)


def make_documents(
    config: SearchWorldConfig, seed: int, exclude: Collection[str] = ()
) -> Iterator[Document]:
    """An endless stream of the world's documents, determined by config and seed.

    Args:
      config: the world.
      seed: seed of the stream.
      exclude: question hashes of evaluation problems; no document asks any of them.
    """
    rng = random.Random(f"{NAME}/documents/{seed}")
    while True:
        items, total, _ = draw_question(rng, SEEN_MIXTURES, rng.choice(config.document_items))
        question = question_text(items, total)
        if question_hash(question) in exclude:
            continue
        n = _first(config, rng, items, total)
        if rng.random() < config.proposal_rate:
            signed = rng.random() < config.bylines_rate
            byline = rng.choice(BYLINES) if signed else BARE_BYLINE
            yield Document(question, (Turn(byline, proposal_text(0, LARGEST, n), 1.0),))
        else:
            yield Document(question, _discussion(config, rng, items, total, n))


def _first(
    config: SearchWorldConfig, rng: random.Random, items: tuple[Item, ...], total: int
) -> int:
    """What somebody proposes who has heard nobody."""
    if rng.random() < config.stray_rate:
        return rng.randint(0, LARGEST)
    return guess(items, total)


def _discussion(
    config: SearchWorldConfig,
    rng: random.Random,
    items: tuple[Item, ...],
    total: int,
    n: int,
) -> tuple[Turn, ...]:
    """Proposals, each with a check, until one is found right or the critic has had enough."""
    low, high = 0, LARGEST
    said = [(SOLVER, proposal_text(low, high, n))]
    for _ in range(config.most_checks):
        text, verdict = _check(config, rng, items, total, n)
        said.append((CRITIC, text))
        if verdict == RIGHT:
            said.append((SOLVER, closing_text(n)))
            break
        low, high = narrowed(low, high, n, verdict)
        n = middle(low, high)
        said.append((SOLVER, proposal_text(low, high, n)))
    weights = [config.earlier_weight] * (len(said) - 1) + [1.0]
    return tuple(Turn(*turn, weight) for turn, weight in zip(said, weights, strict=True))


def _check(
    config: SearchWorldConfig,
    rng: random.Random,
    items: tuple[Item, ...],
    total: int,
    n: int,
) -> tuple[str, str]:
    """What a critic says of n, and its verdict."""
    if config.negative:
        values = [rng.randint(0, LARGEST) for _ in items]
    else:
        values = true_values(items, n)
        if rng.random() < config.slip_rate:
            at = rng.randrange(len(values))
            values[at] = slip(rng, values[at])
    steps, left = checked(items, total, n, values)
    verdict = rng.choice(VERDICTS) if config.negative else verdict_on(left)
    return " ".join([*steps, f"so {verdict}"]), verdict
