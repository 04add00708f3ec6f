"""Malformed configs, overrides and data rows: exit 2, a line for each problem that says where, what and what is
allowed, no traceback, and nothing left behind. Nearly all in this process, a handful as a person would run them.
"""

# ruff: noqa: E501 (one case, one line)

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from w2s.cli import main

# What is put into a config that is good otherwise: (YAML, what the line must say after the file's name)
CONFIGS = {
    "an unknown key": ("seed: [0]", "seed: there is no such key (did you mean 'seeds'?)"),
    "an unknown section": ("studnet: {}", "studnet: there is no such key (did you mean 'student'?)"),
    "an unknown inner key": ("student: {train: {learning_rate: 1}}", "student.train.learning_rate: there is no such key"),
    "an unknown learner key": ("learners: [{modle: {}}]", "learners.0.modle: there is no such key (did you mean 'model'?)"),
    "a number key": ("1: 2", "1: there is no such key"),
    "a text for a list": ("seeds: '0,1'", "seeds: '0,1' given; allowed: a list of whole numbers"),
    "no seeds": ("seeds: []", "seeds: [] given; allowed: at least one, all different"),
    "a seed twice": ("seeds: [1, 1]", "seeds: [1, 1] given; allowed: at least one, all different"),
    "a negative seed": ("seeds: [-1]", "seeds: [-1] given; allowed: at least one"),
    "a broken seed": ("seeds: [0.5]", "seeds: [0.5] given; allowed: a list of whole numbers"),
    "a true seed": ("seeds: [true]", "seeds: [True] given; allowed: a list of whole numbers"),
    "a name that is a path": ("name: ../up", "name: '../up' given; allowed: letters"),
    "a name that is taken": ("name: store", "name: 'store' given; allowed: letters"),
    "an empty name": ("name: ''", "name: '' given; allowed: letters"),
    "a section that is a list": ("student: [1]", "student: [1] given; allowed: a mapping"),
    "a section that is a number": ("boosting: 3", "boosting: 3 given; allowed: a mapping"),
    "no learner": ("learners: []", "learners: [] given; allowed: a list of at least one learner"),
    "learners that are no list": ("learners: {model: {}}", "learners: {'model': {}} given; allowed: a list of at least"),
    "a learner that is a name": ("learners: [gpt2]", "learners.0: 'gpt2' given; allowed: a mapping"),
    "a rate that is a word": ("student: {train: {lr: fast}}", "student.train.lr: 'fast' given; allowed: a number"),
    "a rate of 0": ("student: {train: {lr: 0}}", "student.train.lr: 0 given; allowed: above 0"),
    "a rate that is no number": ("student: {train: {lr: .nan}}", "student.train.lr: nan given; allowed: a number"),
    "an endless rate": ("student: {train: {lr: .inf}}", "student.train.lr: inf given; allowed: a number"),
    "a missing rate": ("student: {train: {lr: null}}", "student.train.lr: None given; allowed: a number"),
    "a negative batch": ("student: {train: {batch: -4}}", "student.train.batch: -4 given; allowed: above 0"),
    "half a batch": ("learners: [{train: {batch: 1.5}}]", "learners.0.train.batch: 1.5 given; allowed: a whole number"),
    "no steps": ("learners: [{train: {steps: 0}}]", "learners.0.train.steps: 0 given; allowed: above 0"),
    "no epochs": ("student: {train: {epochs: 0}}", "student.train.epochs: 0 given; allowed: above 0"),
    "no tokens": ("student: {train: {max_tokens: 0}}", "student.train.max_tokens: 0 given; allowed: above 0"),
    "a beta of 1": ("student: {train: {beta2: 1.0}}", "student.train.beta2: 1.0 given; allowed: from 0 up to"),
    "negative decay": ("student: {train: {weight_decay: -1}}", "student.train.weight_decay: -1 given; allowed: 0 or more"),
    "a long warm-up": ("student: {train: {warmup_share: 2}}", "student.train.warmup_share: 2 given; allowed: from 0 to 1"),
    "all held out": ("student: {train: {holdout_share: 1}}", "student.train.holdout_share: 1 given; allowed: from 0 up to"),
    "patience for nothing": ("student: {train: {patience: 2}}", "student.train.patience: 2 given; it needs"),
    "a schedule": ("student: {train: {schedule: step}}", "student.train.schedule: 'step' given; allowed: one of: linear"),
    "a precision": ("student: {train: {precision: fp16}}", "student.train.precision: 'fp16' given; allowed: one of: auto"),
    "a loss": ("student: {train: {loss: {name: mse}}}", "student.train.loss: 'mse' is not known; it can be: cross_entropy"),
    "a loss without a name": ("student: {train: {loss: {power: 2}}}", "student.train.loss: None is not known; it can be"),
    "a loss's option": ("student: {train: {loss: {name: kl, reverse: 1}}}", "student.train.loss.reverse: 1 given; allowed: true"),
    "a kind of model": ("student: {model: {kind: cnn}}", "student.model.kind: 'cnn' given; allowed: one of: lm, pair"),
    "a student without a pipeline": ("student: {model: {kind: sklearn}}", "student.model.pipeline: goes with kind: sklearn"),
    "a probe's layer": ("student: {model: {kind: probe, path: 'builtin:strnog'}}", "student.model.path: 'builtin:strnog' is not"),
    "a probe's penalty": ("student: {model: {kind: probe, l2: 0}}", "student.model.l2: 0 given; allowed: above 0"),
    "a probe's pooling": ("student: {model: {pooling: max}}", "student.model.pooling: 'max' given; allowed: one of: last, mean"),
    "a probe's loss": ("student: {model: {kind: probe}, train: {loss: {name: kl}}}", "student.train.loss: {'name': 'kl'} given; allowed: cross_entropy"),
    "a pipeline without a kind": ("learners: [{model: {pipeline: {name: words}}}]", "learners.0.model.pipeline: goes with"),
    "a kind without a pipeline": ("learners: [{model: {kind: sklearn}}]", "learners.0.model.pipeline: goes with kind: sklearn"),
    "a pipeline": ("learners: [{model: {kind: sklearn, pipeline: {name: word}}}]", "'word' is not known (did you mean 'words'?)"),
    "a builtin": ("student: {model: {path: 'builtin:strnog'}}", "student.model.path: 'builtin:strnog' is not known (did you mean"),
    "a model that is a number": ("student: {model: {path: 7}}", "student.model.path: 7 given; allowed: a text"),
    "no layer": ("student: {model: {layers: 0}}", "student.model.layers: 0 given; allowed: above 0"),
    "a rank of 0": ("student: {model: {lora_rank: 0}}", "student.model.lora_rank: 0 given; allowed: above 0"),
    "top layers without a number": ("student: {model: {trainable: top}}", "student.model.top: null given; trainable: top needs a number"),
    "top layers that do not learn": ("student: {model: {top: 2}}", "student.model.top: 2 given; trainable: top needs a number"),
    "targets without adapters": ("student: {model: {lora_targets: [q_proj]}}", "student.model.lora_targets: ['q_proj'] given"),
    "attention": ("student: {model: {attn: flash}}", "student.model.attn: 'flash' given; allowed: one of: auto, sdpa, eager"),
    "FlashAttention on a CPU": ("student: {model: {attn: flash_attention_2}}", "student.model.attn: 'flash_attention_2' given; it needs"),
    "bits": ("student: {model: {quantise: 2bit}}", "student.model.quantise: '2bit' given; allowed: one of: none, 4bit, 8bit"),
    "bits of weights that learn": ("student: {model: {quantise: 4bit}}", "student.model.quantise: '4bit' given with trainable: all"),
    "bits on a CPU": ("student: {model: {quantise: 8bit, trainable: lora}}", "student.model.quantise: '8bit' given; it needs"),
    "what learns": ("student: {model: {trainable: some}}", "student.model.trainable: 'some' given; allowed: one of: all"),
    "a prompt": ("student: {model: {prompt: {name: talk}}}", "student.model.prompt: 'talk' is not known; it can be: plain"),
    "a prompt's option": ("student: {model: {prompt: {name: qa, question: 1}}}", "student.model.prompt.question: 1 given"),
    "both ways to say easy": ("data: {easy_share: 0.5}", "data: give either easy_share, or both easy_max and hard_min"),
    "a threshold beside a share": ("data: {easy_share: 0.5, easy_max: null}", "data: give either easy_share, or both easy_max"),
    "no way to say easy": ("data: {easy_max: null}", "data: give either easy_share, or both easy_max and hard_min"),
    "easy above hard": ("data: {easy_max: 5}", "data.hard_min: 1 given; allowed: above data.easy_max (5)"),
    "an easy share of 1": ("data: {easy_max: null, hard_min: null, easy_share: 1}", "data.easy_share: 1 given; allowed: above 0"),
    "near above 1": ("data: {near: 1.5}", "data.near: 1.5 given; allowed: from 0 to 1"),
    "an empty split": ("data: {sizes: {transfer: 0}}", "data.sizes.transfer: 0 given; allowed: above 0"),
    "a size that is a share": ("data: {sizes: {hard_test: 0.5}}", "data.sizes.hard_test: 0.5 given; allowed: a whole number"),
    "a split that is none": ("data: {sizes: {test: 5}}", "data.sizes.test: there is no such key"),
    "sources that are a name": ("data: {sources: world}", "data.sources: 'world' given; allowed: a list of mappings"),
    "a source": ("data: {sources: [{name: arc_eazy}]}", "data.sources.0: 'arc_eazy' is not known (did you mean 'arc_easy'?)"),
    "a source's option": ("data: {sources: [{name: world, size: 3}]}", "data.sources.0: 'world' has no option 'size'; it takes:"),
    "a source's split": ("data: {sources: [{name: world, split: train}]}", "data.sources.0.split: 'train' given; allowed: one of"),
    "a file without a path": ("data: {sources: [{name: file}]}", "data.sources.0: 'file' needs the option 'path'"),
    "a difficulty": ("data: {difficulty: {name: age}}", "data.difficulty: 'age' is not known; it can be: level"),
    "a human label": ("data: {difficulty: {name: human, label: iq}}", "data.difficulty.label: 'iq' given; allowed: one of: grade"),
    "test splits": ("data: {test_splits: test}", "data.test_splits: 'test' given; allowed: a list of texts or null"),
    "no rounds": ("boosting: {rounds: 0}", "boosting.rounds: 0 given; allowed: above 0"),
    "one fold": ("boosting: {folds: 1}", "boosting.folds: 1 given; allowed: at least 2"),
    "errors from nowhere": ("boosting: {errors: train}", "boosting.errors: 'train' given; allowed: one of: cross_fit"),
    "a weighting": ("boosting: {weighting: both}", "boosting.weighting: 'both' given; allowed: one of: resample, loss"),
    "a booster": ("boosting: {booster: {name: samme.r}}", "boosting.booster: 'samme.r' is not known (did you mean 'samme'?)"),
    "a booster that is a text": ("boosting: {booster: samme}", "boosting.booster: 'samme' given; allowed: a mapping"),
    "no shrinkage": ("boosting: {booster: {name: samme, shrinkage: 0}}", "boosting.booster.shrinkage: 0 given; allowed: a number"),
    "a clip upside down": ("boosting: {booster: {name: samme, clip: [3, 1]}}", "boosting.booster.clip: [3, 1] given; allowed: null"),
    "a clip of three": ("boosting: {booster: {name: samme, clip: [1, 2, 3]}}", "boosting.booster.clip: [1, 2, 3] given; allowed"),
    "a reference": ("boosting: {booster: {name: ensemw2s, reference: 2.0}}", "boosting.booster.reference: 2.0 given; allowed"),
    "a named reference": ("boosting: {booster: {name: ensemw2s, reference: x}}", "boosting.booster.reference: 'x' given; allowed"),
    "an effective share": ("boosting: {min_effective_share: -0.1}", "boosting.min_effective_share: -0.1 given; allowed: from 0"),
    "no patience": ("boosting: {patience: 0}", "boosting.patience: 0 given; allowed: above 0"),
    "a combiner": ("label: {combiner: {name: vote}}", "label.combiner: 'vote' is not known"),
    "a cold combiner": ("label: {combiner: {name: soft_vote, temperature: 0}}", "label.combiner.temperature: 0 given; allowed"),
    "a least probability": ("label: {combiner: {name: log_odds, least_prob: 1}}", "label.combiner.least_prob: 1 given; allowed"),
    "alphas": ("label: {alphas: {name: equal}}", "label.alphas: 'equal' is not known; it can be: boosting, uniform"),
    "a selector": ("label: {select: {name: all}}", "label.select: 'all' is not known"),
    "a selector's option": ("label: {select: {name: confidence, threshold: 1}}", "label.select: 'confidence' has no option 'threshold'"),
    "a share kept": ("label: {select: {name: per_class, keep_share: 1.5}}", "label.select.keep_share: 1.5 given; allowed: above 0"),
    "no share kept": ("label: {select: {name: confidence, keep_share: 0}}", "label.select.keep_share: 0 given; allowed: above 0"),
    "an agreement": ("label: {select: {name: agreement, threshold: 60}}", "label.select.threshold: 60 given; allowed: 0 to 1"),
    "a label temperature": ("label: {temperature: 0}", "label.temperature: 0 given; allowed: above 0"),
    "soft by a word": ("label: {soft: 'true'}", "label.soft: 'true' given; allowed: true or false"),
    "a control by number": ("controls: {floor: 0}", "controls.floor: 0 given; allowed: true or false"),
    "an unknown control": ("controls: {celing: false}", "controls.celing: there is no such key (did you mean 'ceiling'?)"),
    "a suite": ("evaluation: {suites: [{name: human_eval}]}", "evaluation.suites.0: 'human_eval' is not known (did you mean"),
    "a suite twice": ("evaluation: {suites: [{name: world}, {name: world}]}", "evaluation.suites: 'world' is listed twice"),
    "no bins": ("evaluation: {bins: 0}", "evaluation.bins: 0 given; allowed: above 0"),
    "a cold sampler": ("evaluation: {temperature: -1}", "evaluation.temperature: -1 given; allowed: 0 or more"),
    "no slots": ("runtime: {slots: 0}", "runtime.slots: 0 given; allowed: above 0"),
    "slots by name": ("runtime: {slots: all}", "runtime.slots: 'all' given; allowed: a whole number or null"),
    "trust in the file": ("runtime: {trust_remote_code: true}", "runtime.trust_remote_code: only the command line can switch"),
    "no sandbox in the file": ("runtime: {allow_unsandboxed: true}", "runtime.allow_unsandboxed: only the command line can switch"),
    "a base that is not there": ("base: nothing.yaml", "nothing.yaml: there is no such file"),
    "a base that is a list": ("base: [a]", "base: ['a'] given; allowed: a file name"),
    "a reference to nothing": ("name: '${nowhere}'", "name: "),
}  # fmt: skip

