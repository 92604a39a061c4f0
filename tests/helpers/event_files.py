"""Read back what a run wrote for TensorBoard."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def events(folder: Path):
    """The reader of a run's event files, which keeps everything."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = dict.fromkeys(("images", "scalars", "tensors", "histograms"), 0)
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance=everything)
    return read.Reload()


def text(read, tag: str) -> str:
    """The newest text of a tag."""
    return read.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def pictures(read, tag: str) -> dict[int, np.ndarray]:
    """The pictures of a tag by step, each uint8 [height, width, 3]."""
    return {e.step: np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in read.Images(tag)}


def hparams(read, tag: str):
    """What TensorBoard's table of hyperparameters knows."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    return HParamsPluginData.FromString(read.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)
