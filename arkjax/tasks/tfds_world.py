"""The generated worlds as TensorFlow Datasets builders that generate and never download.

import tensorflow_datasets as tfds
import arkjax.tasks.tfds_world  # registers the builders

problems = tfds.load("embedded_world/problems", split="test")
documents = tfds.load("embedded_world/documents", split="train")
searches = tfds.load("search_world/problems", split="test")
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from arkjax.tasks import embedded_world, registry, search_world
from arkjax.tasks.drawing import SPLITS
from arkjax.tasks.embedded_sets import SHIPPED_WORLD
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.tasks.search_sets import SHIPPED_SEARCH_WORLD
from arkjax.tasks.search_world import SearchWorldConfig

_TRAIN_SEED = 0


@dataclasses.dataclass(eq=False)
class EmbeddedWorldConfig(tfds.core.BuilderConfig):
    """What to generate.

    Attributes:
      content: "problems" or "documents".
      world: the world; its evaluation sets are the fixed ones.
      train_size: problems or documents of the train split.
    """

    content: str = "problems"
    world: WorldConfig = SHIPPED_WORLD
    train_size: int = 10_000


@dataclasses.dataclass(eq=False)
class SearchWorldTfdsConfig(EmbeddedWorldConfig):
    """What to generate; attributes as of `EmbeddedWorldConfig`."""

    world: SearchWorldConfig = SHIPPED_SEARCH_WORLD


def _problems_and_documents(config: type[EmbeddedWorldConfig]) -> list[EmbeddedWorldConfig]:
    """The configs of a world's builder."""
    return [
        config(name="problems", description="Questions with gold answers."),
        config(
            name="documents",
            description="Texts of a base model.",
            content="documents",
            train_size=50_000,
        ),
    ]


class EmbeddedWorld(tfds.core.GeneratorBasedBuilder):
    """Problems of the embedded world, or the documents that a base model is trained on."""

    WORLD = embedded_world
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = _problems_and_documents(EmbeddedWorldConfig)

    def _info(self) -> tfds.core.DatasetInfo:
        if self.builder_config.content == "documents":
            turn = {"byline": tfds.features.Text(), "text": tfds.features.Text()}
            features = {
                "question": tfds.features.Text(),
                "turns": tfds.features.Sequence({**turn, "weight": np.float32}),
            }
        else:
            names = ("id", "question", "answer", "domain")
            features = {name: tfds.features.Text() for name in names}
            features["part"] = tfds.features.ClassLabel(names=self.WORLD.PARTS)
            features["items"] = np.int32
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.WORLD.__doc__,
            features=tfds.features.FeaturesDict(features),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self.builder_config.content == "documents":
            return {"train": self._generate_examples("train")}
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config, task = self.builder_config, registry.get_task(self.WORLD.NAME)
        if config.content == "documents":
            hashes = task.world.evaluation_hashes(config.world)
            stream = task.world.documents(config.world, _TRAIN_SEED, hashes)
            for number, document in enumerate(itertools.islice(stream, config.train_size)):
                yield number, dataclasses.asdict(document)
            return
        limit = config.train_size if split == "train" else None
        problems = task.load(split, limit, world=config.world, seed=_TRAIN_SEED)
        for number, problem in enumerate(problems):
            yield (
                number,
                {
                    "id": problem.id,
                    "question": problem.question,
                    "answer": problem.answer,
                    "domain": problem.domain,
                    **problem.meta,
                },
            )


class SearchWorld(EmbeddedWorld):
    """Problems of the search world, or the documents that a base model is trained on."""

    WORLD = search_world
    BUILDER_CONFIGS = _problems_and_documents(SearchWorldTfdsConfig)
