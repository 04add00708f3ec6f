"""What commands can be told: their arguments, with the words of `--help`."""

from __future__ import annotations

import argparse

EXAMPLES = """\
examples:
  w2s run configs/quickstart.yaml                    the whole chain on the embedded synthetic world
  w2s run configs/quickstart.yaml --limit 200        a smoke run of it: seconds, to see that everything works
  w2s run configs/quickstart*.yaml                   the same for choices, short answers and code
  w2s run configs/science.yaml data.root=DIR         real questions; any key of the config can be set this way
  w2s run configs/quickstart.yaml seeds=[0,1,2,3,4] name=five
  w2s plan configs/science.yaml data.root=DIR        what would run, and the words a model would see
  w2s why runs/quickstart 1a2b                       how one question got its label
  w2s report runs/quickstart runs/five               two runs side by side
  w2s evaluate runs/quickstart/student world         a model (a folder or a hub name) on held-out questions
  w2s evaluate FOLDER arc_challenge humaneval data.root=DIR --limit 40
  w2s judge samples.jsonl --suite humaneval          programs written elsewhere: verdicts and pass@k
  w2s combine OUTPUTS --questions QUESTIONS          recorded answers of many models -> the best one opinion
  w2s combine apply runs/combine/NAME NEW_OUTPUTS    the fitted combiner on new questions
  w2s rewards run configs/rewards/alpaca_eval.yaml data.root=DIR   reward-model ensembles on preference data
  w2s rewards curve configs/rewards/overoptimisation.yaml          gold against what reward models choose
"""

COMBINING = """\
OUTPUTS is parquet, jsonl or csv with a row for each answer (columns id, model, answer; optional: sample, correct,
score, probs, cost, text, visible_pass), a folder with outputs.* and questions.*, lm-eval's samples_*.jsonl, or evalplus
sample files. QUESTIONS has a row for each question: id, and optionally group, prompt, choices, gold.

examples:
  w2s combine OUTPUTS --questions QUESTIONS                    every method but RL-Focal (minutes: --methods all,focal)
  w2s combine FOLDER --methods samme,gradient_boosted --models llama-3-8b,gemma-7b
  w2s combine FOLDER --methods routing --groups mbpp knn.neighbours=80
  w2s combine --config pool.yaml                               the same keys in a file; flags go over them
"""

RUNNING = """\
key=value sets any key of the config, a list's item by its number: seeds=[0,1,2], student.train.lr=1e-4,
learners.0.model.path=FOLDER, label.select={name: confidence, keep_share: 0.5}. Every key is explained in w2s/config.py,
every method that a key can name by `w2s methods`.

what is written, to runs/NAME/ (runtime.runs_dir, name):
  report.html, report.md     what was found        student/     the trained student, for transformers, with its card
  metrics.json, exports/     all numbers, answers  config.yaml  every key as it was
  log.jsonl                  what was said, timed  stages.json  the artifacts in runs/store/ that the run consists of

examples:
  w2s run configs/quickstart.yaml --limit 200        a smoke run, NAME-limit-200, apart from the whole run
  w2s run configs/quickstart.yaml seeds=[0,1,2,3,4] name=five
  w2s run configs/science.yaml data.root=DIR student.model.path=FOLDER
"""

EVALUATING = """\
Suites are sources of questions (`w2s methods sources`): arc_challenge, mmlu, gsm8k, humaneval, ..., read from data.root
or the hub. Results lie in runs/evaluate/MODEL/, and what is there is not asked again.

examples:
  w2s evaluate runs/quickstart/student world
  w2s evaluate FOLDER sciq gsm8k data.root=DIR --limit 40
  w2s evaluate Qwen/Qwen2.5-0.5B humanevalplus evaluation.programs=10 evaluation.temperature=0.8
  w2s evaluate FOLDER arc_challenge 'student.model.prompt={name: qa}' runtime.micro_batch=8
"""

JUDGING = """\
examples:
  w2s judge samples.jsonl --suite humanevalplus --data-root DIR
  w2s judge FOLDER --suite mbpp --k 1,10,100 --limit 20
"""

EPILOGS = {"run": RUNNING, "evaluate": EVALUATING, "judge": JUDGING, "combine": COMBINING}

TWO_WORDS = {("combine", "apply"), ("combine", "labels"), ("rewards", "run"), ("rewards", "curve")}


def names(text: str) -> list[str]:
    """A flag's list: names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def prices(text: str) -> dict[str, float]:
    """A flag's mapping: pattern=dollars, separated by commas."""
    try:
        return {name: float(cost) for name, cost in (part.rsplit("=", 1) for part in names(text))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: MEMBER=DOLLARS, separated by commas") from None


def counts(text: str) -> list[int]:
    """A flag's list: whole numbers above 0, separated by commas."""
    found = [int(one) if one.isdecimal() else 0 for one in names(text)]
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: whole numbers above 0, separated by commas")
    return found


def count(text: str) -> int:
    """A flag's whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number above 0")
    return int(text)


class Version(argparse.Action):
    """The version, and the commit in a checkout; looked up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_) -> None:
        from w2s.store.artifacts import read_commit, read_versions

        commit = f" (commit {read_commit()})" if read_commit() else ""
        print(f"w2s {read_versions().get('w2s', 'not installed')}{commit}")
        parser.exit()


