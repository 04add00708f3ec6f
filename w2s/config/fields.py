"""The configuration: frozen dataclasses with a docstring under each field. `config_file.load` reads and checks one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from w2s.config.studies import Curve, RewardSuites


@dataclass(frozen=True)
class Sizes:
    easy_fit: int | None = None
    """Easy questions with gold that learners are fitted on. Null: what is there, shared out 8 : 1."""
    easy_holdout: int | None = None
    """Easy questions with gold that no learner is fitted on; the number of rounds is chosen here."""
    transfer: int | None = None
    """Hard questions without gold that the committee labels. Null: what is there, shared out 2 : 1."""
    hard_test: int | None = None
    """Hard questions that models are judged on."""


@dataclass(frozen=True)
class Data:
    root: str | None = None
    """A folder with local copies of the data sets. Null: the Hugging Face hub."""
    sources: list[dict] = field(default_factory=lambda: [{"name": "world"}])
    """Data sets to draw questions from, each {name, options}; see `w2s methods sources`."""
    difficulty: dict = field(default_factory=lambda: {"name": "level"})
    """How hard a question is; see `w2s methods difficulty`."""
    easy_max: float | None = None
    """Questions of at most this difficulty are easy."""
    hard_min: float | None = None
    """Questions of at least this difficulty are hard."""
    easy_share: float | None = None
    """Instead of easy_max and hard_min: this share of the questions, the easiest ones, is easy, and the rest hard."""
    test_splits: list[str] | None = None
    """Published splits that alone may feed hard_test (and nothing else). Null: hard_test is drawn at random."""
    sizes: Sizes = field(default_factory=Sizes)
    allow_fewer: bool = False
    """Go on with fewer questions than `sizes` asks for, and say so. Otherwise that is an error."""
    near: float | None = 0.8
    """Questions that share at least this share of their word shingles (Jaccard) are duplicates. Null: exact ones."""


@dataclass(frozen=True)
class Model:
    path: str = "builtin:strong"
    """A hub name, a local folder, or builtin:NAME (a tiny model of the embedded world)."""
    revision: str | None = None
    kind: Literal["lm", "pair", "towers", "sklearn"] = "lm"
    """How a candidate is scored: lm = its log-likelihood after the prompt; pair = a classification head that reads
    prompt and candidate together; towers = cosine of the encoded prompt and candidate; sklearn = a pipeline."""
    pipeline: dict | None = None
    """For kind sklearn: {name, options}; see `w2s methods pipelines`."""
    layers: int | None = None
    """Keep only the first so many layers."""
    prompt: dict = field(default_factory=lambda: {"name": "plain"})
    """The words around a question; see `w2s methods prompts`."""
    trainable: Literal["all", "body", "attention", "head", "lora"] = "all"
    """Which parameters learn: all; body = all but the word embeddings; attention = attention and positions; head; or
    lora = adapters."""
    lora_rank: int = 8


@dataclass(frozen=True)
class Train:
    epochs: float = 1.0
    steps: int | None = None
    """Optimizer steps. Null: as many as `epochs` make."""
    batch: int = 32
    """Examples per optimizer step, over all processes and micro-batches."""
    lr: float = 5e-5
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_share: float = 0.0
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    loss: dict = field(default_factory=lambda: {"name": "cross_entropy"})
    """Loss on the candidates' scores; see `w2s methods losses`."""
    holdout_share: float = 0.0
    """Share of the labelled rows kept apart for early stopping (on the same labels that the rest is trained on)."""
    eval_every: int = 50
    """Steps between looks at the held-out rows; the best of the looks is kept."""
    patience: int | None = None
    """Stop after so many looks without improvement. Null: run to the end and keep the best look."""
    max_tokens: int = 512
    """Longest prompt with its candidates, in tokens; a longer prompt loses its beginning."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto = bfloat16 where an accelerator has it."""


@dataclass(frozen=True)
class Learner:
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)


@dataclass(frozen=True)
class Tokens:
    """Boosting of written answers: every token of an answer has a weight of its own."""

    by: Literal["token", "answer"] = "token"
    """What is right or wrong: each token, or the answer as a whole, which then shares its weight among its tokens."""
    window: int = 0
    """A miss also raises the tokens up to so many places before and behind it."""
    cap: float | None = None
    """No token weighs more than so many times the mean. Null: no cap."""
    count: Literal["all", "final"] = "all"
    """Which tokens count as right or wrong: all, or those of the final answer behind a solution."""


