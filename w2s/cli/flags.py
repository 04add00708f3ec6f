"""The arguments of every command, and the text of `--help`."""

import argparse
from typing import Any

import yaml

EXAMPLES = """\
examples:
  w2s run configs/quickstart.yaml                    the whole chain on the embedded synthetic world
  w2s run configs/quickstart.yaml --limit 200        a smoke run: seconds, to see that everything works
  w2s run configs/quickstart*.yaml                   the same for choices, short answers and code
  w2s run configs/science.yaml data.root=DIR         real questions; any key of the config can be set this way
  w2s plan configs/science.yaml data.root=DIR        what would run, and the words a model would see
  w2s why runs/quickstart 1a2b                       how one question got its label
  w2s report runs/quickstart runs/five               two runs side by side
  w2s evaluate runs/quickstart/student world         a model (folder or hub name) on held-out questions
  w2s experts A B C --base BASE --out moe            models of one base as the experts of one sparse model
  w2s judge samples.jsonl --suite humaneval          programs from elsewhere: verdicts, pass@k
  w2s combine OUTPUTS --questions QUESTIONS          recorded answers of many models -> one opinion
  w2s combine apply runs/combine/NAME NEW_OUTPUTS    the fitted combiner on new questions
  w2s rewards run configs/rewards/alpaca_eval.yaml data.root=DIR   reward-model ensembles on preference data
  w2s rewards curve configs/rewards/overoptimisation.yaml          gold against what reward models choose
"""

COMBINING = """\
OUTPUTS is parquet, jsonl or csv with a row for each answer (columns id, model, answer; optional: sample, correct,
score, probs, cost, text, visible_pass), a folder with outputs.* and questions.*, lm-eval's samples_*.jsonl, or evalplus
sample files. QUESTIONS has a row for each question: id, and optionally group, prompt, choices, gold.

examples:
  w2s combine OUTPUTS --questions QUESTIONS                    all but RL-Focal (minutes: --methods all,focal)
  w2s combine FOLDER --methods samme,gradient_boosted --models llama-3-8b,gemma-7b
  w2s combine FOLDER --methods routing --groups mbpp knn.neighbours=80
  w2s combine --config pool.yaml                               the same keys in a file; flags override them
"""

RUNNING = """\
key=value sets any key of the config, a list's item by its number: seeds=[0,1,2], student.train.lr=1e-4,
learners.0.model.path=FOLDER, label.select={name: confidence, keep_share: 0.5}. `w2s config reference` explains
every key, `w2s methods` every method that a key can name.

files in runs/NAME/ (runtime.runs_dir, name):
  report.html, report.md     the report            student/     the trained student, for transformers, with its card
  metrics.json, exports/     all numbers, answers  config.yaml  every key as it was
  log.jsonl                  the timed log         stages.json  the artifacts in runs/store/ that make up the run

examples:
  w2s run configs/quickstart.yaml --limit 200        a smoke run, named NAME-limit-200
  w2s run configs/quickstart.yaml seeds=[0,1,2,3,4] name=five
  w2s run configs/science.yaml data.root=DIR student.model.path=FOLDER
"""

EVALUATING = """\
Suites are sources of questions (`w2s methods sources`): arc_challenge, mmlu, gsm8k, humaneval, ..., read from data.root
or the hub. Results go to runs/evaluate/MODEL/; existing answers are reused.

examples:
  w2s evaluate runs/quickstart/student world
  w2s evaluate FOLDER sciq gsm8k data.root=DIR --limit 40
  w2s evaluate model.gguf sciq data.root=DIR         a file of llama.cpp's format (pip install gguf)
  w2s evaluate Qwen/Qwen2.5-0.5B humanevalplus evaluation.programs=10 evaluation.temperature=0.8
  w2s evaluate FOLDER arc_challenge 'student.model.prompt={name: qa}' runtime.micro_batch=8
"""

