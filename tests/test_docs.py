"""The docs: generated parts are what the results give, links lead somewhere, the site builds without warning or network."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repository import ROOT
from saccade.scripts.arguments import arguments_table
from saccade.scripts.docs import FIGURES, fill, generate, main
from saccade.scripts.families import Family, families, family_name
from saccade.scripts.figures import band, figure, measured
from saccade.scripts.trends import trend_figure, trends

DOCS = ROOT / "docs"


def report(experiment: str, **changes: Any) -> dict[str, Any]:
    """A results file of two seeds, the second slower and worse."""
    curves = [
        {"step": [100, 200, 300], "return": [0.0, 2.0, 4.0], "success_rate": [0.0, 0.2, 0.4]},
        {"step": [150, 250, 350], "return": [1.0, 1.0, 1.0], "success_rate": [0.1, 0.1, 0.1]},
    ]
    measured_on = {"machine": {"processor": "abacus", "cores": 2, "threads": 1}, "versions": {"python": "3.11"}}
    claim = {"metric": "success_rate", "values": [0.5, 0.7], "goal": None, "met": None}
    cost = {"episodes": [7, 7], "steps": [300, 350], "wall_seconds": [3.0, 5.0]}
    command = f"saccade results experiment={experiment}"
    return {"experiment": experiment, "command": command, "curves": curves, **claim, **cost, **measured_on, **changes}


class Remote(HTMLParser):
    """What a page makes the browser fetch from elsewhere; links that a reader may follow are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        follows = tag == "a" or (tag == "link" and named.get("rel") in ("canonical", "next", "prev"))
        addresses = [named.get("src"), None if follows else named.get("href")]
        self.fetched += [address for address in addresses if address and re.match(r"(https?:)?//", address)]


def test_committed_docs_are_what_the_results_give() -> None:
    files = generate(ROOT / "results", DOCS)
    assert DOCS / "results.md" in files
    assert [
        path.relative_to(ROOT) for path, content in files.items() if not path.exists() or path.read_bytes() != content
    ] == []
    assert {path for path in files if path.suffix == ".svg"} == set((DOCS / FIGURES).iterdir())


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").with_suffix("") for path in (tmp_path / "site").rglob("*.html")}
    assert {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")} <= pages
    for page in (tmp_path / "site").rglob("*.html"):
        parser = Remote()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.fetched == [], page.name


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    relative = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    ("experiment", "family", "label"),
    [
        ("straight_catch", "straight_catch", "straight_catch"),
        ("straight_catch_centre", "straight_catch", "centre"),
        ("cartpole_ppo", "cartpole", "PPO"),
        ("cartpole_novel_ppo_lstm", "cartpole_novel", "PPO, LSTM"),
        ("unheard_of_r2d2_gru", "unheard_of", "R2D2, GRU"),
        ("unheard_of", "unheard_of", "unheard_of"),
        ("cartpolesque_dqn", "cartpolesque", "DQN"),
        ("gtrxl_tmaze", "gtrxl_tmaze", "GTrXL"),
        ("gtrxl_tmaze_lstm", "gtrxl_tmaze", "LSTM"),
        ("gtrxl_poc_memory", "poc_memory", "GTrXL"),
        ("universal_copy_trxl", "universal_copy", "TrXL"),
    ],
)
def test_experiments_find_their_family(experiment: str, family: str, label: str) -> None:
    one = report(experiment)
    assert family_name(one) == family
    assert Family(family, [one]).label(one) == label
    assert family_name(one | {"group": "mine"}) == "mine"


def test_a_band_holds_every_seed_where_all_were_measured() -> None:
    curve = band(report("x")["curves"], "return")
    np.testing.assert_array_equal(curve.step, [150, 200, 250, 300])
    np.testing.assert_allclose(curve.low, [1, 1, 1, 1])
    np.testing.assert_allclose(curve.high, [1, 2, 3, 4])
    np.testing.assert_allclose(curve.mean, [1, 1.5, 2, 2.5])


def test_a_figure_shows_what_the_claims_are_about() -> None:
    rates, returns = report("a_ppo"), report("a_dqn", metric="mean_reward")
    assert measured(Family("a", [rates])) == "success_rate"
    assert measured(Family("a", [rates, returns])) == "return"
    assert measured(Family("a", [report("a_ppo", curves=[{}])])) is None
    assert figure(Family("a", [report("a_ppo", curves=[{}])])) is None


def test_a_figure_depends_on_its_results_alone() -> None:
    family = Family("a", [report("a_ppo", goal=0.9), report("a_dqn")])
    first = figure(family)
    assert first is not None
    assert first == figure(family)
    assert first != figure(Family("a", [report("a_ppo", goal=0.8), report("a_dqn")]))
    assert b"<dc:date>" not in first


