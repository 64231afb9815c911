"""The types of the main configs' values, so that Hydra refuses a word where a number belongs."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class EvaluationConfig:
    """The evaluation after training.

    Attributes:
        also: by name, what differs in ``env`` where the agent is evaluated too; all else is as in the training.
    """

    episodes: int = MISSING
    n_envs: int = MISSING
    also: dict[str, Any] = field(default_factory=dict)


@dataclass
class SaliencyConfig:
    """Films during training."""

    every: int = MISSING
    max_steps: int = MISSING


@dataclass
class GoalConfig:
    """What one more metric of a claim has to come to; see :class:`ClaimConfig`."""

    goal: float | None = None
    at_most: bool = False


@dataclass
class ClaimConfig:
    """What an experiment claims: that ``metric`` reaches ``goal`` with every seed.

    Attributes:
        metric: a number of ``evaluation.json``, dotted where it lies deeper (``measures.errors``,
            ``also.length_60.mean_reward``), or one of the training's rows (``train/loss``, say), of which the last counts.
        goal: none for a baseline.
        at_most: whether the goal is reached from above, as that of an error.
        more: other metrics, each with a goal of its own; the claim is met where all are.
    """

    metric: str = MISSING
    goal: float | None = None
    at_most: bool = False
    more: dict[str, GoalConfig] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """``conf/base.yaml`` without its groups, whose schema is the signatures of the classes that they name."""

    agent: Any = MISSING
    policy: Any = MISSING
    env: Any = MISSING
    total_timesteps: int = MISSING
    seed: int = MISSING
    name: str | None = None
    runs: str = MISSING
    device: str = MISSING
    threads: int = MISSING
    progress_bar: bool = MISSING
    log_interval: int = MISSING
    normalize_reward: bool = MISSING
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    saliency: SaliencyConfig = field(default_factory=SaliencyConfig)
    claim: ClaimConfig | None = None


@dataclass
class EvaluateConfig:
    """``conf/evaluate.yaml``."""

    run: str | None = None
    episodes: int = MISSING
    n_envs: int = MISSING
    seed: int = MISSING
    deterministic: bool = MISSING
    also: dict[str, Any] = field(default_factory=dict)


@dataclass
class ResultsConfig(TrainConfig):
    """``conf/results.yaml``."""

    seeds: list[int] = MISSING
    folder: str = MISSING
    jobs: int = MISSING


def register() -> None:
    """Make the schemas known to Hydra under the names that the configs' defaults lists use."""
    store = ConfigStore.instance()
    for name, node in {"train": TrainConfig, "evaluate": EvaluateConfig, "results": ResultsConfig}.items():
        store.store(name=f"{name}_schema", node=node)
