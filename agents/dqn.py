"""DQN: deep Q-learning from replayed transitions (Mnih et al. 2015), with what was published to improve it, each a switch."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from saccade.agents.algorithm import Shown
from saccade.agents.arguments import check_least, check_share
from saccade.agents.losses import chosen, greedy_values
from saccade.agents.reinforce import core_cost
from saccade.agents.replay import Experience, Lesson, ReplayAlgorithm
from saccade.agents.transitions import TransitionReplay, Transitions
from saccade.agents.update import LossTerms
from saccade.policies import QOutput, QPolicy
from saccade.policies.policy import Observations, lanes_of, map_observations


class DQN(ReplayAlgorithm):
    """Deep Q-learning in SB3's words; by default with double Q-learning, a dueling head, n-step returns and prioritised replay.

    For policies without memory. For those with one, see :class:`R2D2`.

    Args:
        policy: a policy class or an alias: ``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``. With
            ``policy_kwargs={"dueling": False}`` its head is a single stream.
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        buffer_size: transitions in the replay; stacked image frames are stored once each.
        learning_starts: environment steps before the first update; until then every action is random.
        batch_size: transitions in an update.
        tau: how far the target network follows at an update of it, 1 for a copy.
        gamma: discount factor.
        train_freq: steps in every environment between two rounds of updates.
        gradient_steps: updates in a round; -1 for as many as transitions came in.
        n_steps: ``n``, rewards in a return before it bootstraps (Sutton 1988); 1 for one-step targets.
        double: the policy chooses the action that the target network values (van Hasselt et al. 2016).
        priority_exponent: ``α``, how much errors decide what is drawn (Schaul et al. 2016); 0 draws uniformly.
        priority_correction: ``β`` at the start, how much the loss makes up for that; it rises to 1 over the training.
        target_update_interval: environment steps between two updates of the target network.
        frames: how many frames are stacked in an image ``[k * channels, H, W]``, to store each once; 1 stores images whole.
            ``None`` takes ``k`` for a number of grey frames, or of coloured ones where 3 divides it.
        exploration_fraction: share of the training over which ε falls from its initial to its final value.
        exploration_initial_eps: ε at the start.
        exploration_final_eps: ε at the end.
        max_grad_norm: gradients are scaled down to this norm.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, the policy has a memory, or the replay would not fit into memory.
    """

    replay: TransitionReplay

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 32,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        n_steps: int = 3,
        double: bool = True,
        priority_exponent: float = 0.6,
        priority_correction: float = 0.4,
        target_update_interval: int = 10_000,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        max_grad_norm: float = 10.0,
        frames: int | None = None,
        _init_setup_model: bool = True,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            gamma,
            max_grad_norm,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            target_update_interval=target_update_interval,
            **sb3_kwargs,
        )
        self.set_exploration(exploration_fraction, exploration_initial_eps, exploration_final_eps)
        check_least(1, n_steps=n_steps)
        check_least(0, priority_exponent=priority_exponent)
        check_share("priority_correction", priority_correction)
        self.n_steps = n_steps
        self.double = double
        self.priority_exponent = priority_exponent
        self.priority_correction = priority_correction
        self.frames = frames
        if _init_setup_model:
            self.set_up()

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.policy.initial_state(1) != ():
            raise ValueError(
                f"DQN learns from single steps, and {type(self.policy.core).__name__} has a memory; R2D2 learns from sequences"
            )

    def make_replay(self) -> TransitionReplay:
        """Transitions with ``n``-step returns."""
        return TransitionReplay(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            self.n_envs,
            self.rng,
            n_steps=self.n_steps,
            gamma=self.gamma,
            alpha=self.priority_exponent,
            frames=self.frames,
            device=self.device,
        )

    def store(self, step: Experience) -> None:
        """Put a step of all lanes into the replay."""
        self.replay.add(step.observations, step.actions, step.rewards, step.dones, step.truncated, step.finals)

    @property
    def beta(self) -> float:
        """``β`` at this point of the training."""
        return 1 - max(self._current_progress_remaining, 0.0) * (1 - self.priority_correction)

    def lesson(self) -> Lesson:
        """A batch of transitions, and its loss."""
        batch = self.normalized(self.replay.sample(self.batch_size, self.beta))
        return self.judge(batch, self.targets(batch))

    def q(self, policy: QPolicy, observations: Observations) -> QOutput:
        """What a policy makes of observations ``[N, ...]``, each on its own, as ``[1, N, ...]``."""
        starts = torch.ones(1, lanes_of(observations), dtype=torch.bool, device=self.device)
        return policy(map_observations(lambda part: part[None], observations), (), starts)

    def targets(self, batch: Transitions) -> Float[Tensor, " N"]:
        """``R + γ^k Q'(s', a*)``, ``Q'`` the target network's and ``a*`` greedy by the policy (double) or by ``Q'``."""
        with torch.no_grad():
            q_t = self.q(self.target, batch.next_observations).head.q[0]
            selector = self.q(self.policy, batch.next_observations).head.q[0] if self.double else q_t
            return batch.rewards + batch.discounts * greedy_values(q_t, selector)

    def judge(self, batch: Transitions, targets: Float[Tensor, " N"]) -> Lesson:
        """Huber loss of the temporal-difference errors, weighted; and those errors, as priorities."""
        output = self.q(self.policy, batch.observations)
        q_tm1 = chosen(output.head.q[0], batch.actions)
        td_errors = targets - q_tm1
        loss = (batch.weights * smooth_l1_loss(q_tm1, targets, reduction="none")).mean()
        metrics = {"td_loss": loss.detach(), "q_mean": q_tm1.detach().mean(), "td_error": td_errors.detach().abs().mean()}
        cost = core_cost(output.core)
        return Lesson(LossTerms(loss + cost.loss, {**metrics, **cost.metrics}), td_errors.detach(), batch.indices)

    def show(self, batch: Transitions) -> Shown:
        """The batch as sequences of one step."""
        observations = map_observations(lambda part: part[None], batch.observations)
        starts = torch.ones(1, len(batch.rewards), dtype=torch.bool, device=self.device)
        return Shown(observations, (), starts, None, batch.rewards[None])

    def frozen_loss(self, batch: Transitions) -> Callable[[], LossTerms]:
        """The loss with targets fixed at their present values."""
        targets = self.targets(batch)
        return lambda: self.judge(batch, targets).terms
