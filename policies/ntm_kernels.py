"""What a Neural Turing Machine's heads do over a sequence, step by step, and the gradient written out.

A step is some thirty small operations forward and forty back, and each costs what it costs to start, a view hardly less. So
there is one buffer for each quantity, its views on every step are made at once, and what does not depend on the steps before
(on the way back: after) is computed for all steps at once. It has to agree with ``saccade.policies.addressing``.

Shapes: ``T`` time, ``B`` lanes, ``N`` slots, ``W`` width, ``H`` heads, of which the first ``R`` read and the other ``K`` write,
``S`` shifts, ``I`` numbers of the interface. A memory is ``[B, W, N]``: slots last, over which vector units run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saccade.policies.addressing import EPSILON


class Orders(NamedTuple):
    """What the heads are told, or the gradient by it: of one step, or of all, ``[T, B, ...]``. Powers are short by 1."""

    keys: Float[Tensor, "*time B H W"]
    add: Float[Tensor, "*time B K W"]
    erase: Float[Tensor, "*time B K W"]
    gates: Float[Tensor, "*time B H 1"]
    strengths: Float[Tensor, "*time B H 1"]
    powers: Float[Tensor, "*time B H 1"]


class Layout(NamedTuple):
    """The interface, a controller's word to all heads: grouped by the function that each part goes through."""

    read_heads: int
    write_heads: int
    width: int
    shifts: int

    @property
    def heads(self) -> int:
        """``H``."""
        return self.read_heads + self.write_heads

    @property
    def sections(self) -> list[int]:
        """Numbers through tanh (keys, add), sigmoid (erase, gates), softplus (strengths, powers), and softmax (kernels)."""
        words = self.write_heads * self.width
        return [self.heads * self.width + words, words + self.heads, 2 * self.heads, self.heads * self.shifts]

    def split(self, squashed: Tensor, opened: Tensor, positive: Tensor) -> Orders:
        """Views on the parts of the first three groups, ``[..., numbers]`` each."""
        lanes, heads, words = squashed.shape[:-1], self.heads, self.write_heads * self.width
        keys, add = squashed.split_with_sizes([heads * self.width, words], -1)
        erase, gates = opened.split_with_sizes([words, heads], -1)
        keys, add, erase = (part.view(*lanes, -1, self.width) for part in (keys, add, erase))
        strengths, powers = positive.view(*lanes, 2, heads, 1).unbind(-3)
        return Orders(keys, add, erase, gates.unsqueeze(-1), strengths, powers)


class Step(NamedTuple):
    """What the heads leave for the way back, besides their orders: of one step, or of all, ``[T, B, ...]``.

    Attributes:
        squashed: orders that went through tanh; ``opened`` through sigmoid, ``positive`` through softplus.
        norms: 1 / length of every slot; ``lengths``: that of every key, ``scales``: times its strength.
        scaled: keys times their scale, whose products with the slots are ``similarities``, once divided by the slots' length.
        content: eq. 5; ``mixed``: eq. 7; ``shifted``: eq. 8, plus EPSILON, and its ``logarithms``; ``weights``: eq. 9.
    """

    squashed: Float[Tensor, "*time B _"]
    opened: Float[Tensor, "*time B _"]
    positive: Float[Tensor, "*time B _"]
    kernels: Float[Tensor, "*time B H S"]
    powers: Float[Tensor, "*time B H 1"]
    norms: Float[Tensor, "*time B 1 N"]
    lengths: Float[Tensor, "*time B H 1"]
    scales: Float[Tensor, "*time B H 1"]
    scaled: Float[Tensor, "*time B H W"]
    similarities: Float[Tensor, "*time B H N"]
    content: Float[Tensor, "*time B H N"]
    mixed: Float[Tensor, "*time B H N"]
    shifted: Float[Tensor, "*time B H N"]
    logarithms: Float[Tensor, "*time B H N"]
    weights: Float[Tensor, "*time B H N"]
    readers: Float[Tensor, "*time B R N"]
    writers: Float[Tensor, "*time B K N"]


