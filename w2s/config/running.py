"""The parts of the configuration that say where models are, what a run is compared with, how it is judged, and where
it runs."""

from dataclasses import dataclass, field
from typing import Annotated

from w2s.config.values import Count, CountFrom0, MethodOf, NotNegative


@dataclass(frozen=True)
class Models:
    """Where models are read from."""

    root: str | None = None
    """A folder with local copies of models: the hub name N is read from the file root/N.gguf or the folder root/N.
    Null: the Hugging Face hub."""


@dataclass(frozen=True)
class Controls:
    """What the student is compared with. Each control can be switched off; the report says which were."""

    floor: bool = True
    """One learner fitted on the easy gold: the floor of the performance gap."""
    uniform: bool = True
    """The committee with equal alphas."""
    bagged: bool = True
    """A committee of the same size whose learners see random resamples of the rows instead of boosted weights. Its
    rounds fit the same models at the same cost, although a resample needs no errors."""
    answer_level: bool = True
    """For questions without choices: learners boosted by whole answers, which vote over whole answers."""
    long_learner: bool = True
    """One learner trained for as many optimizer steps as all models of all rounds together. Kinds that are fitted at
    once (probe, sklearn) have none: it would be the floor."""
    naive_student: bool = True
    """A student trained on the floor's labels."""
    unrewarded: bool = True
    """Where reward models are used: a student without them."""
    zero_shot: bool = True
    """The student's base model, not trained."""
    easy_gold: bool = True
    """The student's base trained on the easy gold."""
    ceiling: bool = True
    """The student's base trained on the gold of the transfer pool: the ceiling of the performance gap."""
    merged: bool = False
    """The committee's learners merged into one model (see merging), and the same with equal weights."""
    experts: bool = False
    """The committee's learners as the experts of one model, not trained further (see experts)."""
    dense_student: bool = False
    """With student.start: upcycled, two students that start from the model itself: one trained for as many steps, and
    one for as many parameters passed, so that its steps cost as much in all."""
    shuffled: bool = True
    """A student trained on the committee's labels, shuffled among the questions."""


@dataclass(frozen=True)
class Evaluation:
    """How models are judged."""

    suites: list[Annotated[dict, MethodOf("sources")]] = field(default_factory=list)
    """Further held-out suites besides hard_test, each a source {name, options}."""
    bins: Count = 5
    """Points of the easy-to-hard curve."""
    samples: CountFrom0 = 12
    """Questions shown in the report."""
    programs: Count = 1
    """Programs (or free-form answers) that a model writes for each task of a suite without choices."""
    temperature: NotNegative = 0.0
    """Sampling temperature of these programs and answers; 0 is greedy."""
    max_new_tokens: Count = 256
    """Longest program or answer, in tokens."""


@dataclass(frozen=True)
class Runtime:
    """What must not change a result: never part of a stage's key."""

    runs_dir: str = "runs"
    """The folder of all runs and of their store."""
    slots: Count | None = None
    """Jobs at a time. Null: one per core without an accelerator, else one."""
    processes: Count | None = None
    """Processes (ranks) of one job. Null: one per accelerator, or one."""
    threads: Count | None = None
    """CPU threads of one process. Null: the cores, divided among the processes."""
    micro_batch: Count | None = None
    """Examples per process in one forward pass. Null: the batch, divided among the processes."""
    deepspeed: str | None = None
    """A DeepSpeed file (launch/zero2.json), zero0 to zero3, or auto (ZeRO 0 in one process, ZeRO 1 in several). Null:
    auto for the student, and for learners plain torch in one process."""
    hostfile: str | None = None
    """A DeepSpeed hostfile (launch/hostfile.example) for jobs over several machines. Null: this machine."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    checkpoint_every: Count = 200
    """Optimizer steps between checkpoints, from which a killed job continues."""
    trust_remote_code: bool = False
    """Run code that comes with a model from the hub. Only the command line can switch this on."""
    allow_unsandboxed: bool = False
    """Run model-written programs where no sandbox is available. Only the command line can switch this on."""
