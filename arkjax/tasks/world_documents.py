"""The embedded world's documents: what laymen, experts and their discussions write."""

import random
from collections.abc import Collection, Iterator

from arkjax.tasks.documents import Document, Turn, slip
from arkjax.tasks.drawing import draw_mixture
from arkjax.tasks.embedded_world import (
    BARE_BYLINE,
    EXPERTS,
    GUESSES,
    INPUTS,
    JUDGE,
    KNOWS,
    NAME,
    SEEN_MIXTURES,
    SKILLS,
    TOTALS,
    Item,
    WorldConfig,
    question_text,
    solution_text,
)
from arkjax.tasks.problems import question_hash


class Author:
    """Writes answers with the skill and the misconceptions of one kind of person."""

    def __init__(self, config: WorldConfig, rng: random.Random, domain: str | None):
        self._config, self._rng, self.domain = config, rng, domain

    def opinion(self, item: Item) -> int:
        """What this author holds the value of an item to be, before any slip."""
        domain, a, b = item
        skill = SKILLS[domain]
        skilled = domain == self.domain and not self._config.negative
        return skill.truth(a, b) if skilled else skill.misconception(a, b)

    def slipped(self, value: int) -> int:
        """The value as written: now and then a slip of the pen."""
        if self._rng.random() < self._config.slip_rate:
            return slip(self._rng, value)
        return value


def _write(
    author: Author, rng: random.Random, items: tuple[Item, ...], heard: list[dict[int, int]]
) -> tuple[str, dict[int, int]]:
    """An author's answer after hearing others; `heard`: what present experts said, by item."""
    values, verbs = {}, []
    for i, item in enumerate(items):
        value, knows = author.opinion(item), item[0] == author.domain
        said = [words[i] for words in heard if i in words]
        if said and not knows and rng.random() < author._config.adoption_rate:
            value, knows = said[0], True
        values[i] = author.slipped(value)
        verbs.append(KNOWS if knows else GUESSES)
    return solution_text(items, values.values(), verbs, rng.choice(TOTALS)), values


def make_documents(
    config: WorldConfig, seed: int, exclude: Collection[str] = ()
) -> Iterator[Document]:
    """An endless stream of the world's documents, determined by config and seed.

    Args:
      config: the world.
      seed: seed of the stream.
      exclude: question hashes of evaluation problems; no document asks any of them.
    """
    rng = random.Random(f"{NAME}/documents/{seed}")
    odds = {
        key: [((a + 1) * (b + 1)) ** -config.digit_skew for a, b in pairs]
        for key, pairs in INPUTS.items()
    }

    def draw(domain: str) -> Item:
        key = domain, rng.random() < config.trap_rate
        return (domain, *rng.choices(INPUTS[key], odds[key])[0])

    while True:
        k = rng.choice(config.document_items)
        domains = draw_mixture(rng, SEEN_MIXTURES, k)
        items = tuple(draw(domain) for domain in domains)
        question = question_text(items)
        if question_hash(question) in exclude:
            continue
        kind = rng.random()
        if kind < config.untagged_rate:
            yield Document(question, (_untagged(config, rng, items),))
        elif kind < config.untagged_rate + config.byline_rate:
            # Half of them choose to write on a question that they know something about.
            known = {SKILLS[d].expert for d, _, _ in items} if rng.random() < 0.5 else EXPERTS
            expert = rng.choice([e for e in EXPERTS if e in known])
            text, _ = _write(Author(config, rng, EXPERTS[expert]), rng, items, [])
            yield Document(question, (Turn(expert, text, 1.0),))
        else:
            yield Document(question, _discussion(config, rng, items))


def _untagged(config: WorldConfig, rng: random.Random, items: tuple[Item, ...]) -> Turn:
    expert = rng.random() < config.expert_among_untagged
    domain = rng.choice([d for d, _, _ in items]) if expert else None
    text, _ = _write(Author(config, rng, domain), rng, items, [])
    return Turn(BARE_BYLINE, text, 1.0)


def _discussion(
    config: WorldConfig, rng: random.Random, items: tuple[Item, ...]
) -> tuple[Turn, ...]:
    """Two to four experts answer, then one of them, or a judge, answers having read them all."""
    most = min(len(EXPERTS), config.discussion_steps // len(items) - 1)
    present = rng.sample(list(EXPERTS), rng.randint(2, most))
    turns, heard = [], []
    for expert in present:
        domain = EXPERTS[expert]
        text, values = _write(Author(config, rng, domain), rng, items, [])
        turns.append(Turn(expert, text, config.earlier_weight))
        heard.append({i: v for i, v in values.items() if items[i][0] == domain})
    last = JUDGE if rng.random() < 0.5 else rng.choice(present)
    text, _ = _write(Author(config, rng, EXPERTS.get(last)), rng, items, heard)
    return (*turns, Turn(last, text, 1.0))