class Slopes(NamedTuple):
    """Derivatives that the way back multiplies by."""

    words: Float[Tensor, "*time B _"]
    shifted: Float[Tensor, "*time B H N"]
    units: Float[Tensor, "*time B H W"]
    norms: Float[Tensor, "*time B 1 N"]


def by_step(*buffers: Tensor) -> list[tuple[Tensor, ...]]:
    """Of each step, views on several buffers ``[T, ...]``."""
    return list(zip(*(buffer.unbind() for buffer in buffers), strict=True))


class Circle:
    """Room for weights ``[..., N]``, and for what a shift brings around their ends.

    Attributes:
        inside: the weights, for others to fill in.
        ends: what comes around on the left, and from where; on the right, and from where.
        windows: for every ``s``, weights whose entry ``i`` is the inside's ``i + s - S // 2``.
        padded: all of it.
    """

    def __init__(self, like: Float[Tensor, "*batch N"], shifts: int) -> None:
        reach, slots = shifts // 2, like.shape[-1]
        self.padded = like.new_empty(*like.shape[:-1], slots + 2 * reach)
        self.inside = self.padded.narrow(-1, reach, slots)
        self.ends = [self.padded.narrow(-1, start, reach) for start in (0, slots, slots + reach, reach)]
        self.windows = [self.padded.narrow(-1, s, slots) for s in range(shifts)]


def convolve(ends: Sequence[Tensor], windows: Sequence[Tensor], kernels: Sequence[Tensor], out: Tensor) -> Tensor:
    """``sum_s kernels[s] windows[s]``; the ends are filled in first."""
    left, from_left, right, from_right = ends
    left.copy_(from_left)
    right.copy_(from_right)
    torch.mul(windows[0], kernels[0], out=out)
    for window, kernel in zip(windows[1:], kernels[1:], strict=True):
        out.addcmul_(window, kernel)
    return out


