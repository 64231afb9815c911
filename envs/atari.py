"""Atari games as a ``VecEnv``, on ale-py's native environments; preprocessed, ended and counted as SB3 does."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Integer, UInt8
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from saccade.envs.registry import check_game
from saccade.envs.task import require_at_least

_SIDE = 84
_NOOP, _FIRE, _ANY_SEED = 0, 1, -1
_ONE = np.ones(1, np.float32)

Stack: TypeAlias = UInt8[np.ndarray, "S H W"]
Indices = None | int | Iterable[int]


class Frame(NamedTuple):
    """What one lane shows after one action, that is ``frame_skip`` frames of the game.

    Attributes:
        observation: the last ``n_stack`` screens, oldest first.
        reward: the game's own points.
        terminated: the game is over.
        truncated: the game was cut off after 108,000 frames.
        life_lost: a life was lost, and others are left.
    """

    observation: Stack
    reward: int
    terminated: bool
    truncated: bool
    life_lost: bool


Script: TypeAlias = Generator[int, Frame, None]
"""What one lane has to do in one step: yields an action, is sent the frame that it led to."""


class AtariVecEnv(VecEnv):
    """``n_envs`` games, stepped by threads of ale-py outside Python's lock.

    Frames, episodes, rewards and statistics are those of SB3's ``VecFrameStack(make_atari_env(...), n_stack)``: no-ops
    at the start, each action held for ``frame_skip`` frames, the maximum of the last two of them in grey at 84x84, an
    episode's end at each lost life, the sign of the points as reward, stacked screens that are black before the episode
    began. After a lost life the game goes on: a no-op, and FIRE and the action after it in games that have FIRE, all
    unseen by the agent. ``docs/environments.md`` lists what differs.

    The info of a lane whose episode has ended holds ``terminal_observation`` and ``TimeLimit.truncated``, and at the end
    of the whole game ``episode`` as SB3's ``Monitor`` gives it: ``r`` the points, ``l`` the frames of the game (not the
    agent's steps), ``t`` seconds since this object was made. All other infos are empty.

    Each lane is an ale-py vector environment of its own: only so can one lane take a step that the others do not.

    Args:
        game: the name of the game's ROM, such as ``"ms_pacman"``.
        num_envs: how many games are played side by side.
        noop_max: a game starts after 0 to ``noop_max`` frames without action, drawn uniformly.
        frame_skip: frames of the game for each action.
        n_stack: ``S``, how many screens an observation holds.
        terminal_on_life_loss: whether an episode ends with each life, or with the game.
        clip_reward: whether the reward is the sign of the points, or the points.
        action_repeat_probability: in each frame, how likely the previous action is taken again ("sticky actions").
        num_threads: how many lanes may be computed at the same time; ``None`` for all, as many as there are cores.
        render_mode: ``"rgb_array"`` or ``None``.

    Raises:
        ValueError: there is no such game (the message names the nearest), or a number is out of its range.
        ImportError: ale-py is not installed.
    """

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        *,
        noop_max: int = 30,
        frame_skip: int = 4,
        n_stack: int = 4,
        terminal_on_life_loss: bool = True,
        clip_reward: bool = True,
        action_repeat_probability: float = 0.0,
        num_threads: int | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        threads = num_envs if num_threads is None else num_threads
        at_least_one = {"num_envs": num_envs, "frame_skip": frame_skip, "n_stack": n_stack, "num_threads": threads}
        for name, value in at_least_one.items():
            require_at_least(name, value, 1)
        require_at_least("noop_max", noop_max, 0)
        if not 0 <= action_repeat_probability <= 1:
            raise ValueError(f"action_repeat_probability is {action_repeat_probability!r}; it must be from 0 to 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        check_game(game)
        self.game = game
        self.render_mode = render_mode
        self.terminal_on_life_loss = terminal_on_life_loss
        self.clip_reward = clip_reward
        self._threads = threads
        # Life losses and clipping are left to us: ale-py's own would hide when the game is over, and its points.
        make = import_module("ale_py.vector_env").AtariVectorEnv
        self.envs = [
            make(
                game,
                1,
                num_threads=1,
                repeat_action_probability=action_repeat_probability,
                stack_num=n_stack,
                frameskip=frame_skip,
                noop_max=noop_max + 1,  # ale-py draws from 0 to noop_max - 1
                reward_clipping=False,
                use_fire_reset=False,
            )
            for _ in range(num_envs)
        ]
        actions = self.envs[0].ale.get_action_set()
        # As SB3's FireResetEnv: FIRE, then the action after it, whatever it is.
        self._start_actions = (_FIRE, _FIRE + 1) if "FIRE" in [action.name for action in actions] else ()
        self._allocate(num_envs, n_stack)
        super().__init__(num_envs, spaces.Box(0, 255, (n_stack, _SIDE, _SIDE), np.uint8), spaces.Discrete(len(actions)))

    def _allocate(self, num_envs: int, n_stack: int) -> None:
        self._actions = np.zeros(num_envs, np.int64)
        self._lives = [0] * num_envs
        self._points = [0] * num_envs
        self._ages = [0] * num_envs  # steps since the episode began
        self._flying: deque[tuple[int, Script]] = deque()
        self._observations = np.zeros((num_envs, n_stack, _SIDE, _SIDE), np.uint8)
        self._rewards = np.zeros(num_envs, np.float32)
        self._dones = np.zeros(num_envs, np.bool_)
        self._infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self._start_time = time.perf_counter()

    def reset(self) -> UInt8[np.ndarray, "N S H W"]:
        """Start a new game in every lane, whatever lives are left."""
        while self._flying:  # a step that was interrupted
            lane, _ = self._flying.popleft()
            self.envs[lane].recv()
        self._begin_step()
        for lane, (env, seed) in enumerate(zip(self.envs, self._seeds, strict=True)):
            first, info = env.ale.reset(np.zeros(1, np.int64), np.full(1, _ANY_SEED if seed is None else seed))
            self._observations[lane] = first[0]
            self._lives[lane] = int(info["lives"][0])
            self._points[lane] = 0
        self._reset_seeds()
        self._reset_options()
        self._run([self._start(lane) for lane in range(self.num_envs)])
        return self._observations

    def step_async(self, actions: Any) -> None:
        """Take one action a lane, checked against the action space (``ValueError``)."""
        self._actions = self._check_actions(actions)

    def step_wait(
        self,
    ) -> tuple[UInt8[np.ndarray, "N S H W"], Float32[np.ndarray, " N"], Bool[np.ndarray, " N"], list[dict[str, Any]]]:
        """Step every lane, and go on to the next life or game where an episode has ended."""
        self._begin_step()
        self._run([self._step(lane, action) for lane, action in enumerate(map(int, self._actions))])
        return self._observations, self._rewards, self._dones, self._infos

    def _begin_step(self) -> None:
        self._observations = np.empty_like(self._observations)
        self._rewards = np.zeros(self.num_envs, np.float32)
        self._dones = np.zeros(self.num_envs, np.bool_)
        self._infos = [{} for _ in range(self.num_envs)]

    def _run(self, scripts: list[Script]) -> None:
        """Play every lane's script to its end, as many at the same time as there are threads."""
        waiting = deque(enumerate(scripts))
        while waiting or self._flying:
            while waiting and len(self._flying) < self._threads:
                lane, script = waiting.popleft()
                self._send(lane, script, next(script, None))
            if self._flying:
                lane, script = self._flying.popleft()
                try:
                    action = script.send(self._receive(lane))
                except StopIteration:
                    continue
                self._send(lane, script, action)

    def _send(self, lane: int, script: Script, action: int | None) -> None:
        if action is not None:
            self.envs[lane].ale.send(np.full(1, action), _ONE)
            self._flying.append((lane, script))

    def _receive(self, lane: int) -> Frame:
        """Wait for a lane's frame, and keep the books of its game."""
        observations, rewards, terminated, truncated, info = self.envs[lane].ale.recv()
        reward, lives = int(rewards[0]), int(info["lives"][0])
        life_lost = 0 < lives < self._lives[lane]
        self._lives[lane] = lives
        self._points[lane] += reward
        frame = Frame(observations[0], reward, bool(terminated[0]), bool(truncated[0]), life_lost)
        if frame.terminated or frame.truncated:
            # A game that ends between two episodes, by a no-op after a lost life, is reported as well.
            seconds = round(time.perf_counter() - self._start_time, 6)
            length = int(info["episode_frame_number"][0])
            self._infos[lane]["episode"] = {"r": float(self._points[lane]), "l": length, "t": seconds}
            self._points[lane] = 0
        return frame

    def _ended(self, frame: Frame) -> bool:
        return frame.terminated or frame.truncated or (self.terminal_on_life_loss and frame.life_lost)

    def _step(self, lane: int, action: int) -> Script:
        """The agent's action; and, where it ended the episode, all that leads to the first screen of the next."""
        frame = yield action
        self._ages[lane] += 1
        self._rewards[lane] = np.sign(frame.reward) if self.clip_reward else frame.reward
        self._observations[lane] = observation = self._since_start(lane, frame)
        if self._ended(frame):
            self._dones[lane] = True
            info = self._infos[lane]
            info["terminal_observation"] = observation
            info["TimeLimit.truncated"] = (
                frame.truncated and not frame.terminated and not (self.terminal_on_life_loss and frame.life_lost)
            )
            frame = yield from self._next_life()
            yield from self._start(lane, frame)

    def _next_life(self) -> Generator[int, Frame, Frame]:
        """A no-op; for ale-py, any action after the end of a game starts a new one."""
        frame = yield _NOOP
        if frame.terminated or frame.truncated:
            frame = yield _NOOP
        return frame

    def _start(self, lane: int, frame: Frame | None = None) -> Script:
        """Press what starts the ball, and show the first screen of the episode; ``frame`` is the one already there."""
        for action in self._start_actions:
            frame = yield action
            if self._ended(frame):
                frame = yield from self._next_life()
        self._ages[lane] = 0
        if frame is not None:
            self._observations[lane] = self._since_start(lane, frame)

    def _since_start(self, lane: int, frame: Frame) -> Stack:
        """The stack without the screens from before the episode began."""
        missing = len(frame.observation) - 1 - self._ages[lane]
        if missing > 0:
            frame.observation[:missing] = 0
        return frame.observation

    def _check_actions(self, actions: object) -> Integer[np.ndarray, " N"]:
        """Refuse what is no action: ale-py would wait for ever."""
        array = np.asarray(actions)
        count = int(self.action_space.n)  # type: ignore[attr-defined]
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {self.num_envs} whole numbers, one for each lane, "
                f"not an array of shape {array.shape} and type {array.dtype}"
            )
        wrong = (array < 0) | (array >= count)
        if wrong.any():
            lane = int(wrong.argmax())
            raise ValueError(f"lane {lane}: action {array[lane]} is not one of 0 to {count - 1}")
        return array

    def close(self) -> None:
        """End the threads."""
        for env in self.envs:
            env.close()
        self._flying.clear()

    def get_images(self) -> Sequence[UInt8[np.ndarray, "H W 3"] | None]:
        """The last screen of every lane, grey; or ``None`` for each where the render mode is ``None``."""
        if self.render_mode is None:
            return [None] * self.num_envs
        return [np.repeat(stack[-1][:, :, None], 3, axis=2) for stack in self._observations]

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of each lane's ale-py environment, or else of this object, the same for all."""
        shared = attr_name in ("render_mode", "game", "terminal_on_life_loss", "clip_reward")
        return [getattr(self if shared else self.envs[lane], attr_name) for lane in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of each lane's ale-py environment."""
        for lane in self._get_indices(indices):
            setattr(self.envs[lane], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of each lane's ale-py environment."""
        return [getattr(self.envs[lane], method_name)(*args, **kwargs) for lane in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Indices = None) -> list[bool]:
        """True for ``Monitor``, whose bookkeeping is built in, and false for every other wrapper."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]