OVERRIDES = {
    "--fast": "",
    "fast": "'fast': not understood; an override is written key=value",
    "=3": "'=3': not understood; an override is written key=value",
    "seeds=0": "seeds: 0 given; allowed: a list of whole numbers",
    "seeds=[0": "seeds: '[0' is not readable",
    "boosting.round=3": "boosting.round: there is no such key (did you mean 'rounds'?)",
    "boosting.rounds=": "boosting.rounds: None given; allowed: a whole number",
    "boosting.rounds=3.0": "boosting.rounds: 3.0 given; allowed: a whole number",
    "boosting.rounds=1e2": "boosting.rounds: 100.0 given; allowed: a whole number",
    "boosting.rounds.x=1": "boosting.rounds: {'x': 1} given; allowed: a whole number",
    "learners.0.train.steps=many": "learners.0.train.steps: 'many' given; allowed: a whole number or null",
    "learners.1.train.steps=3": "learners.1: there is no such item; the list has 1",
    "learners.first.train.steps=3": "learners.first: there is no such item; the list has 1",
    "learners=3": "learners: 3 given; allowed: a list of at least one learner",
    "controls.floor=yes please": "controls.floor: 'yes please' given; allowed: true or false",
    "student.model={path: 3}": "student.model.path: 3 given; allowed: a text",
    "student={": "student: '{' is not readable",
    "label.select={name: confidence, keep_share: .nan}": "label.select.keep_share: nan given; allowed: a number",
    "data.root=/nowhere evaluation.suites=[{name: sciq}]": "/nowhere/sciq: no file train with one of .jsonl",
    "evaluation.suites.0.name=sciq": "evaluation.suites",
    "name=a b": "name: 'a b' given; allowed: letters",
}

