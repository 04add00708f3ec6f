"""The configuration: frozen dataclasses that hold each key's type, range, default and meaning (the text below it).

`config.load` reads and checks one; `w2s config reference` prints them.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from w2s.config.experts import Experts
from w2s.config.merging import Merging
from w2s.config.running import Controls, Evaluation, Models, Runtime
from w2s.config.studies import Curve, RewardStudy
from w2s.config.values import (
    Count,
    CountFrom0,
    InnerShare,
    MethodOf,
    Multiple,
    NameOf,
    NotNegative,
    PartialShare,
    Positive,
    Share,
    method,
)


@dataclass(frozen=True)
class Sizes:
    """Number of questions in each split."""

    easy_fit: Count | None = None
    """Easy questions with gold that learners are fitted on. Null: the rest of the easy ones, 8 : 1 with
    easy_holdout."""
    easy_holdout: Count | None = None
    """Easy questions with gold that no learner is fitted on; the number of rounds is chosen on these."""
    transfer: Count | None = None
    """Hard questions without gold that the committee labels. Null: the rest of the hard ones, 2 : 1 with hard_test."""
    hard_test: Count | None = None
    """Hard questions that models are judged on."""


@dataclass(frozen=True)
class Data:
    """Which questions are used, which of them are easy or hard, and how they are split."""

    root: str | None = None
    """A folder with local copies of the datasets. Null: the Hugging Face hub."""
    sources: list[Annotated[dict, MethodOf("sources")]] = field(default_factory=lambda: [{"name": "world"}])
    """Datasets to draw questions from, each {name, options}; see `w2s methods sources`."""
    difficulty: Annotated[dict, MethodOf("difficulty")] = field(default_factory=method("level"))
    """How hard a question is, a number per question; see `w2s methods difficulty`."""
    easy_max: float | None = None
    """Questions of at most this difficulty are easy."""
    hard_min: float | None = None
    """Questions of at least this difficulty are hard."""
    easy_share: InnerShare | None = None
    """Instead of easy_max and hard_min: this share of the questions, the easiest ones, is easy, and the rest hard."""
    test_splits: list[str] | None = None
    """Published splits of the datasets that alone may feed hard_test, and feed nothing else. Null: hard_test is drawn
    at random."""
    sizes: Sizes = field(default_factory=Sizes)
    allow_fewer: bool = False
    """Continue with fewer questions than `sizes` asks for, and report it. False: that is an error."""
    near: Share | None = 0.8
    """Questions whose word shingles have at least this Jaccard similarity are duplicates. Null: only exact ones."""


@dataclass(frozen=True)
class Model:
    """A model and how it sees a question."""

    path: str = "builtin:strong"
    """A hub name (see models.root), a local folder, a GGUF file (*.gguf: a language model as llama.cpp and Ollama keep
    it), or builtin:NAME (a tiny model of the embedded world)."""
    revision: str | None = None
    """Branch, tag or commit of a model from the hub. Null: its main branch."""
    kind: Annotated[str, NameOf("kinds")] = "lm"
    """How a candidate is scored: lm = its log-likelihood after the prompt; pair = a classification head that reads
    prompt and candidate together; towers = cosine of the encoded prompt and candidate; probe = a linear head on a
    frozen model's hidden state, solved to its optimum; sklearn = a pipeline; or a kind that a plug-in adds."""
    pipeline: Annotated[dict, MethodOf("pipelines")] | None = None
    """For kind sklearn: {name, options}; see `w2s methods pipelines`."""
    layers: Count | None = None
    """Keep only the first layers, this many. Null: all. For kind probe: the layer whose hidden state is read."""
    pooling: Literal["last", "mean"] = "last"
    """For kind probe: the hidden state of the last token, or the mean over the tokens of prompt and candidate."""
    l2: Positive = 3.0
    """For kind probe: the penalty is l2 / 2 times the squared norm of the head's weights, beside the sum of the rows'
    losses (scikit-learn's 1 / C), in units in which a question's states have a mean squared distance of 1 from their
    centre."""
    prompt: Annotated[dict, MethodOf("prompts")] = field(default_factory=method("plain"))
    """The words around a question; see `w2s methods prompts`."""
    shots: CountFrom0 | list[dict] = 0
    """For kind lm: how many solved examples come before a question. They are drawn by seed from the easy questions, and
    then belong to no split; or a list of one's own, each {prompt, answer} or {prompt, choices, answer}. They are shown
    before questions of their own task."""
    normalise: Literal["sum", "per_token", "per_byte", "per_character", "unconditional"] = "sum"
    """For kind lm and questions with choices: a choice's score is its log-likelihood: the sum over its tokens; divided
    by its number of tokens, bytes (lm-eval's acc_bytes) or characters (acc_norm); or less the log-likelihood without a
    prompt (acc_mutual_info). Losses and opinions see this score; divided scores make softer opinions."""
    trainable: Literal["all", "body", "attention", "head", "top", "lora"] = "all"
    """Which parameters learn: all; body = all but the word embeddings; attention = attention and positions; head; top =
    the last layers and the norm after them; or lora = adapters. A classification head always learns."""
    top: Count | None = None
    """Where trainable is top: how many of the last layers learn; the states below them are computed once."""
    lora_rank: Count = 8
    """Rank of the adapters where trainable is lora."""
    lora_targets: list[str] | None = None
    """Where trainable is lora: names of the linear layers that get adapters, such as [q_proj, v_proj]. Null: all of the
    body."""
    attn: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """How attention is computed. auto: as transformers chooses; flash_attention_2 needs its package and a GPU, and
    reads every candidate with a prompt of its own."""
    quantise: Literal["none", "4bit", "8bit"] = "none"
    """Keep the frozen weights in so many bits (QLoRA); needs trainable: lora, the package bitsandbytes and a GPU. What
    is saved has full weights."""


