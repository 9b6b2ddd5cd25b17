"""The page of debates, read back: it holds what was recorded, and only as data."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest

from arkjax.reporting.viewer.partition import parts
from arkjax.reporting.viewer.pieces import Pieces
from arkjax.reporting.viewer.records import SCALE, in_order
from arkjax.reporting.viewer.sources import find_sources
from arkjax.reporting.viewer.write import write_page
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import to_table
from arkjax.trajectories.store import CallStore

from .debate_pages import (
    HOSTILE,
    TOKENIZER,
    debate,
    debates,
    hostile_store,
    record,
    say,
    unpack,
    view,
)

pytestmark = pytest.mark.fast


def test_the_page_holds_every_recorded_call(tmp_path):
    calls = [call for i in range(40) for call in debate(f"p-{i:03d}")]
    calls.append(
        say("p-000", "eve", 2, "naïve 🦊 答え", None, None, [calls[0].call_id, "elsewhere"])
    )
    calls.append(
        say(
            "p-001", "ann", 2, "7", model="tool:calculator/1", finish_reason="tool", gen_ids=(7,),
            logprobs=(float("-inf"),), sampling_logprobs=(0.0,), step=1,
        )
    )  # fmt: skip
    data = view(record(tmp_path / "store", calls), tmp_path / "page.html")
    recorded = {call.call_id: call for call in calls}
    shown = list(debates(data))
    assert [one["row"]["id"] for one in shown] == [f"p-{i:03d}" for i in range(40)]
    for one in shown:
        ids = [call["id"] for call in one["calls"]]
        for made in one["calls"]:
            call = recorded.pop(made["id"])
            for name in ("stage", "round", "agent", "sample", "step", "text", "parsed", "parse_ok",
                         "sampling", "seed", "model", "correct", "seconds"):  # fmt: skip
                assert made[name] == getattr(call, name), name
            assert [ids[p] if isinstance(p, int) else p for p in made["parents"]] == list(
                call.parents
            )
            assert made["action"] == call.is_action
            assert made["finish"] == call.finish_reason
            assert (made["prompt"], made["prefix"], made["cached"], made["generated"]) == (
                3, 2, 1, len(call.gen_ids),
            )  # fmt: skip
            for steps, value in zip(made["logprobs"], call.logprobs, strict=True):
                if steps is None:
                    assert not np.isfinite(value)
                else:
                    assert abs(steps / SCALE - value) <= 0.5 / SCALE + 1e-9
            if "lengths" in made:
                assert sum(made["lengths"]) == len(call.text.encode("utf-16-le")) // 2
                assert len(made["lengths"]) + len(made["after"]) == len(call.gen_ids)
            else:
                assert tuple(made["ids"]) == call.gen_ids
        assert one["cost"]["calls"] + one["cost"]["actions"] == len(one["calls"])
        assert one["cost"]["prefill_tokens"] == 2 * one["cost"]["calls"]
    assert not recorded


def test_tokens_have_the_text_they_wrote():
    tokenizer = Tokenizer(TOKENIZER)
    text = "gap 4 7 makes 3 ; so 3"
    call = say("p", "ann", 0, text)
    inside, after = Pieces(tokenizer).of(call)
    assert "".join(inside) == text
    assert inside[:2] == ["gap", " 4"]
    assert after == [tokenizer.token(2)]
    # What a stop string cut off is no part of the text.
    cut = dataclasses.replace(call, text=text[: text.index(" ;")])
    inside, after = Pieces(tokenizer).of(cut)
    assert "".join(inside) == cut.text
    assert len(inside) + len(after) == len(call.gen_ids)
    # Ids that do not spell the text are not forced on it.
    assert Pieces(tokenizer).of(dataclasses.replace(call, text="something else")) is None


def test_a_character_in_several_tokens_stays_whole(tmp_path):
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"</s>": len(letters)}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    tokenizer = Tokenizer(tmp_path)
    text = "a 🦊 b"
    call = say("p", "ann", 0, text, gen_ids=(*tokenizer.encode(text), tokenizer.eos_id))
    inside, after = Pieces(tokenizer).of(call)
    assert inside == ["a", " ", "", "", "", "🦊", " ", "b"]
    assert after == ["</s>"]


@pytest.mark.parametrize("part_debates", [1, 3, 1000])
@pytest.mark.parametrize("limit", [None, 5])
def test_parts_hold_every_debate_once_whatever_their_size(tmp_path, part_debates, limit):
    calls = [call for i in range(11) for call in debate(f"p-{i:02d}")]
    store = CallStore(record(tmp_path / "store", calls, shard_calls=7))
    found = list(parts(store, tmp_path, limit=limit, part_debates=part_debates))
    ids = [problem for part in found for problem in part.problem_ids]
    assert ids == sorted({call.problem_id for call in calls})[:limit]
    assert all(len(part.problem_ids) <= part_debates for part in found)
    read = {call for part in found for of_one in part.calls for call in
            (c.call_id for c in of_one)}  # fmt: skip
    assert read == {call.call_id for call in calls if call.problem_id in ids}
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_parts_are_cut_where_messages_are_long(tmp_path):
    calls = [say(f"p-{i}", "ann", 0, "x" * 1000, gen_ids=(5, 2)) for i in range(9)]
    store = CallStore(record(tmp_path / "store", calls))
    found = list(parts(store, tmp_path, part_characters=2500))
    assert [len(part.problem_ids) for part in found] == [2, 2, 2, 2, 1]


def test_a_call_in_two_shards_is_there_once(tmp_path):
    folder = record(tmp_path / "store", debate("p"), shard_calls=100)
    digest = (folder / "calls-00000.parquet.sha256").read_text().split()[0]
    (folder / "calls-00001.parquet").write_bytes((folder / "calls-00000.parquet").read_bytes())
    (folder / "calls-00001.parquet.sha256").write_text(f"{digest}  calls-00001.parquet\n")
    (one,) = debates(view(folder, tmp_path / "page.html"))
    assert len(one["calls"]) == 4


def test_records_of_before_can_be_viewed(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    old = to_table(debate("p")).drop_columns(["step", "top_ids", "top_logprobs"])
    pq.write_table(old, folder / "calls-00000.parquet")
    digest = hashlib.sha256((folder / "calls-00000.parquet").read_bytes()).hexdigest()
    (folder / "calls-00000.parquet.sha256").write_text(f"{digest}  calls-00000.parquet\n")
    (one,) = debates(view(folder, tmp_path / "page.html"))
    assert {call["step"] for call in one["calls"]} == {0}
    tables = list(CallStore(folder).tables(["step", "agent"]))
    assert tables[0].column_names == ["step", "agent"]


def test_turns_and_credit_are_those_of_the_answers(tmp_path):
    calls = debate("p-0") + debate("p-1", "misled")
    first, second = debates(view(record(tmp_path / "store", calls), tmp_path / "page.html"))
    assert (first["row"]["corrected"], first["row"]["misled"]) == (1, 0)
    assert (second["row"]["corrected"], second["row"]["misled"]) == (0, 1)
    (turn,) = [turn for turn in first["turns"] if turn["kind"] == "corrected"]
    assert first["calls"][turn["at"]]["agent"] == "bob"
    assert [first["calls"][source]["agent"] for source in turn["sources"]] == ["ann"]
    assert first["agents"]["ann"] == {"corrected": 1, "own": True}
    assert second["agents"]["bob"] == {"misled": 1}


def test_top_tokens_are_kept_with_their_text(tmp_path):
    tokenizer = Tokenizer(TOKENIZER)
    four, seven = tokenizer.encode("4 7")
    call = say("p", "ann", 0, "4", gen_ids=(four, 2))
    call = dataclasses.replace(
        call, top_ids=(four, seven, 2, four), top_logprobs=(-0.5, -1.25, -0.125, -2.0)
    )
    (one,) = debates(view(record(tmp_path / "store", [call]), tmp_path / "page.html"))
    top = one["calls"][0]["top"]
    assert [[text.strip() for text, _ in step] for step in top] == [["4", "7"], ["</s>", "4"]]
    assert [[steps for _, steps in step] for step in top] == [[-500, -1250], [-125, -2000]]


def test_those_who_hear_others_of_their_round_come_after_them():
    zoe = say("p", "zoe", 0, "so 3")
    amy = say("p", "amy", 0, "so 3", parents=[zoe.call_id])
    act = say("p", "zoe", 0, "3", model="tool:x/1", step=1, parents=[zoe.call_id])
    late = say("p", "amy", 1, "so 3", parents=[amy.call_id])
    assert in_order([late, amy, act, zoe]) == [zoe, act, amy, late]
    both = [say("p", "zoe", 0, "so 3"), say("p", "amy", 0, "so 3")]
    assert [call.agent for call in in_order(both)] == ["amy", "zoe"]
    assert [call.agent for call in in_order(both, ("zoe", "amy"))] == ["zoe", "amy"]


# --- hostile words --------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_words_are_data_and_nothing_else(tmp_path):
    folder = hostile_store(tmp_path / "</title><script>window.ran = 5<")
    path = tmp_path / "page.html"
    first, second = debates(view(folder, path))
    assert first["calls"][0]["text"] == HOSTILE or first["calls"][1]["text"] == HOSTILE
    assert len(second["calls"][0]["text"]) == 1_000_000
    page = path.read_text()
    assert "window.ran" not in re.sub(r"<title>.*?</title>", "", page)
    elements = Elements()
    elements.feed(page)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert [s for s in scripts if s.get("type") != "text/plain"] == [{}]
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        assert attributes.get("href", "#").startswith("#"), tag


def test_only_the_pages_own_script_and_style_may_run(tmp_path):
    path = tmp_path / "page.html"
    view(record(tmp_path / "store", debate("p")), path)
    page = path.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)


def test_half_characters_of_a_question_do_no_harm(tmp_path):
    sources = find_sources(record(tmp_path / "store", debate("p")))
    problem = dataclasses.make_dataclass("P", ["question", "answer", "domain", "meta"])
    broken = problem("half \ud83d and \udc00", "3", "d\ud800", {})
    play = dataclasses.replace(sources.plays[0], problems={"p": broken}, answers={"p": ("3", True)})
    path = tmp_path / "page.html"
    write_page(path, dataclasses.replace(sources, plays=(play,)))
    (one,) = debates(unpack(path))
    assert one["question"] == "half \ufffd and \ufffd"
    assert (one["row"]["answer"], one["row"]["right"]) == ("3", True)
