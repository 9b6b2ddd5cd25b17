"""The base stage: load a checkpoint, or train the embedded world's base model."""

import dataclasses
import shutil
from pathlib import Path

from arkjax.distillation.objective import Objective
from arkjax.errors import ConfigError, DataError
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.placement import init_model, save_model
from arkjax.models.transformer import Transformer
from arkjax.models.weights import num_parameters
from arkjax.session import Session
from arkjax.training.base import base_rows
from arkjax.training.supervised import train


def base(session: Session, path: Path) -> dict:
    """Load a checkpoint, or train the embedded world's base model."""
    config = session.config
    if config.base.checkpoint:
        source = find(config.base.checkpoint)
        opened = open_model(source, session.mesh, config.sharding, progress=session.progress)
        session.tokenizer.check_fits(opened.model.config.vocab_size, source.folder)
        if opened.info.get("tokenizer", session.tokenizer.hash) != session.tokenizer.hash:
            raise DataError(
                f"{config.base.checkpoint} was trained with another tokenizer than "
                f"{session.tokenizer.path}: leave config.tokenizer empty to take its own"
            )
        info = {**opened.info, "tokenizer": session.tokenizer.hash}
        model = opened.model
        if config.model.remat:
            # No published config says how a model is to be trained.
            shape = dataclasses.replace(model.config, remat=True)
            model = Transformer(shape, model.arrays(), session.mesh)
        save_model(path / "model", model, info, session.tokenizer_files)
        return {"parameters": num_parameters(opened.model.config)}
    if config.model.vocab_size < session.tokenizer.vocab_size:
        raise ConfigError(
            f"config.model.vocab_size is {config.model.vocab_size}, but the tokenizer has "
            f"{session.tokenizer.vocab_size} pieces: raise it to at least that"
        )
    world = session.task.world
    if world is None:
        raise ConfigError(
            f"config.base.checkpoint is empty, and task {session.task.name!r} has no world to "
            "train a base model on: give a checkpoint"
        )
    train_config = config.base.train
    if not (path / "model").exists():
        rows = base_rows(
            world.documents(config.world, session.seed, world.evaluation_hashes(config.world)),
            session.tokenizer,
            session.chat,
            config.base.row_length,
            train_config.steps * train_config.batch_rows,
        )
        model = train(
            init_model(config.model, session.seed, session.mesh, config.sharding),
            rows,
            Objective(cross_entropy=1.0),
            train_config,
            path,
            seed=session.seed,
            mesh=session.mesh,
            rules=config.sharding,
            progress=session.progress,
            name=f"seed {session.seed}, base model",
        )
        info = {"tokenizer": session.tokenizer.hash}
        save_model(path / "model", model, info, session.tokenizer_files)
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    return {"parameters": num_parameters(config.model)}
