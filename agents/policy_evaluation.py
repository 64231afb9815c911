"""Policy evaluation: the Q values of a policy that stays as it is, by TD(0), and how far they are from the exact ones."""

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import torch
from jaxtyping import Float
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from saccade.agents.algorithm import Shown
from saccade.agents.arguments import check_share
from saccade.agents.frames import stack_observations
from saccade.agents.losses import chosen, squared_error
from saccade.agents.rollout import Rollout
from saccade.agents.sequence import SequenceAlgorithm
from saccade.agents.update import LossTerms
from saccade.policies import Q_POLICIES, QPolicy
from saccade.policies.policy import Observations

METHODS = ("behaviour_policy", "exact_q", "transitions")
"""What an environment has to know about itself."""


class PolicyEvaluation(SequenceAlgorithm):
    """Acts by a fixed policy ``π`` and learns its Q, so that networks differ by their errors alone (Wang et al. 2016, 4.1).

    ``π`` and the exact values are the environment's, as ``saccade/Corridor-v0`` has them: ``behaviour_policy(gamma, epsilon)``
    ``[S, A]``, ``exact_q(policy, gamma)`` ``[S, A]``, and ``transitions()``, whose ``terminal`` ``[S]`` says which states do
    not count. An observation is the state, one-hot ``[S]``. ``train/squared_error`` is the sum over all states that count and
    all actions. ``predict`` gives the greedy action of the learned values; ``π`` acts in training only.

    Args:
        policy: a policy class or an alias, ``MlpPolicy`` say; its core has no memory.
        env: a ``VecEnv`` of such an environment.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        n_steps: ``T``, steps in every environment between updates; together they are one minibatch, used once.
        gamma: discount factor, below 1.
        epsilon: ``π`` takes the best action, or with this probability any one of them all.
        max_grad_norm: gradients are scaled down to this norm.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, the core has a memory, or the environment does not know its exact values.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = Q_POLICIES
    supported_action_spaces = (gym.spaces.Discrete,)
    policy: QPolicy
    pi: Float[Tensor, "S A"]
    exact_q: Float[Tensor, "S A"]
    counts: Float[Tensor, "S 1"]

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 60,
        gamma: float = 0.99,
        epsilon: float = 0.001,
        max_grad_norm: float = 10.0,
        _init_setup_model: bool = True,
        **sb3_kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, n_steps, gamma, max_grad_norm, **sb3_kwargs)
        check_share("epsilon", epsilon)
        self.state_every = n_steps
        self.epsilon = epsilon
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.policy.initial_state(1) != ():
            raise ValueError(
                f"{type(self.policy.core).__name__} remembers, and policy evaluation learns the values of states alone: "
                "use FeedForward (policy=mlp)"
            )
        if self.env is not None:
            self.ask(self.env)

    def prepare(self) -> None:
        """A rollout's buffers, and what there is to learn in this environment."""
        super().prepare()
        assert self.env is not None
        self.ask(self.env)

    def ask(self, env: VecEnv) -> None:
        """Take the policy and its exact values from the environment.

        Raises:
            ValueError: it does not know them, does not show its states one-hot, or its rewards are normalised.
        """
        missing = [method for method in METHODS if not env.has_attr(method)]
        if missing:
            raise ValueError(
                f"policy evaluation needs an environment with exact values, such as saccade/Corridor-v0; this one has no "
                f"{' and no '.join(missing)}"
            )
        normalised = unwrap_vec_normalize(env)
        if normalised is not None and (normalised.norm_reward or normalised.norm_obs):
            raise ValueError("policy evaluation needs rewards and observations as they are; leave out VecNormalize")
        pi = env.env_method("behaviour_policy", self.gamma, self.epsilon, indices=0)[0]
        if self.observation_space.shape != pi.shape[:1]:
            raise ValueError(
                f"policy evaluation needs the state as observation, one-hot [{len(pi)}]; this environment shows "
                f"{self.observation_space}"
            )
        exact_q = env.env_method("exact_q", pi, self.gamma, indices=0)[0]
        terminal = env.env_method("transitions", indices=0)[0].terminal
        self.pi = torch.as_tensor(pi, dtype=torch.float32, device=self.device)
        self.exact_q = torch.as_tensor(exact_q, dtype=torch.float32, device=self.device)
        self.counts = torch.as_tensor(~terminal, dtype=torch.float32, device=self.device)[:, None]

    def look_up(self, observations: Observations) -> Float[Tensor, "*batch A"]:
        """``π(· | s)`` of one-hot states ``[..., S]``."""
        assert isinstance(observations, Tensor)
        return self.pi[observations.argmax(dim=-1)]

    def explore(self, features: Tensor, t: int) -> Tensor:
        """Actions drawn from ``π``, ``[B]``, whatever the network thinks."""
        assert isinstance(self.rollout.observations, Tensor)
        return torch.multinomial(self.look_up(self.rollout.observations[t]), 1).squeeze(-1)

    def features_of_finals(self, finals: dict[int, Any]) -> Tensor:
        """As every agent; :meth:`value` needs to know which states these are."""
        self._pi_of_finals = self.look_up(self.to_tensors(stack_observations(list(finals.values()))))
        return super().features_of_finals(finals)

    def value(self, features: Tensor) -> Tensor:
        """``Σ_a π(a | s) Q(s, a)`` of final observations."""
        return (self._pi_of_finals * self.policy.head(features).q).sum(dim=-1)

    def targets(self, batch: Rollout, q: Float[Tensor, "T1 B A"]) -> Float[Tensor, "T B"]:
        """``r + γ Σ_a π(a | s') Q(s', a)``, expected SARSA's, from the values ``q`` of all observations."""
        return expected_targets(batch.rewards, self.gamma * batch.continues(), q[1:], self.look_up(batch.observations)[1:])

    def loss(self, batch: Rollout, targets: Float[Tensor, "T B"] | None = None) -> LossTerms:
        """The loss of a rollout, with its terms; ``targets`` are computed unless given."""
        q = self.policy(batch.observations, batch.state, batch.episode_starts).head.q
        if targets is None:
            targets = self.targets(batch, q)
        q_tm1 = chosen(q[:-1], batch.actions)
        td_loss = squared_error(q_tm1, targets).mean()
        return LossTerms(td_loss, {"td_loss": td_loss.detach(), "q_mean": q_tm1.detach().mean()})

    def first_batch(self, env: VecEnv, callback: BaseCallback) -> Rollout:
        """A whole rollout."""
        self.collect_rollouts(env, callback)
        return self.rollout

    def show(self, batch: Rollout) -> Shown:
        """The rollout, as it is."""
        return Shown(batch.observations, batch.state, batch.episode_starts, None, batch.rewards)

    def frozen_loss(self, batch: Rollout) -> Callable[[], LossTerms]:
        """The loss with targets fixed at their present values."""
        with torch.no_grad():
            targets = self.targets(batch, self.policy(batch.observations, batch.state, batch.episode_starts).head.q)
        return lambda: self.loss(batch, targets)

    def train(self) -> None:
        """One step on the whole rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self.updater.step(self.loss(self.rollout))
        self._n_updates += 1

    def learned_q(self) -> Float[Tensor, "S A"]:
        """The network's values of every state."""
        states = torch.eye(len(self.pi), device=self.device)[None]
        self.policy.set_training_mode(False)
        with torch.inference_mode():
            starts = torch.ones(states.shape[:2], dtype=torch.bool, device=self.device)
            return self.policy(states, self.policy.initial_state(len(self.pi)), starts).head.q[0]

    def squared_error(self) -> float:
        """``Σ (Q(s, a) - Q^π(s, a))²`` over the states that count and all actions."""
        return float((self.counts * (self.learned_q() - self.exact_q).square()).sum())

    def record_training(self) -> None:
        """What every agent records, and the error of all values."""
        super().record_training()
        self.logger.record("train/squared_error", self.squared_error())


def expected_targets(
    r_t: Float[Tensor, "T B"], discount_t: Float[Tensor, "T B"], q_t: Float[Tensor, "T B A"], pi_t: Float[Tensor, "T B A"]
) -> Float[Tensor, "T B"]:
    """Expected SARSA's ``y = r_t + γ_t Σ_a π(a | s_t) Q(s_t, a)`` (van Seijen et al. 2009), without gradient.

    Args:
        r_t: rewards.
        discount_t: ``γ``, or 0 where the episode ended.
        q_t: values of the next state.
        pi_t: the policy there.
    """
    return r_t + discount_t * (pi_t * q_t.detach()).sum(dim=-1)
