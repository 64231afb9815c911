import json
import sys

import pytest
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from repository import ROOT
from saccade.scripts.tables import benchmark_section

KEYS = ["name", "unit", "ours", "peer", "peer_name", "ratio", "goal", "met", "floor", "share"]


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import harness

    yield harness
    sys.modules.pop("harness")


def test_a_row_says_whether_its_goal_is_met(harness):
    row = harness.compare("a", "steps/s", 30.0, 10.0, "other", ratio_at_least=2, floor=40.0)
    assert list(row._asdict()) == KEYS
    assert row.met and row.ratio == 3 and row.share == 0.75
    assert not harness.compare("a", "steps/s", 19.0, 10.0, "other", ratio_at_least=2).met
    assert harness.compare("a", "steps/s", 19.0).met is None


def test_less_is_better_where_the_goal_is_a_ceiling(harness):
    row = harness.compare("a", "us", 2.0, 6.0, "other", at_most=2.5)
    assert row.met and row.ratio == 3
    assert not harness.compare("a", "us", 3.0, at_most=2.5).met


def test_contradictory_goals_are_refused(harness):
    with pytest.raises(ValueError, match="2 goals"):
        harness.compare("a", "us", 1.0, at_least=1, at_most=2)
    with pytest.raises(ValueError, match="needs a peer"):
        harness.compare("a", "us", 1.0, ratio_at_least=1)


def test_contestants_take_turns_after_a_warm_up(harness):
    calls = []

    def work(name):
        return lambda: calls.append(name) or 1

    rates = harness.median_rates({"a": work("a"), "b": work("b")}, rounds=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    assert set(rates) == {"a", "b"}


def test_the_command_writes_rows(harness, monkeypatch, tmp_path):
    file = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--json", str(file)])
    for name in harness.THREADS:
        monkeypatch.setenv(name, "1")
    rows = [
        harness.compare("a", "steps/s", 30.0, 10.0, "other", ratio_at_least=4, floor=40.0),
        harness.compare("b", "us", 1.25),
    ]
    with pytest.raises(SystemExit) as end:
        harness.main("What is measured.", lambda settings: rows)
    assert end.value.code == 1
    report = json.loads(file.read_text())
    assert [list(row) for row in report["rows"]] == [KEYS, KEYS]
    table = benchmark_section("agents", report)
    assert "| a | steps/s | 30 | 10 (other) | 3.00x | ratio >= 4: missed | 75% |" in table
    assert "| b | us | 1.25 |  |  |  |  |" in table


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "python benchmarks/agents.py"),
        (["--quick"], "python benchmarks/agents.py --quick"),
        (["--quick", "--device", "cpu"], "python benchmarks/agents.py --device cpu --quick"),
    ],
)
def test_the_file_holds_the_command_that_measures_as_it_was_measured(harness, arguments, command, monkeypatch, tmp_path):
    file = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/agents.py", "--json", str(file), *arguments])
    for name in harness.THREADS:
        monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit):
        harness.main("What is measured.", lambda settings: [], devices=("cuda", "cpu") if "cpu" in arguments else ("cpu",))
    report = json.loads(file.read_text())
    assert report["command"] == command
    assert f"```bash\n{command} --json results/benchmarks/agents.json\n```" in benchmark_section("agents", report)


def test_multiplications_of_convolutions_and_layers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import floors
    import gymnasium as gym
    import numpy as np

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.features_extractor = NatureCNN(gym.spaces.Box(0, 255, (4, 84, 84), np.uint8))
            self.head = nn.Linear(512, 7)

    first = 20 * 20 * 32 * 4 * 8 * 8
    rest = 9 * 9 * 64 * 32 * 4 * 4 + 7 * 7 * 64 * 64 * 3 * 3 + 3136 * 512 + 512 * 7
    assert floors.multiplications(Network(), (4, 84, 84)) == (first + rest, first)
    assert floors.operations(Network(), (4, 84, 84), forward=1, learned=2) == 2 * (7 * (first + rest) - 2 * first)
    assert floors.multiplications(nn.Linear(3, 5), None) == (15, 0)


def test_every_committed_benchmark_has_the_documented_keys():
    for path in (ROOT / "results" / "benchmarks").glob("*.json"):
        for row in json.loads(path.read_text())["rows"]:
            assert set(KEYS[:8]) <= set(row)