CONFIG = ("config", {"help": "a YAML file, e.g. configs/quickstart.yaml"})
STUDY = ("study", {"nargs": "*", "metavar": "run|curve", "help": "which study"})
OVERRIDES = ("overrides", {"nargs": "*", "metavar": "key=value", "help": "override any key of the config"})
SEVERAL = ("overrides", {**OVERRIDES[1], "help": "override any key of the config; or further configs"})
REPLACE = ("--replace", {"action": "store_true", "help": "write over what lies under the same name"})
RUNS_DIR = ("--runs-dir", {"default": "runs", "help": "where runs and their store lie (default: runs)"})
ARTIFACT = ("artifact", {"help": "its folder, or the start of its name"})
RUN = ("run", {"help": "a run's folder or name"})
ROW = ("row", {"help": "the question's id, or its beginning"})
RUNS = ("runs", {"nargs": "+", "help": "folders or names of runs"})
LIMIT = ("--limit", {"type": count, "metavar": "N", "help": "a smoke run: of every set the first N questions by id"})
FIRST = ("--limit", {"type": count, "metavar": "N", "help": "only the first N questions of each suite by id"})
MODEL = ("model", {"help": "hub name, or local folder"})
SUITES = ("suites", {"nargs": "+", "metavar": "suite", "help": "sources (see `w2s methods sources`), and key=value"})
CHAIN = (CONFIG, SEVERAL, LIMIT, REPLACE)
STUDIED = (CONFIG, OVERRIDES, REPLACE)
TABLE = ("table", {"nargs": "?", "help": "one table, e.g. combiners: its methods with their options"})
BESIDE = ("--out", {"metavar": "DIR", "help": "where a comparison goes (default: compare/RUN+RUN beside the runs)"})
JUDGE = (
    ("samples", {"metavar": "SAMPLES", "help": "task_id and solution (evalplus), or id, model, text; jsonl, parquet"}),
    ("--suite", {"required": True, "metavar": "NAME", "help": "humaneval, humanevalplus, mbpp, mbppplus, gsm8k, ..."}),
    ("--data-root", {"metavar": "DIR", "help": "where the suite lies; else the hub is asked"}),
    ("--out", {"metavar": "FILE", "help": "a verdict for each sample; default runs/judge/NAME-SUITE.jsonl"}),
    ("--limit", {"type": count, "metavar": "N", "help": "only samples of the first N tasks by id"}),
    ("--k", {"type": counts, "help": "of pass@k (default 1,10, where there are so many samples)"}),
    (
        "--timeout",
        {"type": float, "default": 3.0, "metavar": "SECONDS", "help": "of one program (default 3, HumanEval's own)"},
    ),
    ("--allow-unsandboxed", {"action": "store_true", "help": "run programs though there is no sandbox here"}),
    REPLACE,
)
QUESTIONS = ("--questions", {"metavar": "FILE", "help": "the questions, where OUTPUTS is not a folder that holds them"})
ENCODER = ("--encoder", {"metavar": "MODEL", "help": "a sentence encoder for routers, folder or hub name; else TF-IDF"})
COMBINE = (
    ("outputs", {"nargs": "*", "metavar": "OUTPUTS", "help": "recorded outputs, then METHOD.OPTION=value"}),
    QUESTIONS,
    ("--methods", {"type": names, "help": "methods or families (see `w2s methods combine`), or all (default)"}),
    ("--suite", {"metavar": "NAME", "help": "the suite that evalplus samples are judged by, e.g. humanevalplus"}),
    ("--data-root", {"metavar": "DIR", "help": "where the suite lies; else the hub is asked"}),
    ("--models", {"type": names, "help": "only these models, e.g. --models a,b"}),
    ("--groups", {"type": names, "help": "only the questions of these groups"}),
    ("--costs", {"type": prices, "help": "dollars per answer, where none were recorded, e.g. 'gpt-4*=0.03,*=0.001'"}),
    ("--unit", {"help": "what costs are counted in, e.g. tokens (default $)"}),
    ("--metric", {"type": names, "help": "of lm-eval logs: the metric that says right or wrong, e.g. acc_norm"}),
    ("--filter", {"type": names, "help": "of lm-eval logs: whose answers count, e.g. flexible-extract"}),
    ("--limit", {"type": count, "metavar": "N", "help": "a smoke run: only the first N questions by id"}),
    ("--repeats", {"type": int, "help": "cuts into random halves, fitted on one and judged on the other (default 5)"}),
    ("--seed", {"type": int, "help": "of these cuts (default 0)"}),
    ("--online", {"action": "store_true", "default": None, "help": "also judge with labels revealed one by one"}),
    ENCODER,
    ("--out", {"metavar": "DIR", "help": "default runs/combine/NAME"}),
    ("--config", {"metavar": "FILE", "help": "a YAML file with these flags as keys"}),
    REPLACE,
)
APPLY = (
    ("folder", {"help": "what `w2s combine` wrote"}),
    ("outputs", {"help": "the new questions' recorded outputs"}),
    QUESTIONS,
    ("--method", {"help": "a fitted method (default: the winner)"}),
    ENCODER,
    ("--out", {"metavar": "PATH", "help": "default: FOLDER/applied.parquet, or FOLDER/labels"}),
)
LABEL = (
    ("--select", {"default": "everything", "help": "which labels are kept: a selector (see `w2s methods selectors`)"}),
    ("--keep-share", {"type": float, "help": "of the selectors that keep a share"}),
    ("--threshold", {"type": float, "help": "of the selector agreement"}),
    ("--hard", {"action": "store_true", "help": "the best candidate alone as target, in place of the distribution"}),
    ("--temperature", {"type": float, "default": 1.0, "help": "of the soft targets; below 1 sharper"}),
)
