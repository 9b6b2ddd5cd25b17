"""The distill stage: every student, phase by phase."""

import shutil
from pathlib import Path

from arkjax.distillation.rows import Rows
from arkjax.models.huggingface.peft import export_peft
from arkjax.models.lora import add_lora, merge_lora
from arkjax.models.placement import load_model, model_info, save_model
from arkjax.models.transformer import Transformer
from arkjax.session import Session
from arkjax.stages.learning import Lessons, learn
from arkjax.synthesis.strategies import Strategy
from arkjax.training.held_out import best_look


def distill(session: Session, path: Path) -> dict:
    """Train every student, the last phase of each from the student that it begins with.

    Its parts are the students. Their summaries have the number of examples, and `kept`: where
    held-out problems decided which weights a student has, the step that these are from and their
    accuracy.

    Adapters are merged, so that a student is a model like any other; `adapter/` keeps them alone.
    """
    students, made = {}, session.stage("distill").made()
    for name, strategy in session.strategies.items():
        if name in made:
            continue
        directory, dataset = path / name, strategy.last.dataset
        rows = Rows.load(session.stage("synthesize").path / dataset.name) if dataset else None
        examples = len(rows.placements) if rows else len(session.training_problems)
        if not (directory / "model").exists():
            beginning = _beginning(session, path, strategy)
            # Under adapters the student and what teaches it then share the base's weights.
            base = beginning if strategy.before is None else None
            student = _with_adapters(session, beginning)
            lessons = Lessons(session, name, directory, student, rows, base)
            _keep(session, learn(lessons, strategy.last), directory, name)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        students[name] = {"examples": examples}
        if look := best_look(directory / "held_out.jsonl"):
            students[name]["kept"] = dict(zip(("step", "accuracy"), look, strict=True))
    return {"parts": students}


def _beginning(session: Session, path: Path, strategy: Strategy) -> Transformer:
    """The model that a student's last phase begins with."""
    if strategy.before is None:
        return session.model("base")
    return load_model(
        path / strategy.before.student / "model", session.mesh, session.config.sharding
    )


def _with_adapters(session: Session, model: Transformer) -> Transformer:
    config = session.config.student
    if config.lora is None:
        return model
    return add_lora(
        model, config.lora, config.base_quantization, session.seed, session.config.sharding
    )


def _keep(session: Session, student: Transformer, directory: Path, name: str) -> None:
    if session.config.student.lora is not None:
        base = session.config.base.checkpoint or f"{session.config.name}-base"
        export_peft(student, directory / "adapter", base)
        student = merge_lora(student, session.config.sharding)
    origin = model_info(session.stage("base").path / "model").get("hf")
    info = {"tokenizer": session.tokenizer.hash, "student": name, "hf": origin}
    save_model(directory / "model", student, info, session.tokenizer_files)