def test_blocks_of_a_page_are_filled_and_the_rest_is_kept(tmp_path: Path) -> None:
    groups = [Family("a", [report("a_ppo"), report("a_dqn")]), Family("b", [report("b_ppo")])]
    page, picture = tmp_path / "agents" / "ppo.md", tmp_path / FIGURES / "a.svg"
    text = "before\n<!-- make docs: results a_p* -->\nold\n<!-- end -->\nafter\n"
    filled = fill(text, groups, page, tmp_path, {picture})
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert "(../images/results/a.svg)" in filled
    assert "`a_ppo`" in filled
    assert not {"old", "`a_dqn`", "`b_ppo`"} & set(filled.split())
    assert fill(filled, groups, page, tmp_path, {picture}) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- make docs: results c_* -->\n<!-- end -->", "no results match c_\\*; there are: a_ppo"),
        ("<!-- make docs: results a_* -->\n", "closed by"),
        ("<!-- make docs: results a_* -->\n<!-- make docs: results a_* -->\n<!-- end -->", "closed by"),
        ("<!-- make docs: tables a_* -->\n<!-- end -->", "'tables' is not known; there are: arguments, results"),
        ("<!-- make docs: arguments saccade.agents.PNQ -->\n<!-- end -->", "saccade.agents.PNQ is not a class"),
    ],
)
def test_a_block_that_cannot_be_filled_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fill(text, [Family("a", [report("a_ppo")])], tmp_path / "page.md", tmp_path, set())


def test_arguments_come_from_signature_and_docstring() -> None:
    table = arguments_table("saccade.agents.PQN")
    assert "| `policy` | required | a policy class or an alias: `MlpPolicy`" in table
    assert "| `q_lambda` | `0.95` | `λ` of the targets. |" in table
    assert "| `exploration_final_eps` | `0.02` | ε at the end. |" in table
    assert "_init_setup_model" not in table


def test_levels_are_in_their_order(tmp_path: Path) -> None:
    for level in ("low", "middle", "high"):
        (tmp_path / f"gtrxl_stability_{level}.json").write_text(json.dumps(report(f"gtrxl_stability_{level}")))
    [family] = families(tmp_path)
    assert list(family.panels()) == ["low rate", "middle rate", "high rate"]
    assert [part.label(part.reports[0]) for part in family.panels().values()] == ["GTrXL"] * 3


def test_a_benchmark_over_a_number_has_a_figure_and_its_page_shows_it(tmp_path: Path) -> None:
    rows = [
        {"name": f"{n} of 8 set: time", "unit": "ms", "ours": float(n**2), "peer": None, "ratio": None, "goal": None}
        for n in (3, 1, 2)
    ]
    [trend] = trends(rows)
    assert trend == ("of 8 set", "time (ms)", [(1, 1), (2, 4), (3, 9)], [], "")
    assert trend_figure(rows) == trend_figure(rows)
    assert trend_figure(rows[:1]) is None
    other = {**rows[0], "name": "in all"}
    assert trend_figure([*rows, other]) is None

    beside = [{**row, "peer": 100 * row["ours"], "peer_name": "abacus"} for row in rows]
    [trend] = trends(beside)
    assert trend.peer == [(1, 100), (2, 400), (3, 900)]
    assert trend.peer_name == "abacus"
    picture = (trend_figure(beside) or b"").decode()
    assert "abacus" in picture
    assert "ours" in picture
    assert not trends([*rows[:2], beside[2]])[0].peer

    benchmarks = tmp_path / "results" / "benchmarks"
    benchmarks.mkdir(parents=True)
    shared = {"machine": {"processor": "abacus", "cores": 2, "threads": 1}, "versions": {}, "command": "python benchmarks/a.py"}
    for name, measured_rows in (("counted", rows), ("plain", [other])):
        (benchmarks / f"{name}.json").write_text(json.dumps({**shared, "rows": measured_rows}))
    files = generate(tmp_path / "results", tmp_path / "docs")
    page = files[tmp_path / "docs" / "results.md"].decode()
    assert files[tmp_path / "docs" / FIGURES / "counted.svg"] == trend_figure(rows)
    assert "![Measured: Counted](images/results/counted.svg)" in page
    assert "plain.svg" not in page


def test_figures_without_results_are_removed(tmp_path: Path) -> None:
    stale = tmp_path / FIGURES / "gone.svg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    (tmp_path / "other.svg").touch()
    main([str(ROOT / "results"), str(tmp_path)])
    drawn = {path.name for path in stale.parent.iterdir()}
    assert drawn == {f"{family.name}.svg" for family in families(ROOT / "results")} | {"parity_ponder.svg"}
    assert (tmp_path / "other.svg").exists()


def test_arguments_of_a_policy_are_those_of_the_classes_above_it_too() -> None:
    table = arguments_table("saccade.policies.QPolicy")
    assert "| `dueling` | `True` |" in table
    assert "| `core_class` | `FeedForward` | the core; `core_kwargs` are" in table
    assert "observation_space" not in table
    assert "| `memory_span` | `None` |" in arguments_table("saccade.policies.GRU")
    assert "`partial(LSTM, hidden_size=256)`" in arguments_table("saccade.policies.Twin")
