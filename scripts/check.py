"""``saccade check``: find out in seconds whether an agent, a policy and an environment can learn together."""

import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from saccade.agents import PQN
from saccade.agents.diagnose import diagnose
from saccade.agents.manifest import name_of
from saccade.envs import WrongExperienceError
from saccade.scripts.build import drop_foreign_kwargs, make_agent, set_threads, training_env
from saccade.scripts.command import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``saccade check``."""
    run_command(check, "check", sys.argv[1:] if arguments is None else arguments)


def check(cfg: DictConfig) -> None:
    """Print a line a finding; exits with 1 if something is wrong.

    Raises:
        UserError: something in the config cannot be done.
    """
    drop_foreign_kwargs(cfg, HydraConfig.get().overrides.task)
    set_threads(cfg)
    if cfg.agent.get("_target_") == name_of(PQN):
        cfg.agent.batch_size = None  # all lanes at once, whatever the training's minibatches are
    env = training_env(cfg)
    model = make_agent(cfg, env)
    wrong = 0
    try:
        for finding in diagnose(model):
            print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.name}: {finding.message}", flush=True)
            wrong += not finding.ok
    except WrongExperienceError as error:
        print(f"WRONG  experience: {error}; mend the environment first")
        wrong += 1
    env.close()
    print("nothing wrong: start training" if not wrong else f"{wrong} wrong: mend before training")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
