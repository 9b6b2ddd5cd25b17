"""The embedded world as a TensorFlow Datasets builder that generates and never downloads.

import tensorflow_datasets as tfds
import arkjax.tasks.tfds_world  # registers the builder

problems = tfds.load("embedded_world/problems", split="test")
documents = tfds.load("embedded_world/documents", split="train")
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from arkjax.tasks import embedded_world, registry
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.tasks.world_documents import make_documents

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
    world: WorldConfig = registry.SHIPPED_WORLD
    train_size: int = 10_000


class EmbeddedWorld(tfds.core.GeneratorBasedBuilder):
    """Problems of the embedded world, or the documents that a base model is trained on."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        EmbeddedWorldConfig(name="problems", description="Questions with gold answers."),
        EmbeddedWorldConfig(
            name="documents",
            description="Texts of a base model.",
            content="documents",
            train_size=50_000,
        ),
    ]

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
            features["part"] = tfds.features.ClassLabel(names=embedded_world.PARTS)
            features["items"] = np.int32
        return tfds.core.DatasetInfo(
            builder=self,
            description=embedded_world.__doc__,
            features=tfds.features.FeaturesDict(features),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        if self.builder_config.content == "documents":
            return {"train": self._generate_examples("train")}
        return {split: self._generate_examples(split) for split in embedded_world.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        if config.content == "documents":
            hashes = registry.evaluation_hashes(config.world)
            stream = make_documents(config.world, _TRAIN_SEED, hashes)
            for number, document in enumerate(itertools.islice(stream, config.train_size)):
                yield number, dataclasses.asdict(document)
            return
        limit = config.train_size if split == "train" else None
        problems = registry.load_embedded_world(split, limit, world=config.world, seed=_TRAIN_SEED)
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