@dataclass(frozen=True)
class Train:
    """How a model is trained (AdamW)."""

    epochs: Positive = 1.0
    """Passes over the labelled rows, where `steps` is null; a fraction is allowed."""
    steps: Count | None = None
    """Optimizer steps. Null: as many as `epochs` takes."""
    batch: Count = 32
    """Examples per optimizer step, over all processes and micro-batches."""
    lr: Positive = 5e-5
    """Highest learning rate, reached after the warm-up: about 1e-5 to 2e-4 for pretrained models, adapters at the upper
    end."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay per step, times the learning rate; 0 is none."""
    beta2: PartialShare = 0.98
    """AdamW's decay of the squared gradients' mean."""
    clip: Positive = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""
    warmup_share: Share = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up: linear and cosine end at 0."""
    loss: Annotated[dict, MethodOf("losses")] = field(default_factory=method("cross_entropy"))
    """Loss on the candidates' scores; see `w2s methods losses`."""
    holdout_share: PartialShare = 0.0
    """Share of the labelled rows kept apart for early stopping, with the same kind of label as the rest."""
    eval_every: Count = 50
    """Optimizer steps between evaluations on the held-out rows; the best checkpoint is kept."""
    patience: Count | None = None
    """Stop after this many evaluations without improvement. Null: run to the end and keep the best checkpoint."""
    max_tokens: Count = 512
    """Longest prompt with its candidates, in tokens; a longer prompt loses its beginning."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the model's sums. bfloat16: trained under autocast, with weights and optimizer in float32; the
    trained model predicts, scores and writes with its weights in bfloat16, and scores and log-probabilities in float32.
    auto: bfloat16 where the hardware computes in it (an accelerator; a CPU with AMX or AVX512-BF16), else float32. A
    builtin model is too small to gain by it: for these auto is float32 everywhere. Stages' keys have what auto
    became."""


@dataclass(frozen=True)
class Learner:
    """A model and its training."""

    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)


@dataclass(frozen=True)
class Tokens:
    """Boosting of written answers: every token of an answer has a weight of its own."""

    by: Literal["token", "answer"] = "token"
    """What is judged right or wrong: each token, or the whole answer, whose tokens then share its weight."""
    window: CountFrom0 = 0
    """A wrong token also raises the weight of the tokens up to this many places before and after it."""
    cap: Multiple | None = None
    """No token weighs more than this many times the mean weight. Null: no cap."""
    count: Literal["all", "final"] = "all"
    """Which tokens count as right or wrong: all, or those of the final answer after a solution."""


