"""Environments: batched tasks, and any Gymnasium environment, as stable-baselines3 ``VecEnv``.

Importing this package registers our tasks with Gymnasium, so that ``gym.make("saccade.envs:saccade/Catch-v0")`` works.
"""

from saccade.envs.algorithmic_tasks import Addition, Parity, Reverse
from saccade.envs.atari import AtariVecEnv
from saccade.envs.catch import Catch
from saccade.envs.checked import WrongExperienceError
from saccade.envs.corridor import Corridor, Dynamics
from saccade.envs.curriculum import Curriculum
from saccade.envs.digits import Digits
from saccade.envs.graph_tasks import GraphInference, GraphTraversal, ShortestPath
from saccade.envs.gym_env import TaskEnv
from saccade.envs.make import BadEnvironmentArguments, make_vec_env
from saccade.envs.ntm_tasks import Copy, PrioritySort, RepeatCopy
from saccade.envs.poc_memory import PocMemory
from saccade.envs.probes import (
    ExactQ,
    Probe,
    ProbeAction,
    ProbeConstant,
    ProbeDiscount,
    ProbeMemory,
    ProbeObservation,
    ProbePolicy,
)
from saccade.envs.recall import AssociativeRecall, DynamicNGrams
from saccade.envs.registry import (
    TASKS,
    CannotMakeEnvironment,
    EnvironmentRow,
    UnknownEnvironment,
    list_environments,
    register_task,
)
from saccade.envs.sequence_task import Lesson, SequenceTask
from saccade.envs.shrdlu import MiniShrdlu
from saccade.envs.spotlight import Spotlight
from saccade.envs.task import BatchedTask, TaskStep
from saccade.envs.tmaze import TMaze
from saccade.envs.vec_env import TaskVecEnv
from saccade.envs.vector_adapter import GymnasiumVecEnv
from saccade.envs.wrappers import WRAPPERS, FlatObservation, GridView, HideVelocity

for _env_id, _task in TASKS.items():
    register_task(_env_id, _task)

__all__ = [
    "TASKS",
    "WRAPPERS",
    "Addition",
    "AssociativeRecall",
    "AtariVecEnv",
    "BadEnvironmentArguments",
    "BatchedTask",
    "CannotMakeEnvironment",
    "Catch",
    "Copy",
    "Corridor",
    "Curriculum",
    "Digits",
    "DynamicNGrams",
    "Dynamics",
    "EnvironmentRow",
    "ExactQ",
    "FlatObservation",
    "GraphInference",
    "GraphTraversal",
    "GridView",
    "GymnasiumVecEnv",
    "HideVelocity",
    "Lesson",
    "MiniShrdlu",
    "Parity",
    "PocMemory",
    "PrioritySort",
    "Probe",
    "ProbeAction",
    "ProbeConstant",
    "ProbeDiscount",
    "ProbeMemory",
    "ProbeObservation",
    "ProbePolicy",
    "RepeatCopy",
    "Reverse",
    "SequenceTask",
    "ShortestPath",
    "Spotlight",
    "TMaze",
    "TaskEnv",
    "TaskStep",
    "TaskVecEnv",
    "UnknownEnvironment",
    "WrongExperienceError",
    "list_environments",
    "make_vec_env",
    "register_task",
]
