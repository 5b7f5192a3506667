"""What notebooks 25 and 26 recorded: found by its configuration, and words where nothing was run."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from textdiff.experiments.records import load_records, published_dir
from textdiff.figures.curves import reliability_curve, steps_curve
from textdiff.figures.style import description
from textdiff.report import studies
from textdiff.report.volumes import reliability_tables, sampling_table, uncertainty_table


def test_published_studies_are_found():
    records = load_records(published_dir())
    metrics, ways = studies.sampling_of("hippocampus", records)
    assert metrics["test/n"] == ways["case"].nunique() and len(reliability_tables(metrics)) == 2
    answers = studies.prompts_of("hippocampus", records)[1]
    alt = description(studies.asked_in(answers, "class", list(dict.fromkeys(answers["structure"]))))["alt"]
    assert "not run yet" not in alt
    assert "have a record each" in studies.missing_studies("hippocampus", records)


def test_without_a_record_everything_says_so():
    records = load_records(published_dir()).iloc[:0]
    metrics, ways = studies.sampling_of("hippocampus", records)
    assert metrics == {} and len(sampling_table(ways).frame) == len(uncertainty_table(ways, "ddim", 5).frame) == 0
    figures = (
        steps_curve(ways),
        reliability_curve(reliability_tables(metrics)),
    )
    assert all("Nothing has been run yet" in description(one)["alt"] for one in figures)
    answers = studies.prompts_of("hippocampus", records)[1]
    heat = studies.asked_in(answers, "class", ["anterior hippocampus"])
    assert [text.get_text() for text in heat.axes[0].texts].count("not run yet") == 2
    assert "textdiff run 25" in studies.missing_studies("hippocampus", records)