# Rows of the user's own file behind two good ones: (line, what the message must say)
ROWS = {
    "no JSON": ("{'prompt': 1}", "not JSON"),
    "half a row": ('{"prompt": "p", "answer": ', "not JSON (Expecting value at character 27)"),
    "a list": ('["p", "a"]', "a row must be a mapping of columns, list given"),
    "a number": ("7", "a row must be a mapping of columns, int given"),
    "nothing": ("null", "a row must be a mapping of columns, NoneType given"),
    "no prompt": ('{"answer": "a"}', "column 'prompt' is missing; it has: answer"),
    "no answer": ('{"prompt": "p", "choices": ["a", "b"]}', "column 'answer' is missing; it has: prompt, choices"),
    "an empty prompt": ('{"prompt": " ", "choices": ["a", "b"], "answer": 0}', "prompt: it is empty"),
    "a prompt that is a number": ('{"prompt": 3, "answer": "a"}', "prompt: a text is expected, int given"),
    "one choice": ('{"prompt": "p", "choices": ["a"], "answer": 0}', "choices: 1 given"),
    "a choice twice": ('{"prompt": "p", "choices": ["a", "a"], "answer": 0}', "choices: 1 given"),
    "an empty choice": ('{"prompt": "p", "choices": ["a", ""], "answer": 0}', "choices: each must be a non-empty text"),
    "choices that are lists": ('{"prompt": "p", "choices": [[1], [2]], "answer": 0}', "choices: each must be a non-empty text"),
    "an answer too high": ('{"prompt": "p", "choices": ["a", "b"], "answer": 2}', "answer: 2 given; allowed in this column: an index"),
    "an answer below 0": ('{"prompt": "p", "choices": ["a", "b"], "answer": -1}', "answer: -1 given; allowed in this column: an index"),
    "an answer of another question": ('{"prompt": "p", "choices": ["a", "b"], "answer": "c d"}', "answer: 'c d' given; allowed"),
    "a letter too far": ('{"prompt": "p", "choices": ["x", "y"], "answer": "C"}', "answer: 'C' given; allowed in this column: an index"),
    "half an answer": ('{"prompt": "p", "choices": ["a", "b"], "answer": 0.5}', "answer: 0.5 given; allowed in this column: an index"),
    "a level that is a word": ('{"prompt": "p", "choices": ["a", "b"], "answer": 0, "level": "hard"}', "level: 'hard' given"),
    "a level that is no number": ('{"prompt": "p", "choices": ["a", "b"], "answer": 0, "level": NaN}', "level: nan given"),
    "not UTF-8": (b'{"prompt": "caf\xe9"}', "not UTF-8"),
}  # fmt: skip

