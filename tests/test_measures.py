"""Evaluations that say more than the reward, and in other settings of the environment too."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import numpy as np
import pytest
from jaxtyping import Bool, Integer
from omegaconf import OmegaConf
from stable_baselines3.common.vec_env import VecEnv

from commands import TINY, refused, saccade
from measuring import ENV, LONG, composed, enter
from saccade.agents import PPO
from saccade.envs import ProbeMemory, TaskStep, TaskVecEnv, WrongExperienceError, make_vec_env
from saccade.scripts.claims import last_value
from saccade.scripts.errors import RunError, UserError
from saccade.scripts.evaluate import Evaluation, evaluate, score, write_evaluation
from saccade.scripts.run_folder import EVALUATION
from saccade.scripts.settings import check_settings, settings


class Trained(NamedTuple):
    folder: Path
    said: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run in the environment and in a longer one, and what the training said."""
    folder, said = tmp_path_factory.mktemp("trained"), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        enter(folder, patch)
        assert saccade("train", *TINY, "name=run", *ENV, LONG, "evaluation.episodes=7", "evaluation.n_envs=3") == 0
    return Trained(folder, said.getvalue())


@pytest.fixture(autouse=True)
def _in_a_copy_of_its_folder(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)


def model_and_env(**kwargs: Any) -> tuple[PPO, VecEnv]:
    """An agent that has not learned, and two environments."""
    env = make_vec_env("measuring_envs:Measuring-v0", 2, 0, kwargs)
    return PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0), env


def written() -> dict[str, Any]:
    return dict(json.loads(Path("runs/run", EVALUATION).read_text()))


def steps(found: dict[str, Any]) -> dict[str, float]:
    """How long an episode was in every setting."""
    return {name: part["measures"]["steps"] for name, part in {"": found, **found["also"]}.items()}


# What is measured.


def test_measures_are_means_over_the_ends_of_episodes(trained: Trained) -> None:
    found = written()
    assert found["measures"] == {"drawn": pytest.approx(found["mean_reward"]), "steps": 3}
    assert found["std_reward"] > 0
    long = found["also"]["long"]
    assert list(found["also"]) == ["long"]
    assert long["measures"] == {"drawn": pytest.approx(long["mean_reward"]), "steps": 7}
    assert list(long) == ["mean_reward", "std_reward", "success_rate", "measures", "episodes"]
    assert (found["episodes"], long["episodes"]) == (7, 7)
    said = [line for line in trained.said.splitlines() if "steps" in line]
    assert said[0].startswith("score ")
    assert f"drawn {found['mean_reward']:.3f}, steps 3.000 over 7 episodes" in said[0]
    assert said[1].startswith("long ")
    assert f"drawn {long['mean_reward']:.3f}, steps 7.000 over 7 episodes" in said[1]


def test_an_environment_without_measures_has_none() -> None:
    found = score(*model_and_env(kind="silent"), 3)
    assert found.measures == {}
    assert found.summary().endswith("over 3 episodes")


class Counts(ProbeMemory):
    """Measures the sign that was to be remembered."""

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        return super().step(actions)._replace(measures={"sign": self.cue})

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        super().reset(lanes)
        self.cue[lanes] = np.array([1, 1, -1, 1, 1], np.float32)[lanes]


def test_tasks_that_step_all_lanes_at_once_are_measured() -> None:
    env = TaskVecEnv(Counts(num_envs=5, seed=3))
    found = score(PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0), env, 5)
    assert found.measures == {"sign": pytest.approx(3 / 5)}
    assert found.success_rate is not None


def test_a_measure_that_is_not_finite_is_null() -> None:
    found = score(*model_and_env(kind="infinite"), 3)
    assert found.measures == {"drawn": None, "steps": 3}
    assert "drawn not finite, steps 3.000" in found.summary()
    path = write_evaluation(Path("runs/run"), Evaluation(found, 0, "Measuring-v0", 64, None, {"long": found}))
    assert "Infinity" not in path.read_text() and "NaN" not in path.read_text()
    assert last_value(path.parent, "also.long.measures.steps") == 3
    with pytest.raises(RunError, match="has no measures.drawn: there are: .*measures.steps"):
        last_value(path.parent, "measures.drawn")


