"""Addressing of an external memory: which of its slots a head reads or writes.

The first part is that of the Neural Turing Machine (NTM; Graves, Wayne & Danihelka 2014, arXiv:1410.5401), the second that of
the Differentiable Neural Computer (DNC; Graves et al. 2016, Nature 538, "Methods"); both find content alike.

Shapes: ``B`` lanes, ``N`` slots, ``W`` numbers in a slot, ``H`` heads (``R`` of them read), ``S`` shifts, an odd number.
"""

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6
"""Keeps lengths, logarithms and quotients of what may be zero finite, gradients included."""


def content_weights(
    memory: Float[Tensor, "B N W"], keys: Float[Tensor, "B H W"], strengths: Float[Tensor, "B H"]
) -> Float[Tensor, "B H N"]:
    """Slots by how much they resemble a key: NTM eq. 5 and 6, DNC's ``C(M, k, beta)``; each head's sum to 1.

    ``softmax(beta K[k, M(i)])``, ``K`` the cosine of the angle between key and slot; of a slot of zeros it is 0.
    """
    slots = (torch.linalg.vecdot(memory, memory) + EPSILON).rsqrt()
    scale = strengths * (torch.linalg.vecdot(keys, keys) + EPSILON).rsqrt()
    similarities = torch.bmm(keys * scale.unsqueeze(-1), memory.transpose(1, 2))
    return torch.softmax(similarities * slots.unsqueeze(1), dim=-1)


def read(memory: Float[Tensor, "B N W"], weights: Float[Tensor, "B H N"]) -> Float[Tensor, "B H W"]:
    """What heads read: NTM eq. 2, ``r = sum_i w(i) M(i)``."""
    return torch.bmm(weights, memory)


def write(
    memory: Float[Tensor, "B N W"],
    weights: Float[Tensor, "B H N"],
    erase: Float[Tensor, "B H W"],
    add: Float[Tensor, "B H W"],
) -> Float[Tensor, "B N W"]:
    """The memory after heads have written: NTM eq. 3 and 4, ``M(i) = M(i) (1 - w(i) e) + w(i) a``.

    As the paper has it, every head's erasing comes before any head's adding, so their order does not matter.
    """
    # Element by element: the result lies in memory as the argument does, slots last or not.
    by_slot = weights.transpose(1, 2)
    if by_slot.shape[-1] == 1:
        # M (1 - w e) + w a = M + w (a - M e).
        return torch.addcmul(memory, by_slot, torch.addcmul(add, memory, erase, value=-1))
    heads = [*zip(by_slot.split(1, 2), erase.split(1, 1), add.split(1, 1), strict=True)]
    for w, e, _ in heads:
        memory = torch.addcmul(memory, memory * w, e, value=-1)
    for w, _, a in heads:
        memory = torch.addcmul(memory, w, a)
    return memory


# --- NTM ---------------------------------------------------------------------------------------------------------------------


def interpolate(
    content: Float[Tensor, "B H N"], previous: Float[Tensor, "B H N"], gates: Float[Tensor, "B H"]
) -> Float[Tensor, "B H N"]:
    """Between the weights of the step before and those by content: NTM eq. 7, ``g w_c + (1 - g) w_tm1``."""
    return torch.lerp(previous, content, gates.unsqueeze(-1))


def shift(weights: Float[Tensor, "B H N"], kernels: Float[Tensor, "B H S"]) -> Float[Tensor, "B H N"]:
    """Circular convolution: NTM eq. 8, ``w~(i) = sum_j w(j) s(i - j)``.

    ``kernels[..., k]`` is the weight of a shift by ``k - S // 2`` slots, ``-1, 0, 1`` where ``S`` is 3. ``S`` is at most ``N``.
    """
    reach, slots = kernels.shape[-1] // 2, weights.shape[-1]
    around = torch.cat([weights[..., slots - reach :], weights, weights[..., :reach]], dim=-1) if reach else weights
    # What lands on slot i by a shift of d comes from i - d: the last kernel meets what stands furthest to the left.
    moves = kernels.unsqueeze(-2).unbind(-1)
    shifted = around.narrow(-1, 0, slots) * moves[-1]
    for start, by in enumerate(moves[-2::-1], 1):
        shifted = torch.addcmul(shifted, around.narrow(-1, start, slots), by)
    return shifted


def sharpen(weights: Float[Tensor, "B H N"], powers: Float[Tensor, "B H"]) -> Float[Tensor, "B H N"]:
    """Undo a shift's blur: NTM eq. 9, ``w(i)^gamma / sum_j w(j)^gamma``.

    Computed as ``softmax(gamma log w)``: the quotient of powers has infinite gradients in float32 from about ``gamma = 20``.
    Negative weights, which no head has but a made-up one may, count as none.
    """
    return torch.softmax(powers.unsqueeze(-1) * (torch.relu(weights) + EPSILON).log(), dim=-1)


