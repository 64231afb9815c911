"""The recurrent glimpse: hard attention that looks, remembers, and decides where to look next (Mnih et al. 2014)."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.controller import check_sizes
from saccade.policies.core import Core, CoreOutput, Decision, Reads, State, stack_outputs
from saccade.policies.gaze import GazePolicy, LearnedGaze
from saccade.policies.recurrent import LSTM
from saccade.policies.retina import Retina
from saccade.policies.tap import TapKind, tap


class GlimpseNetwork(nn.Module):
    """What is seen and where: ``g = relu(W_g relu(patches) + W_l relu(l))`` (Mnih et al. 2014, section 4), layer-normalised.

    Args:
        patch_shape: ``(S, C, p, p)`` of the retina's output.
        hidden_size: width of the *what* and of the *where* pathway.
        glimpse_size: ``G``, features of a glimpse.
    """

    def __init__(self, patch_shape: Sequence[int], hidden_size: int, glimpse_size: int) -> None:
        super().__init__()
        pixels = int(torch.Size(patch_shape).numel())
        self.what = nn.Sequential(nn.Linear(pixels, hidden_size), nn.LayerNorm(hidden_size), nn.ReLU())
        self.where = nn.Sequential(nn.Linear(2, hidden_size), nn.LayerNorm(hidden_size), nn.ReLU())
        self.join = nn.Sequential(nn.Linear(2 * hidden_size, glimpse_size), nn.LayerNorm(glimpse_size), nn.ReLU())

    def forward(self, patches: Float[Tensor, "B S C p p"], gaze: Float[Tensor, "B 2"]) -> Float[Tensor, "B G"]:
        """Glimpse features of what was seen at ``gaze``; the sum of two linear maps is one over both pathways."""
        return self.join(torch.cat([self.what(patches.flatten(1)), self.where(gaze)], dim=-1))


class ContextNetwork(nn.Module):
    """The whole image, seen coarsely: three convolutions and a layer over it (Ba et al. 2015, section 3, "context network").

    Args:
        input_shape: ``(C, H, W)``.
        context_size: features of the context.
        pixels: height and width that the image is brought down to, by means.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(self, input_shape: Sequence[int], context_size: int = 64, pixels: int = 12) -> None:
        super().__init__()
        check_sizes("ContextNetwork", context_size=context_size, pixels=pixels)
        self.context_size = context_size
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(pixels)]
        for inputs, outputs, stride in ((input_shape[0], 16, 1), (16, 32, 2), (32, 32, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
        side = (pixels + 3) // 4
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * side * side, context_size), nn.ReLU())

    def forward(self, images: Tensor) -> Float[Tensor, "B context"]:
        """Of images ``[B, C, H, W]``; bytes are scaled to 0 to 1."""
        context: Tensor = self.network(images if images.is_floating_point() else images.to(next(self.parameters()).dtype) / 255)
        return context


class GlimpseState(NamedTuple):
    """What a recurrent glimpse carries.

    Attributes:
        gaze: where the next step looks first, ``(x, y)``.
        memory: the recurrent core's state.
        guide: the state of the second recurrent core, which says where to look, where there is one.
    """

    gaze: Float[Tensor, "B 2"]
    memory: State
    guide: State = ()


