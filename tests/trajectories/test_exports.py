"""Exports hold what the record holds, are whole or absent, and replace nothing of anybody's."""

import base64
import dataclasses
import json
import struct
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.trajectories.exports import FORMATS, Selection, export
from arkjax.trajectories.exports.tfrecord import example, masked_crc32c, write_records
from arkjax.trajectories.schema import from_table
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


@pytest.fixture
def calls(debate):
    made = [c for n in range(6) for c in debate(n, tool=n == 2)]
    tricky = "naïve \ud800 \x1b[31m “數” \u2028"
    return [*made, dataclasses.replace(made[0], call_id="t" * 32, text=tricky, problem_id="p9")]


@pytest.fixture
def written(calls, store_of, tmp_path, tokenizer):
    """Exports all calls in a format and returns the folder."""
    # Arrow holds no lone surrogate, so the store has none either.
    calls = [dataclasses.replace(c, text=c.text.replace("\ud800", "")) for c in calls]
    store = CallStore(store_of(calls, shard_calls=10))

    def write(name, selection=None, out=None, **options):
        out = out or tmp_path / "out"
        options = {"tokenizer": tokenizer, **options}
        export(store, name, FORMATS[name], out, selection or Selection(), **options)
        return out

    write.calls, write.store = calls, store
    return write