# --- DNC ---------------------------------------------------------------------------------------------------------------------


def retention(free_gates: Float[Tensor, "B R"], read_weights: Float[Tensor, "B R N"]) -> Float[Tensor, "B N"]:
    """How much of each slot is not freed by what read it last: DNC, ``psi = prod_r (1 - f_r w_r)``."""
    kept = 1 - free_gates.unsqueeze(-1) * read_weights
    product, *others = kept.unbind(1)
    for other in others:
        product = product * other
    return product


def usage(
    previous: Float[Tensor, "B N"], write_weights: Float[Tensor, "B N"], retained: Float[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """How much each slot is in use: DNC, ``u = (u_tm1 + w_w - u_tm1 w_w) psi``, with the write weights of the step before."""
    return torch.addcmul(previous + write_weights, previous, write_weights, value=-1) * retained


def tie_breakers(slots: int) -> Float[Tensor, " N"]:
    """How much more every slot counts as used than its usage says, of what it is not: a little more than the slot before it.

    At an episode's start whole rows of slots are used equally. Which one is taken must not depend on how the last digit was
    rounded, or acting and learning would write to different ones. And usage must not be 0, or nothing passes back through
    products of it.
    """
    return EPSILON * (torch.arange(slots) + 0.3)


def allocation(used: Float[Tensor, "B N"], ties: Float[Tensor, " N"]) -> Float[Tensor, "B N"]:
    """Where there is room: DNC, ``a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i]``, ``phi`` the slots from the least used up.

    Sums to at most 1: to 0 where every slot is in use. The order of slots has no derivative. For ``ties`` see
    :func:`tie_breakers`.
    """
    used = torch.lerp(used, torch.ones_like(used), ties)
    ascending, order = used.sort(dim=-1)
    before = torch.nn.functional.pad(ascending[:, :-1], (1, 0), value=1.0).cumprod(-1)
    return torch.scatter(used, -1, order, (1 - ascending) * before)


def write_weights(
    content: Float[Tensor, "B N"],
    allocated: Float[Tensor, "B N"],
    allocation_gate: Float[Tensor, "B 1"],
    write_gate: Float[Tensor, "B 1"],
) -> Float[Tensor, "B N"]:
    """Where to write: DNC, ``w_w = g_w (g_a a + (1 - g_a) c)``; a closed write gate writes nowhere."""
    return write_gate * torch.lerp(content, allocated, allocation_gate)


def link(
    previous: Float[Tensor, "B N N"], precedence_tm1: Float[Tensor, "B N"], weights: Float[Tensor, "B N"]
) -> Float[Tensor, "B N N"]:
    """Which slot was written after which: DNC, ``L[i, j] = (1 - w[i] - w[j]) L_tm1[i, j] + w[i] p_tm1[j]``, ``L[i, i] = 0``."""
    keep = (1 - weights).unsqueeze(2) - weights.unsqueeze(1)
    links = torch.baddbmm(keep * previous, weights.unsqueeze(2), precedence_tm1.unsqueeze(1))
    # A slot is not linked to itself.
    return links - torch.diag_embed(links.diagonal(dim1=1, dim2=2))


def precedence(previous: Float[Tensor, "B N"], weights: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """How much each slot was the last one written: DNC, ``p = (1 - sum_i w[i]) p_tm1 + w``."""
    return torch.addcmul(weights, previous, 1 - weights.sum(-1, keepdim=True))


def follow(
    links: Float[Tensor, "B N N"], read_weights_tm1: Float[Tensor, "B R N"]
) -> tuple[Float[Tensor, "B R N"], Float[Tensor, "B R N"]]:
    """What was written before, and after, what was read last: DNC, ``b = L^T w_r`` and ``f = L w_r``."""
    return torch.bmm(read_weights_tm1, links), torch.bmm(read_weights_tm1, links.transpose(1, 2))


def read_weights(
    backward: Float[Tensor, "B R N"],
    content: Float[Tensor, "B R N"],
    forward: Float[Tensor, "B R N"],
    modes: Float[Tensor, "B R 3"],
) -> Float[Tensor, "B R N"]:
    """Where to read: DNC, ``w_r = pi_1 b + pi_2 c + pi_3 f``; the modes sum to 1."""
    by_backward, by_content, by_forward = modes.unsqueeze(-1).unbind(2)
    return torch.addcmul(torch.addcmul(by_backward * backward, by_content, content), by_forward, forward)