@dataclass(frozen=True)
class Boosting:
    """Weak learners fitted one after the other on re-weighted rows."""

    rounds: Count = 10
    """Most rounds, each a learner; a stopping rule may end earlier."""
    booster: Annotated[dict, MethodOf("boosters")] = field(default_factory=method("samme"))
    """How a round's error becomes its alpha; see `w2s methods boosters`."""
    weighting: Literal["resample", "loss"] = "resample"
    """How the weights reach a learner: rows drawn by weight, or a weighted loss."""
    errors: Literal["cross_fit", "rotate", "in_sample"] = "cross_fit"
    """Where errors come from. cross_fit: each round fits one model per fold, each judging the fold it has not seen;
    rotate: each round fits on all folds but one and judges that one; in_sample: on the rows it was fitted on (for
    replication only: a fine-tuned model memorises)."""
    folds: int = 2
    """Parts that the rows are cut into for these errors; at least 2 unless errors is in_sample."""
    refit: bool | None = None
    """Who speaks for a round. False: the models that found its errors, by their mean. True: one more model, fitted on
    all rows with the round's weights. Null: true where a model of a fold would see fewer than 1,000 rows. Nothing to
    refit where errors is in_sample."""
    min_effective_share: Share = 0.3
    """Weights are tempered until their effective sample size is at least this share of the rows."""
    least_effective_share: Share = 0.0
    """Stop after a round that leaves a smaller effective sample size than this share of the rows, before tempering."""
    patience: Count | None = None
    """Stop after this many rounds without a better committee on easy_holdout. Null: run all rounds."""
    tokens: Tokens = field(default_factory=Tokens)


@dataclass(frozen=True)
class Writing:
    """How answers are written where questions have no choices."""

    max_new_tokens: Count = 64
    """Longest answer, in tokens."""
    stop: list[str] = field(default_factory=list)
    """Texts that end an answer, besides the model's own end-of-text token."""
    mixture: Literal["linear", "log_linear"] = "linear"
    """How a committee mixes its learners' next tokens: the mean of their probabilities, or the geometric mean."""
    mix: Literal["all", "disagree"] = "all"
    """Mix at every token, or only where the learners disagree (matters for sampling; greedy decoding is the same)."""
    samples: Count = 4
    """Answers that each learner samples per question, where a committee votes over whole answers."""
    temperature: Positive = 0.7
    """Sampling temperature of these answers."""


@dataclass(frozen=True)
class RewardModels:
    """Models that score candidates beside the committee; trained where `label.reward` or `student.objective` uses them,
    and by `w2s rewards`."""

    kind: Literal["separate", "warm", "heads", "adapters"] = "separate"
    """separate: each member is a model of its own, with a seed of its own; warm: one model, the mean of such members'
    weights, all started from one trained head; heads: one body with a head for each member; adapters: one frozen body
    with low-rank adapters for each."""
    members: Count = 4
    """Members of the ensemble."""
    models: list[Learner] = field(default_factory=lambda: [Learner(Model(kind="pair"))])
    """What members are made of: kind pair, or where separate kind probe; separate ones take several bases in turn."""
    head_steps: Count = 50
    """For kind warm: optimizer steps in which the head that members start from is trained alone."""
    layers: Count | None = None
    """For kind adapters: only this many of the last layers have adapters; those below are computed once. Null: all."""
    rank: Count = 8
    """For kind adapters: rank of the adapters."""
    diversity: NotNegative = 0.0
    """For kind adapters: strength of the nuclear-norm term that keeps the members apart; 0 is none."""
    bootstrap: bool = False
    """For kinds heads and adapters: each member draws its own rows, with replacement."""
    pairs: Annotated[dict, MethodOf("pairs")] = field(default_factory=method("gold"))
    """The pairs that reward models are trained on; see `w2s methods pairs`."""
    aggregate: Annotated[dict, MethodOf("aggregators")] = field(default_factory=method("mean"))
    """How the members' scores become one; see `w2s methods aggregators`."""
    standardise: Literal["question", "set", "none"] = "question"
    """Before aggregation, scale each member's scores to mean 0 and variance 1 over a question's candidates or a set."""
    curve: Curve = field(default_factory=Curve)
    study: RewardStudy = field(default_factory=RewardStudy)


