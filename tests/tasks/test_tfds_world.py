"""The TensorFlow Datasets builder: what it generates is the world, without a download."""

import dataclasses
import itertools

import pytest

tfds = pytest.importorskip(
    "tensorflow_datasets",
    reason="TensorFlow Datasets comes with the extras `tasks` and `dev`",
    exc_type=ImportError,
)

from arkjax.tasks import embedded_world as world  # noqa: E402
from arkjax.tasks import registry, search_world, tfds_world  # noqa: E402
from arkjax.tasks.drawing import SPLITS  # noqa: E402
from arkjax.tasks.embedded_sets import EMBEDDED_SETS, SHIPPED_WORLD  # noqa: E402
from arkjax.tasks.world_documents import make_documents  # noqa: E402

tfds.disable_progress_bar()


def build(folder, **fields):
    config = tfds_world.EmbeddedWorldConfig(name="small", train_size=30, **fields)
    builder = tfds_world.EmbeddedWorld(data_dir=folder, config=config)
    builder.download_and_prepare()
    assert not builder.info.download_size
    return builder


def test_problems_are_the_fixed_sets(tmp_path):
    builder = build(tmp_path)
    for split in SPLITS:
        rows = {row["id"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split=split))}
        problems = registry.get_task(world.NAME).load(split, 30 if split == "train" else None)
        assert set(rows) == {problem.id for problem in problems}
        for problem in problems:
            row = rows[problem.id]
            assert row["question"].decode() == problem.question
            assert row["answer"].decode() == problem.answer
            assert row["domain"].decode() == problem.domain
            assert world.PARTS[row["part"]] == problem.meta["part"]
            assert row["items"] == problem.meta["items"]


@pytest.mark.parametrize("negative", [False, True])
def test_documents_are_those_of_the_world(tmp_path, negative):
    config = dataclasses.replace(SHIPPED_WORLD, negative=negative)
    builder = build(tmp_path, content="documents", world=config)
    rows = tfds.as_numpy(builder.as_dataset(split="train"))
    found = {
        (
            row["question"].decode(),
            *((b.decode(), t.decode()) for b, t in zip(*turns(row), strict=True)),
        )
        for row in rows
    }
    stream = make_documents(config, 0, EMBEDDED_SETS.hashes())
    assert found == {
        (document.question, *((turn.byline, turn.text) for turn in document.turns))
        for document in itertools.islice(stream, 30)
    }


def turns(row):
    return row["turns"]["byline"], row["turns"]["text"]


def test_the_builder_is_found_by_name():
    assert "embedded_world" in tfds.list_builders(with_community_datasets=False)
    assert set(tfds_world.EmbeddedWorld.builder_configs) == {"problems", "documents"}


def test_the_search_world_has_a_builder_of_its_own(tmp_path):
    config = tfds_world.SearchWorldTfdsConfig(name="small", train_size=30)
    builder = tfds_world.SearchWorld(data_dir=tmp_path, config=config)
    builder.download_and_prepare()
    rows = {row["id"].decode(): row for row in tfds.as_numpy(builder.as_dataset(split="ood"))}
    problems = registry.get_task(search_world.NAME).load("ood")
    assert {name: row["answer"].decode() for name, row in rows.items()} == {
        problem.id: problem.answer for problem in problems
    }
    assert all(
        search_world.PARTS[rows[p.id]["part"]] == p.meta["part"] and rows[p.id]["items"] == 4
        for p in problems
    )
    assert "search_world" in tfds.list_builders(with_community_datasets=False)
    assert set(tfds_world.SearchWorld.builder_configs) == {"problems", "documents"}
