"""Lessons of the graph tasks, read back into labels."""

from typing import Any

import numpy as np

from saccade.envs.graph_episodes import GraphTask


class Episode:
    """One episode of a lesson, as text: what is told, asked and answered, the graph apart from the rest."""

    def __init__(self, task: GraphTask, lesson: Any, number: int) -> None:
        length = int(lesson.lengths[number])
        self.padding = [array[length:, number] for array in lesson[:3]]
        inputs, targets = lesson.inputs[:length, number], lesson.targets[:length, number]
        one_hot = inputs[:, :-2].reshape(length, 3, task.digits, task.base)
        self.told = [tuple(self._label(task, label) for label in triple) for triple in one_hot]
        places = [task.base**place for place in reversed(range(task.digits))]
        rows = targets.reshape(length, 3, task.digits)
        self.answers = [tuple(int(label @ places) for label in triple) for triple in rows]
        self.turns, self.asked = inputs[:, -2].tolist(), inputs[:, -1].tolist()
        assert self.asked == lesson.answers[:length, number].tolist()
        self.edges = self.turns.index(1)
        self.triples: list[Any] = self.told[: self.edges]

    @staticmethod
    def _label(task: GraphTask, one_hot: np.ndarray) -> int | None:
        """The label, or none where every digit is blank; half a label is an error."""
        if not one_hot.any():
            return None
        assert (one_hot.sum(axis=-1) == 1).all()
        assert set(np.unique(one_hot)) == {0.0, 1.0}
        return int("".join(map(str, one_hot.argmax(axis=-1))), task.base) if task.base < 11 else int(one_hot.argmax())

    def leads(self) -> dict[tuple[int, int], int]:
        return {(source, edge): destination for source, edge, destination in self.triples}


def episodes(task: GraphTask, count: int = 60) -> list[Episode]:
    lesson = task.generate(count)
    assert lesson.inputs.shape == (lesson.lengths.max(), count, 3 * task.digits * task.base + 2)
    assert lesson.lengths.max() <= task.horizon
    return [Episode(task, lesson, number) for number in range(count)]
