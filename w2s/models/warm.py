"""WARM: one reward model whose weights are the mean of several."""

from collections.abc import Sequence
from pathlib import Path

from w2s.models import load
from w2s.models.tokens import fingerprint
from w2s.store.records import BadInput


def warm(folders: Sequence[str | Path], out: str | Path) -> None:
    """Write the mean of plain models' weights as a plain model into the folder `out` (Ramé et al., arXiv 2401.12187).

    The mean is a useful model only if all share their start, including the head: start each from one folder whose head
    has been trained a little. One model, or several equal ones, come out bit for bit. BadInput if they differ in kind,
    base, vocabulary, shapes or tokenizer.
    """
    if not folders:
        raise BadInput("models: none given; allowed: at least 1")
    first, total = None, {}
    for folder in folders:
        loaded = load.load_folder(folder, precision="float32")
        first = first or loaded
        for part, read in COMPARED.items():
            if read(loaded) != read(first):
                raise BadInput(f"models: {folder} differs in {part} from {folders[0]}; allowed: models of one start")
        for name, value in loaded.module.state_dict().items():
            if value.is_floating_point():
                total[name] = total.get(name, 0) + value.double()
    state = first.module.state_dict()
    mean = {name: (value / len(folders)).to(state[name]) for name, value in total.items()}
    load.save(first, out, state=state | mean)


COMPARED = {
    "kind": lambda loaded: loaded.model.kind,
    "base": lambda loaded: (loaded.model.path, loaded.model.revision),
    "prompt": lambda loaded: (loaded.model.prompt, loaded.model.shots),
    "shape": lambda loaded: {name: value.shape for name, value in loaded.module.state_dict().items()},
    "tokenizer": lambda loaded: fingerprint(loaded),
}
