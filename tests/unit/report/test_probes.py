"""What a probe's table says in words is in the table."""

from __future__ import annotations

import pandas as pd

from textdiff.report.probes import said_of_probe


def probe(backbone: str, dice: dict[tuple[int, int], float]) -> pd.DataFrame:
    rows = [{"blocks": str(b), "noise_steps": str(t), "draw": 0, "dice": value} for (b, t), value in dice.items()]
    return pd.DataFrame(rows).assign(backbone=backbone)


def test_best_noise_and_controls_are_told():
    own = {(0, 50): 0.6, (0, 500): 0.5, (1, 50): 0.9, (1, 500): 0.7, (2, 50): 0.8, (2, 500): 0.85}
    lower = {place: value - 0.1 for place, value in own.items()}
    one_above = own | {(0, 50): 0.5}
    together = probe("own", {(9, 9): 0.99}).assign(blocks="0,1")  # a set is no single block
    table = pd.concat([probe("own", own), together, probe("redrawn", lower), probe("random", one_above)])
    best, noise, redrawn, random = said_of_probe(table, "own", ("redrawn", "random")).splitlines()
    assert best == ("Best single one: block 1 at step 50, 90.0%. The deepest block reaches 60.0%, the last 85.0%.")
    assert noise == "Noise: at step 500 the Dice is lower than at step 50 in 2 of 3 blocks."
    assert redrawn == "Above redrawn in 6 of 6 cells, by +10.0 points on average."
    assert random == "Above random in 1 of 6 cells, by +1.7 points on average."
