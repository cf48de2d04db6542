import errno
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from report.events import metadata, picture, values
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from metatune.report.tensorboard import EventWriter
from metatune.runs.space import DiskFull


def test_every_kind_of_event_comes_back(tmp_path):
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with EventWriter(tmp_path) as writer:
        writer.scalar("loss", 1.25, 3)
        writer.scalar("loss", 1.0, 4)
        writer.histogram("rates", np.array([[0.0, 1.0], [1.0, 4.0]]), 3)
        writer.image("picture", rgb, 3)
        writer.text("recipe", "**bold** ü")
    read = values(tmp_path)
    assert {step: float(v) for step, v in read["loss"].items()} == {3: 1.25, 4: 1.0}
    table = read["rates"][3]
    assert table.shape == (30, 3)
    assert table[:, 2].sum() == 4 and table[0, 2] == 1 and table[-1, 2] == 1
    assert table[0, 0] == 0.0 and table[-1, 1] == 4.0
    np.testing.assert_array_equal(table[1:, 0], table[:-1, 1])
    np.testing.assert_array_equal(picture(read["picture"][3]), rgb)
    assert read["recipe"][0].item().decode() == "**bold** ü"
    kinds = {tag: metadata(tmp_path, tag)[0] for tag in ("loss", "rates", "picture", "recipe")}
    expected = ("scalars", "histograms", "images", "text")
    assert kinds == dict(zip(kinds, expected, strict=True))


class FullFile:
    """A file on a disk that is full from the `at`-th write on."""

    def __init__(self, file, at):
        self._file, self._left = file, at

    def write(self, data):
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_full_disk_is_told_where_it_is_met(tmp_path):
    writer = EventWriter(tmp_path / "board")
    writer._records = RecordWriter(FullFile(writer._file, 1))
    writer.scalar("loss", 1.0, 0)
    with pytest.raises(DiskFull) as full:
        writer.scalar("loss", 2.0, 1)
    (file,) = (tmp_path / "board").iterdir()
    assert str(full.value).startswith(f"{file}: the disk is full: ")
    writer.close()
    # What goes on begins another file beside it.
    with EventWriter(tmp_path / "board", purge_step=1) as again:
        again.scalar("loss", 3.0, 1)
    assert len(list((tmp_path / "board").iterdir())) == 2
    assert {step: float(v) for step, v in values(tmp_path / "board")["loss"].items()} == {
        0: 1.0,
        1: 3.0,
    }


def test_settings_and_metrics_for_the_hparams_page(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.hparams({"rate": 0.5, "kind": "adamw", "fresh": True}, ["held_out"])
    name, content = metadata(tmp_path, hparams_metadata.EXPERIMENT_TAG)
    assert name == "hparams"
    experiment = hparams_metadata.parse_experiment_plugin_data(content)
    assert [info.name for info in experiment.hparam_infos] == ["rate", "kind", "fresh"]
    assert [info.name.tag for info in experiment.metric_infos] == ["held_out"]
    _, content = metadata(tmp_path, hparams_metadata.SESSION_START_INFO_TAG)
    session = hparams_metadata.parse_session_start_info_plugin_data(content).hparams
    assert session["rate"].number_value == 0.5
    assert session["kind"].string_value == "adamw"
    assert session["fresh"].bool_value is True


def test_layout_of_custom_scalars(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.custom_scalars({"rates": {"attention": ["learning_rate/a.*", "base"]}})
    content = values(tmp_path)["custom_scalars__config__"][0].item()
    layout = layout_pb2.Layout.FromString(content)  # pyright: ignore[reportAttributeAccessIssue]
    (category,) = layout.category
    (chart,) = category.chart
    assert (category.title, chart.title) == ("rates", "attention")
    assert list(chart.multiline.tag) == ["learning_rate/a.*", "base"]
    assert metadata(tmp_path, "custom_scalars__config__")[0] == "custom_scalars"


@pytest.mark.parametrize(("purge_step", "kept"), [(3, [0, 1, 2, 3, 4]), (None, [3, 4])])
def test_a_resumed_run_drops_what_it_will_write_again(tmp_path, monkeypatch, purge_step, kept):
    with EventWriter(tmp_path) as writer:
        for step in range(6):
            writer.scalar("loss", step, step)
    # TensorBoard reads the files of a folder in the order of the second that they were begun in.
    later = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: later)
    with EventWriter(tmp_path, purge_step=purge_step) as writer:
        for step in (3, 4):
            writer.scalar("loss", 10 + step, step)
    events = EventAccumulator(str(tmp_path)).Reload().Tensors("loss")
    assert sorted({event.step for event in events}) == kept
    numbers = [float(tensor_util.make_ndarray(event.tensor_proto)) for event in events]
    assert numbers == [step + 10 * (step >= 3) for step in kept]


def test_flushed_events_can_be_read_while_the_run_goes_on(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.scalar("loss", 1.0, 0)
        writer.flush()
        assert list(values(tmp_path)["loss"]) == [0]


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)]
)
def test_a_picture_of_another_type_or_shape_is_refused(tmp_path, array):
    message = r"heat: a picture must be uint8 \[height, width, 3\], not .*; convert it first"
    with EventWriter(tmp_path) as writer, pytest.raises(ValueError, match=message):
        writer.image("heat", array, 0)


def test_a_histogram_of_values_that_are_not_finite_is_refused(tmp_path):
    with EventWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="rates: 1 of 2 values aren't finite; .* leave"):
            writer.histogram("rates", np.array([1.0, np.inf]), 0)
        with pytest.raises(
            ValueError, match="rates: 0 of 0 values aren't finite; a histogram needs"
        ):
            writer.histogram("rates", np.array([]), 0)


def test_neither_tensorflow_nor_torch_nor_jax_is_needed(tmp_path):
    script = f"""
        import sys
        for name in ("tensorflow", "torch", "jax"):
            sys.modules[name] = None
        import numpy as np
        from pathlib import Path
        from metatune.report import artefact_readme, terminal
        from metatune.report.pictures import schedules
        from metatune.report.tensorboard import EventWriter
        from metatune.report.tracked import write_point
        with EventWriter(Path({str(tmp_path)!r})) as writer:
            writer.text("note", "hello")
            writer.hparams({{"rate": 0.1}}, ["objective"])
            curves = {{"learning_rates": {{"a": np.ones(3)}}, "mixture": {{"code": np.ones(3)}}}}
            write_point(writer, step=0, scalars={{"objective": 1.5}}, curves=curves, windows={{}})
    """
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {sys.path!r}\n{textwrap.dedent(script)}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(values(tmp_path)["objective"][0]) == 1.5
