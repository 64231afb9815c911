"""How to see, remember and decide: torso (pixels or vectors to features), core (memory and attention over time), heads."""

from functools import partial
from typing import Any

from saccade.policies.core import Core, CoreOutput, Decision, State
from saccade.policies.gaze import CentreGaze, GazePolicy, LearnedGaze, RandomGaze
from saccade.policies.glimpse import GlimpseNetwork, GlimpseState, RecurrentGlimpse
from saccade.policies.heads import DuelingHead, DuelingOutput
from saccade.policies.policy import CorePolicy, QOutput, QPolicy
from saccade.policies.recurrent import GRU, LSTM, FeedForward, GRUState, LSTMState
from saccade.policies.retina import Retina
from saccade.policies.tap import Recording, TapKind, is_recording, recording, tap
from saccade.policies.torso import ConvTorso, MLPTorso, Pixels

# SB3's short names, for agents that learn Q values.
Q_POLICIES: dict[str, Any] = {
    "CorePolicy": QPolicy,  # with core_class among the policy_kwargs
    "MultiInputPolicy": partial(QPolicy, core_class=FeedForward),
    "MlpPolicy": partial(QPolicy, core_class=FeedForward),
    "LstmPolicy": partial(QPolicy, core_class=LSTM),
    "GruPolicy": partial(QPolicy, core_class=GRU),
    "GlimpsePolicy": partial(QPolicy, core_class=RecurrentGlimpse),
}

__all__ = [
    "GRU",
    "LSTM",
    "Q_POLICIES",
    "CentreGaze",
    "ConvTorso",
    "Core",
    "CoreOutput",
    "CorePolicy",
    "Decision",
    "DuelingHead",
    "DuelingOutput",
    "FeedForward",
    "GRUState",
    "GazePolicy",
    "GlimpseNetwork",
    "GlimpseState",
    "LSTMState",
    "LearnedGaze",
    "MLPTorso",
    "Pixels",
    "QOutput",
    "QPolicy",
    "RandomGaze",
    "Recording",
    "RecurrentGlimpse",
    "Retina",
    "State",
    "TapKind",
    "is_recording",
    "recording",
    "tap",
]
