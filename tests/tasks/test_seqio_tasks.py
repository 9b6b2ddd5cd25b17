"""The embedded world as SeqIO tasks: the same tokens and grades as everywhere else."""

import itertools

import numpy as np
import pytest

seqio = pytest.importorskip(
    "seqio", reason="SeqIO comes with the extras `tasks` and `dev`", exc_type=ImportError
)

from arkjax.shipped import shipped_path  # noqa: E402
from arkjax.tasks import embedded_world as world  # noqa: E402
from arkjax.tasks import seqio_tasks  # noqa: E402
from arkjax.tasks.drawing import SPLITS  # noqa: E402
from arkjax.tasks.embedded_sets import EMBEDDED_SETS, SHIPPED_WORLD  # noqa: E402
from arkjax.tasks.world_documents import make_documents  # noqa: E402
from arkjax.text.chat import PlainChat  # noqa: E402
from arkjax.text.tokenizer import Tokenizer  # noqa: E402

TOKENIZER = Tokenizer(shipped_path(f"data/{world.NAME}/tokenizer.model"))
CHAT = PlainChat(TOKENIZER)


def rows(task, split, count, lengths=None):
    dataset = seqio.get_mixture_or_task(task).get_dataset(lengths, split, shuffle=False)
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def right_answer(problem):
    items = world.parse_question(problem.question)
    return world.solution_text(items, world.true_values(items))


def test_splits_and_sizes():
    source = seqio.get_mixture_or_task(seqio_tasks.TASK).source
    assert set(source.splits) == set(SPLITS)
    assert source.num_input_examples("test") == 1000


@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_laid_out_as_the_bare_prompt(split):
    problems = EMBEDDED_SETS.load(split, seqio_tasks.PROBLEM_SIZES[split])[:20]
    for problem, row in zip(problems, rows(seqio_tasks.TASK, split, 20), strict=True):
        prompt = [*CHAT.question(problem.question), *CHAT.turn(world.BARE_BYLINE)]
        assert row["inputs"].tolist() == prompt
        answer = [*TOKENIZER.encode(right_answer(problem)), CHAT.end_id]
        assert row["targets"].tolist() == answer


def test_documents_are_laid_out_as_transcripts():
    stream = make_documents(SHIPPED_WORLD, 0, EMBEDDED_SETS.hashes())
    found = rows(seqio_tasks.DOCUMENTS_TASK, "train", 100)
    for document, row in zip(itertools.islice(stream, 100), found, strict=True):
        ids = CHAT.question(document.question)
        weights = [0.0] * len(ids)
        for turn in document.turns:
            header, words = CHAT.turn(turn.byline), [*TOKENIZER.encode(turn.text), CHAT.end_id]
            ids = [*ids, *header, *words]
            weights += [0.0] * len(header) + [turn.weight] * len(words)
        assert row["targets"].tolist() == ids
        assert row["loss_weights"].tolist() == weights


def test_feature_converters_take_the_task():
    dataset = seqio.get_dataset(
        seqio_tasks.TASK,
        task_feature_lengths={"inputs": 64, "targets": 96},
        dataset_split="validation",
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        shuffle=False,
    )
    row = next(dataset.as_numpy_iterator())
    assert row["encoder_input_tokens"].shape == (64,)
    assert np.count_nonzero(row["decoder_loss_weights"]) == np.count_nonzero(
        row["decoder_target_tokens"]
    )


def test_metrics_are_the_graders():
    task = seqio.get_mixture_or_task(seqio_tasks.TASK)
    found = rows(seqio_tasks.TASK, "validation", 200)
    targets = [task.postprocess_fn("", example=row, is_target=True) for row in found]
    problems = EMBEDDED_SETS.load("validation")
    assert [t.id for t in targets] == [p.id for p in problems]
    (metric,) = task.metric_fns
    right = [task.postprocess_fn(right_answer(p), example=None) for p in problems]
    assert set(metric(targets, right).values()) == {1.0}
    laymen = [f"so {world.role_answer(world.parse_question(p.question), None)}" for p in problems]
    assert metric(targets, laymen) == {
        "accuracy": 0.4,
        "accuracy_plain": 1.0,
        "accuracy_single": 0.0,
        "accuracy_multi": 0.0,
    }
