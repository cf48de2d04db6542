"""Reads event files back as TensorBoard does."""

import io

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def values(folder) -> dict[str, dict[int, np.ndarray]]:
    """All that TensorBoard's loader reads: arrays by tag and step."""
    read: dict[str, dict[int, np.ndarray]] = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = tensor_util.make_ndarray(value.tensor)
                read.setdefault(value.tag, {})[event.step] = array
    return read


def metadata(folder, tag: str):
    """The plugin and its content for a tag, as TensorBoard's server keeps them."""
    accumulator = EventAccumulator(str(folder)).Reload()
    data = accumulator.SummaryMetadata(tag).plugin_data
    return data.plugin_name, data.content


def picture(array: np.ndarray) -> np.ndarray:
    width, height, png = array
    decoded = np.asarray(Image.open(io.BytesIO(png)))
    assert decoded.shape == (int(height), int(width), 3)
    return decoded
