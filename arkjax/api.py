"""The stages as functions on plain objects, for notebooks.

import arkjax
model, tokenizer = arkjax.load("runs/quickstart/seed-0/base/model")
problems = arkjax.problems("embedded_world", "train", limit=100)
calls    = arkjax.sample(arkjax.teams.debate(rounds=2), problems, model, tokenizer)
rows     = arkjax.synthesize(calls, strategy="da")
student  = arkjax.distill(model, rows, teacher=model)
arkjax.evaluate(student, arkjax.problems("embedded_world", "test", limit=100), tokenizer)
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh, NamedSharding

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Rows, pack
from arkjax.distillation.tape import Tape, write_tape
from arkjax.distillation.tape_format import TapeFormat
from arkjax.errors import ConfigError, DataError
from arkjax.models.cache import Precision
from arkjax.models.config import Dtype, Lora, Quantization
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.lora import add_lora
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.remote import RemoteGenerator
from arkjax.sharding import MeshConfig, ShardingRules
from arkjax.sharding import make_mesh as _make_mesh
from arkjax.shipped import shipped_path
from arkjax.storage import content_hash
from arkjax.synthesis.contexts import ContextConfig, teacher_prompts
from arkjax.synthesis.selection import SelectionConfig, grouped
from arkjax.synthesis.strategies import PHASES
from arkjax.synthesis.unified import Unifier, synthesizer_of
from arkjax.tasks.problems import Problem
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.debate import Debate
from arkjax.teams.runner import play
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import Chat, make_chat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.loop import TrainConfig
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.reward_model import fingerprint
from arkjax.training.scoring import live_teacher, tape_scorer
from arkjax.training.supervised import train

_TOKENIZER = "data/embedded_world/tokenizer.model"


@dataclasses.dataclass(frozen=True)
class SampledDebates:
    """What `sample` returns: the debates, the team, and the chat in which they were written."""

    debates: tuple[Debate, ...]
    team: TeamSpec
    chat: Chat
    tokenizer: Tokenizer

    @property
    def calls(self) -> tuple:
        """Every recorded call of every debate."""
        return tuple(call for debate in self.debates for call in debate.calls)

    @property
    def accuracy(self) -> float:
        """Share of the problems that the team solved."""
        return sum(debate.correct for debate in self.debates) / len(self.debates)


@dataclasses.dataclass(frozen=True)
class TrainingRows:
    """What `synthesize` returns: packed rows, and the team's prompts for each of their examples."""

    rows: Rows
    prompts: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def context_length(self) -> int:
        """Tokens that hold any of the team's prompts and a target."""
        longest = max(len(prompt) for several in self.prompts for prompt in several)
        return longest + max(placement.target_length for placement in self.rows.placements)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of all devices; see `arkjax.sharding.MeshConfig`."""
    return _make_mesh(MeshConfig(data, fsdp, tensor))


def problems(task: str, split: str, limit: int | None = None, **options) -> list[Problem]:
    """Problems of a registered task. Raises ConfigError if there is no such task or split."""
    return get_task(task).load(split, limit, **options)


def load(
    path: str | Path,
    mesh: Mesh | None = None,
    tokenizer: str | Path | None = None,
    dtype: Dtype | None = None,
) -> tuple[Transformer, Tokenizer]:
    """A model, read straight onto a mesh, and its tokenizer.

    Args:
      path: directory of an ArkJAX model, such as `RUN/seed-0/base/model`; folder of a Hugging Face
        checkpoint in safetensors; or `hf:owner/name[@revision]`, which is fetched.
      mesh: where it shall lie; None makes one of all devices, each a data replica.
      tokenizer: a file or folder; None takes the one that comes with the model, and for an ArkJAX
        model without one that of the embedded world.
      dtype: of the computation; None takes what an ArkJAX model was made with, and for published
        checkpoints bfloat16 if they have 16 bits.

    Raises:
      DataError: if there is no model, or it is damaged, or the tokenizer is not the one that it was
        trained with or has ids that the model has no row for.
    """
    source = find(path)
    if source.published and tokenizer is None and source.tokenizer is None:
        raise DataError(f"{path} has no tokenizer: pass the file or folder of one as `tokenizer`")
    loaded = Tokenizer(tokenizer or source.tokenizer or shipped_path(_TOKENIZER))
    expected = source.info.get("tokenizer", loaded.hash)
    if expected != loaded.hash:
        raise DataError(
            f"{path} was trained with another tokenizer (hash {expected[:12]}, this one has "
            f"{loaded.hash[:12]}): pass its file as `tokenizer`"
        )
    opened = open_model(
        source, mesh or make_mesh(), ShardingRules(), dtype=dtype, progress=Progress()
    )
    loaded.check_fits(opened.model.config.vocab_size, source.folder)
    return opened.model, loaded


def sample(
    team: TeamSpec | str,
    problems: Sequence[Problem],
    model: Transformer | RemoteGenerator | Mapping[str, Transformer | RemoteGenerator],
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    slots: int = 128,
    cache: Precision = "model",
    weights: Precision = "model",
) -> SampledDebates:
    """Let a team work on problems.

    Args:
      team: a team, or the name of a shipped one.
      problems: of one task.
      model: plays every agent; a model here, or one behind a server. Or several of them, by the
        names that the team's agents call their models by; "policy" where they name none.
      tokenizer: the model's.
      seed: with the team, the problems and the model, it determines every token.
      slots: calls that a model here generates at once.
      cache: in what it keeps keys and values meanwhile; see `EngineConfig`.
      weights: in what it keeps its layers' matrices.

    Raises:
      ConfigError: if an agent names a model that is not there, or one cannot be kept so.
      DataError: if there are no problems, or one cannot fit into the context.
    """
    spec = library.load(team) if isinstance(team, str) else team
    if not problems:
        raise DataError("there are no problems to work on")
    task = get_task(problems[0].task)
    chat = make_chat(tokenizer, bylines=task.world is not None)
    if isinstance(model, Mapping):
        named = {name: one for name, one in model.items() if name in spec.models}
    else:
        named = dict.fromkeys(spec.models, model)
    # Under however many names a model plays, it has one engine.
    precision = {"cache": cache, "weights": weights}
    made = {id(one): _generator(one, tokenizer, slots, **precision) for one in named.values()}
    models = {name: made[id(one)] for name, one in named.items()}
    with Progress().task(spec.name, total=len(problems), unit="problems") as shown:
        debates = play(spec, problems, models, chat, tokenizer, task.grader, None, seed, shown)
    return SampledDebates(tuple(debates), spec, chat, tokenizer)


def _generator(
    model: Transformer | RemoteGenerator, tokenizer: Tokenizer, slots: int, **precision: Precision
) -> Engine | RemoteGenerator:
    if isinstance(model, RemoteGenerator):
        return model
    longest = model.config.max_context
    config = EngineConfig(
        length_classes=tuple(n for n in (96, 256) if n < longest) + (longest,),
        slots=slots,
        prefixes=slots,
        admit_rows=min(slots, 64),
        prefix_rows=min(slots, 16),
        chunk=8,
        block_steps=16,
        max_stop_ids=4,
        **precision,
    )
    return Engine(model, config, tokenizer)


def synthesize(
    sampled: SampledDebates,
    strategy: str = "da",
    *,
    max_traces: int = 3,
    min_agreeing: int = 2,
    row_length: int = 256,
    role: str = library.BARE_ROLE,
) -> TrainingRows:
    """Turn debates into training rows.

    Args:
      sampled: what `sample` returned.
      strategy: "rsft", "da", "da_unverified", "corrective" or another one that learns the words of
        the team's debates; see `arkjax.synthesis.strategies`.
      max_traces, min_agreeing: see `SelectionConfig`.
      row_length: T of the rows.
      role: byline under which the student will answer.

    Raises:
      ConfigError: if there is no such strategy.
      DataError: if no call passes its filters.
    """
    named = {
        phase.name: phase.dataset
        for phase in PHASES.values()
        if phase.learns == "sequence" and phase.dataset.source == "team"
    }
    if strategy not in named:
        raise ConfigError(f"there is no strategy {strategy!r}: there are {', '.join(named)}")
    chat, config = sampled.chat, SelectionConfig(max_traces, min_agreeing, True)
    unifier = Unifier(
        named[strategy].selection(config),
        get_task(sampled.debates[0].problem.task).grader,
        sampled.tokenizer,
        {debate.problem.id: debate.problem for debate in sampled.debates},
        lambda question: [*chat.question(question), *chat.turn(role)],
        end_ids=chat.end_ids,
        synthesizer=synthesizer_of(sampled.team),
    )
    examples, counts = unifier(
        grouped(sampled.calls), {debate.problem.id: debate.answer for debate in sampled.debates}
    )
    if not examples:
        raise DataError(f"no call passed the filters of {strategy!r}: {dataclasses.asdict(counts)}")
    by_problem = {debate.problem.id: debate.calls for debate in sampled.debates}
    contexts = ContextConfig(rounds="last", agents="correct", most=4)
    prompts = tuple(
        tuple(teacher_prompts(by_problem[example.provenance["problem_id"]], contexts))
        for example in examples
    )
    return TrainingRows(pack(examples, row_length), prompts)


def score(
    rows: TrainingRows, teacher: Transformer, directory: str | Path, *, top_k: int = 16
) -> Tape:
    """Write the team's token distributions on the rows: a teacher for `distill`.

    Args:
      rows: what `synthesize` returned.
      teacher: plays every agent of the team.
      directory: of the tape; what stands there of the same tape is not made again.
      top_k: tokens kept at each position.
    """
    path = Path(directory)
    kept = TapeFormat(k=top_k)
    live = live_teacher(teacher, rows.rows, rows.prompts, rows.context_length)
    write_tape(
        path,
        rows.rows,
        tape_scorer(live, rows.rows, kept),
        kept,
        teacher_id=f"{fingerprint(teacher)} {content_hash(rows.prompts)}",
        vocab_size=teacher.config.vocab_size,
        batch_rows=min(16, rows.rows.num_rows),
    )
    return Tape.open(path, rows.rows)


def distill(
    model: Transformer,
    rows: TrainingRows,
    *,
    teacher: Transformer | Tape | None = None,
    objective: Objective | None = None,
    steps: int = 150,
    batch_rows: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    directory: str | Path | None = None,
    lora: Lora | None = None,
    base_quantization: Quantization = "none",
) -> Transformer:
    """Train a student, from the model's weights.

    Args:
      model: where the student starts; it is left as it is.
      rows: what `synthesize` returned.
      teacher: plays the team that the student's distributions are held to, or what `score`
        returned; None trains on the words alone.
      objective: the loss; by default cross-entropy, and with a teacher half a forward KL besides.
      steps, batch_rows, learning_rate: of the training.
      seed: of the order of the rows.
      directory: for checkpoints and metrics; None keeps neither.
      lora: adapters, which are trained in place of the model's weights; the student has them, and
        `arkjax.models.lora.merge_lora` merges them. None trains all weights, or the adapters that
        the model has.
      base_quantization: how the model's weights are kept under new adapters: "none", "int8", "nf4".

    Raises:
      ConfigError: if weights shall be quantised and there are no adapters to train.
    """
    if lora is not None:
        model = add_lora(model, lora, base_quantization, seed)
    elif base_quantization != "none":
        raise ConfigError(
            f"base_quantization is {base_quantization!r}: quantised weights cannot be trained; "
            "give adapters as lora=arkjax.models.config.Lora(rank=16, alpha=32)"
        )
    if objective is None:
        divergence = "none" if teacher is None else "forward_kl"
        objective = Objective(cross_entropy=1.0, divergence=divergence, weight=0.5)
    targets = None
    if isinstance(teacher, Tape):
        targets = teacher.targets
    elif teacher is not None:
        targets = live_teacher(teacher, rows.rows, rows.prompts, rows.context_length)
    config = TrainConfig(
        steps=steps,
        batch_rows=batch_rows,
        # As many logits at once as 896 tokens of the largest vocabularies have.
        chunk_tokens=max(256, min(4096, 2**27 // model.config.vocab_size)),
        log_every=10,
        checkpoint_every=max(steps // 3, 1),
        optimizer=OptimizerConfig(learning_rate, steps // 10, 0.02, 0.9, 0.98, 0.1, 1.0),
    )
    with tempfile.TemporaryDirectory() as scratch:
        return train(
            model,
            rows.rows,
            objective,
            config,
            Path(directory or scratch),
            seed=seed,
            mesh=_mesh_of(model),
            rules=ShardingRules(),
            progress=Progress(),
            name="student",
            teacher=targets,
        )


def _mesh_of(model: Transformer) -> Mesh:
    """Where the model's weights lie."""
    sharding = model.arrays()["embedding"].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else make_mesh()


def evaluate(
    model: Transformer,
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    team: TeamSpec | str = "vanilla",
    seed: int = 0,
) -> float:
    """Accuracy of a model on problems: by default in one greedy call each, or as a team."""
    return sample(team, problems, model, tokenizer, seed=seed).accuracy
