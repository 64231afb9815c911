"""What every sequence task keeps to: its lessons are well formed, and acting in it is graded as its lessons are."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from saccade.envs import TASKS, Lesson, SequenceTask, TaskEnv, TaskVecEnv
from saccade.envs.sequence_task import GRADED
from saccade.envs.task import action_bounds

SEQUENCE_TASKS = {env_id: task for env_id, task in TASKS.items() if issubclass(task, SequenceTask)}
EveryTask = pytest.mark.parametrize("kind", SEQUENCE_TASKS.values(), ids=SEQUENCE_TASKS.keys())
LANES = 7


class Echo(SequenceTask):
    """Shows a whole number, and asks for it in the next step, ``times`` times; keeps the grades it gets."""

    def __init__(self, num_envs: int, action_space: Any, times: int = 3, seed: int | None = 0) -> None:
        super().__init__(num_envs, 2 * times, spaces.Box(0, 9, (1,), np.float32), action_space, seed)
        self.times = times
        self.grades: list[float] = []
        self.reset(np.ones(num_envs, np.bool_))

    def generate(self, episodes: int) -> Lesson:
        first, last = action_bounds(self.action_space)
        targets = self.rng.integers(first, last, (2 * self.times, episodes, *first.shape), endpoint=True)
        answers = np.zeros((2 * self.times, episodes), np.bool_)
        answers[1::2] = True
        targets[::2] = 0
        inputs = np.zeros((2 * self.times, episodes, 1), np.float32)
        inputs[::2, :, 0] = targets[1::2].reshape(self.times, episodes, -1)[..., 0]
        return Lesson(inputs, targets, answers, np.full(episodes, 2 * self.times))

    def grade(self, right: float) -> None:
        self.grades.append(right)


def test_the_ntms_tasks_are_among_them() -> None:
    names = {f"saccade/{name}-v0" for name in ("Copy", "RepeatCopy", "AssociativeRecall", "DynamicNGrams", "PrioritySort")}
    assert names <= SEQUENCE_TASKS.keys()


@EveryTask
def test_a_lesson_is_well_formed(kind: type[SequenceTask]) -> None:
    task = kind(num_envs=LANES, seed=0)
    lesson = task.generate(LANES)
    steps = len(lesson.inputs)
    assert lesson.inputs.shape == (steps, LANES, *task.observation_space.shape)
    assert lesson.inputs.dtype == np.float32
    assert lesson.targets.shape == (steps, LANES, *task.action_space.shape)
    assert lesson.answers.shape == (steps, LANES)
    assert lesson.lengths.shape == (LANES,)
    assert steps == lesson.lengths.max() <= task.horizon
    assert all(task.observation_space.contains(seen) for seen in lesson.inputs.reshape(-1, *task.observation_space.shape))
    padding = np.arange(steps)[:, None] >= lesson.lengths
    assert not lesson.inputs[padding].any()
    assert not lesson.answers[padding].any()
    assert lesson.answers.any(axis=0).all(), "an episode asks nothing"
    assert not lesson.targets[~lesson.answers].any()
    for actions in lesson.targets:
        task.check_actions(actions)


@EveryTask
def test_the_right_answers_bring_exactly_one(kind: type[SequenceTask]) -> None:
    venv = TaskVecEnv(kind(num_envs=LANES, seed=0))
    infos = play(venv, lesson_of(kind))
    for lane, length in enumerate(lesson_of(kind).lengths):
        assert infos[lane]["episode"]["r"] == pytest.approx(1, abs=2e-6)
        assert infos[lane]["episode"]["l"] == length
        assert infos[lane]["is_success"] is True
        assert infos[lane]["measures"]["errors"] == 0.0
        assert infos[lane]["TimeLimit.truncated"] is False


@EveryTask
def test_any_answers_are_graded_as_by_hand(kind: type[SequenceTask]) -> None:
    venv = TaskVecEnv(kind(num_envs=LANES, seed=0))
    lesson = lesson_of(kind)
    first, last = action_bounds(venv.task.action_space)
    rng = np.random.default_rng(1)
    actions = np.where(rng.random(lesson.targets.shape) < 0.9, lesson.targets, rng.integers(first, last, lesson.targets.shape))
    infos = play(venv, lesson, actions)
    for lane in range(LANES):
        steps = np.flatnonzero(lesson.answers[:, lane])
        wrong = [int((np.atleast_1d(actions[t, lane]) != np.atleast_1d(lesson.targets[t, lane])).sum()) for t in steps]
        assert infos[lane]["measures"]["errors"] == sum(wrong)
        assert infos[lane]["episode"]["r"] == pytest.approx(wrong.count(0) / len(steps), abs=2e-6)
        assert infos[lane]["is_success"] is (sum(wrong) == 0)


def lesson_of(kind: type[SequenceTask]) -> Lesson:
    """The first episodes of a task whose seed is 3."""
    task = kind(num_envs=LANES)
    task.seed(3)
    return task.generate(LANES)


def play(venv: TaskVecEnv, lesson: Lesson, actions: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Act in the lesson's episodes, see that they are shown as they are, and return each lane's last info."""
    venv.seed(3)
    seen = venv.reset()
    found: list[dict[str, Any]] = [{} for _ in range(LANES)]
    for t in range(len(lesson.inputs)):
        running = t < lesson.lengths
        assert (seen == lesson.inputs[t])[running].all()
        asked = lesson.targets[t] if actions is None else actions[t]
        seen, rewards, dones, infos = venv.step(asked.astype(np.int64))
        assert not rewards[running & ~lesson.answers[t]].any()
        assert (dones == (t + 1 == lesson.lengths))[running].all()
        for lane in np.flatnonzero(running & dones):
            found[lane] = infos[lane]
    return found


