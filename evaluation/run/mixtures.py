"""What a report says of a run's mixtures of experts: their size, and how evenly tokens load the experts."""

from collections.abc import Iterator

from w2s.evaluation.run.contents import Mixture
from w2s.evaluation.run.metrics import MODELS
from w2s.evaluation.run.runs import Run
from w2s.models.sparse import LARGEST_CONDITION


def describe_mixtures(run: Run) -> tuple[Mixture, ...]:
    """A row for each model that is a mixture, by seed, in the order of MODELS."""
    found = []
    for artifact in run.find("model"):
        facts, model = artifact.manifest["facts"], artifact.tags["model"]
        if "active_parameters" in facts and model in MODELS:
            sizes = (facts[f"{part}parameters"] for part in ("", "active_", "dense_"))
            found.append(Mixture(model, artifact.tags["seed"], *sizes, facts.get("mixture"), facts.get("condition")))
    return tuple(sorted(found, key=lambda one: (list(MODELS).index(one.model), one.seed)))


def find_faults(mixtures: tuple[Mixture, ...]) -> Iterator[str]:
    """A sentence for each mixture with experts that few tokens reach, or routers that hardly tell them apart."""
    for one in mixtures:
        who = f"seed {one.seed}: {MODELS[one.model][0]}"
        if one.load and one.load["starved"]:
            share = f"1/{4 * one.load['experts']} of the choices"
            least = f"the least {100 * one.load['least']:.1f}%"
            yield f"{who}: {one.load['starved']} experts (over all layers) get less than {share}, {least}"
        if one.condition and one.condition > LARGEST_CONDITION:
            yield f"{who}: its routers hardly tell the learners apart: condition number {one.condition:.3g}"
