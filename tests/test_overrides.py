"""What is asked for on the command line: found where it exists, refused in words where not, and nothing is left behind."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

import saccade.agents as agents
from commands import TINY, refused, saccade
from saccade.agents.algorithm import CoreAlgorithm
from saccade.scripts.build import AGENTS, check_device, check_values
from saccade.scripts.errors import UserError
from saccade.scripts.overrides import config_loader, nearest

FLOAT_IMAGES = """
import gymnasium as gym
import numpy as np

class FloatImages(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1, 8, 8), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, a=1, options=None):
        assert options is None or options == {"b": 2}, options
        self.left = 3
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 3
        return np.zeros((1, 8, 8), np.float32), {}
    def step(self, action):
        self.left -= 1
        return np.ones((1, 8, 8), np.float32), 1.0, self.left == 0, False, {}

gym.register("FloatImages-v0", FloatImages, disable_env_checker=True)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def float_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an environment that shows images as floats, and says nothing of success."""
    (tmp_path / "float_images.py").write_text(FLOAT_IMAGES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "float_images:FloatImages-v0"


def kwargs_of(name: str) -> dict[str, object]:
    return dict(OmegaConf.load(Path("runs") / name / "config.yaml").env.kwargs)


def train(*arguments: str) -> int:
    flags = [text for text in arguments if text.startswith("--")]
    return saccade("train", *flags, *TINY, "name=run", *(text for text in arguments if text not in flags))


def test_the_id_of_the_file_itself_keeps_its_arguments() -> None:
    assert train("env=catch", "env.id=saccade/Catch-v0", "policy=mlp") == 0
    assert kwargs_of("run")["height"] == 8
    assert len(kwargs_of("run")) == 6


@pytest.mark.parametrize("override", ["+env.kwargs={a: 1}", "++env.kwargs={a: 1}", "+env.kwargs.a=1", "++env.kwargs.a=1"])
def test_another_id_keeps_only_arguments_named_beside_it(override: str, float_images: str) -> None:
    assert train(f"env.id={float_images}", override, "policy=mlp") == 0
    assert kwargs_of("run") == {"a": 1}


def test_another_id_keeps_arguments_within_arguments(float_images: str) -> None:
    assert train(f"env.id={float_images}", "+env.kwargs.options.b=2", "policy=mlp") == 0
    assert kwargs_of("run") == {"options": {"b": 2}}


def test_a_failing_job_leaves_the_others_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--multirun", "agent.batch_size=100,64", "policy=mlp") == 2
    said = capsys.readouterr().err
    assert "agent.batch_size=100" in said
    assert "Traceback" not in said
    assert Path("runs/run/evaluation.json").is_file()


def test_every_finding_of_check_counts_in_a_multirun(capsys: pytest.CaptureFixture[str]) -> None:
    memory = ["env=probe", "env.id=saccade/ProbeMemory-v0,saccade/ProbeConstant-v0", "policy=mlp"]
    assert saccade("check", "--multirun", *memory) == 1
    assert capsys.readouterr().out.count("start training") == 1


def test_an_interrupt_ends_a_multirun_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(cfg: object) -> None:
        calls.append(cfg)
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("saccade.scripts.train"), "train", interrupted)
    assert train("--multirun", "seed=0,1") == 130
    assert len(calls) == 1


def test_a_folder_of_ones_own_configs_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/env").mkdir(parents=True)
    Path("mine/env/mine.yaml").write_text("id: CartPole-v1\nn_envs: 2\nkwargs: {}\n")
    assert saccade("train", "--config-dir", "mine", *TINY, "env=mine", "policy=mlp", "env.id=CartPole-v1") == 0
    assert "mine" in refused(capsys, "train", "--config-dir", "mine", "env=mime")
    assert "no such folder" in refused(capsys, "train", "--config-dir", "none", "env=mine")


def test_completion_is_not_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "saccade policy=gl")
    monkeypatch.setenv("COMP_POINT", "17")
    saccade("train", "--shell-completion", "query=bash")
    assert "there is no value" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("seed=0,1", "add --multirun"),
        ("--cfg job policy=mlp,gru", "add --multirun"),
        ("--multirun 'policy=glob(x*)'", "glimpse, glimpse_centre"),
        ("--multirun 'agent.gamma=interval(0.9,0.99)'", "list values"),
        ("hydra/launcher=joblib", "hydra/launcher has no choice 'joblib'"),
        ("policy=lstm policy.core.n_layer=3", "policy.core.n_layers"),
        ("policy.core.n_layer=3 policy=lstm", "policy.core.n_layers"),
        ("env.kwargs.wind=true", "+env.kwargs.wind=true"),
        ("agent=null", "agent has no choice"),
    ],
)
def test_what_hydra_would_say_otherwise(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", *shlex.split(arguments))
    assert says in said
    assert "Traceback" not in said
    assert list(Path.cwd().iterdir()) == []


def test_a_pattern_is_a_sweep() -> None:
    assert train("--multirun", "policy=glob(l*)") == 0
    assert Path("runs/run").is_dir()


def test_names_are_listed_once() -> None:
    assert nearest("zzz", ["agent", "env", "agent"]) == "there are: agent, env"


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    with config_loader(None):
        return compose("train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, 0) for key in ("total_timesteps", "log_interval", "threads", "evaluation.episodes", "evaluation.n_envs")],
        *[("saliency.max_steps", 0), ("saliency.every", -1), ("seed", -1), ("env.n_envs", 0), ("env.n_envs", "many")],
        *[("env.id", None), ("name", "a/b"), ("name", ".."), ("agent", None)],
    ],
)
def test_values_out_of_range_are_named(key: str, value: object, composed: DictConfig) -> None:
    cfg = composed.copy()
    check_values(cfg)
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError, match=re.escape(key)):
        check_values(cfg)


def test_values_that_an_old_run_lacks_are_not_missed(composed: DictConfig) -> None:
    check_values(OmegaConf.masked_copy(composed, ["agent", "policy", "env"]))


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("override", ["threads=0", "policy.core=null", "policy.core._target_=saccade.agents.PQN"])
def test_what_cannot_be_built_leaves_nothing_behind(command: str, override: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, command, override)
    assert override.partition("=")[0].removesuffix("._target_") in said
    assert "Traceback" not in said
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_devices_that_are_not_there_are_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=f"device={device} cannot be used here"):
        check_device(device)
    check_device("cpu")
    check_device("auto")
    if device == "gpu":
        assert "device=gpu" in refused(capsys, "train", *TINY, "device=gpu")


def test_a_glimpse_reads_images_of_floats(float_images: str) -> None:
    assert train(f"env.id={float_images}", "policy=glimpse") == 0


def test_every_exported_agent_can_be_named() -> None:
    exported = {getattr(agents, name) for name in agents.__all__}
    assert set(AGENTS.values()) == {thing for thing in exported if isinstance(thing, type) and issubclass(thing, CoreAlgorithm)}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("folder=taken", "cannot write"),
        ("claim.metric=succes_rate", "mean_reward"),
        ("claim.metric=env", "mean_reward"),
        ("jobs=0", "jobs"),
        ("seeds=[]", "seeds"),
        ("threads=0", "threads"),
    ],
)
def test_results_find_out_before_training(
    override: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.scripts.results.run_seed", lambda _: pytest.fail("trained"))
    Path("taken").write_text("a file")
    assert says in refused(capsys, "results", "experiment=straight_catch", override)


def test_a_metric_without_a_value_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run").mkdir()
    Path("run/evaluation.json").write_text('{"success_rate": null}')
    monkeypatch.setattr("saccade.scripts.results.run_seed", lambda _: Path("run"))
    assert saccade("results", "experiment=straight_catch") == 1
    assert "has no success_rate" in capsys.readouterr().err


def test_an_interrupt_while_importing_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("saccade.scripts.main.import_module", interrupted)
    assert saccade("train") == 130
    assert capsys.readouterr().err == ""


def test_a_reader_may_leave_early() -> None:
    command = [sys.executable, "-m", "saccade.scripts.main", "envs"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("command", ["train", "check", "results"])
def test_help_is_the_same_for_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert saccade(command, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"saccade {command}: ")
    assert "Groups, one choice of each" in said
    assert "saccade envs lists" in said
