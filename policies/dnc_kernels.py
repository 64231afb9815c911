"""The steps of a Differentiable Neural Computer's memory in as few operations as they take, without autograd.

A step is some fifty small operations, which cost what they cost to start; views count, too. What a step has computed is kept
for its way back (:mod:`saccade.policies.dnc_backward`).

Shapes: ``T`` time, ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``R`` read heads. Vectors over slots are rows,
``[B, 1, N]``.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from saccade.policies.addressing import EPSILON
from saccade.policies.dnc_controllers import Recorded
from saccade.policies.dnc_memory import DNCState, Link, Linked, SparseLink, interface_sizes, relink


class Numbers(NamedTuple):
    """Interface vectors, or gradients by them, and views of their parts: ``[T, ...]``, or one step's.

    ``opened`` is all that a sigmoid opens: the erase vector and the gates. The last of the keys and strengths are for writing.
    """

    all: Float[Tensor, "*T B numbers"]
    keys: Float[Tensor, "*T B heads W"]
    strengths: Float[Tensor, "*T B heads 1"]
    vector: Float[Tensor, "*T B 1 W"]
    opened: Float[Tensor, "*T B 1 opened"]
    erase: Float[Tensor, "*T B 1 W"]
    free_gates: Float[Tensor, "*T B R 1"]
    allocation_gate: Float[Tensor, "*T B 1 1"]
    write_gate: Float[Tensor, "*T B 1 1"]
    modes: Float[Tensor, "*T 3 B R 1"]


class Held(NamedTuple):
    """What the memory holds between two steps: the first parts of a :class:`DNCState`, and what is used again and again.

    ``scales`` are one over the slots' lengths; ``across`` is the memory transposed.
    """

    memory: Float[Tensor, "B N W"]
    usage: Float[Tensor, "B 1 N"]
    write_weights: Float[Tensor, "B 1 N"]
    read_weights: Float[Tensor, "B R N"]
    precedence: Float[Tensor, "B 1 N"]
    link: Link
    scales: Float[Tensor, "B 1 N"]
    across: Float[Tensor, "B W N"]


class Write(NamedTuple):
    """What writing leaves for its way back."""

    freed: Float[Tensor, "B R N"]
    retained: Float[Tensor, "B 1 N"]
    filled: Float[Tensor, "B 1 N"]
    used: Float[Tensor, "B 1 N"]
    order: Int[Tensor, "B 1 N"]
    room: Float[Tensor, "B 1 N"]
    allocated: Float[Tensor, "B 1 N"]
    logits: Float[Tensor, "B 1 N"]
    content: Float[Tensor, "B 1 N"]
    chosen: Float[Tensor, "B 1 N"]
    change: Float[Tensor, "B N W"]
    written: Float[Tensor, "B N 1"]
    unwritten: Float[Tensor, "B 1 1"]


class Read(NamedTuple):
    """What keys and reading leave for their way back."""

    strengths: Float[Tensor, "B heads 1"]
    scales: Float[Tensor, "B heads 1"]
    factors: Float[Tensor, "B heads 1"]
    read_keys: Float[Tensor, "B R W"]
    write_key: Float[Tensor, "B 1 W"]
    logits: Float[Tensor, "B R N"]
    routes: Float[Tensor, "3 B R N"]
    modes: Float[Tensor, "3 B R 1"]


def numbers_of(table: Float[Tensor, "*T B numbers"], heads: int, width: int) -> Numbers:
    """Views of interface vectors."""
    rows = table.unsqueeze(-2)
    keys, strengths, vector, opened, modes = rows.split(interface_sizes(heads, width), -1)
    erase, free_gates, allocation_gate, write_gate = opened.split([width, heads, 1, 1], -1)
    lanes = table.shape[:-1]
    return Numbers(
        table,
        keys.view(*lanes, heads + 1, width),
        strengths.transpose(-1, -2),
        vector,
        opened,
        erase,
        free_gates.transpose(-1, -2),
        allocation_gate,
        write_gate,
        modes.view(*lanes, 3, heads, 1).transpose(-3, -4),
    )


def relink_sparse(links: Tensor, slots: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """As :func:`~saccade.policies.dnc_memory.relink`, from tensors to tensors."""
    linked = relink(SparseLink(links, slots), *others)
    return (*linked.link, linked.backward, linked.forward)


class Memory:
    """The memory over the steps of one call.

    Args:
        interface: from the controller's features to the interface's numbers.
        one: the number, on the same device.
        ties: see :func:`~saccade.policies.addressing.tie_breakers`.
        sizes: ``R`` and ``W``.
        kept: ``T`` and ``B`` where there is a way back.
    """

    def __init__(
        self,
        interface: nn.Linear,
        one: Float[Tensor, ""],
        ties: Float[Tensor, " N"],
        sizes: tuple[int, int],
        kept: tuple[int, int] | None = None,
    ) -> None:
        self.weight, self.bias = interface.weight, interface.bias
        self.one, self.ties = one, ties
        self.heads, self.width = sizes
        self.keep = kept is not None
        if kept is not None:
            self.transposed = self.weight.t()
            # Gates are put into their range in place.
            self.table = numbers_of(ties.new_empty(*kept, len(self.bias)), *sizes)
            self.numbers = [Numbers(*step) for step in zip(*(part.unbind() for part in self.table), strict=True)]
            self.links = Recorded()
            self.writes: list[Write] = []
            self.reads: list[Read] = []
            self.before: list[Held] = []
            self.after: list[Held] = []

    def forward(self, t: int, features: Float[Tensor, "B D"], before: Held) -> tuple[Held, Float[Tensor, "B R W"]]:
        """One step: what is held after it, and the vectors read."""
        if self.keep:
            numbers = self.numbers[t]
            torch.addmm(self.bias, features, self.transposed, out=numbers.all)
        else:
            numbers = numbers_of(nn.functional.linear(features, self.weight, self.bias), self.heads, self.width)
        numbers.opened.sigmoid_()
        # oneplus(x) = 1 + log(1 + e^x)
        strengths = nn.functional.softplus(numbers.strengths).add_(self.one)
        scales = self.inverse_lengths(numbers.keys)
        factors = strengths * scales
        read_keys, write_key = (numbers.keys * factors).split([self.heads, 1], 1)
        held, write = self.write(numbers, before, write_key)
        linked = self.relink(before, held.write_weights, write.written)
        # c_r = C(M, k_r, beta_r);  w_r = pi_1 b + pi_2 c_r + pi_3 f;  r = M^T w_r
        logits = torch.bmm(read_keys, held.across).mul_(held.scales)
        routes = torch.stack([linked.backward, linked.forward, torch.softmax(logits, 2)])
        modes = torch.softmax(numbers.modes, 0)
        read_weights = (modes * routes).sum(0)
        after = held._replace(link=linked.link, read_weights=read_weights)
        if self.keep:
            self.writes.append(write)
            self.reads.append(Read(strengths, scales, factors, read_keys, write_key, logits, routes, modes))
            self.before.append(before)
            self.after.append(after)
        return after, torch.bmm(read_weights, after.memory)

    def inverse_lengths(self, vectors: Float[Tensor, "B n W"]) -> Float[Tensor, "B n 1"]:
        """``1 / |v|``."""
        # A number in place of the tensor would first be made one, at twice the cost.
        return (vectors * vectors).sum(2, keepdim=True).add_(self.one, alpha=EPSILON).rsqrt_()

    def hold(self, state: DNCState) -> Held:
        """What the memory holds, from a core's state."""
        memory, usage, write_weights, read_weights, precedence, link = state[:6]
        rows = (usage.unsqueeze(1), write_weights.unsqueeze(1), read_weights, precedence.unsqueeze(1))
        return Held(memory, *rows, link, self.inverse_lengths(memory).transpose(1, 2), memory.transpose(1, 2))

    def write(self, numbers: Numbers, before: Held, key: Float[Tensor, "B 1 W"]) -> tuple[Held, Write]:
        """From usage to the memory after the write; links and read weights are still those before."""
        # psi = prod_r (1 - f_r w_r);  u = (u_tm1 + w_w - u_tm1 w_w) psi
        freed = torch.addcmul(self.one, numbers.free_gates, before.read_weights, value=-1)
        retained = freed.prod(1, keepdim=True)
        filled = torch.lerp(before.usage, self.one, before.write_weights)
        usage = filled * retained
        # a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i]: the product up to a slot, over the slot's own usage.
        used = torch.lerp(usage, self.one, self.ties)
        ascending, order = used.sort(2)
        room = torch.scatter(used, 2, order, ascending.cumprod(2).div_(ascending))
        allocated = torch.addcmul(room, used, room, value=-1)
        # c_w = C(M_tm1, k_w, beta_w);  w_w = g_w (g_a a + (1 - g_a) c_w)
        logits = torch.bmm(key, before.across).mul_(before.scales)
        content = torch.softmax(logits, 2)
        chosen = torch.lerp(content, allocated, numbers.allocation_gate)
        weights = chosen * numbers.write_gate
        # M = M_tm1 + w_w (v - e M_tm1);  p = (1 - sum w_w) p_tm1 + w_w
        written = weights.transpose(1, 2)
        change = torch.addcmul(numbers.vector, numbers.erase, before.memory, value=-1)
        memory = torch.addcmul(before.memory, written, change)
        unwritten = torch.sub(self.one, weights.sum(2, keepdim=True))
        precedence = torch.addcmul(weights, before.precedence, unwritten)
        rest = (
            before.read_weights,
            precedence,
            before.link,
            self.inverse_lengths(memory).transpose(1, 2),
            memory.transpose(1, 2),
        )
        left = Write(freed, retained, filled, used, order, room, allocated, logits, content, chosen, change, written, unwritten)
        return Held(memory, usage, weights, *rest), left

    def relink(self, before: Held, weights: Float[Tensor, "B 1 N"], written: Float[Tensor, "B N 1"]) -> Linked:
        """Links after a write: ``L = L_tm1 + w[i] (p_tm1[j] - L_tm1) - w[j] L_tm1``; ``b = L^T w_r`` and ``f = L w_r``."""
        if isinstance(before.link, SparseLink):
            given = (*before.link, before.precedence.squeeze(1), weights.squeeze(1), before.read_weights)
            links, slots, *followed = self.links.forward(relink_sparse, *given) if self.keep else relink_sparse(*given)
            return Linked(SparseLink(links, slots), *followed)
        links = torch.lerp(before.link, before.precedence, written).addcmul_(before.link, weights, value=-1)
        links.diagonal(dim1=1, dim2=2).zero_()
        return Linked(links, torch.bmm(before.read_weights, links), torch.bmm(before.read_weights, links.transpose(1, 2)))