@dataclass(frozen=True)
class Boosting:
    rounds: int = 10
    booster: dict = field(default_factory=lambda: {"name": "samme"})
    """How a round's error becomes its alpha; see `w2s methods boosters`."""
    weighting: Literal["resample", "loss"] = "resample"
    """How the weights reach a learner: rows drawn by weight, or a weighted loss."""
    errors: Literal["cross_fit", "rotate", "in_sample"] = "cross_fit"
    """Where errors come from. cross_fit: each round fits one model per fold, each judges the fold it has not seen,
    and the round's opinion is their mean; rotate: each round fits on all folds but one and judges that one; in_sample:
    on the rows it was fitted on (for replication only: a fine-tuned model memorises)."""
    folds: int = 2
    min_effective_share: float = 0.3
    """Weights are tempered until their effective sample size is at least this share of the rows."""
    least_effective_share: float = 0.0
    """Stop after a round that leaves a smaller effective sample size than this share of the rows, before tempering."""
    patience: int | None = None
    """Stop after so many rounds without a better committee on easy_holdout. Null: run all rounds."""
    tokens: Tokens = field(default_factory=Tokens)


@dataclass(frozen=True)
class Writing:
    """How answers are written where questions have no choices."""

    max_new_tokens: int = 64
    stop: list[str] = field(default_factory=list)
    """Texts that end an answer, beside the model's own end mark."""
    mixture: Literal["linear", "log_linear"] = "linear"
    """How a committee mixes its learners' next tokens: the mean of their probabilities, or the geometric mean."""
    mix: Literal["all", "disagree"] = "all"
    """Mix at every token, or only where the learners disagree (for sampling: greedily it is the same)."""
    samples: int = 4
    """Texts that each learner samples for a question, where a committee votes over whole answers."""
    temperature: float = 0.7
    """Of these texts."""


@dataclass(frozen=True)
class RewardModels:
    """Models that judge candidates beside the committee; trained where `label.reward` or `student.objective` uses them,
    and by `w2s rewards`."""

    kind: Literal["separate", "warm", "heads", "adapters"] = "separate"
    """separate: each member is a model of its own, with a seed of its own; warm: one model, the mean of such members'
    weights, which start from one trained head; heads: one body with a head for each member; adapters: one frozen body
    with low-rank adapters for each."""
    members: int = 4
    models: list[Learner] = field(default_factory=lambda: [Learner(Model(kind="pair"))])
    """What members are made of (kind pair); separate ones take several bases in turn."""
    head_steps: int = 50
    """For kind warm: steps in which the head that members start from is trained alone."""
    layers: int | None = None
    """For kind adapters: the last so many layers have adapters, and the ones below are computed once. Null: all."""
    rank: int = 8
    diversity: float = 0.0
    """For kind adapters: strength of the nuclear-norm term that keeps them apart."""
    bootstrap: bool = False
    """For heads and adapters: each member draws its own rows, with replacement."""
    pairs: dict = field(default_factory=lambda: {"name": "gold"})
    """What they are trained on; see `w2s methods pairs`."""
    aggregate: dict = field(default_factory=lambda: {"name": "mean"})
    """How the members' scores become one; see `w2s methods aggregators`."""
    standardise: Literal["question", "set", "none"] = "question"
    """Before that, each member's scores get mean 0 and variance 1 over a question's candidates, or over the set."""
    curve: Curve = field(default_factory=Curve)
    study: RewardSuites = field(default_factory=RewardSuites)


@dataclass(frozen=True)
class LabelReward:
    """What reward models do to the committee's labels."""

    use: Literal["none", "tilt", "best_of_n"] = "none"
    """tilt: the committee's probability times exp(strength * reward); best_of_n: the candidate with the highest reward.
    Written answers need label.made: winner."""
    strength: float | None = None
    """Null: chosen on easy_holdout."""
    accept: dict | None = None
    """Keep labels whose reward or margin reaches a bound: {of: margin, quantile: 0.3} or {of: reward, least: 0}."""