@dataclass(frozen=True)
class LabelReward:
    """What reward models do to the committee's labels."""

    use: Literal["none", "tilt", "best_of_n"] = "none"
    """tilt: the committee's probability times exp(strength * reward); best_of_n: the candidate with the highest reward.
    Written answers need label.made: winner."""
    strength: NotNegative | None = None
    """Strength of the tilt, per unit of reward. Null: chosen on easy_holdout."""
    accept: dict | None = None
    """Keep only labels whose reward, or its margin, reaches a bound: {of: margin, quantile: 0.3} or {of: reward,
    least: 0}. Null: keep all."""


@dataclass(frozen=True)
class Labels:
    """How the committee's opinions become pseudo-labels."""

    teacher: Literal["committee", "merged"] = "committee"
    """Who labels: the committee, or its learners merged into one model (see merging), at the cost of one learner."""
    made: Literal["decoded", "distribution", "winner", "fused"] = "decoded"
    """For questions without choices. decoded: the text that the committee writes, its learners mixed token by token;
    distribution: also its probabilities of the `top` next tokens, as soft targets; winner: learners sample whole
    answers, all score all of them, and the combiner decides; fused: the winner, with all learners' next tokens as soft
    targets in the student's vocabulary."""
    top: Count = 16
    """For made: distribution, fused: how many next tokens a soft target keeps."""
    fusion: Literal["alphas", "mince", "avgce"] = "alphas"
    """For made: fused: who counts: by alpha, the learner to whom the text is likeliest, or by exp(-nats per byte)."""
    check_examples: bool = False
    """For code: keep only labels whose program passes the examples in the question."""
    combiner: Annotated[dict, MethodOf("combiners")] = field(default_factory=method("soft_vote"))
    """How the learners' opinions become one; see `w2s methods combiners`."""
    alphas: Annotated[dict, MethodOf("alphas")] = field(default_factory=method("boosting"))
    """How much each learner's vote counts; see `w2s methods alphas`."""
    select: Annotated[dict, MethodOf("selectors")] = field(default_factory=method("everything"))
    """Which pseudo-labels are kept; see `w2s methods selectors`."""
    soft: bool = True
    """True: train on the whole distribution. False: on its top candidate alone."""
    temperature: Positive | None = 1.0
    """Temperature of soft targets: below 1 sharper than the teacher's distribution, above 1 flatter. Null: for each
    teacher the one, from 0.05 to 20, that gives the right answers of easy_holdout the least log-loss; written answers
    then need `made: winner`."""
    reward: LabelReward = field(default_factory=LabelReward)
    recorded: str | None = None
    """A folder that `w2s combine labels` wrote: one more student is trained on these labels of the transfer pool.
    Null: none."""


@dataclass(frozen=True)
class Student(Learner):
    """The strong model, trained on the pseudo-labels."""

    start: Literal["base", "merged", "upcycled"] = "base"
    """What training starts from. base: the model; merged: the committee's learners as one model (see merging), for the
    student and its controls; upcycled: a mixture of experts that are copies of its MLPs (see experts)."""
    objective: Annotated[dict, MethodOf("objectives")] = field(default_factory=method("sft"))
    """sft: the labels alone; the others then train on preferences or rewards; see `w2s methods objectives`."""


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    name: str = "run"
    """The run's folder under runtime.runs_dir."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Random seeds, 0 or more, all different. The whole chain is repeated with each; intervals cover them."""
    limit: Count | None = None
    """A smoke run (`--limit N`): the first N questions by id of every set, and no training longer than 100 steps. The
    name gets -limit-N. Null: everything."""
    plugins: list[str] = field(default_factory=list)
    """Python files (my_methods.py), packages (my_methods/) or modules that add methods; paths are relative to the
    config. They run as code: list only what you would run yourself. How to write one: w2s/config/plugins.py."""
    data: Data = field(default_factory=Data)
    models: Models = field(default_factory=Models)
    learners: list[Learner] = field(default_factory=lambda: [Learner()])
    """Weak models, taken in turn by the rounds."""
    boosting: Boosting = field(default_factory=Boosting)
    writing: Writing = field(default_factory=Writing)
    rewards: RewardModels = field(default_factory=RewardModels)
    label: Labels = field(default_factory=Labels)
    student: Student = field(default_factory=Student)
    merging: Merging = field(default_factory=Merging)
    experts: Experts = field(default_factory=Experts)
    controls: Controls = field(default_factory=Controls)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runtime: Runtime = field(default_factory=Runtime)
