"""Which environments there are: our tasks under Gymnasium ids, and everything else that is registered."""

from difflib import SequenceMatcher, get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from saccade.envs.algorithmic_tasks import Addition, Parity, Reverse
from saccade.envs.catch import Catch
from saccade.envs.corridor import Corridor
from saccade.envs.digits import Digits
from saccade.envs.graph_tasks import GraphInference, GraphTraversal, ShortestPath
from saccade.envs.gym_env import TaskEnv, load_task
from saccade.envs.ntm_tasks import Copy, PrioritySort, RepeatCopy
from saccade.envs.poc_memory import PocMemory
from saccade.envs.probes import ProbeAction, ProbeConstant, ProbeDiscount, ProbeMemory, ProbeObservation, ProbePolicy
from saccade.envs.recall import AssociativeRecall, DynamicNGrams
from saccade.envs.shrdlu import MiniShrdlu
from saccade.envs.spotlight import Spotlight
from saccade.envs.task import BatchedTask
from saccade.envs.tmaze import TMaze

TASKS: dict[str, type[BatchedTask]] = {
    "saccade/Catch-v0": Catch,
    "saccade/ProbeConstant-v0": ProbeConstant,
    "saccade/ProbeObservation-v0": ProbeObservation,
    "saccade/ProbeDiscount-v0": ProbeDiscount,
    "saccade/ProbeAction-v0": ProbeAction,
    "saccade/ProbePolicy-v0": ProbePolicy,
    "saccade/ProbeMemory-v0": ProbeMemory,
    "saccade/PocMemory-v0": PocMemory,
    "saccade/TMaze-v0": TMaze,
    "saccade/Corridor-v0": Corridor,
    "saccade/Spotlight-v0": Spotlight,
    "saccade/Digits-v0": Digits,
    "saccade/Copy-v0": Copy,
    "saccade/RepeatCopy-v0": RepeatCopy,
    "saccade/AssociativeRecall-v0": AssociativeRecall,
    "saccade/DynamicNGrams-v0": DynamicNGrams,
    "saccade/PrioritySort-v0": PrioritySort,
    "saccade/Reverse-v0": Reverse,
    "saccade/Addition-v0": Addition,
    "saccade/Parity-v0": Parity,
    "saccade/GraphTraversal-v0": GraphTraversal,
    "saccade/ShortestPath-v0": ShortestPath,
    "saccade/GraphInference-v0": GraphInference,
    "saccade/MiniShrdlu-v0": MiniShrdlu,
}

# What an id begins with, up to its first "/" or "-", and the module that registers such ids when it is imported.
PROVIDERS = {"ALE": "ale_py", "MiniGrid": "minigrid", "BabyAI": "minigrid", "popgym": "popgym"}

# The extra of our package that installs such a module.
EXTRAS = {"ale_py": "atari", "minigrid": "minigrid", "popgym": "popgym"}

ATARI = "atari/"
"""What the ids of Atari games begin with: ``atari/pong``."""

_ENTRY_POINT = "saccade.envs.gym_env:TaskEnv"


class CannotMakeEnvironment(ValueError):  # noqa: N818, says it better
    """An environment cannot be made as asked; the message says why, for the person who asked."""


class UnknownEnvironment(CannotMakeEnvironment):
    """No environment has this id; the message names the nearest ones."""


class EnvironmentRow(NamedTuple):
    """One environment of the list: spaces are described for our tasks only, as others are not built for listing."""

    group: str
    id: str
    summary: str
    observations: str
    actions: str


def register_task(env_id: str, task: type[BatchedTask]) -> None:
    """Register a task with Gymnasium: ``gym.make`` then gives one lane, ``make_vec_env`` all lanes as one program.

    Args:
        env_id: the id, ``namespace/Name-v0``.
        task: a class at the top level of a module that can be imported.
    """
    gym.register(env_id, _ENTRY_POINT, kwargs={"task": f"{task.__module__}:{task.__qualname__}"})


def task_class(spec: EnvSpec) -> type[BatchedTask] | None:
    """The task behind an id, or ``None`` for any other kind of environment."""
    return load_task(spec.kwargs["task"]) if spec.entry_point == _ENTRY_POINT else None


