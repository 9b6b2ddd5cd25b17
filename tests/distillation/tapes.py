"""Rows, and teachers of each kind whose targets are functions of row and position."""

import numpy as np

from arkjax.distillation.rows import pack
from arkjax.distillation.tape import write_tape
from arkjax.distillation.tape_format import TapeFormat
from arkjax.distillation.targets import HiddenTarget, SampledTarget, TapeTarget
from arkjax.synthesis.examples import Example

K, VOCAB, DRAWS, WIDTH = 3, 50, 6, 4
FORMATS = {
    "top_k": TapeFormat(k=K),
    "sampled": TapeFormat("sampled", draws=DRAWS, seed=5),
    "hidden": TapeFormat("hidden", dtype="bfloat16"),
}


def make_rows(examples=40, length=16):
    rng = np.random.default_rng(0)
    made = [
        Example(tuple(rng.integers(1, 50, a).tolist()), tuple(range(1, b + 1)), 1.0, {})
        for a, b in rng.integers(1, 9, (examples, 2))
    ]
    return pack(made, length)


class Teacher:
    """Misalignment shows: every position of every row has a target of its own."""

    def __init__(self, rows, kind="top_k", gate=False):
        self.row_length, self.kind, self.gate = rows.row_length, kind, gate
        self.head = np.ones((WIDTH, VOCAB), np.float32)
        self.calls = []

    def __call__(self, indices):
        self.calls.append(list(indices))
        place = indices[:, None] * self.row_length + np.arange(self.row_length)
        gate = (place % 5).astype(np.float32) / 4 if self.gate else None
        if self.kind == "hidden":
            hidden = place[..., None] + np.arange(WIDTH, dtype=np.float32) / 8
            return HiddenTarget(hidden, self.head, soft_cap=30.0, gate=gate)
        if self.kind == "sampled":
            # One to four different tokens, of 6 draws in all.
            counts = np.array([[6, 0, 0, 0], [1, 5, 0, 0], [2, 2, 2, 0], [1, 2, 1, 2]])[place % 4]
            ids = (place[..., None] + 7 * np.arange(4)) % VOCAB
            return SampledTarget(ids, (counts / DRAWS).astype(np.float32), 2.0, gate)
        ids = (place[..., None] + np.arange(K)) % VOCAB
        top = np.exp(-1.0 - np.arange(K) - (place[..., None] % 7) / 10)
        return TapeTarget(ids, np.log(top), np.log(1 - top.sum(-1)), gate=gate)


def write(path, rows, teacher=None, tape_format=FORMATS["top_k"], **options):
    options = {"teacher_id": "base", "vocab_size": VOCAB, "batch_rows": 2, **options}
    teacher = teacher or Teacher(rows, tape_format.kind)
    write_tape(path, rows, teacher, tape_format, **{"shard_rows": 5, **options})


def arrays_of(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*.npy"))}
