"""Names beside points: each nearest to its own or led to it, all of them, always alike."""

import numpy as np
import pytest

from arkjax.reporting import labels, plots, systems

from .test_report import ACCURACY, build, outcomes


def drawn(points, names=None, high=4.6, spread=4.0):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.72, high), dpi=72)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(10, 1000)
    axes.set_ylim(0, 105)
    names = names or [f"system number {n}" for n in range(len(points))]
    labels.place(axes, points, [(y - spread, y + spread) for _, y in points], names)
    texts = [text for text in axes.texts if text.get_text()]
    assert [text.get_text() for text in texts] == names
    boxes = np.array([text.get_window_extent().extents for text in texts])
    leads = [text for text in axes.texts if not text.get_text()]
    return axes, boxes, np.array([axes.transData.transform(point) for point in points]), leads


def distance(box, point):
    low, high = box[:2] - point, point - box[2:]
    return float(np.linalg.norm(np.clip(np.maximum(low, high), 0, None)))


# Accuracies and generated tokens of a small run: base and controls close together.
SMALL = {
    "base": (19, 22.5), "self-consistency": (152, 22.5), "role vote": (76, 25), "team": (152, 92.5),
    "student DA": (19, 91.2), "student sequence+logit": (19, 80.0),
    "control: no debate": (19, 36.2), "control: single agent": (19, 15.2),
}  # fmt: skip


def test_every_name_is_nearest_to_its_own_point():
    axes, boxes, where, _ = drawn(list(SMALL.values()), list(SMALL))
    for index, box in enumerate(boxes):
        away = [distance(box, point) for point in where]
        assert int(np.argmin(away)) == index, list(SMALL)[index]
    frame = axes.get_window_extent()
    assert (boxes[:, :2] >= (frame.x0 - 1, frame.y0 - 1)).all()
    assert (boxes[:, 2:] <= (frame.x1 + 1, frame.y1 + 1)).all()


def test_a_name_that_cannot_stand_beside_its_point_is_led_to_it():
    clump = [(30.0, 90.0 + 0.7 * n) for n in range(9)]
    points = [*clump, (30.0, 40.0), (400.0, 70.0)]
    _, boxes, where, leads = drawn(points)
    starts = [np.array(lead.xyann) for lead in leads]
    for index, box in enumerate(boxes):
        others = np.delete(where, index, axis=0)
        own, nearest = distance(box, where[index]), min(distance(box, o) for o in others)
        near_twin = min(np.linalg.norm(o - where[index]) for o in others) <= 5
        led = any(np.allclose(start, where[index]) for start in starts)
        assert led or own <= nearest or near_twin and own < 12
    assert len(leads) >= 4
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            wide = min(box[2], other[2]) - max(box[0], other[0])
            high = min(box[3], other[3]) - max(box[1], other[1])
            assert wide <= 0 or high <= 3  # descenders of one line in the leading of the next


def test_names_above_each_other_have_the_order_of_their_points():
    points = [(30.0, y) for y in (95.0, 93.0, 91.0, 40.0, 37.0, 34.0)]
    _, boxes, _, _ = drawn(points)
    for i, box in enumerate(boxes):
        for j in range(i):
            if min(box[2], boxes[j][2]) > max(box[0], boxes[j][0]):
                assert box[1] < boxes[j][1], (i, j)


def test_same_points_have_same_places():
    points = [(30.0 + n % 3, 60.0 + n) for n in range(12)]
    first, again = drawn(points)[1], drawn(points)[1]
    assert (first == again).all()


@pytest.mark.parametrize("cost", ["generated_tokens", "calls"])
def test_all_systems_of_a_run_are_named(cost):
    names = [*ACCURACY, "student_rsft", "student_pad", "student_logit", "student_on_policy"]
    more = {name: 0.9 for name in names if name not in ACCURACY}
    report = build(outcomes(names, seeds=(0,), accuracy=more), resamples=200)
    picture = plots.accuracy_against_cost(report, "test", cost, "x")
    for name in names:
        assert f">{systems.label(name)}<" in picture, name
