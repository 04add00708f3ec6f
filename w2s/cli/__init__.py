"""The command line: command -> function. Parsing and printing only; heavy modules are imported where needed."""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import w2s
from w2s.cli import flags, start
from w2s.store.log import tell as print  # without control characters and secrets
from w2s.store.log import to_file
from w2s.store.records import BadInput


def main(argv: list[str] | None = None) -> None:
    """Entry point of `w2s`. Bad input: its lines on standard error, exit 2. A failed job: exit 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] in TWO_WORDS:
        words[:2] = [" ".join(words[:2])]
    parser = make_parser()
    args, rest = parser.parse_known_args(words)
    if rest and (args.words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        getattr(args, args.words).extend(rest)  # key=value after a flag
    to_file(None)  # each command sets its own log
    try:
        args.command(args)
    except BadInput as error:
        refuse(str(error))
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        from w2s.store.files import describe_disk_error

        if not (words := describe_disk_error(error)):
            raise
        refuse(words)
    except KeyboardInterrupt:
        print("w2s: interrupted; the same command resumes where it stopped", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "JobFailed":
            raise
        print(f"w2s: {error}", file=sys.stderr)
        sys.exit(1)


def refuse(text: str) -> None:
    print("\n".join(f"w2s: {line}" for line in text.splitlines()), file=sys.stderr)
    sys.exit(2)


def run(args: argparse.Namespace) -> None:
    """Run every stage that is not in the store yet, then judge and report. The same command resumes a run that was
    stopped; on a finished run it does nothing. Several configs run together, under the same key=value."""
    files = [args.config, *(word for word in args.overrides if "=" not in word and word.endswith((".yaml", ".yml")))]
    args.overrides = add_limit([word for word in args.overrides if word not in files], args.limit)
    run_study("chain", files, args)


def run_study(study: str, files: list[str], args: argparse.Namespace) -> None:
    """Run a study's configs and print each result."""
    for run in w2s.run_together(files, *args.overrides, study=study, replace=args.replace):
        print(run.verdict)
        print(f"report: {run.page}")
        if run.student is not None:
            print(f"student: {run.student}")


def plan(args: argparse.Namespace) -> None:
    """Show the table of stages (done or to run), rows and tokens by split, and the first prompts. Runs nothing."""
    from w2s.config.load import cross_checks, load
    from w2s.config.plugins import check_with_plugins
    from w2s.story.plan import describe_plan

    overrides = add_limit(args.overrides, args.limit)
    print(describe_plan(load(args.config, overrides, check_with_plugins(cross_checks))))


def show(args: argparse.Namespace) -> None:
    """Show how an artifact was made, what it holds, and the first rows of its records."""
    from w2s.evaluation.run.inspect import describe_artifact

    print(describe_artifact(args.artifact, Path(args.runs_dir)))


def why(args: argparse.Namespace) -> None:
    """Show every learner's vote and alpha, the question's weight by round, its label, and the reason for it."""
    from w2s.evaluation.run.inspect import describe_row

    print(describe_row(find_run(args.run, args.runs_dir), args.row))


def report(args: argparse.Namespace) -> None:
    """Write the report of one run again, or compare several runs with paired differences. With --results, write a page
    of results for one run or several runs of one config, and beside it the metrics it is made from. Nothing in a run's
    folder is executed, so name the plug-ins of its config again with --plugins."""
    from w2s.config.plugins import load_plugins

    load_plugins(args.plugins)
    if args.results:
        from w2s.evaluation.results import write_results

        folders = [find_results(name, args.runs_dir) for name in args.runs]
        print(f"results: {write_results(folders, Path(args.results))}")
        return
    if args.out and len(args.runs) == 1:
        raise BadInput("--out: one run given; allowed only for a comparison of several")
    folders = [find_run(name, args.runs_dir) for name in args.runs]
    if len(folders) > 1:
        print(f"report: {w2s.compare(folders, args.out)}")
        return
    run = w2s.load_run(folders[0], again=True)
    print(run.verdict)
    print(f"report: {run.page}")


def evaluate(args: argparse.Namespace) -> None:
    """Judge a model on suites: accuracy for questions with choices, pass@1 for code (run in the sandbox)."""
    from w2s.evaluation.suites import evaluate_model

    suites = [word for word in args.suites if "=" not in word]
    print(evaluate_model(args.model, suites, add_limit([word for word in args.suites if "=" in word], args.limit)))


def experts(args: argparse.Namespace) -> None:
    """Make one sparse model of dense models of one base: their MLPs become its experts, the rest is their weighted
    mean (or the base's). Llama and Mistral become Mixtral, Qwen3 becomes Qwen3-MoE."""
    from w2s.evaluation.experts import Plan, make_experts

    models, on = ([word for word in words if "=" not in word] for words in (args.models, args.on))
    overrides = add_limit([word for word in (*args.models, *args.on) if "=" in word], args.limit)
    given = {key: getattr(args, key) for key in ("base", "router", "weights", "active", "balance", "noise", "seed")}
    print(make_experts(Plan(models, Path(args.out), on=on, **given), overrides))


