"""What train.precision `auto` means for a model on this machine.

It changes results, so it is resolved before stages are declared, and their keys and manifests have the outcome.
"""

import dataclasses
import functools
import subprocess
import sys

from w2s.config.fields import Config, Learner, Runtime
from w2s.models.kinds import find_kind
from w2s.stages.jobs import environment


def resolve(config: Config) -> Config:
    """The config with float32 or bfloat16 as the precision of everything that is trained."""
    models = [resolve_learner(learner, config.runtime) for learner in config.rewards.models]
    return dataclasses.replace(
        config,
        learners=[resolve_learner(learner, config.runtime) for learner in config.learners],
        rewards=dataclasses.replace(config.rewards, models=models),
        student=resolve_learner(config.student, config.runtime),
    )


def resolve_learner(learner: Learner, runtime: Runtime) -> Learner:
    """The learner with its precision resolved; only a pretrained model makes it ask the machine."""
    train, model = learner.train, learner.model
    if train.precision != "auto":
        return learner
    small = model.path.startswith("builtin:") or not find_kind(model.kind).has_base
    precision = "bfloat16" if not small and ask_machine(runtime) else "float32"
    return dataclasses.replace(learner, train=dataclasses.replace(train, precision=precision))


@functools.cache
def ask_machine(runtime: Runtime) -> bool:
    """Whether this machine computes in bfloat16, as torch says in a process of its own (it takes two seconds)."""
    code = "from w2s.models.world import has_bfloat16; print(has_bfloat16())"
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(runtime, 1), capture_output=True, text=True, check=True
    )
    return said.stdout.split()[-1] == "True"