# --- the folder --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_whole_or_absent_and_replaces_only_exports(
    written, tmp_path, name, monkeypatch
):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no export"):
        written(name, out=mine, overwrite=True)
    assert (mine / "notes.txt").read_text() == "mine"
    out = written(name)
    told = json.loads((out / "arkjax_export.json").read_text())
    assert told["format"] == name and told["records"] >= 37
    with pytest.raises(ConfigError, match="--overwrite"):
        written(name)
    before = {p.name: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}

    def stopping(method):
        def stops(store):
            yield next(method(store))
            raise DataError("the second shard is damaged")

        return stops

    with monkeypatch.context() as patch:
        for method in ("unique_tables", "by_problem"):
            patch.setattr(CallStore, method, stopping(getattr(CallStore, method)))
        with pytest.raises(DataError, match="the second shard"):
            written(name, overwrite=True)
    assert {p.name: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    assert written(name, overwrite=True) == out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_selection_without_calls_names_the_systems(written):
    with pytest.raises(DataError, match=r"--system nobody.*its systems are debate"):
        written("hf", Selection(system="nobody"))
    with pytest.raises(ConfigError, match="--tokenizer"):
        written("chat-jsonl", tokenizer=None)
    with pytest.raises(ConfigError, match="whole debate"):
        written("otel", Selection(only_correct=True))


# --- chats -------------------------------------------------------------------------------------


def test_a_chat_is_role_question_transcript_and_answer(written):
    lines = (written("chat-jsonl") / "calls.jsonl").read_text("utf-8").split("\n")
    assert lines.pop() == ""
    chats = {chat["metadata"]["call_id"]: chat for chat in map(json.loads, lines)}
    assert set(chats) == {c.call_id for c in written.calls if not c.is_action}
    first, later = written.calls[0], written.calls[4]
    assert (first.agent, first.round, later.agent, later.round) == ("a0", 0, "a1", 1)
    question = {"role": "user", "content": "coins 0 4 , gap 3 0"}
    assert chats[first.call_id]["messages"] == [
        {"role": "system", "content": "a0"},
        question,
        {"role": "assistant", "content": first.text},
    ]
    said = [c.text for c in written.calls[:3]]
    assert chats[later.call_id]["messages"] == [
        {"role": "system", "content": "a1"},
        question,
        {"role": "user", "name": "a0", "content": said[0]},
        {"role": "assistant", "content": said[1]},
        {"role": "user", "name": "a2", "content": said[2]},
        {"role": "assistant", "content": later.text},
    ]
    facts = chats[later.call_id]["metadata"]
    assert facts["parsed"] == dict(later.parsed) and facts["sampling"] == dict(later.sampling)


def test_a_tool_is_named_in_the_transcript_of_whoever_reads_it(calls, tokenizer):
    from arkjax.trajectories.exports.chat import chat

    action = next(c for c in calls if c.is_action)
    ids = (*action.gen_ids, *tokenizer.encode("a0:"))
    end = len(action.gen_ids)
    segments = ((action.call_id, 0, end), ("template", end, len(ids)))
    reader = dataclasses.replace(calls[0], prompt_ids=ids, prompt_segments=segments)
    known = {c.call_id: c for c in calls}
    made = chat(reader, tokenizer, lambda i: known[i].agent, lambda i: known[i].model)
    assert made["messages"][1] == {"role": "user", "name": "calculator_1", "content": "sum 7"}


def test_only_right_calls_of_one_system_are_taken(written):
    out = written("chat-jsonl", Selection(system="debate", only_correct=True))
    chats = list(map(json.loads, (out / "calls.jsonl").read_text("utf-8").splitlines()))
    right = [c.call_id for c in written.calls if c.correct]
    assert [chat["metadata"]["call_id"] for chat in chats] == right and right


# --- Hugging Face ------------------------------------------------------------------------------


def test_the_dataset_folder_has_all_columns_and_a_card_that_declares_them(
    written, tokenizer, monkeypatch
):
    monkeypatch.setattr("arkjax.trajectories.exports.huggingface._CALLS_IN_FILE", 15)
    out = written("hf")
    files = sorted((out / "data").iterdir())
    n = len(files)
    assert [f.name for f in files] == [f"train-{i:05d}-of-{n:05d}.parquet" for i in range(n)]
    assert n == 2
    read = [row for f in files for row in pq.read_table(f).to_pylist()]
    assert [row["call_id"] for row in read] == [c.call_id for c in written.calls]
    assert read[4]["prompt"] == tokenizer.decode(written.calls[4].prompt_ids, special=True)
    columns = [pq.read_table(f).drop_columns("prompt") for f in files]
    assert [c for t in columns for c in from_table(t)] == written.calls
    card = (out / "README.md").read_text()
    yaml = pytest.importorskip("yaml").safe_load(card.split("---\n")[1])
    (config,) = yaml["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    info = yaml["dataset_info"]
    assert [f["name"] for f in info["features"]] == pq.read_schema(files[0]).names
    assert info["splits"][0]["num_examples"] == len(written.calls)
    assert info["download_size"] == sum(f.stat().st_size for f in files)


def test_datasets_loads_the_folder(written, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    # It checks features and sizes against what the card says.
    loaded = datasets.load_dataset(str(written("hf")), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == len(written.calls)
    row, call = loaded["train"][4], written.calls[4]
    assert tuple(row["gen_ids"]) == call.gen_ids
    assert [tuple(s.values()) for s in row["prompt_segments"]] == list(call.prompt_segments)


# --- TensorFlow Datasets -----------------------------------------------------------------------


def test_checksums_of_records_are_those_of_crc32c():
    # RFC 3720, appendix B.4: 32 bytes of zeros, of ones, ascending, descending.
    vectors = {
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
        b"123456789": 0xE3069283,
    }
    plain = [((m - 0xA282EAD8) & 0xFFFFFFFF) for m in masked_crc32c(list(vectors))]
    turned = [((c << 15) | (c >> 17)) & 0xFFFFFFFF for c in plain]
    assert turned == list(vectors.values())
    rng = np.random.default_rng(0)
    many = [rng.bytes(int(n)) for n in rng.integers(4, 900, 600)]
    assert masked_crc32c(many) == [masked_crc32c([one])[0] for one in many]


def test_records_and_examples_are_what_tensorflow_reads(tmp_path):
    tf = pytest.importorskip("tensorflow")
    texts = {"b": [b"x", b""], "none": []}
    integers = {"i": [0, -1, 2**40, 127, 128], "empty": []}
    floats = {"f": np.array([0.5, -2.0], np.float32)}
    data = example(texts, integers, floats)
    read = tf.train.Example.FromString(data)
    expected = tf.train.Example()
    expected.features.feature["b"].bytes_list.value[:] = texts["b"]
    expected.features.feature["none"].bytes_list.SetInParent()
    expected.features.feature["i"].int64_list.value[:] = integers["i"]
    expected.features.feature["empty"].int64_list.SetInParent()
    expected.features.feature["f"].float_list.value[:] = [0.5, -2.0]
    assert read == expected
    with (tmp_path / "records").open("wb") as file:
        assert write_records(file, [data, b"12345"]) == len(data) + 5 + 2 * 16
    assert list(tf.data.TFRecordDataset(tmp_path / "records").as_numpy_iterator()) == [
        data,
        b"12345",
    ]


def test_the_tfds_folder_counts_its_records_as_they_are(written, monkeypatch):
    monkeypatch.setattr("arkjax.trajectories.exports.tfds._CALLS_IN_FILE", 15)
    out = written("tfds")
    info = json.loads((out / "dataset_info.json").read_text())
    (split,) = info["splits"]
    lengths = [int(length) for length in split["shardLengths"]]
    files = sorted(out.glob("arkjax_calls-train.tfrecord-*"))
    assert [f.name[-14:] for f in files] == ["00000-of-00002", "00001-of-00002"]
    assert sum(lengths) == len(written.calls)
    size = 0
    for file, length in zip(files, lengths, strict=True):
        data, at, count = file.read_bytes(), 0, 0
        while at < len(data):
            (n,) = struct.unpack_from("<Q", data, at)
            at, count, size = at + n + 16, count + 1, size + n
        assert (at, count) == (len(data), length)
    assert int(split["numBytes"]) == size


def test_tfds_builds_the_folder(written, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(written("tfds")))
    assert builder.info.splits["train"].num_examples == len(written.calls)
    rows = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert len(rows) == len(written.calls)
    by_id = {row["call_id"].decode(): row for row in rows}
    for call in written.calls:
        row = by_id[call.call_id]
        assert row["text"].decode() == call.text
        for name in ("prompt_ids", "gen_ids", "logprobs", "top_ids"):
            assert tuple(row[name].tolist()) == getattr(call, name)
        assert [p.decode() for p in row["parents"]] == list(call.parents)
        segments = row["prompt_segments"]
        assert list(
            zip(
                [source.decode() for source in segments["source"]],
                segments["start"].tolist(),
                segments["end"].tolist(),
                strict=True,
            )
        ) == list(call.prompt_segments)
        assert row["correct"] == {None: -1, False: 0, True: 1}[call.correct]
        assert (row["seed"], bool(row["parse_ok"])) == (call.seed, call.parse_ok)
    # features.json is what TFDS itself would write of these features.
    builder.info.features.save_config(tmp_path)
    theirs, ours = (
        json.loads((folder / "features.json").read_text())
        for folder in (tmp_path, builder.data_path)
    )
    assert ours == theirs


# --- OpenTelemetry -----------------------------------------------------------------------------


def spans_of(path):
    """Spans of each line, with attributes as a dict of plain values."""
    lines = [json.loads(line) for line in (path / "traces.jsonl").read_text("utf-8").splitlines()]
    return [
        [
            {**span, "attributes": {a["key"]: plain(a["value"]) for a in span["attributes"]}}
            for resource in line["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        for line in lines
    ]


def plain(value):
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [plain(item) for item in content["values"]]
    return int(content) if kind == "intValue" else content


def test_a_debate_is_a_trace_of_team_stages_calls_and_actions(written):
    traces = spans_of(written("otel"))
    assert len(traces) == 7
    for spans in traces:
        assert len({span["traceId"] for span in spans}) == 1
        assert len({span["spanId"] for span in spans}) == len(spans)
        by_id = {span["spanId"]: span for span in spans}
        root, *others = spans
        assert "parentSpanId" not in root and root["name"] == "invoke_workflow debate"
        for span in others:
            above = by_id[span["parentSpanId"]]
            assert int(above["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
            assert int(span["endTimeUnixNano"]) <= int(above["endTimeUnixNano"])
            for link in span.get("links", []):
                # What a prompt shows had ended before the call began.
                shown = by_id[link["spanId"]]
                assert int(shown["endTimeUnixNano"]) <= int(span["startTimeUnixNano"])
        assert all("synthesised" in span["attributes"]["arkjax.time"] for span in spans)
    spans = traces[2]
    operations = Counter(span["attributes"].get("gen_ai.operation.name") for span in spans)
    assert operations == {"invoke_workflow": 1, None: 2, "chat": 6, "execute_tool": 1}
    call = written.calls[16]
    (span,) = [s for s in spans if s["attributes"].get("arkjax.call.id") == call.call_id]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "arkjax",
        "gen_ai.conversation.id": "debate/p2",
        "gen_ai.request.model": "base-0",
        "gen_ai.request.seed": call.seed,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 24,
        "gen_ai.response.id": call.call_id,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": len(call.prompt_ids),
        "gen_ai.usage.output_tokens": len(call.gen_ids),
        "gen_ai.agent.name": call.agent,
    }
    assert expected.items() <= span["attributes"].items()
    assert span["name"] == "chat base-0" and len(span["links"]) == 3
    # Words of people and models are told only if they are asked for.
    assert not any("messages" in key for s in spans for key in s["attributes"])


def test_ids_of_spans_are_those_of_the_calls_and_words_are_opt_in(written, tmp_path):
    first = spans_of(written("otel"))
    again = spans_of(written("otel", Selection(content=True), out=tmp_path / "again"))
    ids = [[(s["traceId"], s["spanId"]) for s in spans] for spans in first]
    assert ids == [[(s["traceId"], s["spanId"]) for s in spans] for spans in again]
    call = written.calls[4]
    (span,) = [s for s in again[0] if s["attributes"].get("arkjax.call.id") == call.call_id]
    (answer,) = json.loads(span["attributes"]["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "text", "content": call.text}]
    heard = json.loads(span["attributes"]["gen_ai.input.messages"])
    assert [m["parts"][0]["content"] for m in heard[1:4]] == [c.text for c in written.calls[:3]]
    tool = next(s for s in again[2] if s["name"].startswith("execute_tool"))
    assert tool["attributes"]["gen_ai.tool.name"] == "calculator/1"
    assert tool["attributes"]["gen_ai.tool.call.result"] == "sum 7"


def test_protobuf_parses_the_spans(written):
    trace_pb2 = pytest.importorskip("opentelemetry.proto.trace.v1.trace_pb2")
    from google.protobuf import json_format

    count = 0
    for line in (written("otel") / "traces.jsonl").read_text("utf-8").splitlines():
        data = json.loads(line)
        for scope in data["resourceSpans"][0]["scopeSpans"]:
            for span in scope["spans"]:
                for item in (span, *span.get("links", [])):
                    # OTLP writes ids in hexadecimal, where protobuf's own JSON has base64.
                    for key in {"traceId", "spanId", "parentSpanId"} & item.keys():
                        raw = bytes.fromhex(item[key])
                        assert len(raw) == (16 if key == "traceId" else 8)
                        item[key] = base64.b64encode(raw).decode()
        # Raises on a field or an enumeration that OTLP does not have.
        parsed = json_format.ParseDict(data, trace_pb2.TracesData())
        count += len(parsed.resource_spans[0].scope_spans[0].spans)
    assert count == 7 + 2 * 6 + 1 + len(written.calls)


def test_a_sequential_stage_is_told_in_the_order_of_who_hears_whom(debate):
    from arkjax.trajectories.exports.otel import Trace

    a, b, c = debate(1)[:3]
    b = dataclasses.replace(b, parents=(c.call_id,), seconds=1.0)
    c = dataclasses.replace(c, parents=(a.call_id,), seconds=2.0)
    spans = Trace([a, b, c], 0, None, False).resource_spans()["resourceSpans"][0]["scopeSpans"][0]
    times = {
        span["attributes"][0]["value"]["stringValue"]: (
            int(span["startTimeUnixNano"]) / 1e9,
            int(span["endTimeUnixNano"]) / 1e9,
        )
        for span in spans["spans"]
        if span["name"].startswith("chat")
    }
    assert times == {"a0": (0, 0.25), "a2": (0.25, 2.25), "a1": (2.25, 3.25)}