def judge(args: argparse.Namespace) -> None:
    """Judge each sample in the sandbox, and report pass@k with intervals. The same command resumes."""
    from w2s.evaluation.judging import judge as judge_samples

    if not 0 < args.timeout < float("inf"):
        raise BadInput(f"--timeout: {args.timeout:g} given; allowed: seconds above 0")
    judgement = judge_samples(
        args.samples,
        args.suite,
        data_root=args.data_root,
        out=args.out,
        ks=args.k,
        timeout_s=args.timeout,
        allow_unsandboxed=args.allow_unsandboxed,
        limit=args.limit,
        replace=args.replace,
    )
    print(judgement.summary)


def combine(args: argparse.Namespace) -> None:
    """Judge every way of combining recorded answers on held-out questions, and keep the fitted combiners."""
    import shlex

    from w2s.evaluation.pools.combine import run_combine
    from w2s.evaluation.pools.report import table
    from w2s.evaluation.pools.settings import read_settings

    keys = ("questions", "methods", "plugins", "suite", "data_root", "models", "groups", "costs")
    keys += ("unit", "metric", "filter", "limit", "repeats", "seed", "online", "encoder", "out")
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    places = [word for word in args.outputs if "=" not in word]
    if len(places) > 1:
        raise BadInput(f"{places[1]}: {len(places)} given; allowed: one file or folder of outputs")
    given |= {"outputs": places[0]} if places else {}
    settings, specs = read_settings(args.config, given, [word for word in args.outputs if "=" in word])
    report = run_combine(settings, specs, shlex.join(["w2s", *sys.argv[1:]]), replace=args.replace)
    print(f"{table(report)}\nreport: {settings.folder / 'combine.html'}")


def combine_apply(args: argparse.Namespace) -> None:
    """Answer each new question with a combiner that `w2s combine` fitted."""
    from w2s.config.plugins import load_plugins
    from w2s.evaluation.pools.apply import NewOutputs, apply_new

    load_plugins(args.plugins)
    new = NewOutputs(Path(args.outputs), Path(args.questions) if args.questions else None, args.encoder)
    out = Path(args.out or Path(args.folder) / "applied.parquet")
    applied = apply_new(Path(args.folder), new, method=args.method, out=out, replace=args.replace)
    print(f"{applied.summary}\npredictions: {out}")


def combine_labels(args: argparse.Namespace) -> None:
    """Label new questions with a fitted combiner; `w2s run CONFIG label.recorded=DIR` trains a student on them."""
    from w2s.config.plugins import load_plugins
    from w2s.evaluation.pools.apply import LabelOptions, NewOutputs, label_new

    load_plugins(args.plugins)
    new = NewOutputs(Path(args.outputs), Path(args.questions) if args.questions else None, args.encoder)
    select = {"name": args.select, "keep_share": args.keep_share, "threshold": args.threshold}
    select = {key: value for key, value in select.items() if value is not None}
    out = Path(args.out or Path(args.folder) / "labels")
    options = LabelOptions(select, not args.hard, args.temperature)
    labelled = label_new(Path(args.folder), new, options, method=args.method, out=out, replace=args.replace)
    print(f"{labelled.summary}\nlabels: {out}")


def merge(args: argparse.Namespace) -> None:
    """Merge models of one base into one, tensor by tensor. METHOD and its options as in `w2s methods merges`; weights
    are made to sum to 1, and --scale is how far along the merged step to go. LoRA adapters (folders that peft wrote):
    --method cat (exact) or svd rank=8. --from-mergekit reads a configuration of mergekit instead."""
    from w2s.stages.merge_folders import merge_folders, read_recipe

    models = [word for word in args.models if "=" not in word]
    options = flags.read_options([word for word in args.models if "=" in word])
    if args.from_mergekit:
        if models or options or args.base or args.weights:
            raise BadInput("--from-mergekit: it names models, base, method and weights; allowed: only --out beside it")
        recipe = read_recipe(Path(args.from_mergekit))
    else:
        recipe = {"models": models, "method": {"name": args.method, **options}, "base": args.base}
        recipe |= {"weights": args.weights, "scale": args.scale}
    asked = {"seed": args.seed, "root": args.root, "replace": args.replace, "questions": args.questions}
    print(merge_folders(out=Path(args.out), **recipe, **asked))


def rewards(args: argparse.Namespace) -> None:
    """Study reward models on their own: `w2s rewards run CONFIG` on preference data, `w2s rewards curve CONFIG` for
    over-optimisation; each has `--help`. In the main job, the keys label.reward and student.objective of `w2s run` use
    reward models."""
    given = " ".join(args.study) or "nothing"
    raise BadInput(f"rewards: {given!r} given; allowed: run, curve (each takes a config and has --help)")


def rewards_run(args: argparse.Namespace) -> None:
    """Train ensembles of reward models on preference data and judge them on held-out instructions, further suites and
    recorded answers of many models (keys: rewards and rewards.study; rewards.study.pool.outputs=FOLDER: best-of-n among
    the answers recorded there, in columns id, model, text, preference). The same command resumes."""
    run_study("rewards", [args.config], args)


