"""The table of cores: one row each, on which every check of tests/test_core_conformance.py runs. Sizes are distinct primes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from saccade.policies import (
    DNC,
    GRU,
    LSTM,
    NTM,
    AssociativeAttention,
    CellGaze,
    CentreGaze,
    ContextNetwork,
    Core,
    Dense,
    FeedForward,
    GTrXL,
    HardAttention,
    Introspective,
    LearnedGaze,
    LocatedAttention,
    Ponder,
    RandomGaze,
    RecurrentGlimpse,
    Retina,
    SoftAttention,
    TrXL,
    Universal,
    WindowAttention,
)
from saccade.policies.twin import Twin

VECTOR = (11,)
IMAGE = (3, 23, 29)
GRID, SEQUENCE = (7, 3, 5), (11, 3)
TINY_GRID, TINY_SEQUENCE = (3, 2, 3), (5, 2)


class CoreRow(NamedTuple):
    """One row of the table.

    Attributes:
        name: what the tests call it.
        make: the core from an input shape.
        input_shape: the shape of one input.
        tiny: the same kind of core, small enough for finite differences.
        tiny_shape: the shape of its input.
        beyond_features: parameters that the features do not depend on differentiably: REINFORCE trains these, by the
            log-probability and the entropy of the latent decisions.
    """

    name: str
    make: Callable[[tuple[int, ...]], Core]
    input_shape: tuple[int, ...]
    tiny: Callable[[tuple[int, ...]], Core]
    tiny_shape: tuple[int, ...]
    beyond_features: frozenset[str] = frozenset()

    def core(self) -> Core:
        """A core for ``input_shape``."""
        return self.make(self.input_shape)

    def tiny_core(self) -> Core:
        """A core for ``tiny_shape``, in float64."""
        return self.tiny(self.tiny_shape).double()


glimpse = partial(
    RecurrentGlimpse, hidden_size=13, glimpse_size=17, pathway_size=19, retina=partial(Retina, patch_size=5, scales=2)
)
tiny_glimpse = partial(
    RecurrentGlimpse, hidden_size=3, glimpse_size=5, pathway_size=7, retina=partial(Retina, patch_size=2, scales=2)
)
TINY_IMAGE = (1, 5, 7)
GAZE_MEAN = frozenset({"gaze_policy.mean.weight", "gaze_policy.mean.bias"})


CELL_SCORES = frozenset({"gaze_policy.scores.weight", "gaze_policy.scores.bias"})


def glimpse_row(name: str, beyond_features: frozenset[str] = frozenset(), **arguments: Any) -> CoreRow:
    """A row for the recurrent glimpse with these arguments."""
    make, tiny = partial(glimpse, **arguments), partial(tiny_glimpse, **arguments)  # type: ignore[arg-type]
    return CoreRow(name, make, IMAGE, tiny, TINY_IMAGE, beyond_features)


ntm = partial(NTM, slots=17, width=7)
tiny_ntm = partial(NTM, slots=5, width=2)


def ntm_row(name: str, make: Callable[..., Core], **arguments: int) -> CoreRow:
    """A row for the NTM with this kind of controller and these arguments."""
    big, tiny = partial(make, hidden_size=13), partial(make, hidden_size=3)
    return CoreRow(
        name, partial(ntm, controller=big, **arguments), VECTOR, partial(tiny_ntm, controller=tiny, **arguments), (3,)
    )


dnc = partial(DNC, slots=7, width=5, read_heads=3)
tiny_dnc = partial(DNC, slots=3, width=2, read_heads=2)


def dnc_row(name: str, make: Callable[..., Core], **arguments: int) -> CoreRow:
    """A row for the DNC with this kind of controller and these arguments."""
    big, tiny = partial(make, hidden_size=13), partial(make, hidden_size=3)
    return CoreRow(
        name, partial(dnc, controller=big, **arguments), VECTOR, partial(tiny_dnc, controller=tiny, **arguments), (3,)
    )


def transformer_row(name: str, make: Callable[..., Core], **arguments: int) -> CoreRow:
    """A row for this kind of Transformer, with a window shorter than the sequences, and these arguments."""
    big = partial(make, hidden_size=15, n_heads=3, n_layers=2, window=4, feedforward_size=19, **arguments)
    tiny = partial(make, hidden_size=4, n_heads=2, n_layers=2, window=2, feedforward_size=5, **arguments)
    return CoreRow(name, big, VECTOR, tiny, (3,))


universal = partial(Universal, hidden_size=15, n_heads=3, max_steps=3, window=4, feedforward_size=19)
tiny_universal = partial(Universal, hidden_size=4, n_heads=2, max_steps=3, window=2, feedforward_size=5)
# Of a halting unit that starts shallow, some steps halt before others.
SHALLOW = {"halting_bias": 0.3}


def ponder_row(name: str, make: Callable[..., Core], tiny: Callable[..., Core]) -> CoreRow:
    """A row for this core, run several times a step."""
    return CoreRow(name, partial(Ponder, core=make, **SHALLOW), VECTOR, partial(Ponder, core=tiny, **SHALLOW), (3,))


def attending_row(name: str, make: Callable[..., Core], shape: tuple[int, ...], tiny: tuple[int, ...], **sizes: int) -> CoreRow:
    """A row for a core that attends with these sizes, of which the tiny one has 1 or 2."""
    small = {key: min(size, 2) for key, size in sizes.items()}
    return CoreRow(name, partial(make, hidden_size=13, **sizes), shape, partial(make, hidden_size=3, **small), tiny)


def of_ntm(input_shape: Sequence[int], hidden_size: int) -> Core:
    """An NTM as the memory of another core."""
    return NTM(input_shape, slots=5, width=3, controller=partial(Dense, hidden_size=hidden_size))


soft = {"n_heads": 3, "key_size": 5, "value_size": 7, "basis": 1, "query_size": 11}
associative = {"key_size": 5, "value_size": 7}
coarse = partial(ContextNetwork, context_size=5, pixels=3)

ROWS = [
    CoreRow("feed forward", FeedForward, VECTOR, FeedForward, (3,)),
    CoreRow("lstm", partial(LSTM, hidden_size=13), VECTOR, partial(LSTM, hidden_size=2), (3,)),
    CoreRow(
        "lstm, two layers",
        partial(LSTM, hidden_size=13, n_layers=2),
        VECTOR,
        partial(LSTM, hidden_size=2, n_layers=2),
        (3,),
    ),
    CoreRow("gru", partial(GRU, hidden_size=13), VECTOR, partial(GRU, hidden_size=2), (3,)),
    CoreRow("gru, two layers", partial(GRU, hidden_size=13, n_layers=2), VECTOR, partial(GRU, hidden_size=2, n_layers=2), (3,)),
    CoreRow(
        "twin",
        partial(Twin, core=partial(LSTM, hidden_size=13)),
        VECTOR,
        partial(Twin, core=partial(LSTM, hidden_size=2)),
        (3,),
    ),
    CoreRow("dense", partial(Dense, hidden_size=13), VECTOR, partial(Dense, hidden_size=2), (3,)),
    ntm_row("ntm", LSTM),
    ntm_row("ntm, heads", LSTM, read_heads=2, write_heads=3, max_shift=2, learn_memory=True),
    ntm_row("ntm, dense", Dense),
    ntm_row("ntm, gru", GRU),
    dnc_row("dnc", LSTM),
    dnc_row("dnc, sparse links", LSTM, link_slots=2),
    dnc_row("dnc, dense", Dense),
    dnc_row("dnc, gru", GRU),
    transformer_row("trxl", TrXL),
    transformer_row("trxl, shared values", TrXL, shared_values=True),
    transformer_row("trxl, a largest distance", TrXL, max_distance=2),
    transformer_row("gtrxl", GTrXL),
    transformer_row("gtrxl, shared values", GTrXL, shared_values=True),
    CoreRow("universal", partial(universal, **SHALLOW), VECTOR, partial(tiny_universal, **SHALLOW), (3,)),
    CoreRow(
        "universal, without halting", partial(universal, ponder=False), VECTOR, partial(tiny_universal, ponder=False), (3,)
    ),
    ponder_row("ponder, lstm", partial(LSTM, hidden_size=13), partial(LSTM, hidden_size=2)),
    ponder_row(
        "ponder, ntm",
        partial(ntm, controller=partial(Dense, hidden_size=13)),
        partial(tiny_ntm, controller=partial(Dense, hidden_size=3)),
    ),
    glimpse_row("glimpse", GAZE_MEAN),
    glimpse_row("glimpse, gru", GAZE_MEAN, memory=GRU),
    glimpse_row("glimpse, sigma learned", GAZE_MEAN | {"gaze_policy.log_sigma"}, gaze=partial(LearnedGaze, learn_sigma=True)),
    glimpse_row("glimpse, wide gaze", GAZE_MEAN, gaze=partial(LearnedGaze, sigma=0.5)),
    glimpse_row("glimpse, cells", CELL_SCORES, gaze=partial(CellGaze, rows=3, columns=2)),
    glimpse_row("glimpse, three looks", GAZE_MEAN, n_glimpses=3),
    glimpse_row("glimpse, context", GAZE_MEAN, context=coarse),
    glimpse_row("glimpse, context, two looks", GAZE_MEAN, n_glimpses=2, context=coarse),
    glimpse_row("glimpse, random gaze", gaze=RandomGaze),
    glimpse_row("glimpse, centre gaze", gaze=CentreGaze),
    attending_row("soft", SoftAttention, GRID, TINY_GRID, **soft),
    attending_row("soft, gru", partial(SoftAttention, memory=GRU), GRID, TINY_GRID, **soft),
    attending_row("hard", HardAttention, GRID, TINY_GRID, **soft),
    attending_row("associative, grid", AssociativeAttention, GRID, TINY_GRID, **associative),
    attending_row("associative, sequence", AssociativeAttention, SEQUENCE, TINY_SEQUENCE, **associative),
    attending_row("associative, dot", partial(AssociativeAttention, score="dot"), GRID, TINY_GRID, **associative),
    attending_row("located", LocatedAttention, SEQUENCE, TINY_SEQUENCE, mixtures=3),
    attending_row("window", WindowAttention, IMAGE, TINY_IMAGE, filters=3, glimpse_size=17, pathway_size=19),
    attending_row("introspective", Introspective, VECTOR, (3,), n_heads=3, window=4),
    attending_row("introspective, ntm", partial(Introspective, memory=of_ntm), VECTOR, (3,), n_heads=1, window=9),
]
