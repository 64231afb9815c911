"""Every addressing function against its equation, written as loops, and its gradient against finite differences."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from saccade.policies import addressing
from saccade.policies.addressing import EPSILON

B, S, H, W, N = 2, 3, 5, 7, 11


def content_loops(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    def length(vector: Tensor) -> Tensor:
        return (vector @ vector + EPSILON).sqrt()

    rows = [[beta * (k @ m) / (length(k) * length(m)) for m in memory] for k, beta in zip(keys, strengths, strict=True)]
    return torch.stack([torch.stack([x.exp() for x in row]) / sum(x.exp() for x in row) for row in rows])


def write_loops(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    after = memory.clone()
    for i in range(len(memory)):
        for w, e in zip(weights, erase, strict=True):
            after[i] = after[i] * (1 - w[i] * e)
        for w, a in zip(weights, add, strict=True):
            after[i] = after[i] + w[i] * a
    return after


def shift_loops(weights: Tensor, kernels: Tensor) -> Tensor:
    after = torch.zeros_like(weights)
    for head, i, by in product(range(len(weights)), range(N), range(-(S // 2), S // 2 + 1)):
        after[head, i] += weights[head, (i - by) % N] * kernels[head, by + S // 2]
    return after


def sharpen_loops(weights: Tensor, powers: Tensor) -> Tensor:
    raised = [[(w + EPSILON) ** gamma for w in row] for row, gamma in zip(weights, powers, strict=True)]
    return torch.stack([torch.stack(row) / sum(row) for row in raised])


def allocation(used: Tensor) -> Tensor:
    return addressing.allocation(used, addressing.tie_breakers(N).to(used))


def allocation_loops(used: Tensor) -> Tensor:
    used = torch.stack([used[i] + EPSILON * (i + 0.3) * (1 - used[i]) for i in range(N)])
    allocated, before = torch.zeros_like(used), torch.ones(())
    for slot in sorted(range(N), key=lambda i: float(used[i])):
        allocated[slot] = (1 - used[slot]) * before
        before = before * used[slot]
    return allocated


def link_loops(links: Tensor, precedence: Tensor, weights: Tensor) -> Tensor:
    after = torch.zeros_like(links)
    for i, j in product(range(N), range(N)):
        if i != j:
            after[i, j] = (1 - weights[i] - weights[j]) * links[i, j] + weights[i] * precedence[j]
    return after


def double(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def weighting(*shape: int) -> Tensor:
    return double(*shape).mul(3).softmax(-1)


def some_links() -> Tensor:
    random = double(B, N, N) / N
    return random - torch.diag_embed(random.diagonal(dim1=1, dim2=2))


class Case(NamedTuple):
    """A function, its equation for one lane, and arguments of several."""

    function: Callable[..., Tensor | tuple[Tensor, Tensor]]
    loops: Callable[..., Any]
    arguments: Callable[[], list[Tensor]]


CASES = [
    Case(addressing.content_weights, content_loops, lambda: [double(B, N, W) - 0.5, double(B, H, W) - 0.5, 9 * double(B, H)]),
    Case(addressing.read, lambda m, w: sum(w[:, [i]] * m[i] for i in range(N)), lambda: [double(B, N, W), weighting(B, H, N)]),
    Case(
        addressing.write,
        write_loops,
        lambda: [double(B, N, W), weighting(B, H, N), double(B, H, W), double(B, H, W) - 0.5],
    ),
    Case(
        addressing.interpolate,
        lambda c, w, g: torch.stack([g[h] * c[h] + (1 - g[h]) * w[h] for h in range(H)]),
        lambda: [weighting(B, H, N), weighting(B, H, N), double(B, H)],
    ),
    Case(addressing.shift, shift_loops, lambda: [weighting(B, H, N), weighting(B, H, S)]),
    Case(addressing.sharpen, sharpen_loops, lambda: [weighting(B, H, N), 1 + 7 * double(B, H)]),
    Case(
        addressing.retention,
        lambda f, w: torch.stack([1 - f[r] * w[r] for r in range(H)]).prod(0),
        lambda: [double(B, H), weighting(B, H, N)],
    ),
    Case(
        addressing.usage,
        lambda u, w, kept: (u + w - u * w) * kept,
        lambda: [double(B, N), weighting(B, N), double(B, N)],
    ),
    Case(allocation, allocation_loops, lambda: [double(B, N)]),
    Case(
        addressing.write_weights,
        lambda c, a, g_a, g_w: g_w * (g_a * a + (1 - g_a) * c),
        lambda: [weighting(B, N), weighting(B, N), double(B, 1), double(B, 1)],
    ),
    Case(addressing.link, link_loops, lambda: [some_links(), 0.9 * weighting(B, N), 0.8 * weighting(B, N)]),
    Case(
        addressing.precedence,
        lambda p, w: (1 - w.sum()) * p + w,
        lambda: [0.9 * weighting(B, N), 0.8 * weighting(B, N)],
    ),
    Case(
        addressing.follow,
        lambda links, w: (torch.stack([links.T @ row for row in w]), torch.stack([links @ row for row in w])),
        lambda: [some_links(), weighting(B, H, N)],
    ),
    Case(
        addressing.read_weights,
        lambda b, c, f, pi: torch.stack([pi[h, 0] * b[h] + pi[h, 1] * c[h] + pi[h, 2] * f[h] for h in range(H)]),
        lambda: [weighting(B, H, N), weighting(B, H, N), weighting(B, H, N), weighting(B, H, 3)],
    ),
]
every_function = pytest.mark.parametrize("case", CASES, ids=lambda case: case.function.__name__)


@every_function
def test_it_is_its_equation(case: Case) -> None:
    arguments = case.arguments()
    lanes = [case.loops(*lane) for lane in zip(*arguments, strict=True)]
    together, lanes = case.function(*arguments), [lane if isinstance(lane, tuple) else (lane,) for lane in lanes]
    results = together if isinstance(together, tuple) else (together,)
    for result, expected in zip(results, zip(*lanes, strict=True), strict=True):
        torch.testing.assert_close(result, torch.stack(expected), rtol=0, atol=1e-12)


@every_function
def test_its_gradient_agrees_with_finite_differences(case: Case) -> None:
    assert torch.autograd.gradcheck(case.function, [argument.requires_grad_() for argument in case.arguments()])


def test_every_function_of_the_module_is_in_the_table() -> None:
    functions = {name for name, value in vars(addressing).items() if getattr(value, "__module__", None) == addressing.__name__}
    # Tie breakers are constants, and no equation of a paper's.
    assert functions - {"tie_breakers"} == {case.function.__name__ for case in CASES}


def test_a_memory_whose_slots_are_its_last_axis_is_written_as_it_lies() -> None:
    memory, weights, erase, add = (tensor.float() for tensor in CASES[2].arguments())
    for heads in (1, H):
        rest = weights[:, :heads], erase[:, :heads], add[:, :heads]
        turned = addressing.write(memory.mT.contiguous().mT, *rest)
        torch.testing.assert_close(turned, addressing.write(memory, *rest))
        assert turned.mT.is_contiguous()
