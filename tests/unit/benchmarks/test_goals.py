"""The goals: all that were set, each of a rule that makes sense, and a verdict that says by how much."""

from __future__ import annotations

import pytest

from benchmarks.goals import Goal, goals, judge
from benchmarks.measuring import Row

# What was set, as (work, quantity, side, goal on a CPU, goal on a GPU); None where there is none
SET = [
    ("training", "wall s", "ours bfloat16", 10, 10),
    ("training views", "wall s", "ours bfloat16", 10, 10),
    ("training", "loss difference", "ours bfloat16", 1, 1),
    ("training small", "final loss difference", "ours bfloat16", 1, 1),
    ("inference", "wall s", "ours", 1.5, 3),
    ("inference", "largest difference of logits", "ours", 1e-3, 1e-3),
    ("inference", "wall s", "ours bfloat16", 3, 8),
    ("inference", "Dice difference", "ours bfloat16", 0.1, 0.1),
    ("head forward monuseg", "wall s", "ours", 3, 4),
    ("head forward monuseg", "largest difference of logits", "ours", 1e-3, 1e-3),
    ("head step monuseg", "wall s", "ours", 3, 4),
    ("head step monuseg", "peak MB", "ours", 3, None),
    ("head step monuseg", "device peak MB", "ours", None, 3),
    ("inference", "peak MB", "ours", 3, None),
    ("inference", "device peak MB", "ours", None, 3),
    ("head step monuseg", "peak MB", "ours bfloat16", 3, None),
    ("inference", "peak MB", "ours bfloat16", 3, None),
    ("backbones", "images/s", "he_32", 20, 20),
    ("backbones", "images/s", "chest_32", 20, 20),
    ("pretraining", "steps/s", "ours", None, 3),
    ("new views", "GPU busy", "ours", None, 90),
    ("volumes", "wall s", "TextDiffSeg", 1, None),
    ("predict", "wall s", "ours", 3, None),
    ("predict", "peak MB", "ours", 3000, None),
    ("size: images", "wall s", "slope", 1.1, 1.1),
    ("size: images", "peak MB", "slope", 0.1, None),
    ("size: images", "device peak MB", "slope", None, 0.1),
    ("size: pixels", "wall s", "slope", 1.1, 1.1),
    ("size: tokens", "wall s", "slope", 1.1, 1.1),
    ("size: tokens", "peak MB", "slope", 0.1, None),
    ("size: tokens", "device peak MB", "slope", None, 0.1),
    ("size: noise steps", "wall s", "slope", 1.1, 1.1),
    ("size: voxels", "wall s", "slope", 1.1, None),
]


def test_the_table_has_all_goals_and_no_other():
    there = {(one.work, one.quantity, one.ours, one.device): one.goal for one in goals()}
    asked = {
        (work, quantity, side, device): goal
        for work, quantity, side, *both in SET
        for device, goal in zip(("cpu", "cuda"), both, strict=True)
        if goal is not None
    }
    assert there == asked
    assert len({one.name for one in goals()}) == len(goals())


def rows(**values: float) -> list[Row]:
    return [Row("work", side, "wall s", value, "s") for side, value in values.items()]


def goal(rule: str, value: float) -> Goal:
    return Goal("one", "work", "cpu", "wall s", "ours", "reference" if rule.startswith("times") else "", rule, value)


@pytest.mark.parametrize(
    ("rule", "asked", "found", "said"),
    [
        ("times less", 3, rows(ours=2, reference=8), "met: 4 (3 times less than reference)"),
        ("times less", 3, rows(ours=4, reference=8), "missed by 33%: 2 (3 times less than reference)"),
        ("times more", 3, rows(ours=8, reference=2), "met: 4 (3 times more than reference)"),
        ("times more", 20, rows(ours=8, reference=8), "missed by 95%: 1 (20 times more than reference)"),
        ("at most", 5, rows(ours=5), "met: 5 (at most 5)"),
        ("at most", 5, rows(ours=6), "missed by 20%: 6 (at most 5)"),
        ("at least", 90, rows(ours=91), "met: 91 (at least 90)"),
        ("at least", 90, rows(ours=45), "missed by 50%: 45 (at least 90)"),
        ("times less", 3, rows(ours=2), "not measured here"),
        ("times less", 3, rows(reference=2), "not measured here"),
        ("at most", 3, [], "not measured here"),
        ("at most", 3, [Row("work", "ours", "wall s", 1, "s", device="cuda")], "not measured here"),
        ("at most", 3, rows(ours=float("nan")), "not measured here"),
    ],
)
def test_a_verdict_says_by_how_much(rule, asked, found, said):
    (verdict,) = judge(found, [goal(rule, asked)])
    assert str(verdict) == said
    assert verdict.met == {"met": True, "mis": False}.get(said[:3])


@pytest.mark.parametrize(
    "line", ["a,w,cpu,q,ours,,times less,3", "a,w,cpu,q,ours,other,at most,3", "a,w,cpu,q,o,p,faster,3"]
)
def test_a_goal_that_cannot_be_judged_is_refused(tmp_path, line):
    table = tmp_path / "goals.csv"
    table.write_text(f"name,work,device,quantity,ours,against,rule,goal\n{line}\n")
    with pytest.raises(ValueError, match="goals.csv: a: rule"):
        goals(table)
