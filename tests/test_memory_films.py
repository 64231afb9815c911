"""Which agents get a picture of their memory while they train, and what the cores with a memory tap for it."""

import io
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import conformance as law
from broken_cores import Leaky
from examples import example
from memory_pictures import places
from saccade.agents import PPO
from saccade.envs import Catch, ProbeMemory, TaskVecEnv
from saccade.policies import DNC, LSTM, NTM, ActorCriticPolicy, TapKind, recording, tap
from saccade.policies.twin import Twin
from saccade.saliency import SaliencyCallback, memory_map, play_episode
from saccade.saliency.memory_maps import at_the_end, gates, memory_records, over_time
from saccade.saliency.sheet import seen

SMALL = partial(LSTM, hidden_size=5)
MEMORIES = [
    partial(NTM, slots=11, width=3, read_heads=2, controller=SMALL),
    partial(DNC, slots=7, width=5, read_heads=3, controller=SMALL),
    partial(Twin, core=partial(NTM, slots=11, width=3, controller=SMALL)),
]


def probe(lanes: int = 1) -> TaskVecEnv:
    return TaskVecEnv(ProbeMemory(lanes, seed=0))


def make_agent(core: Any, env: Any, log: Path | None = None) -> PPO:
    kwargs = {"core_class": core.func, "core_kwargs": core.keywords}
    return PPO(
        "CorePolicy",
        env,
        n_steps=4,
        batch_size=16,
        n_epochs=1,
        policy_kwargs=kwargs,
        tensorboard_log=log and str(log),
        seed=0,
        device="cpu",
    )


# --- While training -----------------------------------------------------------------------------------------------------------


