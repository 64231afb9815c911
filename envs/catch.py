"""Catch, the game of Mnih et al. 2014, "Recurrent Models of Visual Attention", section 4.2 (arXiv:1406.6247)."""

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Integer, UInt8

from saccade.envs.task import BatchedTask, TaskStep, require_at_least

LEFT, STAY, RIGHT = 0, 1, 2


class Catch(BatchedTask):
    """Catch: move a paddle under a falling ball that bounces off the side walls.

    A one-pixel ball starts at a random column of the top row and falls to the bottom row, where the paddle is; an
    episode takes ``ceil((height - 1) / ball_speed)`` steps, 23 by default. In each, the paddle moves, then the ball.
    The reward is 1 if the paddle is under the ball when it reaches the bottom row, and 0 otherwise and before. Where
    the ball drifts shows only from the second observation on, so one look is not enough.

    An observation is the screen, ``[1, height, width]`` uint8, 255 where ball or paddle is, 0 elsewhere. The actions
    are 0 left, 1 stay, 2 right.

    The best success rate is exactly 1 by default, even for a player that stays until it has seen the drift: 22 of the
    23 moves suffice for the longest way. In general every ball can be caught if ``paddle_speed`` is at most
    ``paddle_width`` and ``paddle_speed * steps`` is at least ``width - paddle_width``.

    Args:
        num_envs: the number of lanes.
        height: rows of the screen, at least 2.
        width: columns of the screen, at least 2.
        paddle_width: pixels of the paddle, at most ``width``.
        paddle_speed: columns that the paddle moves in a step.
        ball_speed: rows that the ball falls in a step.
        ball_drift: the most columns that the ball moves sideways in a step. Every episode draws its drift from the
            whole numbers ``-ball_drift`` to ``ball_drift``, all equally likely; 0 makes every ball fall straight.
        seed: the seed of all lanes together.

    Raises:
        ValueError: a parameter is out of its range; names it, its value and what it may be.
    """

    lane_arrays = ("ball_row", "ball_phase", "ball_velocity", "paddle_left")

    def __init__(
        self,
        num_envs: int = 1,
        height: int = 24,
        width: int = 24,
        paddle_width: int = 2,
        paddle_speed: int = 1,
        ball_speed: int = 1,
        ball_drift: int = 1,
        seed: int | None = None,
    ) -> None:
        for name, value, least in (
            ("height", height, 2),
            ("width", width, 2),
            ("paddle_width", paddle_width, 1),
            ("paddle_speed", paddle_speed, 1),
            ("ball_speed", ball_speed, 1),
            ("ball_drift", ball_drift, 0),
        ):
            require_at_least(name, value, least)
        if paddle_width > width:
            raise ValueError(f"paddle_width is {paddle_width}; it must be at most the screen's width, {width}")
        super().__init__(num_envs, spaces.Box(0, 255, (1, height, width), np.uint8), spaces.Discrete(3), seed)
        self.height, self.width = height, width
        self.paddle_width, self.paddle_speed = paddle_width, paddle_speed
        self.ball_speed, self.ball_drift = ball_speed, ball_drift

        # The walls unfolded: along a circle of 2 (width - 1) phases a bouncing ball moves at constant velocity.
        self._period = 2 * (width - 1)
        self._paddle_pixels = (height - 1) * width + np.arange(paddle_width)
        self._lane_starts = np.arange(num_envs) * (height * width)
        self.ball_row = np.zeros(num_envs, np.int64)
        self.ball_phase = np.zeros(num_envs, np.int64)
        self.ball_velocity = np.zeros(num_envs, np.int64)
        self.paddle_left = np.zeros(num_envs, np.int64)
        self.reset(np.ones(num_envs, np.bool_))

    @property
    def ball_column(self) -> Integer[np.ndarray, " N"]:
        """The column of each lane's ball."""
        return np.minimum(self.ball_phase, self._period - self.ball_phase)

    def reset(self, lanes: Bool[np.ndarray, " N"]) -> None:
        """Put ball and paddle at random columns of the top and the bottom row, and draw a drift."""
        count = int(lanes.sum())
        self.ball_row[lanes] = 0
        self.ball_phase[lanes] = self.rng.integers(self.width, size=count)
        self.ball_velocity[lanes] = self.rng.integers(-self.ball_drift, self.ball_drift + 1, size=count)
        self.paddle_left[lanes] = self.rng.integers(self.width - self.paddle_width + 1, size=count)

    def step(self, actions: Integer[np.ndarray, " N"]) -> TaskStep:
        """Move every paddle, then every ball."""
        self.paddle_left += (actions.astype(np.int64) - STAY) * self.paddle_speed
        np.clip(self.paddle_left, 0, self.width - self.paddle_width, out=self.paddle_left)
        self.ball_row += self.ball_speed
        np.minimum(self.ball_row, self.height - 1, out=self.ball_row)
        self.ball_phase += self.ball_velocity
        self.ball_phase %= self._period

        landed = self.ball_row == self.height - 1
        offset = self.ball_column - self.paddle_left
        caught = landed & (offset >= 0) & (offset < self.paddle_width)
        return TaskStep(caught.astype(np.float32), landed, np.zeros(self.num_envs, np.bool_), caught)

    def observe(self) -> UInt8[np.ndarray, "N 1 H W"]:
        """The screens; where the ball is on the paddle they share a pixel."""
        screens = np.zeros((self.num_envs, 1, self.height, self.width), np.uint8)
        pixels = screens.reshape(-1)
        pixels[self._lane_starts + self.ball_row * self.width + self.ball_column] = 255
        pixels[(self._lane_starts + self.paddle_left)[:, None] + self._paddle_pixels] = 255
        return screens
