"""What several runs have in common: one task, the seeds, the problems; and what is left out."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from arkjax.comparing.runs import Run
from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.outcomes import FIELDS, Outcomes
from arkjax.reporting import systems
from arkjax.reporting.front import listed


def same_task(runs: Sequence[Run]) -> None:
    """Make sure that all runs answer problems of one task.

    Raises:
      DataError: naming the first two that do not.
    """
    for run in runs[1:]:
        if None not in (run.task, runs[0].task) and run.task != runs[0].task:
            raise DataError(
                f"run {run.root} answers problems of {run.task!r}, {runs[0].root} those of "
                f"{runs[0].task!r}: compare runs of one task; leave {run.root} out"
            )


def common_seeds(runs: Sequence[Run]) -> tuple[list[int], list[str]]:
    """The seeds that all runs have, and a sentence about those that are left out, if any.

    Raises:
      DataError: if there is none.
    """
    of_runs = [set(run.report["seeds"]) for run in runs]
    seeds = sorted(set.intersection(*of_runs))
    said = "; ".join(f"{run.root} has {sorted(run.report['seeds'])}" for run in runs)
    if not seeds:
        raise DataError(
            f"these runs have no seed in common ({said}): run one of these seeds in each, or leave "
            "out those that lack it"
        )
    left = {run.called: sorted(own - set(seeds)) for run, own in zip(runs, of_runs, strict=True)}
    text = "; ".join(
        f"{', '.join(map(str, more))} of {name}" for name, more in left.items() if more
    )
    kept = ", ".join(map(str, seeds))
    return seeds, [f"Seeds compared: {kept}, which all runs have; left out: {text}."] * bool(text)


def common_problems(
    runs: Sequence[Run], seeds: Sequence[int], wanted: Collection[str]
) -> tuple[dict[str, set[str]], list[str]]:
    """By split the problems that all runs have answered, and sentences about what is left out.

    Args:
      runs: of one task.
      seeds: that all of them have.
      wanted: the splits to compare; empty: all.

    Raises:
      ConfigError: if no run has a split that is wanted.
      DataError: if they have no problem in common, or mean different problems by one id.
    """
    of_runs: list[dict[str, set[str]]] = []
    for run in runs:
        own = {}
        for split in run.outcomes.distinct("split"):
            ids = [
                set(run.outcomes.select(split=split, seed=seed).distinct("problem_id"))
                for seed in seeds
            ]
            own[split] = set.intersection(*ids)
        of_runs.append(own)
    every = systems.ordered_splits({split for own in of_runs for split in own})
    unknown = sorted(set(wanted) - set(every))
    if unknown:
        raise ConfigError(f"--split {unknown[0]}: no run has it; there are {', '.join(every)}")
    common, notes = {}, []
    for split in (split for split in every if not wanted or split in wanted):
        have = [run for run, own in zip(runs, of_runs, strict=True) if own.get(split)]
        if len(have) < len(runs):
            only = listed([run.called for run in have])
            notes.append(f"{split} is left out: only {only} answered it.")
            continue
        shared = set.intersection(*(own[split] for own in of_runs))
        if not shared:
            notes.append(f"{split} is left out: no problem of it was answered in all runs.")
            continue
        _same_problems(runs, split, shared)
        common[split] = shared
        left = {
            run.called: len(own[split]) - len(shared)
            for run, own in zip(runs, of_runs, strict=True)
        }
        if any(left.values()):
            text = ", ".join(f"{number:,} of {name}" for name, number in left.items() if number)
            notes.append(
                f"On {split} the {len(shared):,} problems are compared that all runs have "
                f"answered; left out: {text}."
            )
    if not common:
        _explain(runs, of_runs)
    return common, notes


def _same_problems(runs: Sequence[Run], split: str, shared: Collection[str]) -> None:
    """Make sure that a problem's id stands for one problem, as far as the outcomes tell."""
    facts = ("problem_id", "part", "domain", "difficulty")
    first = None
    for run in runs:
        known = run.outcomes.problems(split)
        columns = [known[name].tolist() for name in facts]
        mine = {row[0]: row[1:] for row in zip(*columns, strict=True)}
        for ident in sorted(shared) if first else ():
            if mine[ident] != first[ident]:
                raise DataError(
                    f"run {run.root}: problem {ident!r} of {split} is of part, domain and "
                    f"difficulty {mine[ident]}, in {runs[0].root} of {first[ident]}: these are "
                    f"different problems; leave {run.root} out"
                )
        first = first or mine


def _explain(runs: Sequence[Run], of_runs: Sequence[Mapping[str, set[str]]]) -> None:
    """Raise an error that names who can be compared with the first run, and who cannot."""
    able, unable = [runs[0].root], []
    for run, own in zip(runs[1:], of_runs[1:], strict=True):
        shares = any(own.get(split, set()) & ids for split, ids in of_runs[0].items())
        (able if shares else unable).append(run.root)
    if not unable:
        raise DataError(
            f"runs {listed([str(run.root) for run in runs])} have no problem in common that all "
            "answered, though each shares some with the first: compare them two by two"
        )
    remedy = f"; {listed([str(root) for root in able])} can be compared" if len(able) > 1 else ""
    raise DataError(
        f"run {listed([str(root) for root in unable])} shares no problem with {runs[0].root} on "
        f"any split: leave it out, or evaluate it on the same splits{remedy}"
    )


def restricted(
    outcomes: Outcomes, seeds: Sequence[int], problems: Mapping[str, set[str]]
) -> Outcomes:
    """The rows of these seeds and, by split, of these problems."""
    keep = np.zeros(len(outcomes), dtype=bool)
    for split, ids in problems.items():
        keep |= (outcomes["split"] == split) & np.isin(outcomes["problem_id"], sorted(ids))
    keep &= np.isin(outcomes["seed"], list(seeds))
    return Outcomes({name: outcomes[name][keep] for name in FIELDS})
