"""How to learn: SB3 algorithms over any core."""

from saccade.agents.archive import CheckpointError
from saccade.agents.guard import InvalidExperienceError
from saccade.agents.manifest import ManifestError
from saccade.agents.pqn import PQN
from saccade.agents.reinforce import Reinforce

__all__ = ["PQN", "CheckpointError", "InvalidExperienceError", "ManifestError", "Reinforce"]
