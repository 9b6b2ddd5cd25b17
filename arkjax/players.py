"""Those who play a run's teams: the base model, students, further models here, models elsewhere."""

import dataclasses
import functools
import gc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from jax.sharding import Mesh

from arkjax.errors import ConfigError
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress, Task
from arkjax.run_config import BASE, RunConfig
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generator
from arkjax.sampling.remotes import Remotes, Watched
from arkjax.sampling.rota import Rota
from arkjax.shipped import shipped_path
from arkjax.storage import content_hash
from arkjax.synthesis.foreign import in_own_tokens
from arkjax.teams.plans import Voice
from arkjax.text.chat import Chat, make_chat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer at a path, or a shipped one of that name."""
    path = Path(name)
    return Tokenizer(path if path.exists() else shipped_path(name))


@dataclasses.dataclass
class Players:
    """The generators of a run's models, each made when it is first needed.

    Attributes:
      config: of the run.
      mesh: all devices.
      tokenizer, chat: of the base model and all that are like it: students and remotes.
      load: reads the base model or a student.
      progress: where it is told that models take turns.
    """

    config: RunConfig
    mesh: Mesh
    tokenizer: Tokenizer
    chat: Chat
    load: Callable[[str], Transformer]
    progress: Progress
    _student: Rota | None = dataclasses.field(default=None, init=False, repr=False)

    @functools.cached_property
    def remotes(self) -> Remotes:
        """The models behind servers."""
        return Remotes(self.config.remotes, self.tokenizer)

    @functools.cached_property
    def voices(self) -> dict[str, Voice]:
        """How each of the config's further models is written to and read."""
        made = {}
        for name, local in self.config.models.items():
            tokenizer = self._tokenizer(name)
            chat = make_chat(tokenizer, local.chat, local.chat_variables)
            made[name] = Voice(chat, tokenizer, tokenizer.hash)
        return made

    def _tokenizer(self, name: str) -> Tokenizer:
        local = self.config.models[name]
        if local.tokenizer:
            return open_tokenizer(local.tokenizer)
        folder = find(local.checkpoint).tokenizer
        if folder is None:
            raise ConfigError(
                f"config.models.{name}.tokenizer is empty, and no tokenizer comes with "
                f"{local.checkpoint}: give its file or folder"
            )
        return Tokenizer(folder)

    def voice(self, player: str) -> Voice:
        """How a model is written to and read: a student like the base model."""
        if player in self.config.models:
            return self.voices[player]
        return Voice(self.chat, self.tokenizer, self.tokenizer.hash)

    def is_foreign(self, player: str) -> bool:
        """Whether a model has another tokenizer than the base model and the students."""
        return player in self.voices and self.voices[player].vocabulary != self.tokenizer.hash

    @functools.cached_property
    def foreign(self) -> frozenset[str]:
        """Identities of the models that are foreign, as calls name them."""
        return frozenset(self.local_id(name) for name in self.voices if self.is_foreign(name))

    def in_own_tokens(self, calls: Iterable[Call]) -> list[Call]:
        """The calls in ids of the base model's tokenizer.

        Those of a model with another tokenizer are nothing that the base model or a student could
        read or learn as they are: they are left out or encoded anew, as `config.synthesis.foreign`
        says.
        """
        how = self.config.synthesis.foreign
        return in_own_tokens(calls, self.foreign, how, self.tokenizer, self.chat.end_id)

    def local_id(self, name: str) -> str:
        """Identity of one of the config's further models."""
        precision = [getattr(self.config.engine, field) for field in ("cache", "weights")]
        local, voice = self.config.models[name], self.voices[name]
        made_from = [local.checkpoint, voice.vocabulary, voice.chat.identity, precision]
        return f"{name}-{content_hash(made_from)[:16]}"

    def generator(self, name: str) -> Generator:
        """What generates with a model; a student is kept until the next one is asked."""
        if name in self.config.remotes:
            return self.remotes[name]
        if name in self.rota:
            return self.rota[name]
        if name == BASE:
            return self.base_engine
        return self._alone(name)[name]

    def engine(self, name: str) -> Engine:
        """The engine of a model here; one that takes turns is there until another's."""
        if name in self.rota:
            return self.rota.take(name)
        return self.base_engine if name == BASE else self._alone(name).take(name)

    def generators(self, players: Mapping[str, str], task: Task) -> dict[str, Generator]:
        """The generator of each name that a team gives a model; servers are watched.

        Args:
          players: who plays under each of the names.
          task: is told how the servers do.
        """
        remotes = set(players.values()) & set(self.config.remotes)
        made = {player: self.generator(player) for player in players.values()}
        here = [generator for player, generator in made.items() if player not in remotes]
        tell = functools.partial(task.advance, 0)
        for player in remotes:
            made[player] = Watched(made[player], here, task.restart, tell)
        return {name: made[player] for name, player in players.items()}

    @functools.cached_property
    def engine_config(self) -> EngineConfig:
        """The config's engine, with room for all tokens that end a turn."""
        chats = [self.chat, *(voice.chat for voice in self.voices.values())]
        ends = max(len(chat.end_ids) for chat in chats)
        engine = self.config.engine
        return dataclasses.replace(engine, max_stop_ids=max(engine.max_stop_ids, ends))

    @functools.cached_property
    def base_engine(self) -> Engine:
        """The engine of the base model, where it takes no turns."""
        return self._engine(BASE)

    @functools.cached_property
    def rota(self) -> Rota:
        """The base model and the further ones, by turns; empty if there are no further ones."""
        names = [BASE, *self.config.models] if self.config.models else []
        longest = self.config.engine.length_classes[-1]
        return Rota(
            {name: functools.partial(self._engine, name) for name in names},
            dict.fromkeys(names, longest),
            self.config.models_at_once,
            self.progress.say,
        )

    def _alone(self, student: str) -> Rota:
        """A rota of one student; it reads the student at its first call, if there is one."""
        if self._student is None or student not in self._student:
            if self._student is not None:
                self._student.close()
            longest = self.config.engine.length_classes[-1]
            opened = {student: functools.partial(self._engine, student)}
            self._student = Rota(opened, {student: longest})
        return self._student

    def _engine(self, name: str) -> Engine:
        if name not in self.config.models:
            return Engine(self.load(name), self.engine_config, self.tokenizer)
        source = find(self.config.models[name].checkpoint)
        opened = open_model(source, self.mesh, self.config.sharding)
        tokenizer = self.voices[name].tokenizer
        tokenizer.check_fits(opened.model.config.vocab_size, source.folder)
        return Engine(opened.model, self.engine_config, tokenizer)

    def close(self) -> None:
        """Free the engines, and end all talk with servers."""
        if "remotes" in self.__dict__:
            self.remotes.close()
        self._student = None
        self.__dict__.pop("base_engine", None)
        if "rota" in self.__dict__:
            self.rota.close()
        else:
            gc.collect()
