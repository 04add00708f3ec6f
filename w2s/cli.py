"""The command line: command -> function. Parsing and printing only; everything heavy is imported where it is needed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from w2s.records import BadInput

EXAMPLES = """\
examples:
  w2s run configs/quickstart.yaml                    the whole chain on the embedded synthetic world
  w2s run configs/science.yaml data.root=DIR         real questions; any key of the config can be set this way
  w2s run configs/quickstart.yaml seeds=[0,1,2,3,4] name=five
  w2s plan configs/science.yaml data.root=DIR        what would run, and the words a model would see
  w2s why runs/quickstart 1a2b                       how one question got its label
  w2s report runs/quickstart runs/five               two runs side by side
  w2s evaluate FOLDER arc_challenge humaneval data.root=DIR
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point of `w2s`. Bad input: its lines on standard error, exit 2. A failed job: exit 1."""
    parser = make_parser()
    asked = parser.parse_args(argv)
    try:
        asked.command(asked)
    except BadInput as error:
        print("\n".join(f"w2s: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("w2s: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
    except RuntimeError as error:
        if type(error).__name__ != "JobFailed":
            raise
        print(f"w2s: {error}", file=sys.stderr)
        sys.exit(1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="w2s",
        description="Weak-to-strong training: boosted weak models supervise a stronger one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command, words: str, *arguments: tuple[str, dict]) -> None:
        sub = commands.add_parser(command.__name__.rstrip("_"), help=words, description=command.__doc__)
        for name, settings in arguments:
            sub.add_argument(name, **settings)
        sub.set_defaults(command=command)

    config = ("config", {"help": "a YAML file, e.g. configs/quickstart.yaml"})
    overrides = ("overrides", {"nargs": "*", "metavar": "key=value", "help": "override any key of the config"})
    runs_dir = ("--runs-dir", {"default": "runs", "help": "where runs and their store lie (default: runs)"})
    add(run, "run the whole chain, or what is missing of it, and write the report", config, overrides)
    add(plan, "show what would run, without running anything", config, overrides)
    add(
        show,
        "show what an artifact of the store is and holds",
        ("artifact", {"help": "its folder, or the start of its name"}),
        runs_dir,
    )
    add(
        why,
        "how a question got its label",
        ("run", {"help": "a run's folder or name"}),
        ("row", {"help": "the question's id, or its beginning"}),
        runs_dir,
    )
    add(
        report,
        "write a run's report again, or compare runs side by side",
        ("runs", {"nargs": "+", "help": "folders or names of runs"}),
        runs_dir,
    )
    suites = (
        "suites",
        {"nargs": "+", "metavar": "suite", "help": "sources (see `w2s methods sources`), and key=value"},
    )
    add(evaluate, "judge one model on held-out suites", ("model", {"help": "hub name, or local folder"}), suites)
    add(methods, "list the methods of a table, or all tables", ("table", {"nargs": "?"}))
    add(env, "versions, devices and sandbox: what to paste into a bug report")
    return parser


def run(asked: argparse.Namespace) -> None:
    """Run every stage that is not in the store yet, then judge and report. The same command again goes on, or is a
    no-op."""
    from w2s.config_file import load

    config = load(asked.config, asked.overrides)  # before the heavy imports: what is wrong is said at once
    from evaluation.collect import finish
    from w2s import execution, log

    folder = Path(config.runtime.runs_dir) / config.name
    log.to_file(folder / "log.jsonl")
    told = execution.run(config)
    execution.write_run(config, told, ["w2s", "run", asked.config, *asked.overrides])
    print(finish(folder))
    print(f"report: {folder / 'report.html'}")


def plan(asked: argparse.Namespace) -> None:
    """The stage table (done, or would run), rows and words by split, and the first rendered prompts. Runs nothing."""
    from w2s.config_file import load
    from w2s.plan import describe_plan

    print(describe_plan(load(asked.config, asked.overrides)))


def show(asked: argparse.Namespace) -> None:
    """What made an artifact, what it holds, and the first rows of its records."""
    from evaluation.inspect import describe_artifact

    print(describe_artifact(asked.artifact, Path(asked.runs_dir)))


def why(asked: argparse.Namespace) -> None:
    """Every learner's vote and alpha, the question's weight by round, the label it got, and why."""
    from evaluation.inspect import describe_row

    print(describe_row(run_folder(asked.run, asked.runs_dir), asked.row))


def report(asked: argparse.Namespace) -> None:
    """Write the report of one run again, or, with several runs, a comparison with paired differences."""
    from evaluation.collect import compare, finish

    folders = [run_folder(name, asked.runs_dir) for name in asked.runs]
    if len(folders) == 1:
        print(finish(folders[0], again=True))
        print(f"report: {folders[0] / 'report.html'}")
    else:
        print(f"report: {compare(folders)}")


def evaluate(asked: argparse.Namespace) -> None:
    """Judge a model on suites: accuracy for questions with choices, pass@1 for code (run in the sandbox)."""
    from evaluation.suites import evaluate_model

    suites = [word for word in asked.suites if "=" not in word]
    print(evaluate_model(asked.model, suites, [word for word in asked.suites if "=" in word]))


def methods(asked: argparse.Namespace) -> None:
    """The methods that a config can name, a line each; with a table, their options too."""
    from w2s.methods import describe_methods

    print(describe_methods(asked.table))


def env(asked: argparse.Namespace) -> None:
    """Versions, devices, DeepSpeed and the sandbox's tier."""
    from w2s.jobs import count_accelerators, count_cores
    from w2s.sandbox import describe
    from w2s.store import git_commit, versions

    facts = {**versions(), "commit": git_commit(), "cores": count_cores(), "accelerators": count_accelerators()}
    facts |= {"platform": sys.platform, "sandbox": describe()}
    print(
        json.dumps(facts, indent=1) if not sys.stdout.isatty() else "\n".join(f"{k:14} {v}" for k, v in facts.items())
    )


def run_folder(name: str, runs_dir: str) -> Path:
    """A run by its folder or its name."""
    for folder in (Path(name), Path(runs_dir) / name):
        if (folder / "stages.json").is_file():
            return folder
    raise BadInput(f"{name}: no run there (no stages.json); runs lie under {runs_dir}/")


if __name__ == "__main__":
    main()
