"""How to learn: SB3 algorithms over any core."""

from saccade.agents.archive import CheckpointError
from saccade.agents.dqn import DQN
from saccade.agents.guard import InvalidExperienceError
from saccade.agents.manifest import ManifestError
from saccade.agents.masks import Masked
from saccade.agents.policy_evaluation import PolicyEvaluation
from saccade.agents.ppo import PPO
from saccade.agents.pqn import PQN
from saccade.agents.r2d2 import R2D2
from saccade.agents.reinforce import Reinforce
from saccade.agents.schedules import LinearWarmup
from saccade.agents.supervised import DivergedError, Supervised

__all__ = [
    "DQN",
    "PPO",
    "PQN",
    "R2D2",
    "CheckpointError",
    "DivergedError",
    "InvalidExperienceError",
    "LinearWarmup",
    "ManifestError",
    "Masked",
    "PolicyEvaluation",
    "Reinforce",
    "Supervised",
]
