"""The commands as a user runs them: what they make, and what they say to bad input."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from commands import TINY, refused, saccade
from saccade.agents import PQN
from saccade.scripts.run_folder import read_metrics, reserve_run_folder

CONF = Path(__file__).parent.parent / "conf"
BROKEN_ENVS = """
import gymnasium as gym
import numpy as np

class NanEnv(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.steps += 1
        return np.full(3, np.nan if self.steps == 7 else 0, np.float32), 1.0, False, False, {}

class LongEnv(NanEnv):
    def step(self, action):
        self.steps += 1
        return np.zeros(4 if self.steps == 7 else 3, np.float32), 1.0, False, False, {}

gym.register("Nan-v0", NanEnv, disable_env_checker=True)
gym.register("Long-v0", LongEnv, disable_env_checker=True)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


@pytest.mark.parametrize("policy", choices("policy"))
def test_every_policy_takes_steps(policy: str) -> None:
    agent = "ppo" if policy.startswith("twin") else "pqn"
    assert saccade("train", *TINY, f"policy={policy}", f"agent={agent}") == 0


@pytest.mark.parametrize("ponder", ["true", "{max_steps: 2, cost: 0.01}"])
def test_a_recurrent_core_ponders_if_so_asked(ponder: str) -> None:
    assert saccade("train", *TINY, "policy=gru", f"policy.core.ponder={ponder}", "name=pondering") == 0
    rows = [json.loads(line)["metrics"] for line in Path("runs/pondering/metrics.jsonl").read_text().splitlines()]
    assert 1 <= rows[-1]["train/ponder"] <= (10 if ponder == "true" else 2)


@pytest.mark.parametrize("agent", choices("agent"))
def test_every_agent_takes_steps(agent: str) -> None:
    needs = {
        "dqn": ["policy=mlp"],
        "policy_evaluation": ["policy=mlp", "env=corridor"],
        "supervised": ["policy=lstm", "env=copy"],
        "supervised_rmsprop": ["policy=ntm_dense", "env=copy"],
    }
    assert saccade("train", *TINY, f"agent={agent}", *needs.get(agent, ["policy=glimpse"])) == 0


@pytest.mark.parametrize("env", choices("env"))
def test_every_environment_takes_steps(env: str) -> None:
    assert saccade("train", *TINY, f"env={env}", "agent=ppo", "policy=gru") == 0


@pytest.mark.slow  # four seconds each, of some fifty
@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_takes_steps(experiment: str) -> None:
    assert saccade("train", f"experiment={experiment}", *TINY, "env.n_envs=4") == 0


def test_a_run_leaves_everything_in_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("train", *TINY, "name=first", "total_timesteps=640", "saliency.every=320", "log_interval=1") == 0
    folder = Path("runs/first")
    said = capsys.readouterr().out
    assert str(folder) in said
    assert "tensorboard --logdir runs" in said
    assert "success rate" in said
    assert PQN.load(folder / "checkpoint.zip").num_timesteps == 640
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [64 * update for update in range(1, 11)]
    for name in ("train/td_loss", "train/grad_norm", "train/gaze_entropy", "rollout/exploration_rate", "time/fps"):
        assert name in rows[-1], name
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert set(evaluation) == {
        *("mean_reward", "std_reward", "success_rate", "measures", "episodes", "seed", "env", "steps", "wall_seconds", "also"),
    }
    assert evaluation["episodes"] == 2
    assert evaluation["steps"] == 640
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert "train/td_loss" in events.Tags()["scalars"]
    assert any("film" in tag for tag in events.Tags()["images"])


def test_a_run_can_be_evaluated_again() -> None:
    assert saccade("train", *TINY, "name=again") == 0
    assert saccade("evaluate", "run=runs/again", "episodes=3", "seed=5") == 0
    evaluation = json.loads(Path("runs/again/evaluation.json").read_text())
    assert evaluation["episodes"] == 3
    assert evaluation["seed"] == 5
    assert evaluation["wall_seconds"] is not None


def test_a_changed_metrics_line_ends_the_reading(tmp_path: Path) -> None:
    assert saccade("train", *TINY, "name=lines", "total_timesteps=320", "log_interval=1") == 0
    path = Path("runs/lines/metrics.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2].replace('"step":192', '"step":193'), *lines[3:]]))
    assert len(read_metrics(path)) == 2


def test_runs_started_at_once_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: reserve_run_folder(tmp_path / "runs", "same"), range(20)))
    assert len(set(folders)) == 20
    assert all(folder.is_dir() for folder in folders)


