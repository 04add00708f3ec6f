import dataclasses
import json

from w2s.config.fields import Config, Data
from w2s.data.rows import hash_folder, hash_rows, make_row_reader


def config_with(*sources):
    return dataclasses.replace(Config(), data=Data(sources=list(sources)))


def test_a_source_that_draws_by_seed_gets_the_runs_seed_and_others_are_read_once(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "Which is warm?", "choices": ["ice", "fire"], "answer": 1}) + "\n")
    rows = make_row_reader(config_with({"name": "world", "easy": 5, "hard": 5}, {"name": "file", "path": str(path)}))
    first, second = rows(0), rows(1)
    assert len(first[0]) == len(second[0]) == 11
    assert first[0][:10] != second[0][:10]
    assert first[0][10] is second[0][10]


def test_the_content_is_that_of_questions_and_gold():
    rows = make_row_reader(config_with({"name": "world", "easy": 5, "hard": 5}))
    examples, gold = rows(0)
    turned = [dataclasses.replace(gold[0], answer=(gold[0].answer + 1) % 4), *gold[1:]]
    assert hash_rows((examples, gold)) == hash_rows((list(examples), list(gold)))
    assert len({hash_rows(pair) for pair in ((examples, gold), (examples, turned), rows(1))}) == 3


def test_a_local_models_content_changes_with_its_files_and_not_with_its_place(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(1000))
    assert hash_folder(tmp_path / "here") == hash_folder(tmp_path / "there")
    (tmp_path / "there" / "model.safetensors").write_bytes(bytes(999) + b"1")
    assert hash_folder(tmp_path / "here") != hash_folder(tmp_path / "there")
    assert hash_folder(tmp_path / "nowhere") is None
