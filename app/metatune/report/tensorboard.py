"""TensorBoard events by TensorBoard's own writer: neither TensorFlow nor PyTorch is needed."""

# Protobuf makes its classes when it is imported, pyright doesn't see them.
# pyright: reportAttributeAccessIssue=false

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.histogram import metadata as histogram_plugin
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.image import metadata as image_plugin
from tensorboard.plugins.text import metadata as text_plugin
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from metatune.runs import processes
from metatune.runs.space import room_for

FLUSH_SECONDS = 20
"""How long an event may wait before TensorBoard can see it."""

FILE_VERSION = "brain.Event:2"
"""What each file of events begins with."""

_files = itertools.count()

BUCKETS = 30
"""Of a histogram."""


class EventWriter:
    """Writes one event file; `close` it, or use it in a `with` statement.

    Of several processes the first writes.

    Args of all methods: `tag` names the series (a slash makes a section), `step` is its x-axis.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None):
        """Opens a new event file.

        Args:
            folder: where TensorBoard's `--logdir` looks; is made if absent.
            purge_step: of a run that goes on after a stop: TensorBoard then drops what older
                files of the folder hold for this step and later ones. None for a new run, beside
                which it shows nothing of older files.
        """
        if processes.first():
            folder.mkdir(parents=True, exist_ok=True)
            self._path, mode = _new_file(folder), "xb"
        else:
            self._path, mode = Path(os.devnull), "wb"
        # TensorBoard's own writer of files writes in a thread, which a full disk ends with a
        # traceback there, and the caller hears of it later, or never.
        self._file = self._path.open(mode)
        self._records = RecordWriter(self._file)
        self._waiting, self._flushed = 0, time.monotonic()
        self._event(0, file_version=FILE_VERSION)
        # TensorBoard takes the first START of a folder for the beginning and only later ones for
        # restarts, hence a new run must write one too.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._event(purge_step or 0, session_log=start)
        self.flush()

    def __enter__(self) -> "EventWriter":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes one number."""
        self._summary(step, summary_pb2.Summary.Value(tag=tag, simple_value=float(value)))

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Writes the distribution of `values`, finite numbers of any shape.

        Raises:
            ValueError: no value, or one that isn't finite.
        """
        flat = np.asarray(values, np.float64).ravel()
        if not flat.size or not np.isfinite(flat).all():
            bad = int((~np.isfinite(flat)).sum())
            raise ValueError(
                f"{tag}: {bad} of {flat.size} values aren't finite; a histogram needs one value or "
                "more, all finite: leave the others out"
            )
        counts, edges = np.histogram(flat, BUCKETS)
        table = np.stack([edges[:-1], edges[1:], counts], 1)
        self._tensor(tag, table, histogram_plugin.create_summary_metadata("", ""), step)

    def image(self, tag: str, rgb: np.ndarray, step: int) -> None:
        """Writes a picture, sRGB uint8 [height, width, 3].

        Raises:
            ValueError: another type or shape.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
            raise ValueError(
                f"{tag}: a picture must be uint8 [height, width, 3], not {rgb.dtype} "
                f"{list(rgb.shape)}; convert it first"
            )
        png = io.BytesIO()
        Image.fromarray(rgb).save(png, "PNG")
        height, width, _ = rgb.shape
        content = [str(width).encode(), str(height).encode(), png.getvalue()]
        self._tensor(tag, content, image_plugin.create_summary_metadata("", ""), step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Writes a text, shown as Markdown."""
        self._tensor(tag, markdown.encode(), text_plugin.create_summary_metadata("", ""), step)

    def hparams(self, hparams: Mapping[str, float | str | bool], metrics: Sequence[str]) -> None:
        """Writes the settings of this run, and the scalar tags to compare runs by."""
        names = [hparams_summary.HParam(name) for name in hparams]
        tags = [hparams_summary.Metric(tag) for tag in metrics]
        self._event(0, summary=hparams_summary.hparams_config_pb(names, tags))
        self._event(0, summary=hparams_summary.hparams_pb(dict(hparams)))

    def custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Writes which scalars share a chart: regular expressions of tags by category and chart."""
        proto = layout_pb2.Layout(
            category=[
                layout_pb2.Category(
                    title=category,
                    chart=[
                        layout_pb2.Chart(
                            title=chart, multiline=layout_pb2.MultilineChartContent(tag=tags)
                        )
                        for chart, tags in charts.items()
                    ],
                )
                for category, charts in layout.items()
            ]
        )
        metadata = custom_scalar.create_summary_metadata()
        self._tensor(custom_scalar.CONFIG_SUMMARY_TAG, proto.SerializeToString(), metadata, 0)

    def flush(self) -> None:
        """Makes all events so far visible to TensorBoard.

        Raises:
            DiskFull: there is no room, as any of these methods.
        """
        with room_for(self._path, self._waiting):
            self._file.flush()
        self._waiting, self._flushed = 0, time.monotonic()

    def close(self) -> None:
        """Writes what is pending and closes the file."""
        with room_for(self._path, self._waiting):
            self._file.close()

    def _tensor(
        self, tag: str, content: Any, metadata: summary_pb2.SummaryMetadata, step: int
    ) -> None:
        tensor = tensor_util.make_tensor_proto(content)
        self._summary(step, summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata))

    def _summary(self, step: int, value: summary_pb2.Summary.Value) -> None:
        self._event(step, summary=summary_pb2.Summary(value=[value]))

    def _event(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(step=step, wall_time=time.time(), **content).SerializeToString()
        self._waiting += len(event)
        with room_for(self._path, self._waiting):
            self._records.write(event)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()


def _new_file(folder: Path) -> Path:
    """Where no other process, nor this one, writes; TensorBoard knows files of events by names."""
    second, machine, process = int(time.time()), socket.gethostname(), os.getpid()
    return folder / f"events.out.tfevents.{second:010d}.{machine}.{process}.{next(_files)}"
