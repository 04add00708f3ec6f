"""The Python API of `w2s combine`: `read_pool`, `combine`, and a `Combined` that labels new questions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.evaluation.pools.apply import LabelOptions, NewOutputs, apply_new, label_new
from w2s.evaluation.pools.combine import run_combine
from w2s.evaluation.pools.folders import read_report
from w2s.evaluation.pools.pool import Pool, load_pool
from w2s.evaluation.pools.settings import read_settings
from w2s.store.records import PseudoLabels

if TYPE_CHECKING:
    import pandas as pd

INTERVALS = ("accuracy", "over_best", "over_plurality")
OTHERS = ("abstained", "cost", "asked", "seconds", "family", "options")


def read_pool(
    outputs: str | os.PathLike | pd.DataFrame,
    questions: str | os.PathLike | pd.DataFrame | None = None,
    *,
    models: Sequence[str] = (),
    groups: Sequence[str] = (),
    costs: dict[str, float] | None = None,
    unit: str = "$",
    suite: str | None = None,
    data_root: str | os.PathLike | None = None,
    metric: Sequence[str] = (),
    filter: Sequence[str] = (),
    limit: int | None = None,
    encoder: str | None = None,
) -> Pool:
    """The recorded answers of a pool of models, and which of them are known to be right or wrong.

    outputs: a table with the columns id, model and answer (optional: sample, correct, score, probs, cost, text,
    visible_pass, quality), as a parquet, JSON Lines or CSV file or a DataFrame; or a folder with outputs.* and
    questions.*; or sample logs of lm-eval or evalplus. questions: a table with the column id (optional: group, prompt,
    choices, gold), unless the outputs' folder has it. An answer and gold are the index of a choice, or a text
    if a question has no choices.

    models, groups: only these; all by default. costs: dollars per answer by member or pattern (`{"gpt-4*": 0.03}`),
    where none were recorded; unit: the unit of costs. suite, data_root: the suite that judges evalplus samples.
    metric, filter: those of lm-eval logs, in order of preference. limit: only the first questions by id. encoder: a
    sentence encoder (folder or hub name) for routers; TF-IDF by default. Tables that cannot be read are a BadInput
    with a line for each problem.

    >>> import pandas as pd
    >>> questions = pd.DataFrame({"id": range(8), "choices": [["yes", "no"]] * 8, "gold": [0, 1] * 4})
    >>> rows = [(n, model, (n + (n < wrong)) % 2) for n in range(8) for model, wrong in [("a", 1), ("b", 3)]]
    >>> pool = read_pool(pd.DataFrame(rows, columns=["id", "model", "answer"]), questions)
    >>> pool
    Pool(8 questions, 2 members)
    >>> pool.truth.right_MN.mean(1).tolist()
    [0.875, 0.625]
    """
    lists = {"models": models, "groups": groups, "metric": metric, "filter": filter}
    flags = {key: list(values) for key, values in lists.items()} | {"costs": dict(costs or {}), "unit": unit}
    flags |= {"outputs": name_table(outputs, "outputs"), "suite": suite, "limit": limit, "encoder": encoder}
    flags["questions"] = None if questions is None else name_table(questions, "questions")
    flags["data_root"] = None if data_root is None else str(data_root)
    settings, _ = read_settings(None, flags, [])
    return load_pool(settings, as_path(outputs), as_path(questions))


def combine(
    pool: Pool | str | os.PathLike,
    methods: str | Sequence[str | dict[str, Any]] = "all",
    *,
    repeats: int = 5,
    seed: int = 0,
    online: bool = False,
    out: str | os.PathLike | None = None,
    replace: bool = False,
) -> Combined:
    """Judge ways to combine a pool's answers on held-out questions, and keep each fitted on all of them.

    methods: names of methods or families (`w2s methods combine` lists them), or mappings {"name": ..., options}; "all"
    is every method but RL-Focal. `best_single` and `plurality` are always judged. repeats: how many times the questions
    are split into random halves, fitted on one and judged on the other; seed: of these splits. online: also judge with
    labels that are revealed one by one. out: the folder of results, runs/combine/NAME by default; results of other work
    in it are a BadInput unless `replace` is set.

    >>> import tempfile
    >>> import pandas as pd
    >>> questions = pd.DataFrame({"id": range(8), "choices": [["yes", "no"]] * 8, "gold": [0, 1] * 4})
    >>> wrong = {"a": [0, 1], "b": [2, 3], "c": [4, 5, 6]}
    >>> rows = [(n, model, (n + (n in wrong[model])) % 2) for n in range(8) for model in wrong]
    >>> pool = read_pool(pd.DataFrame(rows, columns=["id", "model", "answer"]), questions)
    >>> combined = combine(pool, ["plurality"], repeats=1, out=tempfile.mkdtemp())
    >>> combined.winner
    'plurality'
    >>> float(combined.table.loc["plurality", "accuracy"])
    1.0
    """
    pool = pool if isinstance(pool, Pool) else read_pool(pool)
    flags = dataclasses.asdict(pool.settings) | {"repeats": repeats, "seed": seed, "online": online}
    flags["methods"] = [methods] if isinstance(methods, str) else list(methods)
    flags["out"] = None if out is None else str(out)
    settings, specs = read_settings(None, flags, [])
    command = f"w2s.combine({settings.outputs!r}, {settings.methods!r})"
    run_combine(settings, specs, command, pool=dataclasses.replace(pool, settings=settings), replace=replace)
    return Combined(settings.folder)


@dataclass(frozen=True)
class Combined:
    """The results of `combine` or of the command `w2s combine`: a folder with judged and fitted methods.

    >>> Combined(Path("runs/combine/mine")).folder.name
    'mine'
    """

    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """The content of combine.json."""
        return read_report(self.folder)

    @property
    def winner(self) -> str:
        """The method that was right most often."""
        return self.report["winner"]

    @property
    def table(self) -> pd.DataFrame:
        """The judged methods, best first, by name.

        accuracy (0 to 1), over_best and over_plurality (paired differences to the best single model and to the vote)
        with the ends of their 95% intervals in ..._low and ..._high; abstained (share), cost (per 1,000 questions),
        asked (members per question), seconds (of one fit and one judged half), family and options.
        """
        import pandas as pd

        rows = []
        for method in self.report["methods"]:
            row = {"name": method["name"]}
            for key in INTERVALS:
                row |= dict(zip((key, f"{key}_low", f"{key}_high"), method[key] or [None] * 3, strict=True))
            rows.append(row | {key: method[key] for key in OTHERS})
        return pd.DataFrame(rows).set_index("name")

    def apply(
        self,
        outputs: str | os.PathLike | pd.DataFrame,
        questions: str | os.PathLike | pd.DataFrame | None = None,
        *,
        method: str | None = None,
        encoder: str | None = None,
        out: str | os.PathLike | None = None,
        replace: bool = False,
    ) -> pd.DataFrame:
        """One row per new question, with its answer by a fitted method (None: the winner).

        outputs, questions: as in `read_pool`, of the members that the method was fitted on; gold is not needed. The
        columns: id, method, candidate (an index, missing without an answer), answer (text), confidence, member (whose
        answer it is, where one member is chosen), right (missing without gold). out: also write them there, as parquet.

        >>> import tempfile
        >>> import pandas as pd
        >>> questions = pd.DataFrame({"id": range(8), "choices": [["yes", "no"]] * 8, "gold": [0, 1] * 4})
        >>> rows = [(n, model, n % 2) for n in range(8) for model in "abc"]
        >>> pool = read_pool(pd.DataFrame(rows, columns=["id", "model", "answer"]), questions)
        >>> combined = combine(pool, ["plurality"], repeats=1, out=tempfile.mkdtemp())
        >>> new = pd.DataFrame({"id": ["new"] * 3, "model": ["a", "b", "c"], "answer": [1, 1, 0]})
        >>> asked = pd.DataFrame({"id": ["new"], "choices": [["yes", "no"]]})
        >>> combined.apply(new, asked, method="plurality")[["id", "answer"]].values.tolist()
        [['new', 'no']]
        """
        new = NewOutputs(as_path(outputs), as_path(questions), encoder)
        applied = apply_new(self.folder, new, method=method, out=as_path(out), replace=replace)
        return applied.table.to_pandas()

    def labels(
        self,
        outputs: str | os.PathLike | pd.DataFrame,
        questions: str | os.PathLike | pd.DataFrame | None = None,
        *,
        method: str | None = None,
        encoder: str | None = None,
        select: str | dict[str, Any] = "everything",
        soft: bool = True,
        temperature: float = 1.0,
        out: str | os.PathLike | None = None,
        replace: bool = False,
    ) -> PseudoLabels:
        """Pseudo-labels of new questions that have a prompt and choices, by a fitted method (None: the winner).

        outputs, questions: as in `read_pool`. select: which labels are kept, a selector's name or a mapping with its
        options (`w2s methods selectors`). soft: the distribution over the choices as target, else the best choice
        alone; temperature: of soft targets, below 1 sharper. out: also write them to this folder, for
        `label.recorded=DIR` of `w2s run`.

        >>> import tempfile
        >>> import pandas as pd
        >>> questions = pd.DataFrame({"id": range(8), "choices": [["yes", "no"]] * 8, "gold": [0, 1] * 4})
        >>> rows = [(n, model, n % 2) for n in range(8) for model in "abc"]
        >>> pool = read_pool(pd.DataFrame(rows, columns=["id", "model", "answer"]), questions)
        >>> combined = combine(pool, ["plurality"], repeats=1, out=tempfile.mkdtemp())
        >>> new = pd.DataFrame({"id": ["new"] * 3, "model": ["a", "b", "c"], "answer": [1, 1, 1]})
        >>> asked = pd.DataFrame({"id": ["new"], "prompt": ["Is 3 even?"], "choices": [["yes", "no"]]})
        >>> combined.labels(new, asked, method="plurality").target_NK.tolist()
        [[0.0, 1.0]]
        """
        new = NewOutputs(as_path(outputs), as_path(questions), encoder)
        options = LabelOptions({"name": select} if isinstance(select, str) else dict(select), soft, temperature)
        return label_new(self.folder, new, options, method=method, out=as_path(out), replace=replace).labels


def as_path(table: Any) -> Any:
    """File names as paths; tables and None unchanged."""
    return Path(table) if isinstance(table, str | os.PathLike) else table


def name_table(table: Any, name: str) -> str:
    """A file by its path; a table in memory by `name`."""
    return str(table) if isinstance(table, str | os.PathLike) else name
