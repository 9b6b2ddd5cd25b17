"""The pipeline as a graph: what the steps are given, and what all problems decide together."""

import functools
import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np

from arkjax.beam import steps
from arkjax.beam.elements import example_place, packed, unpacked
from arkjax.beam.files import Source
from arkjax.beam.recipe import Recipe
from arkjax.beam.steps import Told
from arkjax.beam.tally import Tally
from arkjax.synthesis import minhash
from arkjax.synthesis.selection import difficulty
from arkjax.synthesis.unified import compares, lot
from arkjax.synthesis.weights import Ranks

Keyed = tuple[str, bytes]
Numbered = tuple[int, bytes]
_ALL = 0


def build(
    pipeline: beam.Pipeline,
    sources: Sequence[Source],
    facts: Sequence[str],
    recipe: Recipe,
    folder: str,
    tally: str,
    shards: int,
    ticks: str = "",
) -> None:
    """Add the whole of it to a pipeline.

    Args:
      pipeline: to be added to.
      sources: the shards of calls.
      facts: files of facts about the problems.
      recipe: how examples are made.
      folder: where shards of examples and dead letters are written.
      tally: the file for the account.
      shards: how many of either there are at most.
      ticks: where processes on this machine tell how far they are; empty for none.
    """
    read = _files(pipeline, "shards", [s.path for s in sources]) | "read" >> _does(
        steps.Read(ticks)
    )
    known = _files(pipeline, "facts", facts) | "read facts" >> _does(steps.ReadFacts())
    made = (
        (
            _of(read, steps.CALLS, "calls") | "as calls" >> _marked(b"c"),
            _of(known, steps.FACTS, "about problems") | "as facts" >> _marked(b"f"),
        )
        | "with facts" >> beam.Flatten()
        | "by problem" >> beam.GroupByKey()
        | "make" >> _does(steps.Make(recipe, ticks))
    )
    told = [read, made]
    examples = _of(made, steps.MADE, "made")
    if compares(recipe.config):
        threshold = recipe.config.near_duplicates
        lost = near_duplicates(
            _of(made, steps.BAND, "bands"), _of(made, steps.SIGNATURE, "signatures"), threshold
        )
        kept = _joined(examples, lost, "without near-duplicates", Drop())
        examples, told = _of(kept, steps.MADE, "unlike"), [*told, kept]
    if recipe.config.max_per_difficulty:
        chosen = _of_difficulty(examples, recipe.config.max_per_difficulty)
        kept = _joined(examples, chosen, "within limits", Keep())
        examples, told = _of(kept, steps.MADE, "kept"), [*told, kept]
    weighed = examples | "weigh" >> _does(steps.Weigh(recipe.config), **_whole(examples, recipe))
    spread = functools.partial(_spread, shards)
    written = (
        _of(weighed, steps.MADE, "weighed")
        | "to shards" >> beam.Map(spread).with_output_types(Numbered)
        | "by shard" >> beam.GroupByKey()
        | "write" >> _does(steps.WriteExamples(folder))
    )
    letters = (
        (_of(read, steps.DEAD, "unreadable"), _of(made, steps.DEAD, "not made"))
        | "all letters" >> beam.Flatten()
        | "to letter shards"
        >> beam.Map(functools.partial(_posted, shards)).with_output_types(Numbered)
        | "by letter shard" >> beam.GroupByKey()
        | "write letters" >> _does(steps.WriteLetters(folder))
    )
    every = [*told, weighed, written, letters]
    parts = [_of(one, steps.TALLY, f"account {i}") for i, one in enumerate(every)]
    (
        [*parts, pipeline | "an account" >> beam.Create([("", packed(Tally().plain()))], False)]
        | "accounts" >> beam.Flatten()
        | "one account" >> beam.Map(_together).with_output_types(Numbered)
        | "whole account" >> beam.GroupByKey()
        | "add up" >> beam.ParDo(steps.WriteTally(tally)).with_output_types(str)
    )


def _does(step: beam.DoFn, **sides: beam.pvalue.AsSideInput) -> beam.PTransform:
    return beam.ParDo(step, **sides).with_output_types(Told)


def _files(pipeline: beam.Pipeline, what: str, paths: Sequence[str]) -> beam.PCollection:
    """Numbered files, spread over the workers: a grouping is where work is divided."""
    numbered = list(enumerate(paths))
    return (
        pipeline
        | f"list {what}" >> beam.Create(numbered, False).with_output_types(tuple[int, str])
        | f"spread {what}" >> beam.GroupByKey()
    )


