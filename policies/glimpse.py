"""The recurrent glimpse: hard attention that looks, remembers, and decides where to look next (Mnih et al. 2014)."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saccade.policies.core import Core, CoreOutput, State
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


class GlimpseState(NamedTuple):
    """``gaze``: where the next step looks, ``(x, y)``; ``memory``: the recurrent core's state."""

    gaze: Float[Tensor, "B 2"]
    memory: State


class RecurrentGlimpse(Core):
    """A retina, a glimpse network, a recurrent core and a gaze policy.

    At step ``t`` the core looks at the gaze it chose after step ``t - 1`` (the middle of the image at an episode's first step),
    and chooses the next one from what it then remembers. That choice is the core's latent decision: it is trained by REINFORCE
    (``saccade.agents.reinforce``). When decisions are replayed, all glimpses of a sequence are taken at once.

    Args:
        input_shape: ``(C, H, W)``.
        hidden_size: features of the recurrent core.
        glimpse_size: ``G``, features of a glimpse.
        pathway_size: width of the *what* and *where* pathways.
        memory: makes the core over glimpse features from ``(G,)`` and ``hidden_size``: a core class, or a partial of one.
        gaze: makes the gaze policy from the number of features: a class, or a partial of one.
        retina: makes the retina: :class:`~saccade.policies.retina.Retina`, or a partial of it.

    Raises:
        ValueError: the input is not an image, or the memory takes latent decisions of its own.
    """

    reads_image: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_size: int = 128,
        glimpse_size: int = 128,
        pathway_size: int = 64,
        memory: Callable[..., Core] = LSTM,
        gaze: Callable[[int], GazePolicy] = LearnedGaze,
        retina: Callable[[], Retina] = Retina,
    ) -> None:
        super().__init__(input_shape, features_dim=hidden_size, decision_size=2)
        self.retina = retina()
        patch_shape = (self.retina.scales, self.input_shape[0], self.retina.patch_size, self.retina.patch_size)
        self.glimpse = GlimpseNetwork(patch_shape, pathway_size, glimpse_size)
        self.memory = memory((glimpse_size,), hidden_size=hidden_size)
        if self.memory.decision_size:
            raise ValueError(
                f"{type(self.memory).__name__} takes decisions of its own; a glimpse needs a memory that takes none"
            )
        self.gaze_policy = gaze(self.memory.features_dim)
        self.features_dim = self.memory.features_dim
        self.trains_decisions = self.gaze_policy.trained
        height, width = self.input_shape[1:]
        self.tap_notes = {"fields": [(2 * field / width, 2 * field / height) for field in self.retina.fields]}

    def initial_state(self, batch_size: int) -> GlimpseState:
        """Looking at the middle of the image, with the memory's own initial state."""
        weight = next(self.parameters())
        return GlimpseState(weight.new_zeros(batch_size, 2), self.memory.initial_state(batch_size))

    def look(self, images: Tensor, gaze: Float[Tensor, "B 2"]) -> Float[Tensor, "B G"]:
        """Glimpse features at ``gaze`` in ``images`` ``[B, C, H, W]``."""
        gaze = gaze.clamp(-1, 1)
        return self.glimpse(self.retina(images, gaze), gaze)

    def step(
        self,
        inputs: Tensor,
        state: State,
        replay: Float[Tensor, "B 2"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """Look, remember, decide where to look next."""
        tap("gaze", state.gaze.clamp(-1, 1), TapKind.GAZE, self.tap_notes)
        memory = self.memory.step(self.look(inputs, state.gaze), state.memory)
        decision = self.gaze_policy(memory.features, replay, deterministic)
        return CoreOutput(memory.features, GlimpseState(decision.value, memory.state), decision, memory.cost)

    def unroll(
        self,
        inputs: Tensor,
        state: State,
        episode_starts: Bool[Tensor, "T B"],
        replay: Float[Tensor, "T B 2"] | None = None,
        deterministic: bool = False,
    ) -> CoreOutput:
        """With known gazes, every glimpse at once and the memory's own fast path; step by step otherwise."""
        if replay is None:
            return super().unroll(inputs, state, episode_starts, replay, deterministic)
        chosen = torch.cat([state.gaze[None], replay[:-1]])
        gazes = torch.where(episode_starts[..., None], self.initial_state(1).gaze, chosen)
        glimpses = self.look(inputs.flatten(0, 1), gazes.flatten(0, 1)).unflatten(0, episode_starts.shape)
        memory = self.memory(glimpses, state.memory, episode_starts)
        decision = self.gaze_policy(memory.features, replay, deterministic)
        return CoreOutput(memory.features, GlimpseState(decision.value[-1], memory.state), decision, memory.cost)
