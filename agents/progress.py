"""A progress bar that shows returns."""

from typing import NoReturn

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean
from tqdm import tqdm


class ProgressCallback(BaseCallback):
    """Steps done, steps a second, and the mean return and success rate of the latest episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm[NoReturn] | None = None

    def _on_training_start(self) -> None:
        left = self.model._total_timesteps - self.model.num_timesteps
        self.bar = tqdm(total=left, unit="step", unit_scale=True, dynamic_ncols=True, mininterval=0.5)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert self.bar is not None
        self.bar.update(self.model.num_timesteps - self.model._num_timesteps_at_start - self.bar.n)
        shown = {}
        if self.model.ep_info_buffer:
            shown["return"] = f"{safe_mean([info['r'] for info in self.model.ep_info_buffer]):.3g}"
        if self.model.ep_success_buffer:
            shown["success"] = f"{safe_mean(list(self.model.ep_success_buffer)):.2f}"
        self.bar.set_postfix(shown, refresh=False)

    def _on_training_end(self) -> None:
        if self.bar is not None:
            self.bar.close()
