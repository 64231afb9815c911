"""What the boxes of a film say: that nothing outside them counts, only where that is so."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from saccade.agents import PQN
from saccade.envs import Catch, TaskVecEnv
from saccade.policies import HardAttention, RecurrentGlimpse, Retina
from saccade.saliency.draw import field_boxes
from saccade.saliency.episode import play_episode
from saccade.saliency.film import boxes_are_all, gaze_records
from saccade.saliency.jacobian import episode_jacobian

SMALL = {"retina": partial(Retina, patch_size=3, scales=1)}


@pytest.mark.parametrize(
    ("core", "sizes", "alone"),
    [
        (RecurrentGlimpse, SMALL, True),
        (RecurrentGlimpse, SMALL | {"n_glimpses": 2}, True),
        (HardAttention, {"n_heads": 2}, False),
    ],
    ids=["glimpse", "two looks", "hard"],
)
def test_a_film_says_that_nothing_outside_the_boxes_counts_only_where_it_is_so(core: Any, sizes: Any, alone: bool) -> None:
    """Convolutions see beyond a place of their grid."""
    env = TaskVecEnv(Catch(1, seed=0))
    agent = PQN("CorePolicy", env, policy_kwargs={"core_class": core, "core_kwargs": sizes}, seed=0, device="cpu")
    episode = play_episode(agent.policy, env, max_steps=3)
    value = episode_jacobian(agent.policy, episode)["value"]
    assert not isinstance(value, dict)
    counts = np.abs(np.asarray(value)).max(axis=1) > 0
    inside = np.zeros(counts.shape, np.bool_)
    gazes = gaze_records(episode)
    assert len(gazes) == sizes.get("n_glimpses", 1) * sizes.get("n_heads", 1)
    for record in gazes:
        fields: Any = record.notes["fields"]
        for t, place in enumerate(record.values):
            for left, top, right, bottom in field_boxes(place, fields, 24, 24).clip(min=0):
                inside[t, top:bottom, left:right] = True
    assert counts.any()
    assert bool((counts & ~inside).any()) is not alone
    assert boxes_are_all(episode) is alone