def test_multirun_trains_every_combination() -> None:
    assert saccade("train", "--multirun", *TINY, "seed=0,1", "policy=mlp,gru") == 0
    assert len(list(Path("runs").glob("pqn-*-catch-*"))) == 4


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("policy=glimps", "glimpse"),
        ("agent=pgn", "pqn"),
        ("agnt=pqn", "agent"),
        ("agent.n_epoch=3", "agent.n_epochs"),
        ("policy.core.sigma=0.1", "policy.core.gaze.sigma"),
        ("total_timestep=5", "total_timesteps"),
        ("env.id=CartPole-v7", "CartPole-v1"),
        ("env.id=saccade/Cach-v0", "saccade/Catch-v0"),
        ("env.kwargs.heigth=5", "env.kwargs.height"),
        ("+env.kwargs.heigth=5", "height"),
        ("agent.batch_size=100", "32, 64"),
        ("total_timesteps=many", "Integer"),
        ("saliency.every=often", "Integer"),
        ("agent._target_=saccade.agents.PQM", "saccade.agents.PQN"),
        ("experiment=straight_cach", "straight_catch"),
    ],
)
def test_bad_names_are_refused_with_the_nearest(override: str, nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nearest in refused(capsys, "train", *TINY, override)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("target", ["os.system", "builtins.exec", "torch.load", "stable_baselines3.PPO.load", "shutil.rmtree"])
def test_a_config_names_only_classes_on_the_list(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert target in refused(capsys, "train", *TINY, f"agent.learning_rate._target_={target}")
    assert list(Path.cwd().iterdir()) == []


def test_a_sweep_is_checked_before_its_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "glimps" in refused(capsys, "train", "--multirun", *TINY, "policy=mlp,glimps")
    assert list(Path.cwd().iterdir()) == []


def test_a_glimpse_needs_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", *TINY, "env.id=CartPole-v1")
    assert "looks at images" in said
    assert "policy=lstm" in said


def test_a_folder_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("taken").write_text("a file")
    assert "cannot make a run folder" in refused(capsys, "train", *TINY, "runs=taken")
    assert "cannot make a run folder" in refused(capsys, "train", "--multirun", *TINY, "runs=taken/deeper", "seed=0,1")


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("Nan-v0", "observation of environment 0 is not finite at step 12"),
        ("Long-v0", "observation of environment 0 has shape [4], at its step 7; its space promises [3]"),
    ],
)
def test_experience_that_cannot_be_learned_from_stops_the_run(
    env: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_envs.py").write_text(BROKEN_ENVS)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert saccade("train", *TINY, f"env.id=broken_envs:{env}", "policy=lstm", "name=broken") == 1
    assert says in capsys.readouterr().err
    assert Path("runs/broken/checkpoint.zip").is_file()


def test_an_unknown_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a finished run folder" in refused(capsys, "evaluate", "run=runs/none")
    assert "which run?" in refused(capsys, "evaluate")


def test_unknown_commands_are_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'train'" in refused(capsys, "trian")


def test_environments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("envs", "catch") == 0
    assert "saccade/Catch-v0" in capsys.readouterr().out


def test_check_finds_nothing_wrong_with_the_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("check") == 0
    assert "nothing wrong" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", ["cartpole_ppo", "cartpole_novel_ppo_lstm"])
def test_check_finds_nothing_wrong_with_what_learns(experiment: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("check", f"experiment={experiment}") == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_check_says_that_a_memory_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("check", "env=probe", "env.id=saccade/ProbeMemory-v0", "policy=mlp") == 1
    assert "not remember" in capsys.readouterr().out


def test_help_shows_groups_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("train", "--help") == 0
    said = capsys.readouterr().out
    assert "glimpse, glimpse_centre" in said
    assert "total_timesteps" in said


def test_interrupting_finishes_the_files(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "scripts" / "train.py"
    command = [sys.executable, str(script), "name=cut", "saliency.every=0", "log_interval=1", "threads=1"]
    # Where the tests run in the background of a shell, they and their children would ignore Ctrl-C.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "runs" / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run lies in runs/cut" in said
    assert PQN.load(tmp_path / "runs" / "cut" / "checkpoint.zip").num_timesteps > 0