JUDGING = """\
examples:
  w2s judge samples.jsonl --suite humanevalplus --data-root DIR
  w2s judge FOLDER --suite mbpp --k 1,10,100 --limit 20
"""

MERGING = """\
examples:
  w2s merge A B --out MERGED                                    the plain mean of two models
  w2s merge A B C --base BASE --method ties density=0.2 --out MERGED
  w2s merge A B --base BASE --weights 2,1 --scale 1.5 --out MERGED
  w2s merge ADAPTER1 ADAPTER2 --method svd rank=8 --out ADAPTER
  w2s merge --from-mergekit config.yml --out MERGED
"""

EXPERTISE = """\
Routers: zero = rows drawn with the standard deviation --noise, so that the gates are almost equal (with 0, or all
experts active, exactly zeros); hidden = turned towards what the router sees of the suite that each model is for (--on,
one per model); weights = towards the questions of --on that a model gets right and all models together do not.

examples:
  w2s experts BASE BASE BASE BASE --noise 0 --out moe              four copies: the same answers as BASE, bit for bit
  w2s experts MATHS CODE --base BASE --active 1 --router hidden --on gsm8k mbpp data.root=DIR --out moe
  w2s experts A B C --weights 2,1,1 --router weights --on sciq data.root=DIR --limit 500 --out moe
  w2s evaluate moe sciq data.root=DIR                              then like any model; `w2s run` can train it further
"""

EPILOGS = {
    "merge": MERGING,
    "experts": EXPERTISE,
    "run": RUNNING,
    "evaluate": EVALUATING,
    "judge": JUDGING,
    "combine": COMBINING,
}


def names(text: str) -> list[str]:
    """Parse a list of names, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def prices(text: str) -> dict[str, float]:
    """Parse pattern=dollars pairs, separated by commas."""
    try:
        return {name: float(cost) for name, cost in (part.rsplit("=", 1) for part in names(text))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: MEMBER=DOLLARS, separated by commas") from None


def numbers(text: str) -> list[float]:
    """Parse numbers, separated by commas."""
    try:
        return [float(word) for word in names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: numbers, separated by commas") from None


def read_options(words: list[str]) -> dict[str, Any]:
    """NAME=value words as a method's options; values are YAML."""
    return {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in words)}


def counts(text: str) -> list[int]:
    """Parse whole numbers above 0, separated by commas."""
    numbers = [int(word) if word.isdecimal() else 0 for word in names(text)]
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: whole numbers above 0, separated by commas")
    return numbers