@pytest.mark.parametrize(("kind", "given"), [("word", {"drawn": "many"}), ("list", [3])])
def test_measures_that_are_not_numbers_by_name_are_refused(kind: str, given: Any) -> None:
    with pytest.raises(WrongExperienceError, match=re.escape(f"holds one number a name, and not {given!r}")):
        score(*model_and_env(kind=kind), 3)


# Other settings.


def test_an_evaluation_plays_in_the_settings_of_the_run_and_in_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade("evaluate", "run=runs/run", "episodes=3") == 0
    assert steps(written()) == {"": 3, "long": 7}
    assert written()["also"]["long"]["episodes"] == 3
    others = "+also={longer: {kwargs: {length: 9}}, long: {kwargs: {length: 5}}}"
    assert saccade("evaluate", "run=runs/run", "episodes=3", others) == 0
    assert steps(written()) == {"": 3, "long": 5, "longer": 9}
    assert "longer " in capsys.readouterr().out
    said = refused(capsys, "evaluate", "run=runs/run", "+also.wide.kwargs.size=5")
    assert "also.wide has other observations than the training" in said


def test_a_run_from_before_there_were_settings_can_be_evaluated() -> None:
    path = Path("runs/run/config.yaml")
    cfg = OmegaConf.load(path)
    del cfg.evaluation["also"]
    OmegaConf.save(cfg, path)
    assert saccade("evaluate", "run=runs/run", "episodes=3") == 0
    assert steps(written()) == {"": 3}
    assert saccade("evaluate", "run=runs/run", "episodes=3", "+also.long.kwargs.length=5") == 0
    assert steps(written()) == {"": 3, "long": 5}


def test_another_id_keeps_only_the_arguments_beside_it() -> None:
    cfg = composed("+env.kwargs.length=4", "+evaluation.also.fixed.id=measuring_envs:Fixed-v0", LONG)
    check_settings(cfg)
    found = evaluate(cfg, model_and_env()[0], 2, 2, seed=0, wall_seconds=None).content()
    assert steps(found) == {"": 4, "fixed": 11, "long": 7}


def test_a_setting_changes_what_it_names_and_leaves_the_rest() -> None:
    cfg = composed("env=tmaze", "env.id=saccade/TMaze-v0", "+evaluation.also.long.kwargs.length=60")
    before = cfg.copy()
    long = settings(cfg)["long"]
    assert long.env == {
        "id": "saccade/TMaze-v0",
        "n_envs": 2,
        "kwargs": {"length": 60, "distractors": 0, "previous_action": False, "oracle_length": 0},
    }
    long.env.kwargs.length = 50
    assert long == cfg == before


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("long.kwarg.length=7", "also.long cannot change env.kwarg; the nearest: kwargs"),
        ("long.kwargs.lenght=7", "also.long: Measuring-v0 takes no argument 'lenght': the nearest is 'length'"),
        ("long.n_envs=7", "also.long cannot change env.n_envs; there are: id, kwargs, slots, wrappers"),
        ("long=7", "also.long is 7; it needs the values of env that differ"),
        ("other.id=measuring_envs:Measurin-v0", "also.other: unknown environment 'Measurin-v0': the nearest"),
        ("wide.kwargs.size=5", "also.wide has other observations than the training: Box(-1.0, 1.0, (5,), float32)"),
        ("other={id: saccade/Corridor-v0, kwargs: {n_actions: 7}}", "also.other has other observations"),
        ("more.kwargs.actions=7", "also.more has other actions than the training: Discrete(7), and not Discrete(2)"),
    ],
)
def test_settings_that_cannot_be_played_in_are_refused(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        check_settings(composed(f"+evaluation.also.{setting}"))


@pytest.mark.parametrize("command", ["train", "results"])
def test_settings_are_checked_before_step_1(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.scripts.results.run_seed", lambda _: pytest.fail("trained"))
    said = refused(capsys, command, "experiment=cartpole_ppo", *ENV, "runs=new", "+evaluation.also.wide.kwargs.size=5")
    assert "also.wide has other observations" in said
    assert not Path("new").exists() and not Path("results").exists()
