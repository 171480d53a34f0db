"""Records as released: JSONL or a prepared TFDS dataset, and what of them is held out."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.text.gsm8k.gsm8k import Gsm8k
from text_data import GSM8K, write_jsonl

from gmma.errors import UserError
from gmma.tasks import TASKS
from gmma.tasks.mathematics import MathConfig, read_problem
from gmma.tasks.records import fingerprint, hold_out, read_record_file


def test_jsonl_and_the_public_builders_dataset_give_the_same_problems(tmp_path, monkeypatch):
    """TFDS's own builder of GSM8K over our file, in the place of its download."""
    path = write_jsonl(tmp_path / "records.jsonl", GSM8K)
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", lambda _, urls: dict.fromkeys(urls, path))
    tfds.disable_progress_bar()
    builder = Gsm8k(data_dir=tmp_path / "tfds")
    builder.download_and_prepare(file_format="array_record", download_dir=tmp_path / "downloads")
    assert read_record_file(path, "train") == GSM8K
    wanted = sorted(map(read_problem, GSM8K))
    for split in ("train", "test"):
        assert sorted(map(read_problem, read_record_file(Path(builder.data_dir), split))) == wanted
    with pytest.raises(UserError, match="no split 'dev', only test, test_socratic, train, "):
        read_record_file(Path(builder.data_dir), "dev")


def test_a_line_may_hold_any_character_but_its_end(tmp_path):
    odd = [{"question": "a\u2028b\u0085c\x1cd\x0be", "answer": "1"}]
    path = tmp_path / "odd.jsonl"
    path.write_text('{"question": "a\u2028b\u0085c\\u001cd\\u000be", "answer": "1"}\n\n')
    assert read_record_file(path, "train") == odd


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1}\n{"b"', "line 2: no JSON"), ("[1]", "line 1: list; give one object a line")],
)
def test_a_broken_line_is_named(tmp_path, text, message):
    (tmp_path / "broken.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_record_file(tmp_path / "broken.jsonl", "train")


def test_no_file_is_a_user_error(tmp_path):
    for read in (lambda path: read_record_file(path, "train"), fingerprint):
        with pytest.raises(UserError, match="neither a JSONL file nor a directory"):
            read(tmp_path / "nothing.jsonl")


def test_what_is_held_out_depends_on_the_texts_alone():
    texts = [str(n) for n in range(40)]
    kept, held = hold_out(texts, str, 10)
    assert len(held) == 10
    assert sorted(kept + held) == sorted(texts)
    again, same = hold_out(texts[::-1], str, 10)
    assert (again[::-1], same[::-1]) == (kept, held)


def test_the_fingerprint_follows_the_content(tmp_path):
    first = write_jsonl(tmp_path / "a.jsonl", GSM8K)
    second = write_jsonl(tmp_path / "b.jsonl", GSM8K)
    assert fingerprint(first, 1) == fingerprint(second, 1) != fingerprint(first, 2)
    write_jsonl(second, GSM8K[1:])
    assert fingerprint(first, 1) != fingerprint(second, 1)


def test_the_content_of_a_dataset_has_a_hash(tmp_path):
    """Equal for equal records wherever they lie, another for another order, kept beside them."""
    task, digests = TASKS["math"], []
    for number, rows in enumerate((GSM8K, GSM8K, GSM8K[::-1], [*GSM8K[:-1], GSM8K[0]])):
        path = write_jsonl(tmp_path / f"{number}.jsonl", rows)
        config = MathConfig(train_path=path, test_path=None, held_out=3, vocab_size=400)
        task.build(config, tmp_path / str(number))
        digests.append(task.content(config, tmp_path / str(number)))
        (kept,) = tmp_path.joinpath(str(number)).rglob("content.json")
        kept.unlink()
        assert task.content(config, tmp_path / str(number)) == digests[-1]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
