"""What a run found, in sentences that claim no more than its intervals allow."""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import lessons, systems

LEVEL = 0.05
"""The highest adjusted p at which a difference is called one."""


def percent(value: float) -> str:
    """0.9523 -> "95.2"."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of accuracies in percentage points, with its sign: 0.041 -> "+4.1"."""
    text = f"{100 * value:+.1f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(ci95: Sequence[float], show: Any = percent) -> str:
    """An interval in brackets, each end through `show`."""
    return f"[{show(ci95[0])}, {show(ci95[1])}]"


def holds_zero(ci95: Sequence[float]) -> bool:
    """Whether an interval of a difference leaves open which side is better."""
    return ci95[0] <= 0 <= ci95[1]


def is_shown(comparison: Mapping[str, Any]) -> bool:
    """Whether a difference may be called one: by its interval, and among all that are compared."""
    return not holds_zero(comparison["ci95"]) and comparison["p_holm"] <= LEVEL


def verdict(comparison: Mapping[str, Any]) -> str:
    """A comparison in words: never that one is better where that is not shown."""
    a, b = systems.label(comparison["a"]), systems.label(comparison["b"])
    if is_shown(comparison):
        return f"{a} is {'better' if comparison['difference'] > 0 else 'worse'} than {b}"
    why = "the interval holds zero"
    if not holds_zero(comparison["ci95"]):
        why = "the interval leaves out zero, but not once the number of comparisons is allowed for"
    return f"no difference shown between {a} and {b}: {why}"


def best_student(report: Mapping[str, Any], split: str) -> str | None:
    """The verified student with the highest accuracy in a split; the first of equals."""
    found = report["splits"][split]["systems"]
    students = systems.verified_students(found)
    return max(students, key=lambda name: found[name]["accuracy"], default=None)


def oracle_warning(report: Mapping[str, Any]) -> str:
    """Which systems stopped by the gold answer; "" if none did."""
    if not report["oracle"]:
        return ""
    names = ", ".join(report["oracle"])
    return f"A stop that looks at the gold answer (oracle) was used by: {names}."


def missing_warning(report: Mapping[str, Any]) -> str:
    """What a full comparison needs and this one lacks; "" if nothing."""
    if not report["missing"]:
        return ""
    unknown = "; ".join(f"{name} ({why})" for name, why in report["missing"].items())
    return f"Missing from this comparison, and so not known: {unknown}."


def first_line(report: Mapping[str, Any]) -> str:
    """What the reader must know first: what is missing, else what was found."""
    warnings = [missing_warning(report), oracle_warning(report)]
    return " ".join([line for line in warnings if line] or report["headline"][:1])


def _found(report: Mapping[str, Any], a: str, b: str, split: str) -> Mapping[str, Any] | None:
    """The comparison of a and b over a whole split, whichever way round it was claimed."""
    for entry in report["comparisons"]:
        if entry["split"] == split and entry["part"] is None:
            if (entry["a"], entry["b"]) == (a, b):
                return entry
            if (entry["a"], entry["b"]) == (b, a):
                low, high = entry["ci95"]
                turned = {"difference": -entry["difference"], "ci95": [-high, -low]}
                return {**entry, "a": a, "b": b, **turned}
    return None


def _against(report: Mapping[str, Any], name: str, other: str, split: str) -> str | None:
    """How `name` compares with `other`: above or below only where the interval says so."""
    entry = _found(report, name, other, split)
    if entry is None:
        return None
    difference, (low, high) = entry["difference"], entry["ci95"]
    if not is_shown(entry):
        size = f"{points(difference)} points {interval((low, high), points)}"
        if not holds_zero(entry["ci95"]):
            size += ", but not once the number of comparisons is allowed for"
        return f"not shown to differ from {systems.label(other)} ({size})"
    side = "above" if difference > 0 else "below"
    ends = sorted((abs(low), abs(high)))
    size = f"{percent(abs(difference))} points {side} {systems.label(other)}"
    return f"{size} {interval(ends)}"


def _and(phrases: Sequence[str]) -> str:
    return ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]


def _team_sentence(report: Mapping[str, Any], split: str) -> str | None:
    found = report["splits"][split]["systems"]
    if "team" not in found:
        return None
    team = found["team"]
    text = f"On {split}, the team answers {percent(team['accuracy'])}% right "
    text += f"{interval(team['ci95'])}"
    if "base" in found:
        text += f", one greedy call of the same model {percent(found['base']['accuracy'])}%"
    against = [_against(report, "team", name, split) for name in ("self_consistency", "role_vote")]
    said = [words for words in against if words]
    return f"{text}. It is {_and(said)}." if said else f"{text}."


