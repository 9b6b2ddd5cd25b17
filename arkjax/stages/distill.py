"""The distill stage: every student, phase by phase."""

import shutil
from pathlib import Path

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Rows
from arkjax.distillation.tape import Tape
from arkjax.models.huggingface.peft import export_peft
from arkjax.models.lora import add_lora, merge_lora
from arkjax.models.placement import model_info, save_model
from arkjax.session import Session
from arkjax.training.supervised import train


def distill(session: Session, path: Path) -> dict:
    """Train every student from the base model, all with the same steps.

    Adapters are merged, so that a student is a model like any other; `adapter/` keeps them alone.
    """
    config = session.config.student
    examples = {}
    for name, strategy in session.strategies.items():
        rows = Rows.load(session.stage("synthesize").path / strategy.dataset)
        examples[name] = len(rows.placements)
        if not (path / name / "model").exists():
            objective, teacher = Objective(cross_entropy=1.0), None
            if strategy.logits:
                objective = config.objective
                teacher = Tape.open(session.stage("score").path / strategy.dataset, rows).targets
            student = session.model("base")
            if config.lora is not None:
                student = add_lora(
                    student,
                    config.lora,
                    config.base_quantization,
                    session.seed,
                    session.config.sharding,
                )
            student = train(
                student,
                rows,
                objective,
                config.train,
                path / name,
                seed=session.seed,
                mesh=session.mesh,
                rules=session.config.sharding,
                progress=session.progress,
                name=name,
                teacher=teacher,
            )
            if config.lora is not None:
                base = session.config.base.checkpoint or f"{session.config.name}-base"
                export_peft(student, path / name / "adapter", base)
                student = merge_lora(student, session.config.sharding)
            origin = model_info(session.stage("base").path / "model").get("hf")
            info = {"tokenizer": session.tokenizer.hash, "student": name, "hf": origin}
            save_model(path / name / "model", student, info, session.tokenizer_files)
        shutil.rmtree(path / name / "checkpoints", ignore_errors=True)
    return {"examples": examples}
