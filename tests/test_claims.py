"""Claims of several figures: what they may name, when they are met, how results and docs show them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from commands import refused, saccade
from measuring import ENV, LONG, composed, enter
from saccade.scripts.claims import last_value
from saccade.scripts.errors import UserError
from saccade.scripts.families import Family
from saccade.scripts.figures import figure, goals
from saccade.scripts.results import check_claim, summarise
from saccade.scripts.run_folder import EVALUATION, METRICS
from saccade.scripts.tables import results_table


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)


def claim(**figures: dict[str, Any]) -> str:
    """Further figures of a claim as an override; ``__`` stands for a dot."""
    parts = (f"{name.replace('__', '.')}: {json.dumps(goal).replace(chr(34), '')}" for name, goal in figures.items())
    return f"+claim.more={{{', '.join(parts)}}}"


def run_folder(name: str, **figures: float) -> Path:
    """A run with these figures, in a longer environment too, and without metrics."""
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    long = {"mean_reward": 9.0, "measures": {"steps": 7.0}}
    cost = {"episodes": 2, "steps": 64, "wall_seconds": 1.5}
    (folder / EVALUATION).write_text(
        json.dumps({**figures, "measures": {"steps": 3.0, "errors/bit": 2.0}, **cost, "also": {"long": long}})
    )
    (folder / METRICS).touch()
    return folder


def test_a_claim_of_several_figures_fills_its_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    more = claim(also__long__measures__steps={"goal": 7, "at_most": True}, mean_reward={"goal": 4.5}, steps={})
    folders = {f"seed={seed}": run_folder(str(seed), mean_reward=4.0 + seed) for seed in (0, 1)}
    asked = []

    def run_seed(overrides: list[str]) -> Path:
        asked.append(overrides)
        return folders[overrides[-1]]

    monkeypatch.setattr("saccade.scripts.results.run_seed", run_seed)
    figures = [LONG, "claim.metric=measures.steps", "claim.goal=3", more]
    assert saccade("results", "experiment=cartpole_ppo", *ENV, "seeds=[0,1]", *figures) == 0
    assert {*figures, *ENV} <= set(asked[0])
    report = json.loads(Path("results/cartpole_ppo.json").read_text())
    assert (report["metric"], report["values"], report["goal"], report["met"]) == ("measures.steps", [3, 3], 3, False)
    assert report["more"] == {
        "also.long.measures.steps": {"values": [7, 7], "goal": 7, "at_most": True, "met": True},
        "mean_reward": {"values": [4, 5], "goal": 4.5, "at_most": False, "met": False},
        "steps": {"values": [64, 64], "goal": None, "at_most": False, "met": None},
    }
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "measures.steps [3.0, 3.0], goal 3.0, met: True",
        "also.long.measures.steps [7.0, 7.0], goal 7.0, met: True",
        "mean_reward [4.0, 5.0], goal 4.5, met: False",
        "steps [64.0, 64.0], goal None, met: None",
        "all met: False  (results/cartpole_ppo.json)",
    ]


def test_a_measure_with_a_slash_in_its_name_is_not_of_the_training() -> None:
    assert last_value(run_folder("run", mean_reward=1.0), "measures.errors/bit") == 2


@pytest.mark.parametrize(
    ("goal", "long", "met"),
    [
        (1, {"goal": 9}, True),
        (3, {"goal": 9}, False),
        (1, {"goal": 8, "at_most": True}, False),
        (1, {}, True),
        (None, {"goal": 9}, True),
        (None, {"goal": 10}, False),
        (None, {}, None),
    ],
)
def test_a_claim_is_met_where_every_figure_is(goal: float | None, long: dict[str, Any], met: bool | None) -> None:
    cfg = composed("claim.metric=mean_reward", f"claim.goal={goal or 'null'}", claim(also__long__mean_reward=long))
    report = summarise("x", "saccade results", [0], cfg, [run_folder("run", mean_reward=2.0)])
    assert report["met"] is met
    assert report["values"] == [2]
    assert report["more"]["also.long.mean_reward"]["values"] == [9]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["claim.metric=measures.step"], "'measures.step' is not in evaluation.json; the nearest: measures.steps"),
        (["claim.metric=measures"], "'measures' is not in"),
        ([claim(also__long__measures__step={})], "the nearest: also.long.measures.steps"),
        ([claim(also__lon__measures__drawn={})], "the nearest: also.long.measures.drawn"),
        ([claim(also__lon__mean_reward={})], "the nearest: also.long.mean_reward"),
        ([claim(mean_reward={}, succes_rate={})], "the nearest: success_rate"),
        (["+env.kwargs.kind=silent", "claim.metric=measures.steps"], "'measures.steps' is not in"),
        (
            ["+evaluation.also.mute.kwargs.kind=silent", claim(also__mute__measures__steps={})],
            "'also.mute.measures.steps' is not in",
        ),
    ],
)
def test_figures_that_there_will_not_be_are_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        check_claim(composed(LONG, *arguments))


def test_figures_that_there_will_be_are_not_refused() -> None:
    more = claim(also__long__measures__drawn={}, also__long__std_reward={}, measures__steps={}, **{"train/loss": {}})
    check_claim(composed(LONG, "claim.metric=success_rate", more))


@pytest.mark.parametrize(("figures", "says"), [("{mean_reward: {gaol: 3}}", "gaol"), ("{mean_reward: {goal: high}}", "high")])
def test_goals_that_are_none_are_refused_before_training(figures: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, "results", "experiment=cartpole_ppo", f"+claim.more={figures}")


def test_what_an_endless_environment_measures_is_taken_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.scripts.evaluate.MOST_STEPS", 50)
    figures = ["claim.metric=measures.steps", claim(also__long__measures__steps={})]
    check_claim(composed("+env.kwargs.kind=endless", LONG, *figures))
    with pytest.raises(UserError, match=r"'also\.lon\.measures\.steps' is not in"):
        check_claim(composed("+env.kwargs.kind=endless", LONG, claim(also__lon__measures__steps={})))


# The docs.


def report(**changes: Any) -> dict[str, Any]:
    """A results file of two seeds."""
    curves = [{"step": [0, 10, 20], "return": [-3.0, -2.0, -1.0]}] * 2
    cost = {"steps": [20, 20], "wall_seconds": [3.0, 5.0]}
    figures = {"metric": "measures.errors", "values": [0.5, 0.75], "goal": 1.0, "met": False, "at_most": True}
    return {"experiment": "copy_ppo", "curves": curves, **cost, **figures, **changes}


MORE = {
    "also.length_60.measures.errors": {"values": [12.0, 2.25], "goal": 4.0, "at_most": True, "met": False},
    "mean_reward": {"values": [-1.0, -2.0], "goal": -2.5, "at_most": False, "met": True},
    "success_rate": {"values": [0.5, 0.5], "goal": None, "at_most": False, "met": None},
}


def test_every_figure_has_a_row_of_its_own_and_only_a_baseline_is_called_one() -> None:
    beside = report(experiment="copy_pqn", goal=None, met=None, more={"success_rate": MORE["success_rate"]})
    assert results_table([report(more=MORE), beside]).splitlines()[2:] == [
        "| `copy_ppo` | errors | 0.625 | 0.500, 0.750 | ≤ 1: met | 0.00 M | 4 |",
        "|  | errors, length 60 | 7.1 | 12.0, 2.2 | ≤ 4: missed |  |  |",
        "|  | mean reward | -1.500 | -1.000, -2.000 | ≥ -2.5: met |  |  |",
        "|  | success rate | 0.500 | 0.500, 0.500 |  |  |  |",
        "| `copy_pqn` | errors | 0.625 | 0.500, 0.750 | baseline | 0.00 M | 4 |",
        "|  | success rate | 0.500 | 0.500, 0.500 | baseline |  |  |",
    ]


def test_what_a_family_is_named_after_is_no_baseline_even_without_a_goal() -> None:
    sort, beside = report(experiment="ntm_sort", goal=None, met=None), report(experiment="ntm_sort_lstm", goal=None, met=None)
    assert results_table([sort, beside]).splitlines()[2:] == [
        "| `ntm_sort` | errors | 0.625 | 0.500, 0.750 |  | 0.00 M | 4 |",
        "| `ntm_sort_lstm` | errors | 0.625 | 0.500, 0.750 | baseline | 0.00 M | 4 |",
    ]


def test_a_figure_shows_the_goals_of_what_it_draws() -> None:
    family = Family("copy", [report(more=MORE)])
    assert goals(family, "return") == [-2.5]
    assert goals(family, "success_rate") == []
    assert figure(family) is not None  # returns below 0, though what is claimed is to become small