def rewards_curve(args: argparse.Namespace) -> None:
    """Measure over-optimisation: reward and gold of what reward models choose among a policy's samples, against n and,
    with student.objective grpo or rloo, against RL steps. The same command resumes."""
    run_study("curve", [args.config], args)


def methods(args: argparse.Namespace) -> None:
    """List the methods that a config can name, one per line; with a table, also their options. Includes methods of
    installed plug-ins, and of those named with --plugins."""
    from w2s.config.plugins import load_plugins
    from w2s.config.reference import describe_methods

    load_plugins(args.plugins, shipped=True)
    print(describe_methods(args.table))


def env(args: argparse.Namespace) -> None:
    """Show versions, devices, DeepSpeed and the sandbox's tier."""
    from w2s.sandbox.tiers import describe
    from w2s.stages.jobs import count_accelerators, count_cores
    from w2s.store.artifacts import read_commit, read_versions

    facts = {**read_versions(), "commit": read_commit(), "cores": count_cores(), "accelerators": count_accelerators()}
    facts |= {"platform": sys.platform, "sandbox": describe()}
    lines = [f"{name:14} {value}" for name, value in facts.items()]
    print("\n".join(lines) if sys.stdout.isatty() else json.dumps(facts, indent=1))


def add_limit(overrides: list[str], count: int | None) -> list[str]:
    """`--limit N` is `limit=N`."""
    return overrides + ([] if count is None else [f"limit={count}"])


def find_results(name: str, runs_dir: str) -> Path:
    """The folder of a run or of `w2s combine`."""
    return Path(name) if (Path(name) / "combine.json").is_file() else find_run(name, runs_dir)


def find_run(name: str, runs_dir: str) -> Path:
    """The folder of a run, from the folder or its name."""
    for folder in (Path(name), Path(runs_dir) / name):
        if (folder / "stages.json").is_file():
            return folder
    raise BadInput(f"{name}: no run there (no stages.json); runs are under {runs_dir}/")


CHAIN = (flags.CONFIG, flags.SEVERAL, flags.LIMIT, flags.REPLACE)
STUDY = (flags.CONFIG, flags.OVERRIDES, flags.REPLACE)
REPORT = (flags.RUNS, flags.BESIDE, flags.RESULTS, flags.RUNS_DIR, flags.PLUGINS)
COMMANDS = [
    (run, "run the whole chain, or its missing stages, and write the report", CHAIN),
    (plan, "show what would run, without running anything", (flags.CONFIG, flags.OVERRIDES, flags.LIMIT)),
    (show, "show what an artifact of the store holds and how it was made", (flags.ARTIFACT, flags.RUNS_DIR)),
    (why, "show how a question got its label", (flags.RUN, flags.ROW, flags.RUNS_DIR)),
    (report, "write a run's report again, or compare runs side by side", REPORT),
    (evaluate, "judge one model on held-out suites", (flags.MODEL, flags.SUITES, flags.FIRST)),
    (experts, "make one sparse model of dense models: their MLPs become its experts", flags.EXPERTS),
    (judge, "judge samples from elsewhere by a suite's tests", flags.JUDGE),
    (combine, "combine the recorded answers of many models into one opinion", flags.COMBINE),
    (combine_apply, "apply a fitted combiner to new questions", flags.APPLY),
    (combine_labels, "make pseudo-labels with a fitted combiner, to train a student on", flags.APPLY + flags.LABEL),
    (merge, "merge the weights of several models of one base into one", flags.MERGE),
    (rewards, "study reward models: `rewards run`, `rewards curve`", (flags.STUDY,)),
    (rewards_run, "train reward models on preference data and judge them", STUDY),
    (rewards_curve, "measure over-optimisation: gold and reward of chosen samples", STUDY),
    (start.init, "write a commented config and example data to start from", flags.INIT),
    (start.config, "print the keys of a config: `config reference`, `config schema`", (flags.ABOUT,)),
    (start.config_reference, "print every key of a config: type, range, default, meaning", ()),
    (start.config_schema, "print the JSON schema of a config, for editors", (flags.PLUGINS,)),
    (methods, "list the methods of a table, or all tables", (flags.TABLE, flags.PLUGINS)),
    (env, "show versions, devices and sandbox, for bug reports", ()),
]
"""Function (its name is the command's, its docstring the description), summary, arguments."""
TWO_WORDS = [name.split("_") for name in (command.__name__ for command, _, _ in COMMANDS) if "_" in name]


def make_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    about = "Weak-to-strong training: boosted weak models supervise a stronger one."
    parser = argparse.ArgumentParser(prog="w2s", description=about, epilog=flags.EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action=flags.Version, nargs=0, help="show the version and the commit, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, summary, arguments in COMMANDS:
        name = command.__name__.replace("_", " ")
        about, epilog = textwrap.fill(" ".join(command.__doc__.split()), 100), flags.EPILOGS.get(name)
        sub = commands.add_parser(name, help=summary, description=about, epilog=epilog, formatter_class=raw)
        for flag, settings in arguments:
            sub.add_argument(flag, **settings)
        words = next((name for name, settings in arguments if settings.get("nargs") in ("*", "+")), None)
        sub.set_defaults(command=command, words=words)
    return parser
