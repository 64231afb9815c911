import json
import sys

import pytest
import torch
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from repository import ROOT
from saccade.policies import NTM, GTrXL, TrXL
from saccade.policies.dnc import DNC
from saccade.scripts.tables import benchmark_section

KEYS = ["name", "unit", "ours", "peer", "peer_name", "ratio", "goal", "met", "floor", "share"]


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import harness

    yield harness
    sys.modules.pop("harness")


@pytest.fixture
def memory(harness):
    import memory

    yield memory
    sys.modules.pop("memory")


@pytest.fixture
def transformers(harness):
    import transformers

    yield transformers
    for name in ("transformers", "plain_transformer", "peers"):
        sys.modules.pop(name)


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


def test_the_plain_turing_machine_is_ours_written_out(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from plain_ntm import PlainNTM

    torch.manual_seed(0)
    width = 3
    ours, plain = NTM((2,), slots=7, width=width), PlainNTM(2, slots=7, width=width)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain.controller.load_state_dict({name.removesuffix("_l0"): w for name, w in ours.controller.network.state_dict().items()})
    sizes = [width, width, width, width, *[1] * 6, 3, 3]
    for part in ("weight", "bias"):
        rows = getattr(ours.interface, part).detach().split(sizes)
        keys, (add, erase), gates, strengths, powers, kernels = rows[:2], rows[2:4], rows[4:6], rows[6:8], rows[8:10], rows[10:]
        for n, (head, words) in enumerate([(plain.reader, []), (plain.writer, [erase, add])]):
            orders = torch.cat([keys[n], strengths[n], gates[n], kernels[n], powers[n], *words])
            setattr(head.orders, part, nn.Parameter(orders))
    inputs = torch.randn(13, 5, 2, requires_grad=True)
    expected, after, *_ = ours(inputs, ours.initial_state(5), torch.zeros(13, 5, dtype=torch.bool))
    features, state = plain(inputs)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    # Features alone would not tell a shift to the left from one to the right: both heads begin at the same slot.
    torch.testing.assert_close(state.memory, after.memory.mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain(inputs[:1], state)[0], plain(torch.cat([inputs, inputs[:1]]))[0][-1:])
    cotangent = torch.randn_like(features)
    by_inputs = [torch.autograd.grad(output, inputs, cotangent)[0] for output in (features, expected)]
    torch.testing.assert_close(*by_inputs, rtol=1e-3, atol=1e-5)


def test_memories_and_their_peers_learn_every_weight_and_act(memory):
    for name, entrant in memory.entrants().items():
        assert memory.learning(entrant, steps=3, lanes=2)() == 1
        unlearned = [weight for weight, parameter in entrant.network.named_parameters() if not parameter.grad.any()]
        assert unlearned == [], name
        assert memory.acting(entrant, lanes=2, times=3)() == 3


def test_a_memory_of_another_size_is_no_peer(memory, monkeypatch):
    monkeypatch.setitem(memory.ENTRANTS, "DNC", lambda: memory.of_core(DNC((memory.INPUTS,), width=31)))
    with pytest.raises(ValueError, match=r"our DNC has \d+ weights, and its peer, dnc 1\S+, 180343"):
        memory.entrants()


def test_less_is_better_where_milliseconds_or_bytes_are_told(harness):
    row = harness.cost("a", "ms", 2.0, 6.0, "other", goal=2.5, floor=0.5)
    assert (row.ours, row.peer, row.floor) == (2, 6, 0.5)
    assert row.met and row.ratio == pytest.approx(3) and row.share == pytest.approx(0.25)
    assert not harness.cost("a", "ms", 2.0, 4.0, "other", goal=2.5).met


def test_multiplications_in_a_memory(memory):
    # 2 read heads, 7 slots of 5 numbers: 3 keys, 2 vectors read, erased and added; links twice, and two ways for each head.
    assert memory.products(DNC((3,), slots=7, width=5, read_heads=2)) == 3 * 35 + 2 * 35 + 2 * 35 + 6 * 49
    # 2 heads read and 3 write: 5 keys and 5 moves by up to 2, 2 vectors read, erased and added thrice.
    ntm = NTM((3,), slots=7, width=5, read_heads=2, write_heads=3, max_shift=2)
    assert memory.products(ntm) == 5 * 35 + 5 * 7 * 5 + 2 * 35 + 6 * 35


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_bytes_are_those_held_at_the_most(memory):
    def fill(mebibytes):
        def work():
            torch.ones(mebibytes * 2**18).add(1)
            return torch.ones(2**18).numel()

        return work

    assert 119 < memory.extra_bytes(fill(1), fill(60)) / 2**20 < 125


def test_every_committed_benchmark_has_the_documented_keys():
    for path in (ROOT / "results" / "benchmarks").glob("*.json"):
        for row in json.loads(path.read_text())["rows"]:
            assert set(KEYS[:8]) <= set(row)


@pytest.mark.parametrize("kind", [TrXL, GTrXL])
def test_a_window_for_every_step_gives_the_same_as_our_transformers(transformers, kind, monkeypatch):
    core = kind((transformers.INPUTS,), hidden_size=16, n_layers=2, window=4)
    transformers.check_same(core)
    attend = transformers.plain.attend
    monkeypatch.setattr(transformers.plain, "attend", lambda *arguments: 1.01 * attend(*arguments))
    with pytest.raises(ValueError, match="the plain one differ at step 0"):
        transformers.check_same(core)


def test_windows_hold_the_steps_before_each(transformers):
    stored = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 2, 1, 1).float()
    windows = transformers.plain.pick_windows(stored, 2)
    assert windows[:, 0, :, 0].tolist() == [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 3]]