def find_spec(env_id: str) -> EnvSpec:
    """What is registered under an id.

    An id may name the module to import first, ``module:Id``. Well known modules (:data:`PROVIDERS`) are imported
    unasked.

    Raises:
        UnknownEnvironment: the module cannot be imported, or nothing is registered under the id.
    """
    module, _, name = env_id.rpartition(":")
    if not module and name not in gym.registry:
        module = PROVIDERS.get(name.replace("/", "-").partition("-")[0], "")
    if module:
        try:
            import_module(module)
        except ImportError as error:
            raise UnknownEnvironment(
                f"environment {env_id!r} needs the module {module!r}, which cannot be imported ({error})"
                + (install_hint(module) or "; is its package installed, or its folder on PYTHONPATH?")
            ) from error
    spec = gym.registry.get(name)
    if spec is None or _retired(spec):
        near = nearest_ids(name)
        advice = f"the nearest are {', '.join(near)}" if near else "none of the registered ones resembles it"
        raise UnknownEnvironment(
            f"unknown environment {name!r}: {advice}. "
            "An id that another package registers is written with the module to import: 'module:Id'"
        )
    return spec


def install_hint(module: str) -> str:
    """How to install a well known module: ``pip`` with the extra that has it; empty for any other module."""
    extra = EXTRAS.get(module)
    return f"; in a checkout of saccade, pip install -e '.[{extra}]' installs it" if extra else ""


def nearest_ids(name: str, count: int = 3) -> list[str]:
    """Up to ``count`` registered ids that look like ``name``, with or without namespace and version; best first."""

    def score(spec: EnvSpec) -> tuple[float, float, int]:
        whole = SequenceMatcher(None, spec.id.lower(), name.lower()).ratio()
        core = SequenceMatcher(None, spec.name.lower(), _core(name)).ratio()
        return max(whole, core), whole, spec.version or 0

    specs = gym.registry.values()
    scored = sorted(((score(spec), spec.id) for spec in specs if not _retired(spec)), reverse=True)
    return [env_id for (best, _, _), env_id in scored[:count] if best >= 0.6]


def check_game(game: str) -> None:
    """Refuse a game that ale-py lacks, with a ``ValueError`` that names the nearest."""
    games = import_module("ale_py.roms").get_all_rom_ids()
    if game not in games:
        near = get_close_matches(game.lower(), games, 3) or [name for name in games if game.lower() in name.replace("_", "")]
        hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(games))}"
        raise ValueError(f"unknown Atari game {game!r}: {hint}")


def list_environments() -> list[EnvironmentRow]:
    """Everything that is registered: our own first, then by group (the package, with its extra) and id.

    Packages that register their ids on import show up once they are imported.
    """
    rows = [_row(spec) for spec in gym.registry.values() if not _retired(spec)]
    return sorted(rows, key=lambda row: (row.group != "saccade", row.group))


def _retired(spec: EnvSpec) -> bool:
    """Whether this is one of Gymnasium's retired ids, whose entry point is a function that only raises."""
    return getattr(spec.entry_point, "__name__", "").startswith("_raise_")


def _core(name: str) -> str:
    """An id without namespace and version, in small letters."""
    bare = name.rpartition("/")[2]
    stem, dash, version = bare.rpartition("-v")
    return (stem if dash and version.isdigit() else bare).lower()


def _row(spec: EnvSpec) -> EnvironmentRow:
    cls = task_class(spec)
    if cls is not None:
        summary = (cls.__doc__ or "").partition("\n")[0]
        group = cls.__module__.partition(".")[0]
        try:
            lane = TaskEnv(cls)
        except ImportError as error:
            return EnvironmentRow(group, spec.id, f"{summary} ({error})", "", "")
        return EnvironmentRow(group, spec.id, summary, _describe(lane.observation_space), _describe(lane.action_space))
    where = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
    parts = str(where).partition(":")[0].split(".")
    group = f"gymnasium[{parts[2]}]" if parts[0] == "gymnasium" and len(parts) > 2 else parts[0]
    return EnvironmentRow(group, spec.id, str(where), "", "")


def _describe(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Discrete):
        return f"{space.n} choice{'s' if space.n > 1 else ''}"
    if isinstance(space, spaces.MultiBinary):
        return f"{space.n} bits"
    if isinstance(space, spaces.MultiDiscrete):
        return f"{' x '.join(map(str, space.nvec))} choices"
    return f"{space.dtype} {list(space.shape or ())}"
