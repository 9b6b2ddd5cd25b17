"""What a store of calls holds, counted column by column without making calls of them."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from arkjax.trajectories.schema import ACTION
from arkjax.trajectories.shards import ahead, read_shard, shard_names

_GROUP = ("system", "agent", "round", "finish_reason", "action")
_COLUMNS = [
    *("problem_id", "system", "agent", "round", "finish_reason", "model", "parse_ok", "correct"),
    *("seconds", "cached_len", "prompt_ids", "gen_ids"),
]
_SUMS = ("calls", "prompt", "cached", "generated", "seconds", "failed", "graded", "right")


def statistics(
    directory: Path, advance: Callable[[int], None] = lambda calls: None
) -> dict[str, Any]:
    """Counts of a store, as plain data.

    Args:
      directory: of the store.
      advance: told of calls as they are counted.

    Returns:
      `store`, `shards`, `bytes`, `bytes_per_call` (checksum files included), `systems`, `problems`,
      `calls` (of models), `actions` (of tools), `prompt_tokens`, `prefill_tokens` (those that were
      not shared), `generated_tokens`, `seconds`, `finish_reasons`, `parse_failures`, `graded`,
      `right`, and `agents`: for each system, agent and round `calls`, `actions`,
      `generated_tokens`, `parse_failures`, `graded`, `right` and `right_share` (None where no
      answer was graded). Tokens and seconds of actions count with those of the calls.

    Raises:
      DataError: naming a shard that is damaged.
    """
    names = shard_names(directory)
    problems: set[str] = set()
    groups: dict[tuple, Counter] = defaultdict(Counter)
    for table in ahead(lambda name: read_shard(directory / name, _COLUMNS), names):
        problems.update(pc.unique(table["problem_id"]).to_pylist())
        counted = _counted(table).group_by(list(_GROUP))
        for row in counted.aggregate([(name, "sum") for name in _SUMS]).to_pylist():
            key = tuple(row[name] for name in _GROUP)
            groups[key].update({name: row[f"{name}_sum"] for name in _SUMS})
        advance(len(table))
    total, actions = Counter(), 0
    reasons: Counter = Counter()
    agents: dict[tuple, Counter] = defaultdict(Counter)
    for (system, agent, number, reason, action), sums in groups.items():
        total.update(sums)
        reasons[reason] += sums["calls"]
        actions += sums["calls"] * action
        agents[system, agent, number].update(sums)
        agents[system, agent, number]["actions"] += sums["calls"] * action
    files = [path for path in directory.iterdir() if path.name.removesuffix(".sha256") in names]
    size = sum(path.stat().st_size for path in files)
    return {
        "store": str(directory),
        "shards": len(names),
        "bytes": size,
        "bytes_per_call": size / total["calls"] if total["calls"] else 0.0,
        "systems": sorted({key[0] for key in groups}),
        "problems": len(problems),
        "calls": total["calls"] - actions,
        "actions": actions,
        "prompt_tokens": total["prompt"],
        "prefill_tokens": total["prompt"] - total["cached"],
        "generated_tokens": total["generated"],
        "seconds": float(total["seconds"]),
        "finish_reasons": dict(sorted(reasons.items())),
        "parse_failures": total["failed"],
        "graded": total["graded"],
        "right": total["right"],
        "agents": [
            {
                "system": system,
                "agent": agent,
                "round": number,
                "calls": sums["calls"] - sums["actions"],
                "actions": sums["actions"],
                "generated_tokens": sums["generated"],
                "parse_failures": sums["failed"],
                "graded": sums["graded"],
                "right": sums["right"],
                "right_share": sums["right"] / sums["graded"] if sums["graded"] else None,
            }
            for (system, agent, number), sums in sorted(agents.items())
        ],
    }


def _counted(table: pa.Table) -> pa.Table:
    action = pc.starts_with(table["model"], ACTION)
    failed = pc.and_(pc.invert(table["parse_ok"]), pc.invert(action))

    def count(mask: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.cast(mask, pa.int64())

    columns = {
        "action": action,
        "calls": pa.chunked_array([pa.repeat(pa.scalar(1, pa.int64()), len(table))]),
        "prompt": pc.cast(pc.list_value_length(table["prompt_ids"]), pa.int64()),
        "cached": pc.cast(table["cached_len"], pa.int64()),
        "generated": pc.cast(pc.list_value_length(table["gen_ids"]), pa.int64()),
        "seconds": table["seconds"],
        "failed": count(failed),
        "graded": count(pc.is_valid(table["correct"])),
        "right": count(pc.fill_null(table["correct"], False)),
    }
    kept = {name: table[name] for name in _GROUP if name != "action"}
    return pa.table(kept | columns)