def _of(told: beam.PCollection, kind: str, label: str) -> beam.PCollection:
    """The elements of one kind."""
    pick = functools.partial(_picked, kind)
    return told | label >> beam.FlatMap(pick).with_output_types(Keyed)


def _picked(kind: str, told: Told) -> list[Keyed]:
    return [told[1:]] if told[0] == kind else []


def _marked(mark: bytes) -> beam.PTransform:
    return beam.Map(functools.partial(_mark, mark)).with_output_types(Keyed)


def _mark(mark: bytes, keyed: Keyed) -> Keyed:
    return keyed[0], mark + keyed[1]


def _together(keyed: Keyed) -> Numbered:
    return _ALL, keyed[1]


def _number(text: str, count: int) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count


def _spread(shards: int, keyed: Keyed) -> Numbered:
    return _number(keyed[0], shards), steps.keyed(*keyed)


def _posted(shards: int, keyed: Keyed) -> Numbered:
    return _number(keyed[0], shards), keyed[1]


def _joined(
    examples: beam.PCollection, words: beam.PCollection, label: str, step: beam.DoFn
) -> beam.PCollection:
    """Examples by problem, with what is said about the problem, for a step."""
    return (
        (
            examples | f"{label}: examples" >> _marked(b"m"),
            words | f"{label}: words" >> _marked(b"w"),
        )
        | f"{label}: both" >> beam.Flatten()
        | f"{label}: by problem" >> beam.GroupByKey()
        | label >> _does(step)
    )


def _split(parts: Iterable[bytes]) -> tuple[list[dict] | None, list[bytes]]:
    """What is marked as examples, and the words about them."""
    made, words = None, []
    for part in parts:
        if part[:1] == b"m":
            made = unpacked(part[1:])
        else:
            words.append(part[1:])
    return made, words


# --- near-duplicates ------------------------------------------------------------------------------


class Drop(steps.Counting):
    """Examples without those that say what an earlier one says."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        problem, parts = element
        made, words = _split(parts)
        lost = {int(word) for word in words}
        kept = [one for place, one in enumerate(made) if place not in lost]
        yield from _passed(self, "near_duplicates", problem, made, kept)
        self.tally.counts.near_duplicates += len(made) - len(kept)


def _passed(
    step: steps.Counting, name: str, problem: str, made: list[dict], kept: list[dict]
) -> Iterator[Told]:
    step.tally.counts.passed(name, len(made), len(kept))
    step.count(f"dropped_{name}", len(made) - len(kept))
    if kept:
        yield steps.MADE, problem, packed(kept)


def near_duplicates(
    bands: beam.PCollection, signatures: beam.PCollection, threshold: float
) -> beam.PCollection:
    """Problems and places of examples that are like an earlier one, as `minhash.near_duplicates`.

    It compares the same pairs and joins them to the same clusters: of those that share a band each
    is compared with the first and with the one before it. Only pairs travel, and the two signatures
    of each; the clusters are found where all pairs that are alike come together, at some tens of
    bytes a pair.

    Args:
      bands: `(band and key, name of an example)`.
      signatures: `(name, signature)`.
      threshold: from which two are alike.
    """
    pairs = (
        bands
        | "by band" >> beam.GroupByKey()
        | "pairs" >> beam.FlatMap(_pairs).with_output_types(Keyed)
    )
    of = signatures | "as signatures" >> _marked(b"s")
    halves = (
        (of, pairs | "as pairs" >> _marked(b"p"))
        | "first of pairs" >> beam.Flatten()
        | "by first" >> beam.GroupByKey()
        | "with first" >> beam.FlatMap(_with_first).with_output_types(Keyed)
    )
    alike = functools.partial(_alike, threshold)
    return (
        (of, halves | "as halves" >> _marked(b"p"))
        | "second of pairs" >> beam.Flatten()
        | "by second" >> beam.GroupByKey()
        | "alike" >> beam.FlatMap(alike).with_output_types(Numbered)
        | "all pairs" >> beam.GroupByKey()
        | "clusters" >> beam.FlatMap(_lost).with_output_types(Keyed)
    )


def _pairs(element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    names = sorted((name.decode() for name in element[1]), key=example_place)
    for at in range(1, len(names)):
        for other in {names[at - 1], names[0]}:
            yield other, names[at].encode()


def _with_first(element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    name, parts = element
    signature, others = _signature(parts)
    for other in sorted(set(others)):
        yield other.decode(), signature + name.encode()


def _alike(threshold: float, element: tuple[str, Iterable[bytes]]) -> Iterator[Numbered]:
    name, parts = element
    signature, halves = _signature(parts)
    own = np.frombuffer(signature, "<u4")
    for half in sorted(halves):
        other = np.frombuffer(half[: len(signature)], "<u4")
        if minhash.estimate(own, other) >= threshold:
            yield _ALL, steps.keyed(name, half[len(signature) :])


def _signature(parts: Iterable[bytes]) -> tuple[bytes, list[bytes]]:
    signature, others = b"", []
    for part in parts:
        if part[:1] == b"s":
            signature = part[1:]
        else:
            others.append(part[1:])
    return signature, others


def _lost(element: tuple[int, Iterable[bytes]]) -> Iterator[Keyed]:
    """All but the first of every connected component."""
    root: dict[tuple[str, int], tuple[str, int]] = {}

    def first(place: tuple[str, int]) -> tuple[str, int]:
        above = root.setdefault(place, place)
        while above != root[above]:
            root[place] = root[above]
            place, above = above, root[above]
        return above

    for name, other in map(steps.unkeyed, element[1]):
        low, high = sorted(map(first, (example_place(name), example_place(other.decode()))))
        root[high] = low
    for problem, place in sorted(root):
        if root[problem, place] != (problem, place):
            yield problem, str(place).encode()


# --- limits and weights ---------------------------------------------------------------------------


class Keep(steps.Counting):
    """Examples of the problems that are within the limit of their difficulty."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        problem, parts = element
        made, words = _split(parts)
        kept = made if words else []
        yield from _passed(self, "difficulty", problem, made, kept)
        self.tally.counts.beyond_difficulty += len(made) - len(kept)