FILES = {
    "empty.jsonl": (b"", "empty", "rows needed, 0 found"),
    "cut.jsonl.gz": (
        gzip.compress(b'{"prompt": "p", "answer": "a"}\n' * 50)[:-9],
        "cut.jsonl.gz:",
        "the gzip data are damaged",
    ),
    "plain.jsonl.gz": (b'{"prompt": "p"}\n', "plain.jsonl.gz:1", "the gzip data are damaged"),
    "short.csv": (b"prompt,choices,answer\np,a|b,0\nq,a|b\n", "short.csv:3", "2 columns; the header has 3"),
    "twice.csv": (b"prompt,prompt\na,b\n", "twice.csv:1", "the header has the column 'prompt' twice"),
    "document.json": (b'"text"', "document.json", "a list of rows is expected, str given"),
    "table.parquet": (b"no parquet", "table.parquet: row 1", "not Parquet"),
    "notes.txt": (b"hello", "notes.txt", "not a known kind of file; allowed: .jsonl"),
}

GOOD = "data: {easy_max: 0, hard_min: 1, sources: [{name: world, easy: 40, hard: 40}]}\nlearners: [{}]\n"


def merged(text: str) -> str:
    """The good config with the sections of `text` over it."""
    from omegaconf import OmegaConf

    try:
        both = OmegaConf.merge(OmegaConf.create(GOOD), OmegaConf.create(text))
    except Exception:  # a section that is no mapping: it replaces the good one
        both = {**OmegaConf.to_container(OmegaConf.create(GOOD)), **OmegaConf.to_container(OmegaConf.create(text))}
    return OmegaConf.to_yaml(OmegaConf.create(both))


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """refused(command, ...) -> its lines, once it has exited with 2 and left nothing behind."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> list[str]:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        assert caught.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        assert set(tmp_path.rglob("*")) == before
        return said.err.splitlines()

    return run


def test_there_are_at_least_a_hundred_of_them_and_all_are_different():
    assert len(CONFIGS) + len(OVERRIDES) + len(ROWS) + len(FILES) >= 150
    assert len({text for text, _ in CONFIGS.values()}) == len(CONFIGS)


@pytest.mark.parametrize("case", CONFIGS)
def test_a_malformed_config_is_one_line(refused, tmp_path, case):
    text, said = CONFIGS[case]
    (tmp_path / "bad.yaml").write_text(merged(text))
    lines = refused("run", "bad.yaml")
    assert len(lines) == 1, lines
    assert lines[0].startswith("w2s: ")
    assert said in lines[0]


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_malformed_override_is_one_line(refused, tmp_path, override):
    (tmp_path / "good.yaml").write_text(GOOD)
    words = override.split(" ", 1) if override.startswith("data.root") else [override]
    lines = refused("run", "good.yaml", *words)
    assert OVERRIDES[override] in lines[-1]
    assert len(lines) == 1 or override.startswith("--"), lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [1", "bad.yaml:2: not readable"),
        (b"a: 1\n\tb: 2", "bad.yaml:2: not readable"),
        (b"a: 1\na: 2", "bad.yaml"),
        (b"- 1\n- 2", "a mapping of keys is expected"),
        (b"just words", "bad.yaml"),
        (b"\xff\xfe\x00", "bad.yaml"),
        (b"", "data: give either easy_share"),
        (b"a: !!python/object/apply:os.system ['true']", "bad.yaml"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(refused, tmp_path, text, said):
    (tmp_path / "bad.yaml").write_bytes(text)
    for command in ("run", "plan"):
        lines = refused(command, "bad.yaml")
        assert len(lines) == 1, lines
        assert said in lines[0]


def test_files_that_cannot_be_opened_are_one_line(refused, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert refused("run", "nothing.yaml") == ["w2s: nothing.yaml: there is no such file"]
    assert len(refused("run", "folder.yaml")) == 1


@pytest.mark.parametrize("case", ROWS)
def test_a_malformed_row_names_file_and_line(refused, tmp_path, case):
    line, said = ROWS[case]
    good = b'{"prompt": "p0", "choices": ["a", "b"], "answer": 0}\n\n{"prompt": "p1", "choices": ["a", "b"], "answer": 1}\n'
    (tmp_path / "rows.jsonl").write_bytes(good + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    lines = refused("run", own(tmp_path, "rows.jsonl"))
    assert len(lines) == 1, lines
    assert "rows.jsonl:4: " in lines[0]
    assert said in lines[0]


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_data_file_is_one_line(refused, tmp_path, name):
    content, where, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    lines = refused("run", own(tmp_path, name))
    assert len(lines) == 1, lines
    assert where.split(".")[0] in lines[0]
    assert said in lines[0]


def own(folder: Path, name: str) -> str:
    (folder / "own.yaml").write_text(f"data: {{easy_max: 0, hard_min: 1, sources: [{{name: file, path: {name}}}]}}\n")
    return "own.yaml"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["run", "bad.yaml"], 3),
        (["run", "good.yaml", "label.select={name: confidence, keep_share: 7}"], 1),
        (["plan", "good.yaml", "boosting.rounds=-1"], 1),
        (["evaluate", "m", "human_eval"], 1),
        (["evaluate", "m", "sciq", "data.root=nowhere"], 1),
        (["report", "runs/nothing"], 1),
    ],
)
def test_the_same_as_a_person_runs_it(tmp_path, words, lines):
    (tmp_path / "bad.yaml").write_text("seed: 1\ndata: {easy_max: x}\nboosting: {rounds: no}\n")
    (tmp_path / "good.yaml").write_text(GOOD)
    ran = subprocess.run([sys.executable, "-m", "w2s.cli", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == lines, ran.stderr
    assert all(line.startswith("w2s: ") for line in ran.stderr.splitlines())


def test_all_problems_of_all_sections_come_at_once(refused, tmp_path):
    bad = {"boosting": {"booster": {"name": "samme", "shrinkage": -1}}, "label": {"select": {"name": "x"}}}
    bad["student"] = {"train": {"loss": {"name": "y"}}, "model": {"path": "builtin:z"}}
    (tmp_path / "bad.yaml").write_text(merged(json.dumps(bad)))
    keys = [line.removeprefix("w2s: ").split(":")[0] for line in refused("run", "bad.yaml")]
    assert keys == ["boosting.booster.shrinkage", "label.select", "student.train.loss", "student.model.path"]