def test_an_agent_with_a_memory_gets_a_picture_in_tensorboard_and_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    make_agent(MEMORIES[0], probe(4), tmp_path).learn(32, callback=SaliencyCallback(probe, every=16, folder=folder))
    events = EventAccumulator(str(tmp_path / "run_1"), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {f"saliency/{name}" for name in ("film", "film_strip", "memory", "time")}
    images = events.Images("saliency/memory")
    assert [image.step for image in images] == [0, 16, 32]
    for event in images:
        with Image.open(io.BytesIO(event.encoded_image_string)) as image:
            assert image.format == "PNG" and image.size == (event.width, event.height)
    assert (folder / "memory.png").read_bytes() == images[-1].encoded_image_string
    assert images[0].encoded_image_string != images[-1].encoded_image_string


def test_an_agent_without_one_gets_none(tmp_path: Path) -> None:
    make_agent(SMALL, probe(4)).learn(16, callback=SaliencyCallback(probe, every=16, folder=tmp_path))
    assert (tmp_path / "film.gif").exists() and not (tmp_path / "memory.png").exists()


def test_no_frames_are_needed(tmp_path: Path) -> None:
    def make() -> TaskVecEnv:
        return TaskVecEnv(ProbeMemory(1), render_mode=None)

    make_agent(MEMORIES[0], probe(4)).learn(16, callback=SaliencyCallback(make, every=16, folder=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"memory.png", "time.png"}


@pytest.mark.parametrize("core", MEMORIES, ids=["ntm", "dnc", "twin"])
def test_training_is_the_same_to_the_last_bit(core: Any) -> None:
    weights = []
    for callback in (None, SaliencyCallback(probe, every=1)):
        agent = make_agent(core, probe(4))
        agent.learn(32, callback=callback)
        weights.append(agent.policy.state_dict())
    assert all(torch.equal(parameter, weights[1][name]) for name, parameter in weights[0].items())


def test_a_memory_that_is_not_finite_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Spoilt(NTM):
        def step(self, *arguments: Any) -> Any:
            output = super().step(*arguments)
            tap("spoilt", output.features[:, :3] * np.nan, TapKind.MEMORY)
            return output

    agent = make_agent(partial(Spoilt, slots=11, width=3, controller=SMALL), probe(4))
    agent.learn(32, callback=SaliencyCallback(probe, every=1, folder=tmp_path))
    assert agent.num_timesteps == 32
    messages = [record.message for record in caplog.records if "saliency" in record.name]
    assert messages == ["no saliency film: FilmError: the tap spoilt is not finite at step 0"]
    assert caplog.records[0].levelno == logging.WARNING


# --- The taps of cores --------------------------------------------------------------------------------------------------------


def played(core: Any, env: TaskVecEnv) -> Any:
    spaces = env.observation_space, env.action_space
    policy = ActorCriticPolicy(*spaces, lambda _: 1e-3, core_class=core.func, core_kwargs=core.keywords)
    return play_episode(policy, env)


def heads(name: str, count: int, what: str = "head") -> list[str]:
    return [f"{name}, {what} {i}" for i in range(count)]


@pytest.mark.parametrize(
    ("core", "titles"),
    [
        (MEMORIES[0], [*heads("write_weights", 1), *heads("read_weights", 2), *heads("content_weights", 2, "read")]),
        (MEMORIES[0], [*heads("content_weights", 1, "write"), "memory, at the end", "interpolation_gate", "shift_kernel"]),
        (MEMORIES[1], ["write_weights", *heads("read_weights", 3), "usage", "link, at the end: row written after column"]),
        (MEMORIES[1], ["memory, at the end", "write_gate", "allocation_gate", "read_modes"]),
        (MEMORIES[2], [*heads("actor_write_weights", 1), *heads("critic_read_weights", 1), "critic_memory, at the end"]),
    ],
)
def test_every_panel_of_a_memory_is_in_its_picture(core: Any, titles: list[str]) -> None:
    episode = played(core, probe())
    records = memory_records(episode)
    panels = [*over_time(records), *at_the_end(records), *gates(records)]
    assert set(titles) <= {panel.title for panel in panels}
    picture = memory_map(episode)
    assert all(any(places(picture, panel.plot)) for panel in panels)


def test_images_are_a_strip_of_frames() -> None:
    episode = played(MEMORIES[0], TaskVecEnv(Catch(1, height=7, width=5, seed=0)))
    (panel,) = seen(episode)
    assert panel.title == "seen, every 3 steps" and any(places(memory_map(episode), panel.plot))


def test_an_ntm_taps_what_its_memory_holds_and_the_gates_of_every_head() -> None:
    core = NTM((11,), slots=17, width=7, read_heads=2, write_heads=3, max_shift=2)
    call = example(core)
    with recording() as taps:
        state = core(*call).state
    torch.testing.assert_close(taps.stacked("memory")[-1], state.memory.mT)
    assert taps.stacked("memory").shape == (7, 5, 17, 7)
    torch.testing.assert_close(torch.cat([taps.stacked("read_weights"), taps.stacked("write_weights")], 2)[-1], state.weights)
    assert taps.stacked("interpolation_gate").shape == (7, 5, 5)
    kernels = taps.stacked("shift_kernel")
    torch.testing.assert_close(kernels.sum(-1), torch.ones(7, 5, 5))
    assert kernels.shape == (7, 5, 5, 5)
    names = ["read 0", "read 1", "write 0", "write 1", "write 2"]
    assert taps.notes["shift_kernel"]["names"] == (names, ["-2", "-1", "0", "+1", "+2"])
    assert taps.notes["interpolation_gate"]["names"] == (names,)


def test_the_gates_of_an_ntm_are_those_of_its_equations() -> None:
    """Weights computed again from content, gates and kernels alone, with no sharpening, are where the head is."""
    core = NTM((11,), slots=17, width=7)
    call = example(core, steps=1)
    call.episode_starts[:] = False
    with recording() as taps:
        core(*call)
    content, gate, kernel = (taps.stacked(name)[0] for name in ("content_weights", "interpolation_gate", "shift_kernel"))
    mixed = gate[..., None] * content + (1 - gate[..., None]) * call.state.weights
    moved = sum(kernel[..., k, None] * mixed.roll(k - 1, -1) for k in range(3))
    weights = torch.cat([taps.stacked("read_weights"), taps.stacked("write_weights")], 2)[0]
    clean = (moved > 0.05) & (moved.roll(1, -1) > 0.05)  # of two neighbours the stronger stays the stronger
    assert clean.any()
    assert (((moved > moved.roll(1, -1)) == (weights > weights.roll(1, -1))) | ~clean).all()


# --- The law of the kinds -----------------------------------------------------------------------------------------------------


class Taps(Leaky):
    """Taps one thing a step, the same for all lanes."""

    def __init__(self, kind: TapKind, value: torch.Tensor) -> None:
        super().__init__((11,))
        self.kind, self.value = kind, value

    def step(self, inputs: torch.Tensor, *how: Any) -> Any:
        tap("it", self.value.expand(len(inputs), *self.value.shape), self.kind)
        return super().step(inputs, *how)


HALF = torch.full((3,), 0.5)
LINK = 0.5 * (1 - torch.eye(3))


@pytest.mark.parametrize(
    ("kind", "lawful", "broken"),
    [
        (TapKind.MEMORY, [HALF / 2, 0 * HALF, torch.eye(3)], [HALF, -HALF / 5]),
        (TapKind.TIME, [torch.eye(3)], [HALF / 2]),
        (TapKind.USAGE, [HALF, torch.ones(3)], [HALF + 0.6, HALF - 0.6, torch.ones(2, 3)]),
        (TapKind.GATE, [HALF, torch.tensor(1.0), torch.ones(2, 3)], [HALF + 0.6, torch.tensor(-0.1), HALF * torch.nan]),
        (TapKind.LINK, [LINK], [LINK + 0.1, LINK * 3, -LINK, LINK[:2], LINK[None]]),
        (TapKind.CONTENT, [torch.randn(3, 2)], [HALF, torch.randn(1, 3, 2)]),
        (TapKind.GAZE, [HALF[:2]], [HALF, HALF[:2] * 3]),
    ],
)
def test_a_tap_has_to_be_what_its_kind_says(kind: TapKind, lawful: list[torch.Tensor], broken: list[torch.Tensor]) -> None:
    for value in lawful:
        law.check_taps(Taps(kind, value))
    for value in broken:
        with pytest.raises(AssertionError, match="tap it"):
            law.check_taps(Taps(kind, value))