@pytest.mark.parametrize(
    ("action_space", "parts"), [(spaces.Discrete(5), 1), (spaces.MultiBinary(4), 4), (spaces.MultiDiscrete([3, 5]), 2)]
)
def test_every_kind_of_answer(action_space: Any, parts: int) -> None:
    venv = TaskVecEnv(Echo(2, action_space))
    venv.reset()
    wrong = np.array([0, 1, 1])  # in lane 0; lane 1 is always right
    for t in range(6):
        actions = venv.task.targets[:, t].copy()  # type: ignore[attr-defined]
        if t % 2 and wrong[t // 2]:
            first, last = action_bounds(action_space)
            actions[0] = np.where(actions[0] == first, last, first)
        _, rewards, dones, infos = venv.step(actions)
        asked = t % 2
        assert rewards.tolist() == pytest.approx([asked * (1 - wrong[t // 2]) / 3, asked / 3])
    assert dones.all()
    assert [info["measures"] for info in infos] == [{"errors": 2.0 * parts}, {"errors": 0.0}]
    assert [info["is_success"] for info in infos] == [False, True]
    assert infos[0]["episode"]["r"] == pytest.approx(1 / 3)


def test_one_lane_measures_too() -> None:
    env = TaskEnv(Echo, action_space=spaces.MultiBinary(3))
    env.reset(seed=0)
    for _ in range(5):
        assert env.step(np.zeros(3, np.int8))[4] == {}
    info = env.step(np.zeros(3, np.int8))[4]
    assert info == {"is_success": False, "measures": {"errors": float(env.task.targets.sum())}}  # type: ignore[attr-defined]
    assert info["measures"]["errors"] > 0


def test_nothing_is_shown_or_asked_after_the_end() -> None:
    task = Echo(2, spaces.Discrete(9))
    for _ in range(6):
        step = task.step(np.zeros(2, np.int64))
    assert step.terminated.all()
    assert (task.observe() == 0).all()
    before = task.errors.copy()
    again = task.step(np.zeros(2, np.int64))  # whoever steps on gets no more rewards or errors where nothing was asked
    assert again.terminated.all()
    assert (task.errors - before <= 1).all()


def test_a_new_episode_leaves_the_others_alone() -> None:
    task = Echo(3, spaces.Discrete(9))
    task.step(np.zeros(3, np.int64))
    before = {name: getattr(task, name).copy() for name in task.lane_arrays}
    task.reset(np.array([False, True, False]))
    for name, array in before.items():
        assert (getattr(task, name)[[0, 2]] == array[[0, 2]]).all()
    assert task.time.tolist() == [1, 0, 1]
    assert (task.targets[1] != before["targets"][1]).any()
    state = task.rng.bit_generator.state
    task.reset(np.zeros(3, np.bool_))
    assert task.rng.bit_generator.state == state, "an episode was drawn for nobody"


def test_a_shorter_episode_leaves_nothing_of_the_longer_one_before() -> None:
    task = SEQUENCE_TASKS["saccade/Copy-v0"](1, max_length=9, seed=0)  # type: ignore[call-arg]
    for _ in range(50):
        task.reset(np.ones(1, np.bool_))
        length = int(task.lengths[0])
        assert task.answers.sum() == task.asked[0] == length // 2
        assert not task.inputs[0, length:].any()
        assert not task.targets[0, length:].any()


def test_it_grades_itself_by_its_own_episodes() -> None:
    lanes = 5
    venv = TaskVecEnv(Echo(lanes, spaces.Discrete(9), times=1))
    task: Any = venv.task
    venv.reset()
    ended = right = 0
    grades = []
    for round_ in range(30):
        venv.step(np.zeros(lanes, np.int64))
        actions = task.targets[:, 1].copy()
        wrong = np.arange(lanes) < round_ % 3
        actions[wrong] = (actions[wrong] + 1) % 9
        venv.step(actions)
        ended, right = ended + lanes, right + lanes - round_ % 3
        if ended >= GRADED:
            grades.append(right / ended)
            ended = right = 0
        assert task.grades == pytest.approx(grades)
    assert len(set(grades)) > 1


def test_a_saved_state_holds_the_episodes_that_are_yet_to_be_graded() -> None:
    task, other = Echo(GRADED - 1, spaces.Discrete(2), times=1), Echo(GRADED - 1, spaces.Discrete(2), times=1)
    for t in range(2):
        task.step(task.targets[:, t])
    assert task.grades == []
    task.reset(np.ones(GRADED - 1, np.bool_))
    other.set_state(task.get_state())
    for t in range(2):
        other.step(1 - other.targets[:, t])
    assert other.grades == [0.5]


@pytest.mark.parametrize(
    ("action_space", "actions", "message"),
    [
        (spaces.MultiBinary(3), np.zeros((2, 2)), "2 rows of 3 whole numbers, one row for each lane, not an array of shape"),
        (spaces.MultiBinary(3), np.zeros(2, np.int64), r"not an array of shape \(2,\) and type int64"),
        (spaces.MultiBinary(3), np.zeros((2, 3)), "type float64"),
        (spaces.MultiBinary(3), [[0, 0, 0], [0, 2, 0]], "lane 1: number 1 of the action, 2 is not one of 0 to 1"),
        (spaces.MultiBinary(3), [[0, 0, -1], [0, 2, 0]], "lane 0: number 2 of the action, -1 is not one of 0 to 1"),
        (spaces.MultiDiscrete([3, 5]), [[2, 5], [0, 0]], "lane 0: number 1 of the action, 5 is not one of 0 to 4"),
        (
            spaces.MultiDiscrete([3, 5], start=[1, 2]),
            [[1, 2], [0, 3]],
            "lane 1: number 0 of the action, 0 is not one of 1 to 3",
        ),
        (spaces.Discrete(3), [0, 3], "lane 1: action 3 is not one of 0 to 2"),
    ],
)
def test_bad_answers_are_named(action_space: Any, actions: Any, message: str) -> None:
    venv = TaskVecEnv(Echo(2, action_space))
    venv.reset()
    with pytest.raises(ValueError, match=message):
        venv.step(np.array(actions))
    assert (venv.task.time == 0).all()  # type: ignore[attr-defined]


def test_answers_within_their_bounds_are_taken() -> None:
    for space in (spaces.MultiBinary(3), spaces.MultiDiscrete([3, 5], start=[1, 2]), spaces.Discrete(3, start=-1)):
        task = Echo(2, space)
        for bound in action_bounds(space):
            actions = np.stack([bound, bound])
            assert (task.check_actions(actions) == actions).all()
        env = TaskEnv(Echo, action_space=space)
        env.reset(seed=0)
        space.seed(0)
        for _ in range(6):
            env.step(space.sample())


@EveryTask
def test_a_vector_is_drawn_as_cells_each_by_its_own_bounds(kind: type[SequenceTask]) -> None:
    task = kind(num_envs=3, seed=0)
    pictures = task.render()
    assert pictures.dtype == np.uint8
    space, cells = task.observation_space, task.observe()
    width = pictures.shape[2] // cells.shape[1]
    assert pictures.shape[2] == width * cells.shape[1] >= 96
    assert pictures.shape[1] >= 32
    shade = ((cells - space.low) / (space.high - space.low) * 255).round()
    assert (pictures[:, 0, width // 2 :: width, 0] == shade).all()
    assert (pictures == pictures[:, :1, :, :1]).all()


def test_a_horizon_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon is 0; it must be a whole number, 1 or more"):
        Echo(1, spaces.Discrete(2), times=0)


def test_gymnasium_makes_one_lane() -> None:
    env = gym.make("saccade/Copy-v0", max_length=2, bits=3)
    assert env.observation_space.shape == (4,)
    assert env.action_space == spaces.MultiBinary(3)