def _of_difficulty(examples: beam.PCollection, most: int) -> beam.PCollection:
    """The problems that are kept of each fifth of difficulty."""
    return (
        examples
        | "difficulty" >> beam.Map(_lot).with_output_types(Keyed)
        | "by difficulty" >> beam.GroupByKey()
        | "limit" >> beam.FlatMap(functools.partial(_least, most)).with_output_types(Keyed)
    )


def _lot(keyed: Keyed) -> Keyed:
    problem, data = keyed
    name = problem.encode("utf-8", "surrogatepass")
    return str(difficulty(unpacked(data)[0]["share"])), lot(problem).encode() + name


def _least(most: int, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    width = len(lot(""))
    for value in heapq.nsmallest(most, element[1]):
        yield value[width:].decode("utf-8", "surrogatepass"), b""


def _whole(examples: beam.PCollection, recipe: Recipe) -> dict[str, beam.pvalue.AsSideInput]:
    """What a weight depends on of all examples, if it does on any."""
    if recipe.config.weights == "none" and recipe.config.balance == "none":
        return {}
    facts = (
        examples
        | "ranks" >> beam.ParDo(Ranked()).with_output_types(Numbered)
        | "all ranks" >> beam.GroupByKey()
        | "ranked" >> beam.Map(_ranked).with_output_types(bytes)
    )
    return {"whole": beam.pvalue.AsSingleton(facts, default_value=b"")}


class Ranked(beam.DoFn):
    """What examples are ranked by, how often each, put together in every bundle."""

    def start_bundle(self) -> None:
        self.times: dict[float, int] = {}
        self.examples = self.problems = 0

    def process(self, element: Keyed) -> None:
        made = unpacked(element[1])
        self.problems += 1
        self.examples += len(made)
        for one in made:
            if one["rank"] is not None:
                self.times[one["rank"]] = self.times.get(one["rank"], 0) + 1

    def finish_bundle(self) -> Iterator[steps.WindowedValue]:
        if self.problems:
            told = [self.examples, self.problems, list(self.times.items())]
            yield steps.at_the_end((_ALL, packed(told)))


def _ranked(element: tuple[int, Iterable[bytes]]) -> bytes:
    times: dict[float, int] = {}
    examples = problems = 0
    for part in element[1]:
        more, others, ranks = unpacked(part)
        examples, problems = examples + more, problems + others
        for rank, number in ranks:
            times[rank] = times.get(rank, 0) + number
    ranks = Ranks.counted(times)
    told = {"values": list(ranks.values), "below": list(ranks.below)}
    return packed({**told, "examples": examples, "problems": problems})
