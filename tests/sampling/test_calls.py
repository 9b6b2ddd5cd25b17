"""What a call may ask for: stop texts, several samples, top log-probabilities, to be forgotten."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError, DataError
from arkjax.sampling import decode
from arkjax.sampling.params import PENDING, Request, SamplingParams
from arkjax.sampling.stopping import StopTexts

WORDS = [*"abcdefghijklmnopqrstuvwxyz", "ab", "bc", "cde", " ", "\n", "END", "E", "ND", "x y"]


class Words:
    """Stands for a tokenizer whose ids are words: all that `StopTexts` asks of one."""

    special_tokens: dict[str, int] = {}

    def token(self, index):
        return WORDS[index] if index < len(WORDS) else "?"

    def is_byte(self, index):
        return False

    def decode(self, ids, special=False):
        return "".join(self.token(int(i)) for i in ids)


def _request(name: str, prompt=(4, 5, 6), prefix_len=0, seed=7, **sampling) -> Request:
    params = {"temperature": 1.5, "max_tokens": 12} | sampling
    return Request(name, tuple(prompt), prefix_len, SamplingParams(**params), seed)


@pytest.fixture
def engine(make_engine):
    return make_engine(tokenizer=Words())


# --- stop texts ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    ids=st.lists(st.integers(0, len(WORDS) - 1), max_size=20),
    stop=st.lists(st.sampled_from(["ab", "bcd", "END", "E", "de", "x y\n", "abc"]), max_size=3),
    stop_ids=st.sets(st.integers(0, len(WORDS) - 1), max_size=1),
)
def test_text_is_cut_at_the_first_stop_wherever_tokens_part_it(ids, stop, stop_ids):
    text, pieces, used = StopTexts(Words(), stop_ids, stop), [], 0
    for index in ids:
        pieces.append(text.push(index))
        used += 1
        # What was shown is never taken back.
        whole = Words().decode(i for i in ids[:used] if i not in stop_ids)
        assert whole.startswith("".join(pieces))
        if text.stopped:
            break
    pieces.append(text.flush())
    shown = "".join(pieces)
    read = ids[:used]
    ended_by_id = bool(read) and read[-1] in stop_ids
    whole = Words().decode(read[:-1] if ended_by_id else read)
    found = [whole.find(s) for s in stop if s in whole]
    if found:
        assert text.stopped and shown in {whole[:at] for at in found}
        # Without its last token, no stop text was there yet.
        before = Words().decode(read[:-1])
        assert ended_by_id or not any(s in before for s in stop)
    else:
        assert shown == whole and text.stopped == ended_by_id


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    ids=st.lists(st.integers(0, len(WORDS) - 1), max_size=20),
    cuts=st.lists(st.integers(1, 19), max_size=3),
    stop=st.lists(st.sampled_from(["ab", "bcd", "END", "E", "de", "x y\n", "abc"]), max_size=3),
    stop_ids=st.sets(st.integers(0, len(WORDS) - 1), max_size=1),
)
def test_ids_taken_together_end_where_they_do_one_by_one(ids, cuts, stop, stop_ids):
    one, many = (StopTexts(Words(), stop_ids, stop) for _ in range(2))
    expected = next((n for n, i in enumerate(ids, 1) if one.push(i) is None or one.stopped), None)
    taken = 0
    for start, end in itertools.pairwise([0, *sorted({c for c in cuts if c < len(ids)}), len(ids)]):
        taken += many.take(ids[start:end])
        if many.stopped:
            break
    assert many.stopped == one.stopped and taken == (expected or len(ids))


def test_a_stop_text_ends_a_call_on_the_token_that_completes_it(engine):
    free = engine.generate([_request("a")])[0]
    text = Words().decode(free.ids)
    for at in range(2, len(free.ids) - 2):
        start = len(Words().decode(free.ids[: at - 1]))
        stop = text[start : len(Words().decode(free.ids[: at + 1]))]
        expected = next(
            n for n in range(1, len(free.ids) + 1) if stop in Words().decode(free.ids[:n])
        )
        got = engine.generate([_request("a", stop=("never\n\n", stop))])[0]
        assert got.finish_reason == "stop"
        assert got.ids == free.ids[:expected] and got.logprobs == free.logprobs[:expected]


def test_calls_beside_one_with_a_stop_text_are_not_touched(engine, make_requests, reference):
    requests = make_requests(20)
    free = engine.generate([_request("a")])[0]
    stop = Words().decode(free.ids[3:5])
    mixed = [*requests[:10], _request("stopped", stop=(stop,)), *requests[10:]]
    got = {g.request_id: g for g in engine.generate(mixed)}
    assert got.pop("stopped").finish_reason == "stop"
    for one in reference(requests):
        assert got[one.request_id].ids == one.ids


def test_stop_texts_need_a_tokenizer(make_engine):
    with pytest.raises(ConfigError, match="tokenizer"):
        make_engine().submit(_request("a", stop=("x",)))


# --- samples and top log-probabilities ----------------------------------------------------------


def test_samples_of_a_call_share_its_prompt_and_differ(engine):
    request = _request("a", (4, 5, 6, 7, 8), prefix_len=2)
    samples = request.samples(5)
    got = engine.generate(samples)
    assert [g.request_id for g in got] == [f"a.{i}" for i in range(5)]
    assert len({g.ids for g in got}) == 5
    assert sorted(g.cached_len for g in got) == [0, 4, 4, 4, 4]
    alone = engine.generate([request])[0]
    assert got[0].ids == alone.ids


def test_top_logprobs_are_the_best_and_hold_the_token_at_temperature_0(engine):
    calls = [
        _request("three", temperature=0.0, top_logprobs=3),
        _request("none"),
        _request("one", top_logprobs=1),
        _request("all", top_logprobs=20),
    ]
    three, none, one, most = engine.generate(calls)
    assert none.top == () and len(three.top) == len(three.ids)
    assert none.ids == one.ids == most.ids
    for step, (index, logprob) in enumerate(zip(three.ids, three.logprobs, strict=True)):
        assert three.top[step][0] == (index, pytest.approx(logprob, abs=1e-5))
        values = [value for _, value in three.top[step]]
        assert len(values) == 3 and values == sorted(values, reverse=True)
    for step in range(len(one.ids)):
        assert one.top[step] == most.top[step][:1] and len(most.top[step]) == 20
        mass = sum(math.exp(value) for _, value in most.top[step])
        assert mass < 1.0001
        if one.ids[step] in dict(most.top[step]):
            same = dict(most.top[step])[one.ids[step]]
            assert same == pytest.approx(one.logprobs[step], abs=1e-5)
    with pytest.raises(ConfigError, match="max_top_logprobs is 20"):
        engine.submit(_request("more", top_logprobs=21))


# --- calls that are pending, and those that are forgotten ---------------------------------------


def test_a_pending_call_shows_what_it_has(engine):
    request = _request("a", max_tokens=30)
    engine.submit(request)
    assert engine.partial("a").ids == () and engine.partial("a").finish_reason == PENDING
    seen = []
    while engine.pending:
        ended = engine.step()
        now = ended[0] if ended else engine.partial("a")
        assert now.ids[: len(seen)] == tuple(seen) and len(now.logprobs) == len(now.ids)
        seen = list(now.ids)
    assert tuple(seen) == engine.generate([request])[0].ids and len(seen) == 30


@pytest.mark.parametrize("after", range(5))
def test_a_cancelled_call_leaves_the_others_as_they_are(engine, make_requests, reference, after):
    """Queued, waiting prefilled, or in a slot."""
    requests = make_requests(24, seed=3)
    gone = {r.id for r in requests[::3]}
    for request in requests:
        engine.submit(request)
    done = {}
    for _ in range(after):
        done.update((g.request_id, g) for g in engine.step())
    for name in gone - done.keys():
        engine.cancel(name)
    assert engine.pending == len(requests) - len(gone | done.keys())
    # An id that was cancelled is free again, for another call.
    again = dataclasses.replace(requests[0], seed=1)
    if again.id not in done:
        engine.submit(again)
    while engine.pending:
        done.update((g.request_id, g) for g in engine.step())
    expected = {g.request_id: g for g in reference(requests)}
    for name, generation in done.items():
        if name != again.id:
            assert generation.ids == expected[name].ids
    assert done.keys() >= {r.id for r in requests} - gone
    assert done[again.id].ids in (expected[again.id].ids, reference([again])[0].ids)


def test_a_cancelled_calls_slot_is_free_at_once(make_engine):
    engine = make_engine(slots=1, length_classes=(40,))
    engine.submit(_request("long", max_tokens=36))
    engine.step()
    engine.cancel("long")
    engine.submit(_request("next", max_tokens=2))
    steps = 0
    while engine.pending:
        engine.step()
        steps += 1
    assert steps <= 3


# --- prefixes -----------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """Counts tokens of prefixes that are computed."""
    tokens = []
    original = decode.extend_prefixes

    def watched(spec, weights, pool, parents, rows, starts, ids, live):
        used = np.asarray(rows) < pool.keys[0].shape[0]
        tokens.extend(row[row > 0].tolist() for row in np.asarray(ids)[used])
        return original(spec, weights, pool, parents, rows, starts, ids, live)

    monkeypatch.setattr(decode, "extend_prefixes", watched)
    return tokens


def test_prefixes_grow_from_what_they_share(make_engine, computed, reference):
    """A system prompt once for all, a question once for all rounds."""
    system, engine = (3, 4, 5, 6, 7), make_engine(prefixes=5, chunk=1)
    requests = []
    for debate in range(2):
        question = (10 + debate, 11, 12, 13)
        for round_ in range(2):
            said = tuple(20 + i for i in range(2 * round_))
            prefix = system + question + said
            shared = (5, 9) if round_ else (5,)
            for agent in range(3):
                params = SamplingParams(max_tokens=3)
                name = f"{debate}-{round_}-{agent}"
                requests.append(
                    Request(name, prefix + (30 + agent,), len(prefix), params, agent, shared)
                )
    got = []
    for i in range(0, 12, 3):
        got += engine.generate(requests[i : i + 3])
    total = sum(map(len, computed))
    assert total == 5 + 2 * (4 + 2)
    for one, other in zip(got, reference(requests), strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert sum(len(r.prompt_ids) - g.cached_len for r, g in zip(requests, got, strict=True)) == (
        total + 12
    )


@pytest.mark.parametrize("prefix_len, shared", [(0, ()), (3, ()), (20, (2, 11))])
def test_a_long_prompt_is_prefilled_in_pieces(make_engine, computed, reference, prefix_len, shared):
    prompt = tuple(3 + i % 30 for i in range(29))
    params = SamplingParams(max_tokens=6)
    request = Request("long", prompt, prefix_len, params, 5, shared)
    engine = make_engine(chunk=4, prefill_tokens=8, prefixes=4)
    got, expected = engine.generate([request])[0], reference([request])[0]
    assert got.ids == expected.ids
    np.testing.assert_allclose(got.logprobs, expected.logprobs, atol=1e-4)
    assert max(map(len, computed)) <= 8 and sum(map(len, computed)) >= 21


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_tokens", 3.5),
        ("max_tokens", "3"),
        ("max_tokens", True),
        ("max_tokens", 0),
        ("top_k", 2.0),
        ("top_logprobs", None),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("temperature", "1"),
        ("top_p", None),
        ("min_p", 1.0),
        ("stop_ids", 5),
        ("stop_ids", (1.5,)),
        ("stop", "end"),
        ("stop", ("",)),
        ("stop", (b"end",)),
    ],
)
def test_sampling_that_is_none_is_refused(field, value):
    with pytest.raises(ConfigError, match=rf"sampling\.{field} is .*: it must be"):
        SamplingParams(**{field: value})
    assert SamplingParams(max_tokens=np.int64(3), temperature=np.float32(0.5), stop_ids=[1])


@pytest.mark.parametrize("prompt", ["question: 2 + 2", b"2", (), None, 5, (1.5, 2), ("4",), [[4]]])
def test_a_prompt_is_made_of_token_ids(prompt, engine):
    with pytest.raises(DataError, match="call a has .* where token ids are expected, at least one"):
        Request("a", prompt, 0, SamplingParams(), 0)
    with pytest.raises(DataError, match="sequence 1 has .* where token ids are expected"):
        engine.score([(4, 5), prompt])


def test_any_sequence_of_ids_is_a_prompt(engine):
    params = SamplingParams(temperature=0.0, max_tokens=3)
    kinds = [(4, 5, 6), [4, 5, 6], np.array([4, 5, 6], np.int32), range(4, 7)]
    requests = [Request(f"{i}", ids, 2, params, 0) for i, ids in enumerate(kinds)]
    assert {request.prompt_ids for request in requests} == {(4, 5, 6)}
    assert all(type(i) is int for request in requests for i in request.prompt_ids)
    assert requests[0].samples(2)[1].prompt_ids is requests[0].prompt_ids
    assert len({generation.ids for generation in engine.generate(requests)}) == 1


@pytest.mark.parametrize("index", [-1, 40, 99_999])
def test_ids_that_the_model_does_not_know_are_refused(index, engine):
    params = SamplingParams(max_tokens=2)
    message = f"token id {index}, but the model's go from 0 to 39: it was encoded by the tokenizer"
    with pytest.raises(DataError, match=f"call a: the prompt has the {message}"):
        engine.submit(Request("a", (4, index, 5), 0, params, 0))
    stopping = SamplingParams(max_tokens=2, stop_ids=(3, index))
    with pytest.raises(DataError, match=f"call a: sampling.stop_ids has the {message}"):
        engine.submit(Request("a", (4, 5), 0, stopping, 0))
    with pytest.raises(DataError, match=f"sequence 1 has the {message}"):
        engine.score([(4, 5), (4, index)])
    assert not engine.pending


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"length_classes": 40}, "length_classes is 40: expected a tuple of whole numbers"),
        ({"length_classes": (24.0, 40)}, "length_classes is .*: expected a tuple of whole"),
        ({"length_classes": ()}, "length_classes"),
        ({"slots": 2.5}, "slots is 2.5: expected a whole number"),
        ({"slots": (2, 3)}, "slots is .*: expected a whole number"),
        ({"chunk": None}, "chunk is None: expected a whole number"),
        ({"slots": 0}, "slots is 0: it must be positive"),
    ],
)
def test_sizes_that_are_none_are_refused(engine, changes, named):
    with pytest.raises(ConfigError, match=rf"engine\.{named}"):
        dataclasses.replace(engine.config, **changes)
    lengths = engine.config.length_classes
    assert dataclasses.replace(engine.config, length_classes=[*lengths]) == engine.config


@pytest.mark.parametrize("shared", [(3, 2), (0, 2), (4,), (-1,), (9,)])
def test_shared_lengths_that_do_not_ascend_are_refused(engine, shared):
    with pytest.raises(DataError, match="shared is"):
        engine.submit(Request("a", (4, 5, 6, 7, 8, 9), 4, SamplingParams(max_tokens=2), 0, shared))


# --- scoring ------------------------------------------------------------------------------------


def test_scores_are_those_of_sampling(engine, make_requests):
    requests = make_requests(24, seed=5)
    got = engine.generate(requests)
    scored = engine.score([r.prompt_ids + g.ids for r, g in zip(requests, got, strict=True)])
    for request, generation, score in zip(requests, got, scored, strict=True):
        start = len(request.prompt_ids) - 1
        np.testing.assert_allclose(score.logprobs[start:], generation.logprobs, atol=1e-4)


def test_top_scores_and_their_tail_are_all_of_the_mass(engine, model):
    sequences = [(4, 5, 6, 7), (8,), tuple(range(3, 35))]
    for ids, score in zip(sequences, engine.score(sequences, top=5), strict=True):
        assert score.logprobs.shape == score.tail.shape == (len(ids) - 1,)
        assert score.top_ids.shape == score.top_logprobs.shape == (len(ids) - 1, 5)
        mass = np.exp(score.top_logprobs).sum(-1) + np.exp(score.tail)
        np.testing.assert_allclose(mass, 1.0, atol=1e-5)
        assert (np.diff(score.top_logprobs, axis=-1) <= 0).all()
    whole = engine.score(sequences, top=model.config.vocab_size)
    assert all(np.all(score.tail < -80) for score in whole)
    assert engine.score([]) == []
    with pytest.raises(DataError, match="sequence 1 has 41 tokens: expected 1 to 40"):
        engine.score([(1,), tuple(range(41))])