class RecurrentGlimpse(Core):
    """A retina, a glimpse network, a recurrent core and a gaze policy.

    At step ``t`` the core looks at the gaze it chose after step ``t - 1`` (the middle of the image at an episode's first step),
    and chooses the next one from what it then remembers. That choice is the core's latent decision: it is trained by REINFORCE
    (``saccade.agents.reinforce``). When decisions are replayed, all glimpses of a sequence are taken at once.

    With several glimpses a step it goes on looking, choosing, and remembering before its features are given; a step's decision
    is then all gazes chosen in it. Its context, for the baseline, is what is known after the first look.

    With a ``context`` there are two recurrent cores (Ba et al. 2015, "Multiple Object Recognition with Visual Attention",
    arXiv:1412.7755): the first reads glimpses, and its features are the core's; the second reads the first's features and the
    context, a coarse view of the whole image, and chooses where to look. Actions know the whole image by what was looked at
    alone. Not as in the paper: the context is read in every step, and not only at first, as what is seen moves.

    Args:
        input_shape: ``(C, H, W)``.
        hidden_size: features of the recurrent core, and of the second one.
        glimpse_size: ``G``, features of a glimpse.
        pathway_size: width of the *what* and *where* pathways.
        n_glimpses: glimpses in a step.
        memory: makes the core over glimpse features from ``(G,)`` and ``hidden_size``: a core class, or a partial of one.
        gaze: makes the gaze policy from the number of features: a class, or a partial of one.
        retina: makes the retina: :class:`~saccade.policies.retina.Retina`, or a partial of it.
        context: makes the context network from ``(C, H, W)``: :class:`ContextNetwork`, or a partial of it; ``None`` for none.

    Raises:
        ValueError: the input is not an image, a size is below 1, or the memory takes latent decisions of its own.
    """

    reads: ClassVar[tuple[Reads, ...]] = (Reads.IMAGE,)

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        glimpse_size: int = 128,
        pathway_size: int = 64,
        n_glimpses: int = 1,
        memory: Callable[..., Core] = LSTM,
        gaze: Callable[[int], GazePolicy] = LearnedGaze,
        retina: Callable[[], Retina] = Retina,
        context: Callable[[Sequence[int]], ContextNetwork] | None = None,
    ) -> None:
        check_sizes("RecurrentGlimpse", n_glimpses=n_glimpses, glimpse_size=glimpse_size, pathway_size=pathway_size)
        super().__init__(input_shape, features_dim=hidden_size, decision_size=2 * n_glimpses)
        self.retina, self.n_glimpses = retina(), n_glimpses
        patch_shape = (self.retina.scales, self.input_shape[0], self.retina.patch_size, self.retina.patch_size)
        self.glimpse = GlimpseNetwork(patch_shape, pathway_size, glimpse_size)
        self.memory = memory((glimpse_size,), hidden_size=hidden_size)
        if self.memory.decision_size:
            raise ValueError(
                f"{type(self.memory).__name__} takes decisions of its own; a glimpse needs a memory that takes none"
            )
        self.features_dim = self.memory.features_dim
        self.context = None if context is None else context(self.input_shape)
        self.guide = (
            None if self.context is None else memory((self.features_dim + self.context.context_size,), hidden_size=hidden_size)
        )
        self.gaze_policy = gaze((self.guide or self.memory).features_dim)
        self.trains_decisions, self.acts_at_once = self.gaze_policy.trained, n_glimpses > 1
        height, width = self.input_shape[1:]
        # Exact: nothing outside the fields has any influence on what the step says.
        self.tap_notes = {"exact": True, "fields": [(2 * field / width, 2 * field / height) for field in self.retina.fields]}

    def initial_state(self, batch_size: int) -> GlimpseState:
        """Looking at the middle of the image, with the memories' own initial states."""
        gaze = next(self.parameters()).new_zeros(batch_size, 2)
        guide = () if self.guide is None else self.guide.initial_state(batch_size)
        return GlimpseState(gaze, self.memory.initial_state(batch_size), guide)

    def look(self, images: Tensor, gaze: Float[Tensor, "B 2"]) -> Float[Tensor, "B G"]:
        """Glimpse features at ``gaze`` in ``images`` ``[B, C, H, W]``."""
        gaze = gaze.clamp(-1, 1)
        return self.glimpse(self.retina(images, gaze), gaze)

    def step(
        self,
        inputs: Tensor,
        state: State,
        replay: Float[Tensor, "B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Look, remember, decide where to look next, as often as there are glimpses."""
        context, outputs = None if self.context is None else self.context(inputs), []
        for number in range(self.n_glimpses):
            name = "gaze" if self.n_glimpses == 1 else f"gaze_{number + 1}"
            tap(name, state.gaze.clamp(-1, 1), TapKind.GAZE, self.tap_notes)
            memory = self.memory.step(self.look(inputs, state.gaze), state.memory)
            known, guide, spent = memory.features, state.guide, [memory]
            if self.guide is not None and context is not None:
                guided = self.guide.step(torch.cat([known, context], dim=-1), guide)
                known, guide, spent = guided.features, guided.state, [memory, guided]
            given = None if replay is None else replay[..., 2 * number : 2 * number + 2]
            decision = self.gaze_policy(known, given, deterministic)
            state = GlimpseState(decision.value, memory.state, guide)
            outputs.append(CoreOutput(memory.features, state, decision, *in_all(spent)))
        return self.joined(stack_outputs(outputs))

    def joined(self, looks: CoreOutput) -> CoreOutput:
        """One step of its looks, ``[n, B, ...]``, or all steps of theirs, ``[n, T, B, ...]``."""
        decision = looks.decision
        assert decision is not None
        cost, ponder = (None if part is None else part.sum(0) for part in (looks.cost, looks.ponder))
        whole = Decision(
            torch.cat(decision.value.unbind(), dim=-1),
            decision.log_prob.sum(0),
            decision.entropy.sum(0),
            looks.features[0] if self.n_glimpses > 1 else None,
        )
        return CoreOutput(looks.features[-1], looks.state, whole, cost, ponder)

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B K"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """With known gazes, every glimpse at once and the memory's own fast path; step by step otherwise."""
        if replay is None:
            return super().unroll(inputs, state, episode_starts, replay, deterministic)
        images, steps = inputs.flatten(0, 1), episode_starts.shape
        chosen = torch.cat([state.gaze[None], replay[:-1, :, -2:]])
        first = torch.where(episode_starts[..., None], self.initial_state(1).gaze, chosen)
        gazes = torch.cat([first, replay[..., :-2]], dim=-1).flatten(0, 1).split(2, dim=-1)
        # Look after look, [T n, B, ...]: an episode starts before the first of its first step.
        glimpses = self.in_order([self.look(images, gaze).unflatten(0, steps) for gaze in gazes])
        starts = self.in_order([episode_starts, *[torch.zeros_like(episode_starts)] * (self.n_glimpses - 1)])
        memory = self.memory(glimpses, state.memory, starts)
        known, guide, spent = memory.features, state.guide, [memory]
        if self.guide is not None and self.context is not None:
            context = self.context(images).unflatten(0, steps)
            guided = self.guide(torch.cat([known, self.in_order([context] * self.n_glimpses)], dim=-1), guide, starts)
            known, guide, spent = guided.features, guided.state, [memory, guided]
        decision = self.gaze_policy(known, self.in_order(list(replay.split(2, dim=-1))), deterministic)
        looks = [
            None if part is None else part.unflatten(0, (-1, self.n_glimpses)).transpose(0, 1)
            for part in (memory.features, *in_all(spent))
        ]
        apart = decision.map(lambda part: part.unflatten(0, (-1, self.n_glimpses)).transpose(0, 1))
        after = GlimpseState(decision.value[-1], memory.state, guide)
        return self.joined(CoreOutput(cast("Tensor", looks[0]), after, apart, looks[1], looks[2]))

    def in_order(self, looks: list[Tensor]) -> Tensor:
        """The first look of all steps, the second and so on, ``[T, B, ...]`` each, as ``[T n, B, ...]``."""
        return looks[0] if self.n_glimpses == 1 else torch.stack(looks, dim=1).flatten(0, 1)


def in_all(outputs: Sequence[CoreOutput]) -> tuple[Tensor | None, Tensor | None]:
    """Cost and computations of several cores together, where any has them."""

    def total(parts: list[Tensor]) -> Tensor | None:
        return torch.stack(parts).sum(0) if parts else None

    costs = [output.cost for output in outputs if output.cost is not None]
    return total(costs), total([output.ponder for output in outputs if output.ponder is not None])