@dataclass(frozen=True)
class Labels:
    made: Literal["decoded", "distribution", "winner"] = "decoded"
    """For questions without choices. decoded: the text that the committee writes, its learners mixed token by token;
    distribution: the same with the committee's probabilities of the `top` next tokens as soft targets; winner: every
    learner samples whole answers, all score all of them, and the combiner decides."""
    top: int = 16
    check_examples: bool = False
    """For code: only labels whose program passes the examples that stand in the question."""
    combiner: dict = field(default_factory=lambda: {"name": "soft_vote"})
    """How the learners' opinions become one; see `w2s methods combiners`."""
    alphas: dict = field(default_factory=lambda: {"name": "boosting"})
    """How much each learner's vote counts; see `w2s methods alphas`."""
    select: dict = field(default_factory=lambda: {"name": "everything"})
    """Which pseudo-labels are kept; see `w2s methods selectors`."""
    soft: bool = True
    """Train on the whole distribution, or on its top candidate alone."""
    temperature: float = 1.0
    reward: LabelReward = field(default_factory=LabelReward)
    recorded: str | None = None
    """A folder that `w2s combine labels` wrote: one more student is trained on these labels of the transfer pool."""


@dataclass(frozen=True)
class Student(Learner):
    objective: dict = field(default_factory=lambda: {"name": "sft"})
    """sft: the labels alone; others go on from there, with preferences or rewards; see `w2s methods objectives`."""


@dataclass(frozen=True)
class Controls:
    """Each can be switched off; the report says which were."""

    floor: bool = True
    uniform: bool = True
    bagged: bool = True
    answer_level: bool = True
    """For questions without choices: learners boosted by whole answers, which vote over whole answers."""
    long_learner: bool = True
    naive_student: bool = True
    unrewarded: bool = True
    """Where reward models are used: a student without them."""
    zero_shot: bool = True
    easy_gold: bool = True
    ceiling: bool = True
    shuffled: bool = True


@dataclass(frozen=True)
class Evaluation:
    suites: list[dict] = field(default_factory=list)
    """Further held-out suites beside hard_test, each a source {name, options}."""
    bins: int = 5
    """Points of the easy-to-hard curve."""
    samples: int = 12
    """Questions shown in the report."""
    programs: int = 1
    """Programs (or free-form answers) that a model writes for each task of a suite without choices."""
    temperature: float = 0.0
    """Of these programs; 0 is greedy."""
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Runtime:
    """What must not change a result: never part of a stage's key."""

    runs_dir: str = "runs"
    slots: int | None = None
    """Jobs at a time. Null: one per core without an accelerator, else one."""
    processes: int | None = None
    """Processes (ranks) of one job. Null: one per accelerator, or one."""
    threads: int | None = None
    """CPU threads of one process. Null: the cores, shared out."""
    micro_batch: int | None = None
    """Examples per process in one forward pass. Null: the batch, shared out."""
    deepspeed: str | None = None
    """A DeepSpeed file (launch/zero2.json), zero0 to zero3, or auto (ZeRO 0 in one process, ZeRO 1 in several). Null:
    auto for the student, and for learners plain torch in one process."""
    hostfile: str | None = None
    gradient_checkpointing: bool = False
    checkpoint_every: int = 200
    """Steps between checkpoints, from which a killed job goes on."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model. Only the command line can say so."""
    allow_unsandboxed: bool = False
    """Run model-written programs where no sandbox can be had. Only the command line can say so."""


@dataclass(frozen=True)
class Config:
    name: str = "run"
    """The run's folder under runtime.runs_dir."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """The whole chain is repeated with each; intervals cover them."""
    limit: int | None = None
    """A smoke run (`--limit N`): of every set the first N questions by id, and no training takes more than 100 steps.
    The name gets -limit-N. Null: everything."""
    data: Data = field(default_factory=Data)
    learners: list[Learner] = field(default_factory=lambda: [Learner()])
    """Weak models, taken in turn by the rounds."""
    boosting: Boosting = field(default_factory=Boosting)
    writing: Writing = field(default_factory=Writing)
    rewards: RewardModels = field(default_factory=RewardModels)
    label: Labels = field(default_factory=Labels)
    student: Student = field(default_factory=Student)
    controls: Controls = field(default_factory=Controls)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runtime: Runtime = field(default_factory=Runtime)
