"""The way back through the steps of a Differentiable Neural Computer's memory, by hand.

What does not depend on later gradients is computed for all steps at once (:class:`Slopes`), the rest step by step.

Shapes: ``T`` time, ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``R`` read heads. Vectors over slots are rows,
``[B, 1, N]``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saccade.policies.dnc_kernels import Memory, Numbers, numbers_of
from saccade.policies.dnc_memory import Link, Linked, SparseLink

softmax_backward = torch._softmax_backward_data


class Gradients(NamedTuple):
    """By what is held between two steps; a step writes to them.

    That by the memory lacks what comes through the write head's look at it. This waits, to be added together with what comes
    through the read heads one step before: the gradient by the products of slots with the write key, that key, and the gradient
    by the logarithm of the slots' scales.
    """

    memory: Float[Tensor, "B N W"]
    usage: Float[Tensor, "B 1 N"]
    write_weights: Float[Tensor, "B 1 N"]
    read_weights: Float[Tensor, "B R N"]
    precedence: Float[Tensor, "B 1 N"]
    link: Link
    products: Float[Tensor, "B 1 N"]
    key: Float[Tensor, "B 1 W"]
    turn: Float[Tensor, "B 1 N"]


class Slopes(NamedTuple):
    """Derivatives that do not depend on later gradients, ``[T, ...]``, or one step's.

    Attributes:
        numbers: of the interface's numbers, where a function is one of each by itself: strengths and gates.
        keys: of scaled keys by keys, along the keys.
        scales: of the logarithm of the slots' scales, along the slots.
        writing: of write weights by allocation gate and write gate; and where content finds, ``c_w``.
        products: of write weights by the write key's products with the slots, but for what a softmax takes off.
        turn: the same by the logarithm of the slots' scales.
        shares: of write weights by allocation, times it.
        later: of allocation by usage, through the slots that are allocated later, over these shares' sum.
        own: of write weights by usage, through the slot itself.
        kept: of usage by the usage before and the write weights before.
        freeing: of usage by the free gates.
        reading: of usage by the read weights before.
    """

    numbers: Float[Tensor, "*T B numbers"]
    keys: Float[Tensor, "*T B heads 1"]
    scales: Float[Tensor, "*T B 1 N"]
    writing: Float[Tensor, "*T B 3 N"]
    products: Float[Tensor, "*T B 1 N"]
    turn: Float[Tensor, "*T B 1 N"]
    shares: Float[Tensor, "*T B 1 N"]
    later: Float[Tensor, "*T B 1 N"]
    own: Float[Tensor, "*T B 1 N"]
    kept: Float[Tensor, "*T B 2 N"]
    freeing: Float[Tensor, "*T B R N"]
    reading: Float[Tensor, "*T B R N"]


def stacked(rows: Sequence[Any], name: str) -> Float[Tensor, " T *rest"]:
    """One part of all rows, time first."""
    return torch.stack([getattr(row, name) for row in rows])


class MemoryGradient:
    """The way back over the steps of one call.

    Args:
        memory: what they have left.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory, self.heads = memory, memory.heads
        self.slopes = [Slopes(*step) for step in zip(*(slope.unbind() for slope in self.all_slopes()), strict=True)]
        self.table = torch.empty_like(memory.table.all)
        """Gradients by the interface's numbers, of all steps."""
        parts = numbers_of(self.table, memory.heads, memory.width)
        self.numbers = [Numbers(*step) for step in zip(*(part.unbind() for part in parts), strict=True)]
        self.write_gates = parts.opened[..., -2:].transpose(2, 3).unbind()
        # Sums over the slots that come later in the free list, by a product: nothing is added and subtracted again.
        self.later = self.table.new_ones(len(memory.ties), len(memory.ties)).tril_(-1)

    def all_slopes(self) -> Slopes:
        """Of all steps."""
        writes, reads, before, numbers = self.memory.writes, self.memory.reads, self.memory.before, self.memory.table
        strengths, key_scales, scales = stacked(reads, "strengths"), stacked(reads, "scales"), stacked(before, "scales")
        by_number = numbers_of(torch.ones_like(numbers.all), self.heads, self.memory.width)
        # log(1 + e^x) has the slope sigmoid(x) = 1 - e^(1 - oneplus(x)).
        by_number.strengths.copy_(-torch.expm1(1 - strengths) * key_scales)
        by_number.opened.copy_(numbers.opened * (1 - numbers.opened))
        by_number.erase.neg_()
        allocated, content = stacked(writes, "allocated"), stacked(writes, "content")
        by_allocation = numbers.write_gate * numbers.allocation_gate
        by_content = (numbers.write_gate - by_allocation) * content
        keep = by_allocation * (1 - self.memory.ties)
        # The product over all other heads is that over the heads before and that over the heads after.
        freed = nn.functional.pad(stacked(writes, "freed"), (0, 0, 1, 1), value=1.0)
        others = freed[:, :, :-2].cumprod(2) * freed[:, :, 2:].flip(2).cumprod(2).flip(2)
        others *= -stacked(writes, "filled")
        unused = [1 - stacked(before, "write_weights"), 1 - stacked(before, "usage")]
        return Slopes(
            numbers=by_number.all,
            keys=-strengths * key_scales**3,
            scales=-stacked(self.memory.after, "scales").square(),
            writing=torch.cat([numbers.write_gate * (allocated - content), stacked(writes, "chosen"), content], 2),
            products=by_content * scales,
            turn=by_content * stacked(writes, "logits"),
            shares=by_allocation * allocated,
            later=(1 - self.memory.ties) / stacked(writes, "used"),
            own=-keep * stacked(writes, "room"),
            kept=stacked(writes, "retained") * torch.cat(unused, 2),
            freeing=others * stacked(before, "read_weights"),
            reading=others * numbers.free_gates,
        )

    def backward(self, t: int, d_reads: Float[Tensor, "B R W"], d: Gradients) -> tuple[Gradients, Float[Tensor, "B numbers"]]:
        """One step: from gradients by what is held after it to those by what was held before, and by the interface."""
        read, after, slopes, numbers = self.memory.reads[t], self.memory.after[t], self.slopes[t], self.numbers[t]
        kind, keys = d_reads.dtype, self.memory.numbers[t].keys
        # r = M^T w_r;  w_r = pi_1 b + pi_2 c_r + pi_3 f
        d_reading = d.read_weights.baddbmm_(d_reads, after.across)
        numbers.modes.copy_(softmax_backward((read.routes * d_reading).sum(3, keepdim=True), read.modes, 0, kind))
        d_backward, d_forward, d_content = (read.modes * d_reading).unbind()
        # c_r = C(M, k_r, beta_r), and what the write head looks for in the same memory one step later.
        d_logits = softmax_backward(d_content, read.routes[2], 2, kind)
        products = d_logits * after.scales
        looks, found = torch.cat([products, after.read_weights, d.products], 1), torch.cat([read.read_keys, d_reads, d.key], 1)
        turn = (d_logits * read.logits).sum(1, keepdim=True).add_(d.turn).mul_(slopes.scales)
        d_memory = d.memory.baddbmm_(looks.transpose(1, 2), found).addcmul_(turn.transpose(1, 2), after.memory)
        d_link, d_precedence, d_weights, d_reading = self.relink(t, Linked(d.link, d_backward, d_forward), d.write_weights)
        held = Gradients(d_memory, d.usage, d_weights, d_reading, d_precedence, d_link, d.products, read.write_key, d.turn)
        gradients, d_key = self.write(t, d.precedence, held)
        # Keys are scaled to beta k / |k|.
        d_keys = torch.cat([torch.bmm(products, after.memory), d_key], 1)
        torch.sum(keys * d_keys, 2, keepdim=True, out=numbers.strengths)
        torch.mul(d_keys, read.factors, out=numbers.keys).addcmul_(keys, numbers.strengths * slopes.keys)
        return gradients, numbers.all.mul_(slopes.numbers)

    def write(self, t: int, d_precedence: Float[Tensor, "B 1 N"], d: Gradients) -> tuple[Gradients, Float[Tensor, "B 1 W"]]:
        """Everything before the links and the reads.

        Args:
            t: the step.
            d_precedence: by the precedence after it.
            d: by the precedence before it, through the links; by usage, write weights and memory after it; and by what is left
                alone here.

        Returns:
            Gradients by what was held before, and by the scaled write key.
        """
        write, before, slopes, numbers = self.memory.writes[t], self.memory.before[t], self.slopes[t], self.numbers[t]
        # p = (1 - sum w_w) p_tm1 + w_w;  M = M_tm1 + w_w (v - e M_tm1)
        d_weights = d.write_weights.add_(d_precedence).sub_((d_precedence * before.precedence).sum(2, keepdim=True))
        d_weights.add_((d.memory * write.change).sum(2).unsqueeze(1))
        d.precedence.addcmul_(d_precedence, write.unwritten)
        d_change = d.memory * write.written
        torch.sum(d_change, 1, keepdim=True, out=numbers.vector)
        torch.sum(d_change * before.memory, 1, keepdim=True, out=numbers.erase)
        d.memory.addcmul_(d_change, self.memory.numbers[t].erase, value=-1)
        # w_w = g_w (g_a a + (1 - g_a) c_w);  c_w = C(M_tm1, k_w, beta_w)
        sums = (slopes.writing * d_weights).sum(2, keepdim=True)
        self.write_gates[t].copy_(sums[:, :2])
        d_content = d_weights - sums[:, 2:]
        products, turn = slopes.products * d_content, slopes.turn * d_content
        # a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i]: through the slot itself, and through those that come after it.
        shares = torch.matmul((slopes.shares * d_weights).gather(2, write.order), self.later)
        d_usage = d.usage.addcmul_(torch.scatter(shares, 2, write.order, shares), slopes.later).addcmul_(d_weights, slopes.own)
        # u = (u_tm1 + w_tm1 - u_tm1 w_tm1) psi
        torch.sum(slopes.freeing * d_usage, 2, keepdim=True, out=numbers.free_gates)
        d.read_weights.addcmul_(d_usage, slopes.reading)
        d_usage, d_weights = (slopes.kept * d_usage).split(1, 1)
        gradients = d._replace(usage=d_usage, write_weights=d_weights, products=products, turn=turn)
        return gradients, torch.bmm(products, before.memory)

    def relink(
        self, t: int, d: Linked, d_weights: Float[Tensor, "B 1 N"]
    ) -> tuple[Link, Float[Tensor, "B 1 N"], Float[Tensor, "B 1 N"], Float[Tensor, "B R N"]]:
        """By links, precedence, write weights (added to ``d_weights``) and read weights before."""
        before, after = self.memory.before[t], self.memory.after[t]
        if isinstance(d.link, SparseLink):
            found, _ = self.memory.links.backward(t, *d.link, d.backward, d.forward)
            links, slots, d_precedence, more, d_reading = (gradient.clone() for gradient in found)
            return SparseLink(links, slots), d_precedence.unsqueeze(1), d_weights.add_(more.unsqueeze(1)), d_reading
        assert isinstance(before.link, Tensor) and isinstance(after.link, Tensor)
        # b = L^T w_r;  f = L w_r
        ends = torch.cat([d.backward, before.read_weights, d.forward], 1)
        links = d.link.baddbmm_(ends[:, self.heads :].transpose(1, 2), ends[:, : 2 * self.heads])
        links.diagonal(dim1=1, dim2=2).zero_()
        d_reading = torch.bmm(d.forward, after.link).baddbmm_(d.backward, after.link.transpose(1, 2))
        # L = L_tm1 + w[i] (p[j] - L_tm1) - w[j] L_tm1
        lost = links * before.link
        d_weights.baddbmm_(before.precedence, links.transpose(1, 2))
        d_weights.sub_(lost.sum(1, keepdim=True)).sub_(lost.sum(2).unsqueeze(1))
        d_precedence = torch.bmm(after.write_weights, links)
        d_link = torch.addcmul(links, links, self.memory.writes[t].written, value=-1)
        return d_link.addcmul_(links, after.write_weights, value=-1), d_precedence, d_weights, d_reading

    def finish(self, d: Gradients) -> Float[Tensor, "B N W"]:
        """The whole gradient by the memory before the first step."""
        first = self.memory.before[0]
        turn = (d.turn * -first.scales.square()).transpose(1, 2)
        return torch.baddbmm(d.memory, d.products.transpose(1, 2), d.key).addcmul_(turn, first.memory)