def count(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number above 0")
    return int(text)


class Version(argparse.Action):
    """The version, and the commit in a checkout; looked up only on use."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        from w2s.store.artifacts import read_commit, read_versions

        commit = f" (commit {read_commit()})" if read_commit() else ""
        print(f"w2s {read_versions().get('w2s', 'not installed')}{commit}")
        parser.exit()


CONFIG = ("config", {"help": "a YAML file, e.g. configs/quickstart.yaml"})
STUDY = ("study", {"nargs": "*", "metavar": "run|curve", "help": "the study"})
OVERRIDES = ("overrides", {"nargs": "*", "metavar": "key=value", "help": "override any key of the config"})
SEVERAL = ("overrides", {**OVERRIDES[1], "help": "override any key of the config, or name further configs"})
REPLACE = ("--replace", {"action": "store_true", "help": "overwrite existing results of the same name"})
RESULTS = ("--results", {"metavar": "DIR", "help": "copy the metrics to DIR/NAME.json and write DIR/NAME.md"})
RUNS_DIR = ("--runs-dir", {"default": "runs", "help": "the folder of runs and their store (default: runs)"})
ARTIFACT = ("artifact", {"help": "an artifact's folder, or the start of its name"})
RUN = ("run", {"help": "a run's folder or name"})
ROW = ("row", {"help": "the id of a question, or the start of it"})
RUNS = ("runs", {"nargs": "+", "help": "folders or names of runs"})
LIMIT = ("--limit", {"type": count, "metavar": "N", "help": "a smoke run: the first N questions of every set, by id"})
FIRST = ("--limit", {"type": count, "metavar": "N", "help": "only the first N questions of each suite, by id"})
MODEL = ("model", {"help": "a hub name, a local folder or a GGUF file"})
SUITES = ("suites", {"nargs": "+", "metavar": "suite", "help": "sources (see `w2s methods sources`), and key=value"})
EXPERTS = (
    (
        "models",
        {"nargs": "+", "metavar": "MODEL", "help": "a folder, hub name or GGUF file for each expert; key=value"},
    ),
    ("--base", {"metavar": "BASE", "help": "take attention, norms and embeddings from this model (default: the mean)"}),
    ("--router", {"default": "zero", "help": "zero (default), hidden or weights; see below"}),
    ("--on", {"nargs": "+", "default": [], "metavar": "SUITE", "help": "sources that turn the routers; key=value"}),
    (
        "--weights",
        {"type": numbers, "default": [], "metavar": "2,1", "help": "of the models in the mean (default: equal)"},
    ),
    ("--active", {"type": count, "default": 2, "metavar": "K", "help": "experts that a token passes (default: 2)"}),
    ("--balance", {"type": float, "default": 0.01, "help": "load-balancing loss in later training (default: 0.01)"}),
    ("--noise", {"type": float, "default": 1e-3, "help": "spread of a zero router's rows (default: 0.001)"}),
    ("--seed", {"type": int, "default": 0, "help": "the seed of these rows (default: 0)"}),
    FIRST,
    ("--out", {"required": True, "metavar": "FOLDER", "help": "the new model's folder"}),
)
ABOUT = ("about", {"nargs": "*", "metavar": "reference|schema", "help": "which of the two"})
INIT = (
    ("task", {"nargs": "?", "default": "choices", "help": "choices (default), answers, code or recorded"}),
    ("folder", {"nargs": "?", "default": ".", "metavar": "DIR", "help": "where to write (default: here)"}),
)
TABLE = ("table", {"nargs": "?", "help": "one table, e.g. combiners, with the options of its methods"})
PLUGINS = (
    "--plugins",
    {"type": names, "default": [], "metavar": "FILE", "help": "plug-ins that add methods, separated by commas"},
)
BESIDE = ("--out", {"metavar": "DIR", "help": "where a comparison goes (default: compare/RUN+RUN beside the runs)"})
JUDGE = (
    ("samples", {"metavar": "SAMPLES", "help": "task_id and solution (evalplus), or id, model, text; jsonl, parquet"}),
    ("--suite", {"required": True, "metavar": "NAME", "help": "humaneval, humanevalplus, mbpp, mbppplus, gsm8k, ..."}),
    ("--data-root", {"metavar": "DIR", "help": "a folder with the suite (default: the hub)"}),
    ("--out", {"metavar": "FILE", "help": "the verdicts, one per sample (default: runs/judge/NAME-SUITE.jsonl)"}),
    ("--limit", {"type": count, "metavar": "N", "help": "only samples of the first N tasks, by id"}),
    ("--k", {"type": counts, "help": "the k of pass@k (default: 1,10, if there are enough samples)"}),
    (
        "--timeout",
        {
            "type": float,
            "default": 3.0,
            "metavar": "SECONDS",
            "help": "per program (default: 3, as in HumanEval)",
        },
    ),
    ("--allow-unsandboxed", {"action": "store_true", "help": "run programs even if no sandbox is available"}),
    REPLACE,
)
MERGE = (
    ("models", {"nargs": "*", "metavar": "MODEL", "help": "folders of models, or of LoRA adapters; then OPTION=value"}),
    ("--base", {"metavar": "MODEL", "help": "the folder that all models were trained from"}),
    ("--method", {"default": "mean", "help": "see `w2s methods merges` (default: mean); cat and svd for adapters"}),
    ("--weights", {"type": numbers, "metavar": "W,W", "help": "one per model, e.g. 2,1 (default: equal)"}),
    ("--scale", {"type": float, "default": 1.0, "help": "how far along the merged step to go (default: 1)"}),
    ("--seed", {"type": int, "default": 0, "help": "for methods that draw at random (default: 0)"}),
    ("--questions", {"metavar": "FILE", "help": "for fisher and regmean: questions like those to be answered"}),
    ("--from-mergekit", {"metavar": "FILE", "help": "a mergekit configuration, instead of models and flags"}),
    ("--root", {"metavar": "DIR", "help": "a folder in which models are looked for by name"}),
    ("--out", {"required": True, "metavar": "DIR", "help": "the merged model's folder"}),
    REPLACE,
)
QUESTIONS = ("--questions", {"metavar": "FILE", "help": "the questions, unless OUTPUTS is a folder that holds them"})
ENCODER = ("--encoder", {"metavar": "MODEL", "help": "a sentence encoder for routers (default: TF-IDF)"})
COMBINE = (
    ("outputs", {"nargs": "*", "metavar": "OUTPUTS", "help": "recorded outputs, then any METHOD.OPTION=value"}),
    QUESTIONS,
    ("--methods", {"type": names, "help": "methods or families (see `w2s methods combine`), or all (default)"}),
    ("--plugins", PLUGINS[1] | {"default": None}),
    ("--suite", {"metavar": "NAME", "help": "the suite that judges evalplus samples, e.g. humanevalplus"}),
    ("--data-root", {"metavar": "DIR", "help": "a folder with the suite (default: the hub)"}),
    ("--models", {"type": names, "help": "only these models, e.g. --models a,b"}),
    ("--groups", {"type": names, "help": "only the questions of these groups"}),
    ("--costs", {"type": prices, "help": "dollars per answer if no cost is recorded, e.g. 'gpt-4*=0.03,*=0.001'"}),
    ("--unit", {"help": "the unit of costs, e.g. tokens (default: $)"}),
    ("--metric", {"type": names, "help": "for lm-eval logs: the metric that says right or wrong, e.g. acc_norm"}),
    ("--filter", {"type": names, "help": "for lm-eval logs: the filter whose answers count, e.g. flexible-extract"}),
    ("--limit", {"type": count, "metavar": "N", "help": "a smoke run: only the first N questions, by id"}),
    ("--repeats", {"type": int, "help": "random splits into halves, one to fit and one to judge on (default: 5)"}),
    ("--seed", {"type": int, "help": "the seed of these splits (default: 0)"}),
    ("--online", {"action": "store_true", "default": None, "help": "also judge with labels revealed one by one"}),
    ENCODER,
    ("--out", {"metavar": "DIR", "help": "the results (default: runs/combine/NAME)"}),
    ("--config", {"metavar": "FILE", "help": "a YAML file with these flags as keys"}),
    REPLACE,
)
APPLY = (
    ("folder", {"help": "a folder of `w2s combine`"}),
    ("outputs", {"help": "the new questions' recorded outputs"}),
    QUESTIONS,
    ("--method", {"help": "a fitted method (default: the winner)"}),
    PLUGINS,
    ENCODER,
    ("--out", {"metavar": "PATH", "help": "where to write (default: FOLDER/applied.parquet or FOLDER/labels)"}),
    REPLACE,
)
LABEL = (
    ("--select", {"default": "everything", "help": "the selector of the labels to keep (see `w2s methods selectors`)"}),
    ("--keep-share", {"type": float, "help": "the share of labels to keep, for selectors with this option"}),
    ("--threshold", {"type": float, "help": "the threshold of the selector agreement"}),
    ("--hard", {"action": "store_true", "help": "targets: only the best candidate, not the distribution"}),
    (
        "--temperature",
        {"type": float, "default": 1.0, "help": "the temperature of soft targets; below 1 they are sharper"},
    ),
)