class Heads:
    """The heads over a sequence: :meth:`look` and :meth:`access` for every step; then :meth:`prepare`, and back from the last.

    Args:
        layout: of the interface.
        steps: ``T``.
        memory: like those to come.

    Attributes:
        interface: ``[T, B, I]``, of each step to be filled in before it is taken.
        steps: what each step leaves.
    """

    def __init__(self, layout: Layout, steps: int, memory: Float[Tensor, "B W N"]) -> None:
        def room(*shape: int) -> Tensor:
            return memory.new_empty(steps, len(memory), *shape)

        heads, slots = layout.heads, memory.shape[-1]
        self.layout, self.scratch = layout, torch.empty_like(memory)
        # Tensors: a Python number is converted first, which takes as long as adding it.
        self.epsilon, self.one = memory.new_tensor([EPSILON, 1]).unbind()
        self.interface = room(sum(layout.sections))
        self.said = by_step(*self.interface.split_with_sizes(layout.sections, -1))
        squashed, opened, positive = (room(numbers) for numbers in layout.sections[:3])
        kernels, weights = room(heads, layout.shifts), room(heads, slots)
        readers, writers = weights.split_with_sizes([layout.read_heads, layout.write_heads], -2)
        circle = Circle(weights, layout.shifts)
        self.all_orders = layout.split(squashed, opened, positive)
        self.all = Step(
            squashed=squashed,
            opened=opened,
            positive=positive,
            kernels=kernels,
            powers=room(heads, 1),
            norms=room(1, slots),
            lengths=room(heads, 1),
            scales=room(heads, 1),
            scaled=room(heads, layout.width),
            similarities=room(heads, slots),
            content=room(heads, slots),
            mixed=circle.inside,
            shifted=room(heads, slots),
            logarithms=room(heads, slots),
            weights=weights,
            readers=readers,
            writers=writers,
        )
        self.orders = [Orders(*parts) for parts in by_step(*self.all_orders)]
        self.steps = [Step(*parts) for parts in by_step(*self.all)]
        self.ends, self.windows = by_step(*circle.ends), by_step(*circle.windows)
        self.kernels = by_step(*kernels.unsqueeze(-2).unbind(-1))
        pairs = zip(writers.split(1, -2), self.all_orders.erase.split(1, -2), strict=True)
        self.erasing = list(zip(*(by_step(weights, erase.mT) for weights, erase in pairs), strict=True))

    def look(self, t: int, memory: Float[Tensor, "B W N"], before: Float[Tensor, "B H N"]) -> None:
        """The weights of step ``t``, eq. 5 to 9, from its interface, the memory and the weights before it."""
        orders, step, (to_squash, to_open, to_soften, logits) = self.orders[t], self.steps[t], self.said[t]
        torch.tanh(to_squash, out=step.squashed)
        torch.sigmoid(to_open, out=step.opened)
        torch.nn.functional.softplus(to_soften, out=step.positive)  # type: ignore[call-arg]
        torch.softmax(logits.view_as(step.kernels), -1, out=step.kernels)
        torch.add(orders.powers, self.one, out=step.powers)
        # Eq. 5 and 6.
        torch.sum(torch.mul(memory, memory, out=self.scratch), 1, keepdim=True, out=step.norms).add_(self.epsilon).rsqrt_()
        torch.sum(orders.keys * orders.keys, -1, keepdim=True, out=step.lengths).add_(self.epsilon).rsqrt_()
        torch.mul(orders.keys, torch.mul(orders.strengths, step.lengths, out=step.scales), out=step.scaled)
        torch.bmm(step.scaled, memory, out=step.similarities).mul_(step.norms)
        torch.softmax(step.similarities, -1, out=step.content)
        # Eq. 7, and eq. 8: a shift by d brings to slot i what was at i - d, so the last kernel meets the leftmost window.
        torch.lerp(before, step.content, orders.gates, out=step.mixed)
        convolve(self.ends[t], self.windows[t], self.kernels[t][::-1], step.shifted).relu_().add_(self.epsilon)
        # Eq. 9.
        torch.log(step.shifted, out=step.logarithms)
        torch.softmax(step.powers * step.logarithms, -1, out=step.weights)

    def access(self, t: int, memory: Tensor, reads: Float[Tensor, "B R W"], written: Float[Tensor, "B W N"]) -> None:
        """Fill in the vectors read, eq. 2, and the memory after all heads have erased, eq. 3, and then added, eq. 4."""
        step, kept = self.steps[t], memory
        reads.copy_(torch.bmm(step.readers, memory.mT))
        for weights, erase in self.erasing[t]:
            kept = torch.addcmul(kept, kept, torch.mul(erase, weights, out=self.scratch), value=-1, out=written)
        written.baddbmm_(self.orders[t].add.mT, step.writers)

    def prepare(self, d_interface: Float[Tensor, "T B I"]) -> None:
        """Begin the way back, which fills in ``d_interface``."""
        layout, every = self.layout, self.all
        *words, kernels = layout.sections
        self.d_words = every.squashed.new_empty(len(every.squashed[0]), sum(words))
        self.d_orders = layout.split(*self.d_words.split_with_sizes(words, -1))
        self.d_said = by_step(*d_interface.split_with_sizes([sum(words), kernels], -1))
        # The slope of softplus is a sigmoid: 1 - exp(-softplus).
        squashed, opened = every.squashed, every.opened
        slopes = torch.cat([1 - squashed * squashed, opened * (1 - opened), -torch.expm1(-every.positive)], -1)
        shifted = (every.powers / every.shifted).masked_fill_(every.shifted <= self.epsilon, 0)
        units, norms = self.all_orders.keys * every.lengths, -every.norms * every.norms
        self.slopes = [Slopes(*parts) for parts in by_step(slopes, shifted, units, norms)]
        self.circle, self.d_mixed = Circle(every.weights[0], layout.shifts), torch.empty_like(every.weights[0])
        self.rolled = self.circle.padded.unfold(-1, every.weights.shape[-1], 1).flatten(0, 1)
        self.columns = every.mixed.flatten(1, 2).unsqueeze(-1).unbind()
        self.more_scratch = torch.empty_like(self.scratch)

    def access_back(
        self, t: int, memory: Tensor, d_reads: Float[Tensor, "B R W"], d_memory: Tensor, d_weights: Float[Tensor, "B H N"]
    ) -> None:
        """Turn ``d_memory``, by the memory after, into that by the one before; add to ``d_weights``."""
        step, orders, d_orders = self.steps[t], self.orders[t], self.d_orders
        d_readers, d_writers = d_weights.split_with_sizes([self.layout.read_heads, self.layout.write_heads], 1)
        d_writers += torch.bmm(orders.add, d_memory)
        d_orders.add.copy_(torch.bmm(step.writers, d_memory.mT))
        found = [memory]
        for weights, erase in self.erasing[t][:-1]:
            found.append(found[-1] * (1 - erase * weights))
        for k, (weights, erase) in reversed([*enumerate(self.erasing[t])]):
            d_kept = torch.mul(d_memory, found[k], out=self.scratch)
            torch.neg(torch.bmm(weights, d_kept.mT), out=d_orders.erase.narrow(1, k, 1))
            d_writers.narrow(1, k, 1).sub_(torch.bmm(erase.mT, d_kept))
            d_memory.addcmul_(d_memory, torch.mul(erase, weights, out=self.more_scratch), value=-1)
        d_readers += torch.bmm(d_reads, memory)
        d_memory.baddbmm_(d_reads.mT, step.readers)

    def look_back(
        self, t: int, memory: Tensor, before: Tensor, d_memory: Tensor, d_weights: Float[Tensor, "B H N"]
    ) -> Float[Tensor, "B H N"]:
        """The gradient by the weights before; adds to ``d_memory``, and fills in that by the interface. After the access."""
        step, orders, slopes, d_orders = self.steps[t], self.orders[t], self.slopes[t], self.d_orders
        softmax_back, dtype = torch._softmax_backward_data, memory.dtype
        # Eq. 9.
        d_scores = softmax_back(d_weights, step.weights, -1, dtype)
        torch.sum(d_scores * step.logarithms, -1, keepdim=True, out=d_orders.powers)
        # Eq. 8: back by every shift.
        torch.mul(d_scores, slopes.shifted, out=self.circle.inside)
        d_mixed = convolve(self.circle.ends, self.circle.windows, self.kernels[t], self.d_mixed)
        d_kernels = torch.bmm(self.rolled, self.columns[t]).view_as(step.kernels)
        # Eq. 7.
        torch.sum((step.content - before).mul_(d_mixed), -1, keepdim=True, out=d_orders.gates)
        d_content = d_mixed * orders.gates
        # Eq. 5 and 6.
        d_similarities = softmax_back(d_content, step.content, -1, dtype)
        d_norms = (d_similarities * step.similarities).sum(1, keepdim=True).mul_(slopes.norms)
        d_products = d_similarities.mul_(step.norms)
        d_scaled = torch.bmm(d_products, memory.mT)
        d_memory.baddbmm_(step.scaled.mT, d_products).addcmul_(memory, d_norms)
        torch.sum(d_scaled * slopes.units, -1, keepdim=True, out=d_orders.strengths)
        torch.mul(d_scaled.addcmul_(slopes.units, d_orders.strengths, value=-1), step.scales, out=d_orders.keys)
        to_words, to_kernels = self.d_said[t]
        torch.mul(self.d_words, slopes.words, out=to_words)
        to_kernels.copy_(softmax_back(d_kernels, step.kernels, -1, dtype).flatten(1))
        return d_mixed - d_content