def _student_sentence(report: Mapping[str, Any], split: str) -> str | None:
    name = best_student(report, split)
    if name is None:
        return None
    found = report["splits"][split]["systems"]
    student = found[name]
    label = systems.label(name)
    text = label[0].upper() + label[1:]
    if rest := _range(report, split):
        text += f" (the best of {rest} on {split}; chosen on these very problems)"
    text += f" answers {percent(student['accuracy'])}% right {interval(student['ci95'])}"
    if "team" in found:
        ratio = found["team"]["generated_tokens"] / max(student["generated_tokens"], 1e-9)
        text += f" with {student['calls']:.3g} call{'' if student['calls'] == 1 else 's'}"
        text += f" and {ratio:.1f} times fewer generated tokens than the team"
    gain = report["captured_gain_by_split"][split].get(name)
    if gain and gain["value"] is not None:
        text += f": {100 * gain['value']:.0f}% of the team's gain over base "
        text += f"{interval(gain['ci95'], lambda x: f'{100 * x:.0f}')}"
    elif gain:
        text += f"; no share of the team's gain can be stated, since {gain['reason']}"
    others = [n for n in (systems.twin(name), *systems.STUDENT_CONTROLS) if n in found]
    said = [words for other in others if (words := _against(report, name, other, split))]
    text = f"{text}. It is {_and(said)}." if said else f"{text}."
    uneven = lessons.unlike(report, name, others)
    return f"{text} {uneven}" if uneven else text


def _range(report: Mapping[str, Any], split: str) -> str | None:
    """How many verified students there are, and from where to where they go; None of a single one.

    The best of several on the problems that it was chosen on looks better than it is.
    """
    found = report["splits"][split]["systems"]
    right = [found[name]["accuracy"] for name in systems.verified_students(found)]
    if len(right) < 2:
        return None
    low, high = percent(min(right)), percent(max(right))
    ends = f"{low}%" if low == high else f"{low} to {high}%"
    return f"{len(right)} verified students, which have {ends}"


def _gain(report: Mapping[str, Any], split: str) -> str | None:
    """Whether a gain of the team over base is shown on a split, in a clause; None without both."""
    found = report["splits"][split]["systems"]
    if not {"base", "team"} <= set(found):
        return None
    team, base = (percent(found[name]["accuracy"]) for name in ("team", "base"))
    entry = _found(report, "team", "base", split)
    if entry is None:
        return f"the team answers {team}% right, base {base}%; the two were not compared"
    size = f"{points(entry['difference'])} points {interval(entry['ci95'], points)}"
    if is_shown(entry):
        what = "a gain of the team is" if entry["difference"] > 0 else "a loss of the team is"
        return f"{what} shown: {team}% against {base}% of base ({size})"
    if not holds_zero(entry["ci95"]):
        size += ", but not once the number of comparisons is allowed for"
    text = f"no gain of the team is shown: {team}% against {base}% of base ({size})"
    gains = report["captured_gain_by_split"].get(split, {}).values()
    defined = any(gain["value"] is not None for gain in gains)
    return text if defined else f"{text}, so no share of it is defined"


def _further_sentence(report: Mapping[str, Any], split: str, first: str) -> str | None:
    """What team and student do on another split; the student is the one chosen on the first."""
    found = report["splits"][split]["systems"]
    said = [clause] if (clause := _gain(report, split)) else []
    name = best_student(report, first)
    if name in found:
        student = found[name]
        own = f"{systems.label(name)} answers {percent(student['accuracy'])}% right "
        own += interval(student["ci95"])
        gain = report["captured_gain_by_split"].get(split, {}).get(name)
        if gain and gain["value"] is not None:
            own += f", {100 * gain['value']:.0f}% of the team's gain over base "
            own += interval(gain["ci95"], lambda x: f"{100 * x:.0f}")
        if rest := _range(report, split):
            own += f" (chosen on {first}, one of {rest} here)"
        said.append(own)
    return f"On {split}, {'; '.join(said)}." if said else None


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The findings on the first split: what the team added, what the student kept of it.

    Then one sentence for each further split. A report of a single system says how it did.
    """
    first, *others = systems.ordered_splits(report["splits"])
    found = [_team_sentence(report, first), _student_sentence(report, first)]
    found += [_further_sentence(report, split, first) for split in others]
    said = [sentence for sentence in found if sentence]
    if said:
        return said
    answered = report["splits"][first]["systems"]
    if len(answered) > 1:
        return [f"On {first}, {len(answered)} systems were compared."]
    [(name, entry)] = answered.items()
    right = f"{percent(entry['accuracy'])}% right {interval(entry['ci95'])}"
    n = report["splits"][first]["n"]
    return [f"On {first}, {systems.label(name)} answers {right} of {n:,} problems."]
