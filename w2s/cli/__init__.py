"""The command line: command -> function. Parsing and printing only; everything heavy is imported where it is needed."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from w2s.cli import flags
from w2s.store.log import (
    tell as print,  # nothing that a model or a file says steers the terminal, and secrets stay hidden
)
from w2s.store.log import to_file
from w2s.store.records import BadInput


def main(argv: list[str] | None = None) -> None:
    """Entry point of `w2s`. Bad input: its lines on standard error, exit 2. A failed job: exit 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if tuple(words[:2]) in flags.TWO_WORDS:
        words[:2] = [" ".join(words[:2])]
    parser = make_parser()
    asked, rest = parser.parse_known_args(words)
    if rest and (asked.words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        getattr(asked, asked.words).extend(rest)  # key=value after a flag
    to_file(None)  # each command names its own
    try:
        asked.command(asked)
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
        print("w2s: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "JobFailed":
            raise
        print(f"w2s: {error}", file=sys.stderr)
        sys.exit(1)


def refuse(text: str) -> None:
    print("\n".join(f"w2s: {line}" for line in text.splitlines()), file=sys.stderr)
    sys.exit(2)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="w2s",
        description="Weak-to-strong training: boosted weak models supervise a stronger one.",
        epilog=flags.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=flags.Version, nargs=0, help="show the version and the commit, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command, summary: str, *arguments: tuple[str, dict]) -> None:
        name = command.__name__.replace("_", " ")
        sub = commands.add_parser(
            name,
            help=summary,
            description=textwrap.fill(" ".join(command.__doc__.split()), 100),
            epilog=flags.EPILOGS.get(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for flag, settings in arguments:
            sub.add_argument(flag, **settings)
        words = next((name for name, settings in arguments if settings.get("nargs") in ("*", "+")), None)
        sub.set_defaults(command=command, words=words)

    add(run, "run the whole chain, or what is missing of it, and write the report", *flags.CHAIN)
    add(plan, "show what would run, without running anything", flags.CONFIG, flags.OVERRIDES, flags.LIMIT)
    add(show, "show what an artifact of the store is and holds", flags.ARTIFACT, flags.RUNS_DIR)
    add(why, "how a question got its label", flags.RUN, flags.ROW, flags.RUNS_DIR)
    add(report, "write a run's report again, or compare runs side by side", flags.RUNS, flags.BESIDE, flags.RUNS_DIR)
    add(evaluate, "judge one model on held-out suites", flags.MODEL, flags.SUITES, flags.FIRST)
    add(judge, "judge samples that were written elsewhere, by a suite", *flags.JUDGE)
    add(combine, "turn recorded answers of many models into the best one opinion", *flags.COMBINE)
    add(combine_apply, "a fitted combiner on new questions", *flags.APPLY)
    add(combine_labels, "pseudo-labels by a fitted combiner, for a student to train on", *flags.APPLY, *flags.LABEL)
    add(rewards, "reward models by themselves: `rewards run`, `rewards curve`", flags.STUDY)
    add(rewards_run, "train reward models on preference data, and judge them", *flags.STUDIED)
    add(rewards_curve, "gold and reward of what reward models choose: over-optimisation", *flags.STUDIED)
    add(methods, "list the methods of a table, or all tables", flags.TABLE)
    add(env, "versions, devices and sandbox: what to paste into a bug report")
    return parser


def run(asked: argparse.Namespace) -> None:
    """Run every stage that is not in the store yet, then judge and report. The same command again goes on, or is a
    no-op. Several configs run together, under the same key=value."""
    from w2s.config.load import load

    files = [asked.config, *(word for word in asked.overrides if "=" not in word and word.endswith((".yaml", ".yml")))]
    overrides = limited([word for word in asked.overrides if word not in files], asked.limit)
    configs = [load(file, overrides) for file in files]  # before the heavy imports: what is wrong is said at once
    if len({config.name for config in configs}) < len(configs):
        raise BadInput(f"name: {configs[0].name!r} is the name of several configs; each needs one of its own")
    from w2s.evaluation.run.collect import finish
    from w2s.store import log
    from w2s.story import execution

    folders = [Path(config.runtime.runs_dir) / config.name for config in configs]
    log.to_file(folders[0] / "log.jsonl")
    told = execution.run(configs, replace=asked.replace)
    for file, config, folder, stages in zip(files, configs, folders, told, strict=True):
        execution.write_run(config, stages, ["w2s", "run", file, *overrides])
        print(finish(folder))
        print(f"report: {folder / 'report.html'}")
        print(f"student: {folder / 'student'}")


def plan(asked: argparse.Namespace) -> None:
    """The stage table (done, or would run), rows and words by split, and the first rendered prompts. Runs nothing."""
    from w2s.config.load import load
    from w2s.story.plan import describe_plan

    print(describe_plan(load(asked.config, limited(asked.overrides, asked.limit))))


def show(asked: argparse.Namespace) -> None:
    """What made an artifact, what it holds, and the first rows of its records."""
    from w2s.evaluation.run.inspect import describe_artifact

    print(describe_artifact(asked.artifact, Path(asked.runs_dir)))


def why(asked: argparse.Namespace) -> None:
    """Every learner's vote and alpha, the question's weight by round, the label it got, and why."""
    from w2s.evaluation.run.inspect import describe_row

    print(describe_row(run_folder(asked.run, asked.runs_dir), asked.row))


def report(asked: argparse.Namespace) -> None:
    """Write the report of one run again, or, with several runs, a comparison with paired differences."""
    from w2s.evaluation.run.collect import compare, finish

    if asked.out and len(asked.runs) == 1:
        raise BadInput("--out: one run given; allowed for several, whose comparison goes there")
    folders, page = [run_folder(name, asked.runs_dir) for name in asked.runs], "report.html"
    studies = [study_of(folder) for folder in folders]
    if len(folders) == 1:
        if studies[0] == "run":
            from w2s.evaluation.rewards.reward_study_report import finish
        elif studies[0] == "curve":
            from w2s.evaluation.rewards.curve_report import finish

            page = "curve.html"
        print(finish(folders[0], again=True))
        print(f"report: {folders[0] / page}")
    else:
        for folder, study in zip(folders, studies, strict=True):
            if study:
                raise BadInput(f"{folder}: a run of `w2s rewards {study}`; compared side by side are runs of `w2s run`")
        print(f"report: {compare(folders, Path(asked.out) if asked.out else None)}")


def evaluate(asked: argparse.Namespace) -> None:
    """Judge a model on suites: accuracy for questions with choices, pass@1 for code (run in the sandbox)."""
    from w2s.evaluation.suites import evaluate_model

    suites = [word for word in asked.suites if "=" not in word]
    print(evaluate_model(asked.model, suites, limited([word for word in asked.suites if "=" in word], asked.limit)))


def judge(asked: argparse.Namespace) -> None:
    """A verdict for each sample, run in the sandbox; pass@k with intervals. The same command again goes on."""
    from w2s.evaluation.judging import judge_file

    if not 0 < asked.timeout < float("inf"):
        raise BadInput(f"--timeout: {asked.timeout:g} given; allowed: seconds above 0")
    root, out = (Path(one) if one else None for one in (asked.data_root, asked.out))
    how = {"timeout_s": asked.timeout, "allow_unsandboxed": asked.allow_unsandboxed}
    how |= {"limit": asked.limit, "replace": asked.replace}
    print(judge_file(Path(asked.samples), asked.suite, data_root=root, out=out, ks=asked.k, **how))


def combine(asked: argparse.Namespace) -> None:
    """Judge every way of combining recorded answers on held-out questions, and keep the fitted combiners."""
    import shlex

    from w2s.evaluation.pools.asked import asked_of
    from w2s.evaluation.pools.combine import combine as combine_pool

    flags = ("questions", "methods", "suite", "data_root", "models", "groups", "costs")
    flags += ("unit", "metric", "filter", "limit", "repeats", "seed", "online", "encoder", "out")
    given = {key: getattr(asked, key) for key in flags if getattr(asked, key) is not None}
    places = [word for word in asked.outputs if "=" not in word]
    if len(places) > 1:
        raise BadInput(f"{places[1]}: one file or folder of outputs is expected; {len(places)} given")
    given |= {"outputs": places[0]} if places else {}
    found, specs = asked_of(asked.config, given, [word for word in asked.outputs if "=" in word])
    print(combine_pool(found, specs, shlex.join(["w2s", *sys.argv[1:]]), replace=asked.replace))


def combine_apply(asked: argparse.Namespace) -> None:
    """One answer to each new question, by a combiner that `w2s combine` fitted."""
    from w2s.evaluation.pools.files import apply_fitted

    out = Path(asked.out or Path(asked.folder) / "applied.parquet")
    print(apply_fitted(*places_of(asked), out, method=asked.method, encoder=asked.encoder))


def combine_labels(asked: argparse.Namespace) -> None:
    """Label new questions with a fitted combiner; `w2s run CONFIG label.recorded=DIR` trains a student on them."""
    from w2s.evaluation.pools.files import label

    select = {"name": asked.select, "keep_share": asked.keep_share, "threshold": asked.threshold}
    select = {key: value for key, value in select.items() if value is not None}
    out = Path(asked.out or Path(asked.folder) / "labels")
    how = {"soft": not asked.hard, "temperature": asked.temperature}
    print(label(*places_of(asked), out, method=asked.method, encoder=asked.encoder, select=select, **how))


def places_of(asked: argparse.Namespace) -> tuple[Path, Path, Path | None]:
    return Path(asked.folder), Path(asked.outputs), Path(asked.questions) if asked.questions else None


def rewards(asked: argparse.Namespace) -> None:
    """Reward models by themselves, one of two studies: `w2s rewards run CONFIG` on preference data, `w2s rewards curve
    CONFIG` for over-optimisation; `--help` behind either tells its keys. In the main job: label.reward and
    student.objective of `w2s run`."""
    given = " ".join(asked.study) or "nothing"
    raise BadInput(f"rewards: {given!r} given; allowed: run, curve (each takes a config and has --help)")


def rewards_run(asked: argparse.Namespace) -> None:
    """Train ensembles of reward models on preference data and judge them on held-out instructions, further suites and
    recorded answers of many models (keys: rewards and rewards.study; rewards.study.pool.outputs=FOLDER: best-of-n among
    answers that are recorded there, in columns id, model, text, preference). The same command again goes on."""
    from w2s.config.load import load
    from w2s.story import reward_study as preferring

    config = load(asked.config, asked.overrides, preferring.checks)
    story = preferring.story(config)
    from w2s.evaluation.rewards.reward_study_report import finish
    from w2s.store import log
    from w2s.story import execution

    folder = Path(config.runtime.runs_dir) / config.name
    log.to_file(folder / "log.jsonl")
    (told,) = execution.run([config], story, replace=asked.replace)
    execution.write_run(config, told, ["w2s", "rewards", "run", asked.config, *asked.overrides])
    print(finish(folder))
    print(f"report: {folder / 'report.html'}")


def rewards_curve(asked: argparse.Namespace) -> None:
    """Over-optimisation: what reward models choose among a policy's samples, and what gold says of it, against n and
    (student.objective: grpo or rloo) against RL steps. The same command again goes on, or is a no-op."""
    from w2s.config.load import load
    from w2s.story import curve as overoptimised

    config = load(asked.config, asked.overrides, overoptimised.checks)
    from w2s.evaluation.rewards.curve_report import finish
    from w2s.store import log
    from w2s.story import execution

    folder = Path(config.runtime.runs_dir) / config.name
    log.to_file(folder / "log.jsonl")
    (told,) = execution.run([config], overoptimised.tell_probe, replace=asked.replace)
    execution.write_run(config, told, ["w2s", "rewards", "curve", asked.config, *asked.overrides])
    print(finish(folder))
    print(f"report: {folder / 'curve.html'}")


def methods(asked: argparse.Namespace) -> None:
    """The methods that a config can name, a line each; with a table, their options too."""
    from w2s.story.checks import describe_methods

    print(describe_methods(asked.table))


def env(asked: argparse.Namespace) -> None:
    """Versions, devices, DeepSpeed and the sandbox's tier."""
    from w2s.sandbox.tiers import describe
    from w2s.stages.jobs import count_accelerators, count_cores
    from w2s.store.artifacts import read_commit, read_versions

    facts = {**read_versions(), "commit": read_commit(), "cores": count_cores(), "accelerators": count_accelerators()}
    facts |= {"platform": sys.platform, "sandbox": describe()}
    print(
        json.dumps(facts, indent=1) if not sys.stdout.isatty() else "\n".join(f"{k:14} {v}" for k, v in facts.items())
    )


def limited(overrides: list[str], limit: int | None) -> list[str]:
    """`--limit N` is `limit=N`."""
    return overrides + ([] if limit is None else [f"limit={limit}"])


def study_of(folder: Path) -> str | None:
    """`run` or `curve` where the run is one of `w2s rewards`; None where it is of `w2s run`."""
    from w2s.store.artifacts import read_listing

    words = read_listing(folder)["command"].split()
    return words[2] if words[:2] == ["w2s", "rewards"] else None


def run_folder(name: str, runs_dir: str) -> Path:
    """A run by its folder or its name."""
    for folder in (Path(name), Path(runs_dir) / name):
        if (folder / "stages.json").is_file():
            return folder
    raise BadInput(f"{name}: no run there (no stages.json); runs lie under {runs_dir}/")


if __name__ == "__main__":
    main()
