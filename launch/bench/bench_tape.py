"""Tapes of each kind against raw arrays: bytes of a token, and tokens written and read a second.

    python launch/bench/bench_tape.py [--rows 256] [--length 1024] [--k 64] [--width 1024]

A vocabulary of 151,936 tokens (18 bits an id), every position but a row's first predicts something.
What the teacher says is made up before and is not counted: distributions whose N draws have about
as many different tokens as those of a language model.

- raw: int32 ids and bfloat16 log-probabilities of the k most probable tokens in two files, synced,
  no tail, no checksums; read by fancy indexing of the mapped files.
- top_k, sampled, hidden: `write_tape` (packed, checksums, synced) and `Tape.targets`.
- bytes: of the arrays on the disk, headers included, over predicted tokens.
- write, read: tokens a second, of all rows; read in random order, `--batch` rows at a time, from
  the system's cache of files.
- open: a tape of a million short rows, in shards of 1,024: seconds until it is open by sizes alone,
  until the first batch of 16 random rows is read, and until it is open with all checksums verified.

Ratios are of raw's: above 1, the tape is better. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from arkjax.distillation.rows import Rows
from arkjax.distillation.tape import Tape, write_tape
from arkjax.distillation.tape_format import Recorded, TapeFormat
from arkjax.distillation.targets import HiddenTarget, SampledTarget, TapeTarget
from arkjax.progress import Progress
from arkjax.storage import flush

VOCABULARY = 151_936
OPENED_ROWS, OPENED_LENGTH = 1_000_000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=16, help="rows written or read at once")
    parser.add_argument("--k", type=int, default=64, help="tokens of top_k and of raw")
    parser.add_argument("--draws", type=int, default=64, help="of sampled")
    parser.add_argument("--width", type=int, default=1024, help="of hidden states")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-tape-", dir=args.folder))
    found = {}
    try:
        rows = make_rows(args.rows, args.length)
        kinds = {
            "top_k": TapeFormat(k=args.k, dtype="bfloat16"),
            "sampled": TapeFormat("sampled", draws=args.draws),
            "hidden": TapeFormat("hidden", dtype="bfloat16"),
        }
        found["raw"] = raw(folder / "raw", rows, said_top_k(args), args)
        print(f"raw: {found['raw']}", flush=True)
        for kind, kept in kinds.items():
            said = {"top_k": said_top_k, "sampled": said_sampled, "hidden": said_hidden}[kind]
            found[kind] = taped(folder / kind, rows, said(args), kept, args)
            shutil.rmtree(folder / kind)
            print(f"{kind}: {found[kind]}", flush=True)
        opening = opened(folder / "million")
        print(f"open: {opening}", flush=True)
    finally:
        shutil.rmtree(folder)
    plain = found.pop("raw")
    result = {
        "bench": "tape",
        "config": {key: value for key, value in vars(args).items() if key != "folder"},
        "device": {
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "arkjax": {**found, "million_rows": opening},
        "peers": {"raw": plain},
        "ratios": {
            kind: {
                "bytes": round(plain["bytes"] / one["bytes"], 3),
                "write": round(one["write"] / plain["write"], 3),
                "read": round(one["read"] / plain["read"], 3),
            }
            for kind, one in found.items()
        },
    }
    print(json.dumps(result))


def make_rows(count: int, length: int) -> Rows:
    """Rows of one example each; its first token is the prompt."""
    shape = (count, length)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, shape, np.int32)
    weights = np.ones(shape, np.float32)
    weights[:, 0] = 0
    ones = np.ones(shape, np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
    examples = np.broadcast_to(np.arange(count, dtype=np.int32)[:, None], shape)
    return Rows(tokens, ones, positions, weights, examples, ())


def said_top_k(args: argparse.Namespace) -> TapeTarget:
    """k random tokens of falling probabilities."""
    shape = (args.batch, args.length, args.k)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, VOCABULARY, shape, np.int32)
    z = -np.sort(rng.exponential(3.0, shape).astype(np.float32), axis=-1)
    log_total = np.log(np.exp(z).sum(-1, keepdims=True) + 0.1)
    return TapeTarget(ids, z - log_total, np.log(0.1) - log_total[..., 0])


def said_sampled(args: argparse.Namespace) -> SampledTarget:
    """Draws from a law by which the n-th most probable token has about n^-1.5 of the first."""
    shape = (args.batch * args.length, args.draws)
    rng = np.random.default_rng(2)
    places = rng.integers(0, VOCABULARY, (shape[0], 1))
    drawn = np.sort((places + rng.zipf(1.5, shape) % VOCABULARY * 7919) % VOCABULARY, axis=-1)
    new = np.diff(drawn, axis=-1, prepend=-1) != 0
    slot = np.cumsum(new, axis=-1) - 1
    ids, counts = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    line = np.arange(shape[0])[:, None]
    ids[line, slot] = drawn
    np.add.at(counts, (line, slot), 1)
    full = (args.batch, args.length, args.draws)
    return SampledTarget(ids.reshape(full), (counts / np.float32(args.draws)).reshape(full))


def said_hidden(args: argparse.Namespace) -> HiddenTarget:
    """Hidden states in bfloat16."""
    shape = (args.batch, args.length, args.width)
    hidden = np.random.default_rng(3).standard_normal(shape, np.float32)
    head = np.zeros((args.width, 1), ml_dtypes.bfloat16)
    return HiddenTarget(hidden.astype(ml_dtypes.bfloat16), head)


def rate(tokens: int, work: Callable[[], None]) -> float:
    """Tokens a second, in whole ones."""
    started = time.perf_counter()
    work()
    return round(tokens / (time.perf_counter() - started))


def batches(args: argparse.Namespace) -> list[np.ndarray]:
    """Every row once, in random order."""
    order = np.random.default_rng(4).permutation(args.rows)
    return [order[at : at + args.batch] for at in range(0, args.rows, args.batch)]


def raw(path: Path, rows: Rows, said: TapeTarget, args: argparse.Namespace) -> dict[str, float]:
    """What a script without a tape would do."""
    path.mkdir()
    columns = {"ids": (said.top_ids, np.int32), "logprobs": (said.top_logprobs, np.uint16)}
    shape = (args.rows, args.length, args.k)
    files = {name: path / f"{name}.npy" for name in columns}

    def write() -> None:
        for name, (values, dtype) in columns.items():
            with open(files[name], "wb") as file:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for at in range(0, args.rows, args.batch):
                    part = values[: args.rows - at]
                    if name == "logprobs":
                        part = part.astype(ml_dtypes.bfloat16).view(np.uint16)
                    file.write(np.ascontiguousarray(part).data)
            flush(files[name])

    def read() -> None:
        ids = np.load(files["ids"], mmap_mode="r")
        logprobs = np.load(files["logprobs"], mmap_mode="r").view(ml_dtypes.bfloat16)
        for indices in batches(args):
            TapeTarget(ids[indices], logprobs[indices], np.zeros(ids[indices].shape[:-1]))

    tokens = rows.num_rows * rows.row_length
    found = {"write": rate(tokens, write), "read": rate(tokens, read)}
    size = sum(file.stat().st_size for file in path.iterdir())
    return {"bytes": round(size / tokens, 2), **found}


def taped(
    path: Path, rows: Rows, said: Recorded, kept: TapeFormat, args: argparse.Namespace
) -> dict[str, float]:
    """The same with a tape, whose batches the teacher gives at once."""
    options = {"teacher_id": "bench", "vocab_size": VOCABULARY, "batch_rows": args.batch}
    rows.content_hash  # noqa: B018  computed once, and no part of what is measured
    tokens = rows.num_rows * (rows.row_length - 1)
    found = {"write": rate(tokens, lambda: write_tape(path, rows, lambda _: said, kept, **options))}
    tape = Tape.open(path, rows)
    head = getattr(said, "head", None)

    def read() -> None:
        for indices in batches(args):
            tape.targets(indices, head)

    found["read"] = rate(tokens, read)
    return {"bytes": round(tape.bytes_per_token, 2), **found}


def opened(path: Path) -> dict[str, float]:
    """A tape of a million rows of four tokens."""
    rows = make_rows(OPENED_ROWS, OPENED_LENGTH)
    shape = (1024, OPENED_LENGTH)
    half = np.full(shape, np.log(0.5), np.float32)
    said = TapeTarget(np.zeros((*shape, 1), np.int32), half[..., None], half)
    options = {"teacher_id": "bench", "vocab_size": VOCABULARY, "batch_rows": 1024}
    with Progress().task("write", total=OPENED_ROWS, unit="rows") as task:
        started = time.perf_counter()
        write_tape(path, rows, lambda _: said, TapeFormat(k=1), progress=task.advance, **options)
        written = time.perf_counter() - started
    started = time.perf_counter()
    tape = Tape.open(path, rows, hashes=False)
    by_size = time.perf_counter() - started
    tape.targets(np.random.default_rng(5).integers(0, OPENED_ROWS, 16))
    first = time.perf_counter() - started
    started = time.perf_counter()
    Tape.open(path, rows)
    verified = time.perf_counter() - started
    seconds = {"written": written, "opened": by_size, "first_batch": first, "verified": verified}
    return {name: round(value, 3) for name, value in seconds.items()}


if __name__ == "__main__":
    main()
