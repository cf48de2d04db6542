"""A result is written once, and is whole or not there."""

import multiprocessing
import os
import signal
import time

import pytest

from metatune.data.cache import CacheError, cached, key_of

WHAT = {"content": "a", "options": [1, 2]}


def write(folder, calls=None, number=7):
    if calls is not None:
        calls.append(folder)
    (folder / "tokens").write_bytes(bytes([number]) * 1000)
    return {"number": number}


def test_a_result_is_written_once(cache):
    calls = []
    folder = None
    for _ in range(3):
        folder, known = cached(WHAT, lambda folder: write(folder, calls))
        assert (folder / "tokens").read_bytes() == b"\x07" * 1000
        assert known == {"number": 7}
    assert len(calls) == 1
    assert folder == cache / key_of(WHAT)


def test_what_it_depends_on_tells_results_apart(cache):
    one, _ = cached(WHAT, write)
    other, _ = cached({**WHAT, "content": "b"}, write)
    assert one != other
    assert key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "tokens").write_bytes(b"short"),
        lambda folder: (folder / "tokens").unlink(),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text('{"known"'),
    ],
)
def test_a_result_that_is_not_whole_is_written_again(cache, harm):
    folder, _ = cached(WHAT, write)
    harm(folder)
    again, _ = cached(WHAT, write)
    assert (again / "tokens").read_bytes() == b"\x07" * 1000


def test_nothing_stays_of_a_failure(cache):
    def fail(folder):
        write(folder)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        cached(WHAT, fail)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def write_forever(ready):
    def never(folder):
        write(folder)
        ready.set()
        time.sleep(60)
        return {}

    cached(WHAT, never)


def test_a_killed_writer_leaves_nothing_that_is_used(cache):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=write_forever, args=(ready,))
    process.start()
    assert ready.wait(60)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not (cache / key_of(WHAT)).exists()
    folder, known = cached(WHAT, write)
    assert known == {"number": 7}
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [folder.name]


def write_slowly(number, results):
    def slowly(folder):
        time.sleep(0.3)
        return write(folder, number=number)

    results.put(cached(WHAT, slowly)[1]["number"])


def test_of_several_writers_one_writes_and_all_read_it(cache):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=write_slowly, args=(n, results)) for n in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(found)) == 1


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METATUNE_CACHE", str(tmp_path / "file"))
    said = "can't be written: .*, [0-9,]+ bytes free there; set METATUNE_CACHE to a folder"
    with pytest.raises(CacheError, match=said):
        cached(WHAT, write)
