"""How to see, remember and decide: torso (pixels or vectors to features), core (memory and attention over time), heads."""

from collections.abc import Callable
from functools import partial
from typing import Any

from saccade.policies.actor_critic import ActorCriticHead, ActorCriticOutput, ActorCriticPolicy
from saccade.policies.adam import FusedAdam
from saccade.policies.associative import AssociativeAttention
from saccade.policies.attending import AttendingState
from saccade.policies.controller import Dense
from saccade.policies.core import Core, CoreOutput, Decision, Reads, State
from saccade.policies.dnc import DNC
from saccade.policies.dnc_memory import DNCState, SparseLink
from saccade.policies.gaze import CellGaze, CentreGaze, GazePolicy, LearnedGaze, RandomGaze
from saccade.policies.glimpse import ContextNetwork, GlimpseNetwork, GlimpseState, RecurrentGlimpse
from saccade.policies.grid import ConvGrid, Elements
from saccade.policies.heads import DuelingHead, DuelingOutput, QHead
from saccade.policies.introspective import Introspective, IntrospectiveState
from saccade.policies.located import LocatedAttention
from saccade.policies.ntm import NTM, NTMState
from saccade.policies.policy import CorePolicy
from saccade.policies.ponder import Ponder
from saccade.policies.q_policy import QOutput, QPolicy
from saccade.policies.recurrent import GRU, LSTM, FeedForward, GRUState, LSTMState
from saccade.policies.relational import Relational
from saccade.policies.retina import Retina
from saccade.policies.soft_attention import HardAttention, SoftAttention
from saccade.policies.tap import Recording, TapKind, is_recording, recording, tap
from saccade.policies.torso import ConvTorso, MLPTorso, Pixels
from saccade.policies.transformer import GTrXL, TrXL, WindowState
from saccade.policies.twin import Twin, TwinState
from saccade.policies.universal import Universal
from saccade.policies.window import WindowAttention


def aliases(policy: Callable[..., CorePolicy]) -> dict[str, Any]:
    """SB3's and sb3-contrib's short names for a policy with one core or another."""
    cores: dict[str, type[Core]] = {
        "MlpPolicy": FeedForward,
        "CnnPolicy": FeedForward,
        "MultiInputPolicy": FeedForward,
        "LstmPolicy": LSTM,
        "MlpLstmPolicy": LSTM,
        "CnnLstmPolicy": LSTM,
        "MultiInputLstmPolicy": LSTM,
        "GruPolicy": GRU,
        "GlimpsePolicy": RecurrentGlimpse,
        "NtmPolicy": NTM,
        "DncPolicy": DNC,
        "TrxlPolicy": TrXL,
        "GtrxlPolicy": GTrXL,
        "UniversalPolicy": Universal,
        "SoftPolicy": SoftAttention,
        "HardPolicy": HardAttention,
        "WindowPolicy": WindowAttention,
        "LocatedPolicy": LocatedAttention,
        "AssociativePolicy": AssociativeAttention,
        "IntrospectivePolicy": Introspective,
    }
    named = {name: partial(policy, core_class=core) for name, core in cores.items()}
    return {"CorePolicy": policy, **named}  # CorePolicy: with core_class among the policy_kwargs


Q_POLICIES = aliases(QPolicy)
REPLAY_POLICIES = aliases(partial(QPolicy, optimizer_class=FusedAdam))
ACTOR_CRITIC_POLICIES = aliases(ActorCriticPolicy)

__all__ = [
    "ACTOR_CRITIC_POLICIES",
    "DNC",
    "GRU",
    "LSTM",
    "NTM",
    "Q_POLICIES",
    "REPLAY_POLICIES",
    "ActorCriticHead",
    "ActorCriticOutput",
    "ActorCriticPolicy",
    "AssociativeAttention",
    "AttendingState",
    "CellGaze",
    "CentreGaze",
    "ContextNetwork",
    "ConvGrid",
    "ConvTorso",
    "Core",
    "CoreOutput",
    "CorePolicy",
    "DNCState",
    "Decision",
    "Dense",
    "DuelingHead",
    "DuelingOutput",
    "Elements",
    "FeedForward",
    "FusedAdam",
    "GRUState",
    "GTrXL",
    "GazePolicy",
    "GlimpseNetwork",
    "GlimpseState",
    "HardAttention",
    "Introspective",
    "IntrospectiveState",
    "LSTMState",
    "LearnedGaze",
    "LocatedAttention",
    "MLPTorso",
    "NTMState",
    "Pixels",
    "Ponder",
    "QHead",
    "QOutput",
    "QPolicy",
    "RandomGaze",
    "Reads",
    "Recording",
    "RecurrentGlimpse",
    "Relational",
    "Retina",
    "SoftAttention",
    "SparseLink",
    "State",
    "TapKind",
    "TrXL",
    "Twin",
    "TwinState",
    "Universal",
    "WindowAttention",
    "WindowState",
    "is_recording",
    "recording",
    "tap",
]
