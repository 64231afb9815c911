"""R2D2: recurrent replay distributed DQN (Kapturowski et al. 2019), in one process, over any core."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Bool, Float
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from saccade.agents.algorithm import Shown
from saccade.agents.arguments import check_least, check_share
from saccade.agents.losses import chosen, greedy_values, masked_mean, n_step_returns, rescale, squared_error, unscale
from saccade.agents.reinforce import Reinforce, core_terms
from saccade.agents.replay import Experience, Lesson, ReplayAlgorithm
from saccade.agents.sequences import SequenceReplay, Sequences
from saccade.agents.update import LossTerms
from saccade.policies import QOutput, QPolicy
from saccade.policies.core import join_outputs, map_state
from saccade.policies.policy import map_observations


class R2D2(ReplayAlgorithm):
    """Deep Q-learning from replayed sequences, for policies with a memory.

    Sequences start from the core's state as it was when acting, stored with them; the first ``burn_in`` steps only bring that
    state up to date with the present weights. Where a sequence begins an episode, the state needs no update, and all its
    steps are learned from.

    Args:
        policy: a policy class or an alias: ``LstmPolicy``, ``GruPolicy``, ``GlimpsePolicy`` ...
        env: a Gymnasium environment, its id, or a ``VecEnv``.
        learning_rate: a number, or a function of the remaining progress (1 to 0).
        buffer_size: transitions in the replay.
        learning_starts: environment steps before the first update; until then every action is random.
        batch_size: sequences in an update.
        burn_in: steps at the start of a sequence that are not learned from.
        sequence_length: steps after these, which are; each also belongs to a neighbour's, as sequences overlap by half.
        tau: how far the target network follows at an update of it, 1 for a copy.
        gamma: discount factor.
        train_freq: steps in every environment between two rounds of updates.
        gradient_steps: updates in a round; -1 for as many as transitions came in.
        n_steps: ``n``, rewards in a return before it bootstraps.
        priority_exponent: how much errors decide what is drawn; 0 draws uniformly.
        priority_correction: how much the loss makes up for that.
        priority_mix: ``η``, weight of a sequence's largest error in its priority, beside the mean.
        rescale_epsilon: ``ε`` of the values' rescaling ``h``; ``None`` learns values as they are.
        target_update_interval: environment steps between two updates of the target network.
        frames: how many frames are stacked in an image ``[k * channels, H, W]``, to store each once; 1 stores images whole.
            ``None`` takes ``k`` for a number of grey frames, or of coloured ones where 3 divides it.
        exploration_fraction: share of the training over which ε falls from its initial to its final value.
        exploration_initial_eps: ε at the start.
        exploration_final_eps: ε at the end.
        exploration_spread: ``α`` of ``ε^(1 + α i / (n - 1))`` in environment ``i`` of ``n`` (Horgan et al. 2018); 0 for one ε.
        max_grad_norm: gradients are scaled down to this norm.
        reinforce: how the core's latent decisions (a gaze) are trained, for cores that take any.
        sb3_kwargs: further arguments of SB3's ``BaseAlgorithm`` (``policy_kwargs``, ``tensorboard_log``, ``seed`` ...).

    Raises:
        ValueError: a number is out of its range, or the replay would not fit into the machine's memory.
    """

    replay: SequenceReplay

    def __init__(
        self,
        policy: str | Callable[..., BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 100_000,
        learning_starts: int = 1000,
        batch_size: int = 32,
        burn_in: int = 20,
        sequence_length: int = 40,
        tau: float = 1.0,
        gamma: float = 0.997,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        n_steps: int = 5,
        priority_exponent: float = 0.9,
        priority_correction: float = 0.6,
        priority_mix: float = 0.9,
        rescale_epsilon: float | None = 1e-3,
        target_update_interval: int = 2500,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        exploration_spread: float = 0.0,
        max_grad_norm: float = 40.0,
        frames: int | None = None,
        reinforce: Reinforce | None = None,
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
        check_least(0, burn_in=burn_in, priority_exponent=priority_exponent, exploration_spread=exploration_spread)
        check_least(1, n_steps=n_steps, sequence_length=sequence_length)
        check_share("priority_correction", priority_correction)
        check_share("priority_mix", priority_mix)
        self.burn_in, self.sequence_length, self.n_steps = burn_in, sequence_length, n_steps
        self.priority_exponent = priority_exponent
        self.priority_correction = priority_correction
        self.priority_mix = priority_mix
        self.rescale_epsilon = rescale_epsilon
        self.exploration_spread = exploration_spread
        self.reinforce = reinforce or Reinforce()
        self.frames = frames
        if _init_setup_model:
            self.set_up()

    def make_replay(self) -> SequenceReplay:
        """Sequences, each with the state before it; a decision is stored with its log-probability."""
        decision_size = self.policy.core.decision_size
        return SequenceReplay(
            self.buffer_size,
            self.burn_in + self.sequence_length,
            self.burn_in + self.sequence_length // 2,
            self.observation_space,
            self.action_space,
            self.n_envs,
            map_state(torch.detach, self.policy.initial_state(1)),
            decision_size + 1 if decision_size else 0,
            self.rng,
            gamma=self.gamma,
            alpha=self.priority_exponent,
            frames=self.frames,
            device=self.device,
        )

    def store(self, step: Experience) -> None:
        """Put a step of all lanes into the replay."""
        decision = step.core.decision
        if decision is None:
            decisions = step.core.features.new_zeros(len(step.dones), 0)
        else:
            decisions = torch.cat([decision.value[0], decision.log_prob[0][:, None]], dim=-1)
        observations, state, _, actions, rewards, dones, truncated, finals = step
        self.replay.add(observations, state, actions, rewards, dones, truncated, finals, decisions)

    def exploration(self, greedy: Tensor) -> Tensor:
        """As every agent's, with an ε for every environment."""
        lanes = greedy.numel()
        if not self.exploration_spread or lanes == 1:
            return super().exploration(greedy)
        exponents = 1 + self.exploration_spread * torch.arange(lanes, device=greedy.device) / (lanes - 1)
        random = torch.randint_like(greedy, int(self.action_space.n))  # type: ignore[attr-defined]
        return torch.where(torch.rand_like(exponents) < self.exploration_rate**exponents, random, greedy)

    def lesson(self) -> Lesson:
        """A batch of sequences, and its loss."""
        batch = self.normalized(self.replay.sample(self.batch_size, self.priority_correction))
        return self.judge(batch, None)

    def unroll(self, policy: QPolicy, batch: Sequences) -> QOutput:
        """What a policy makes of all ``L + 1`` observations; no gradient flows back into a burn-in."""
        _, state, _, replay, _ = self.show(batch)
        pieces = []
        for start, end in zip(*self.pieces(len(batch.rewards) + 1), strict=True):
            decisions = None if replay is None else replay[start:end]
            observations = map_observations(itemgetter(slice(start, end)), batch.observations)
            core = policy.encode(observations, state, batch.episode_starts[start:end], decisions)
            pieces.append(core)
            state = map_state(self.stop(batch.episode_starts[0]), core.state)
        joined = join_outputs(pieces)
        return QOutput(policy.head(joined.features), joined)

    def pieces(self, steps: int) -> tuple[list[int], list[int]]:
        """Where burn-in and the rest start, and where they end."""
        cut = [self.burn_in] if 0 < self.burn_in < steps else []
        return [0, *cut], [*cut, steps]

    @staticmethod
    def stop(fresh: Bool[Tensor, " N"]) -> Callable[[Tensor], Tensor]:
        """Detaches a state's leaves ``[N, ...]``, but for sequences that begin an episode."""
        return lambda leaf: torch.where(fresh.view(-1, *[1] * (leaf.ndim - 1)), leaf, leaf.detach())

    def targets(self, batch: Sequences, q: Float[Tensor, "L1 N A"]) -> Float[Tensor, "L N"]:
        """``n``-step double Q-learning targets, before rescaling: ``Σ γ^k r + γ^n h⁻¹(Q'(s, argmax Q(s, ·)))``."""
        with torch.no_grad():
            q_target = self.unroll(self.target, batch).head.q
            values = self.unscaled(greedy_values(q_target, q.detach()))[1:]
            # Beyond an episode's last step stands the value of what followed it, whatever was padded with.
            length = batch.mask.sum(dim=0).long()
            steps = torch.arange(len(values), device=values.device)[:, None]
            values = values.gather(0, torch.minimum(steps, length - 1))
            discounts = torch.where(batch.mask.bool(), batch.discounts, 1.0)
            return n_step_returns(batch.rewards, discounts, values, self.n_steps)

    def judge(self, batch: Sequences, returns: Float[Tensor, "L N"] | None) -> Lesson:
        """Half the squared errors of rescaled values, weighted; and a mix of largest and mean error, as priorities."""
        output = self.unroll(self.policy, batch)
        q = output.head.q
        if returns is None:
            returns = self.targets(batch, q)
        q_tm1, targets = chosen(q[:-1], batch.actions), self.scaled(returns)
        mask = self.learned(batch)
        steps = mask.sum(dim=0).clamp(min=1)
        loss = (batch.weights * (squared_error(q_tm1, targets) * mask).sum(dim=0) / steps).mean()
        errors = ((targets - q_tm1).abs() * mask).detach()
        priorities = self.priority_mix * errors.amax(dim=0) + (1 - self.priority_mix) * errors.sum(dim=0) / steps
        metrics = {"td_loss": loss.detach(), "q_mean": masked_mean(q_tm1.detach(), mask), "td_error": masked_mean(errors, mask)}
        old_log_prob = batch.decisions[..., -1] if batch.decisions.shape[-1] else torch.zeros_like(mask)
        goes_on = mask * (batch.discounts > 0)
        extra = core_terms(self.policy, output.core, old_log_prob, goes_on, returns, batch.rewards, self.reinforce, mask)
        return Lesson(LossTerms(loss + extra.loss, {**metrics, **extra.metrics}), priorities, batch.indices)

    def learned(self, batch: Sequences) -> Float[Tensor, "L N"]:
        """1 for steps to learn from: no padding, and no burn-in but where an episode begins."""
        after = torch.arange(len(batch.mask), device=batch.mask.device)[:, None] >= self.burn_in
        return batch.mask * (after | batch.episode_starts[0]).float()

    def scaled(self, values: Tensor) -> Tensor:
        """``h``, or the values as they are."""
        return values if self.rescale_epsilon is None else rescale(values, self.rescale_epsilon)

    def unscaled(self, values: Tensor) -> Tensor:
        """``h⁻¹``."""
        return values if self.rescale_epsilon is None else unscale(values, self.rescale_epsilon)

    def show(self, batch: Sequences) -> Shown:
        """The batch, as it is."""
        decisions = batch.decisions[..., :-1] if batch.decisions.shape[-1] else None
        replay = None
        if decisions is not None:
            # NaN: nobody acted on what followed a sequence's last step, or decided anything.
            beyond = torch.arange(len(decisions) + 1, device=decisions.device)[:, None] == batch.mask.sum(dim=0)
            replay = torch.cat([decisions, torch.zeros_like(decisions[:1])]).masked_fill(beyond[..., None], torch.nan)
        return Shown(batch.observations, batch.state, batch.episode_starts, replay, batch.rewards)

    def frozen_loss(self, batch: Sequences) -> Callable[[], LossTerms]:
        """The loss with targets fixed at their present values."""
        with torch.no_grad():
            returns = self.targets(batch, self.unroll(self.policy, batch).head.q)
        return lambda: self.judge(batch, returns).terms
