"""The pipeline as a graph: what the steps are given, and what all problems decide together."""

import collections
import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from arkjax.beam import steps
from arkjax.beam.elements import block, packed, part_of, unblocked, unpacked
from arkjax.beam.files import Source
from arkjax.beam.recipe import Recipe
from arkjax.beam.steps import Told
from arkjax.beam.tally import Tally
from arkjax.synthesis import minhash
from arkjax.synthesis.selection import difficulty
from arkjax.synthesis.unified import compares, lot
from arkjax.synthesis.weights import Ranks

Keyed = tuple[str, bytes]
Name = tuple[str, int]


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
        | "make" >> _does(steps.Make(recipe, shards, ticks))
    )
    examples, lost = _of(made, steps.MADE, "made"), None
    if compares(recipe.config):
        bands, signatures = (
            _of(made, steps.BAND, "bands"),
            _of(made, steps.SIGNATURE, "signatures"),
        )
        lost = near_duplicates(bands, signatures, recipe.config.near_duplicates, shards)
    every = [read, made, _joined(examples, lost, "unlike", Drop(lost is not None))]
    if recipe.config.max_per_difficulty:
        examples = _of(every[-1], steps.MADE, "all unlike")
        chosen = _of_difficulty(examples, recipe.config.max_per_difficulty, shards)
        every.append(_joined(examples, chosen, "within limits", Keep()))
    examples = _of(every[-1], steps.MADE, "left")
    write = steps.WriteExamples(recipe.config, folder)
    every.append(examples | "write" >> _does(write, **_whole(examples, recipe)))
    letters = (
        (_of(read, steps.DEAD, "unreadable"), _of(made, steps.DEAD, "not made"))
        | "all letters" >> beam.Flatten()
        | "to shards" >> beam.Map(functools.partial(_posted, shards)).with_output_types(Keyed)
        | "letters by shard" >> beam.GroupByKey()
        | "write letters" >> _does(steps.WriteLetters(folder))
    )
    every.append(letters)
    parts = [_of(one, steps.TALLY, f"account {i}") for i, one in enumerate(every)]
    seed = beam.Create([("", packed(Tally().plain()))], False).with_output_types(Keyed)
    (
        [*parts, pipeline | "nothing" >> seed]
        | "accounts" >> beam.Flatten()
        | "one account" >> beam.GroupByKey()
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


def _posted(shards: int, keyed: Keyed) -> Keyed:
    return part_of(keyed[0], shards), keyed[1]


def _joined(
    examples: beam.PCollection, words: beam.PCollection | None, label: str, step: beam.DoFn
) -> beam.PCollection:
    """All examples of a shard, with what is said about them, for a step."""
    both = [examples | f"{label}: examples" >> _marked(b"m")]
    if words is not None:
        both.append(words | f"{label}: words" >> _marked(b"w"))
    return (
        both
        | f"{label}: both" >> beam.Flatten()
        | f"{label}: by shard" >> beam.GroupByKey()
        | label >> _does(step)
    )


def _split(parts: Iterable[bytes]) -> tuple[list[Any], list[Any]]:
    """The problems and their examples, by problem, and the words about them."""
    made, words = [], []
    for part in parts:
        (made if part[:1] == b"m" else words).extend(unpacked(part[1:]))
    return sorted(made, key=lambda one: one[0]), words


def _by_part(told: Iterable[Any], name: Callable[[Any], str], parts: int) -> Iterator[Keyed]:
    """Lists of JSON values, one for each part of the names."""
    of: dict[str, list[Any]] = {}
    for one in told:
        of.setdefault(part_of(name(one), parts), []).append(one)
    for part, some in of.items():
        yield part, packed(some)


# --- near-duplicates ------------------------------------------------------------------------------


class Drop(steps.Counting):
    """The examples of a shard without those that say what an earlier one says."""

    def __init__(self, compared: bool) -> None:
        self.compared = compared

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        made, words = _split(element[1])
        lost = {(problem, place) for problem, place in words}
        left = []
        for problem, some in made:
            kept = [one for place, one in enumerate(some) if (problem, place) not in lost]
            if self.compared:
                self.tally.counts.near_duplicates += len(some) - len(kept)
                self.passed("near_duplicates", len(some), len(kept))
            if kept:
                left.append([problem, kept])
        if left:
            yield steps.MADE, element[0], packed(left)


def near_duplicates(
    bands: beam.PCollection, signatures: beam.PCollection, threshold: float, parts: int
) -> beam.PCollection:
    """Names of examples that are like an earlier one, by shard, as `minhash.near_duplicates`.

    It compares the same pairs and joins them to the same clusters: of those that share a band each
    is compared with the first and with the one before it. Only pairs travel, with the signature of
    one; the clusters are found where all pairs that are alike come together, at some tens of bytes
    a pair.

    Args:
      bands: names and keys, by band and part of the keys; see `steps.signed`.
      signatures: names and signatures, by part of the names.
      threshold: from which two are alike.
      parts: how many names are spread over.
    """
    keyed, parted = functools.partial(_pairs, parts), functools.partial(_with_first, parts)
    alike, lost = functools.partial(_alike, threshold), functools.partial(_lost, parts)
    pairs = (
        bands
        | "by band" >> beam.GroupByKey()
        | "pairs" >> beam.FlatMap(keyed).with_output_types(Keyed)
    )
    of = signatures | "as signatures" >> _marked(b"s")
    halves = (
        (of, pairs | "as pairs" >> _marked(b"p"))
        | "first of pairs" >> beam.Flatten()
        | "by first" >> beam.GroupByKey()
        | "with first" >> beam.FlatMap(parted).with_output_types(Keyed)
    )
    return (
        (of, halves | "as halves" >> _marked(b"p"))
        | "second of pairs" >> beam.Flatten()
        | "by second" >> beam.GroupByKey()
        | "alike" >> beam.FlatMap(alike).with_output_types(Keyed)
        | "all pairs" >> beam.GroupByKey()
        | "clusters" >> beam.FlatMap(lost).with_output_types(Keyed)
    )


def _pairs(parts: int, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    """The pairs of a band that are to be compared, each by its first."""
    places: dict[int, list[Name]] = {}
    for value in element[1]:
        names, data = unblocked(value)
        for name, key in zip(names, np.frombuffer(data, "<u8").tolist(), strict=True):
            places.setdefault(key, []).append((name[0], name[1]))
    pairs = []
    for names in places.values():
        names.sort()
        for at in range(1, len(names)):
            pairs += [[first, names[at]] for first in {names[at - 1], names[0]}]
    yield from _by_part(pairs, lambda pair: pair[0][0], parts)


def _signatures(values: Iterable[bytes]) -> tuple[dict[Name, np.ndarray], list[bytes]]:
    """Signatures by name, and the other values beside them."""
    of: dict[Name, np.ndarray] = {}
    others = []
    for value in values:
        if value[:1] != b"s":
            others.append(value[1:])
            continue
        names, data = unblocked(value[1:])
        found = np.frombuffer(data, "<u4").reshape(len(names), -1)
        of.update((tuple(name), own) for name, own in zip(names, found, strict=True))
    return of, others


def _with_first(parts: int, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    """The pairs of a part, each once, by the second of them, with the first one's signature."""
    of, others = _signatures(element[1])
    pairs = {(tuple(a), tuple(b)) for value in others for a, b in unpacked(value)}
    by_part: dict[str, list[tuple[Name, Name]]] = {}
    for pair in sorted(pairs):
        by_part.setdefault(part_of(pair[1][0], parts), []).append(pair)
    for part, some in by_part.items():
        yield part, block(some, b"".join(of[first].tobytes() for first, _ in some))


def _alike(threshold: float, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    """Of the pairs of a part those that are alike."""
    of, others = _signatures(element[1])
    for value in others:
        pairs, data = unblocked(value)
        first = np.frombuffer(data, "<u4").reshape(len(pairs), -1)
        second = np.stack([of[problem, place] for _, (problem, place) in pairs])
        same = minhash.estimate(first, second) >= threshold
        yield "", packed([pair for pair, alike in zip(pairs, same.tolist(), strict=True) if alike])


def _lost(parts: int, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    """All but the first of every connected component, by shard."""
    root: dict[Name, Name] = {}

    def first(name: Name) -> Name:
        root.setdefault(name, name)
        while name != root[name]:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for value in element[1]:
        for a, b in unpacked(value):
            low, high = sorted((first(tuple(a)), first(tuple(b))))
            root[high] = low
    lost = sorted(name for name, above in root.items() if name != above)
    yield from _by_part(lost, lambda name: name[0], parts)


# --- limits and weights ---------------------------------------------------------------------------


class Keep(steps.Counting):
    """The examples of a shard whose problems are within the limit of their difficulty."""

    def process(self, element: tuple[str, Iterable[bytes]]) -> Iterator[Told]:
        made, words = _split(element[1])
        within, left = set(words), []
        for problem, some in made:
            kept = some if problem in within else []
            self.tally.counts.beyond_difficulty += len(some) - len(kept)
            self.passed("difficulty", len(some), len(kept))
            if kept:
                left.append([problem, kept])
        if left:
            yield steps.MADE, element[0], packed(left)


def _of_difficulty(examples: beam.PCollection, most: int, shards: int) -> beam.PCollection:
    """The problems that are kept of each fifth of difficulty, by shard."""
    least, drawn = functools.partial(_least, most), functools.partial(_drawn, most, shards)
    return (
        examples
        | "difficulties" >> beam.FlatMap(least).with_output_types(Keyed)
        | "by difficulty" >> beam.GroupByKey()
        | "limit" >> beam.FlatMap(drawn).with_output_types(Keyed)
    )


def _least(most: int, keyed: Keyed) -> Iterator[Keyed]:
    """By difficulty the problems of a shard that may be among those kept."""
    buckets: dict[int, list[str]] = {}
    for problem, made in unpacked(keyed[1]):
        buckets.setdefault(difficulty(made[0]["share"]), []).append(problem)
    for bucket, problems in buckets.items():
        yield str(bucket), packed(heapq.nsmallest(most, problems, key=lot))


def _drawn(most: int, shards: int, element: tuple[str, Iterable[bytes]]) -> Iterator[Keyed]:
    every = (problem for value in element[1] for problem in unpacked(value))
    yield from _by_part(heapq.nsmallest(most, every, key=lot), str, shards)


def _whole(examples: beam.PCollection, recipe: Recipe) -> dict[str, beam.pvalue.AsSideInput]:
    """What a weight depends on of all examples, if it does on any."""
    if recipe.config.weights == "none" and recipe.config.balance == "none":
        return {}
    facts = (
        examples
        | "ranks" >> beam.Map(_told_ranks).with_output_types(Keyed)
        | "all ranks" >> beam.GroupByKey()
        | "ranked" >> beam.Map(_ranked).with_output_types(bytes)
    )
    return {"whole": beam.pvalue.AsSingleton(facts, default_value=b"")}


def _told_ranks(keyed: Keyed) -> Keyed:
    """By what the examples of a shard are ranked, and how many have each rank."""
    problems = unpacked(keyed[1])
    every = [one["rank"] for _, made in problems for one in made]
    times = collections.Counter(rank for rank in every if rank is not None)
    return "", packed([len(every), len(problems), list(times.items())])


def _ranked(element: tuple[str, Iterable[bytes]]) -> bytes:
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
