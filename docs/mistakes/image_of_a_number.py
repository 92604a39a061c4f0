"""A number is logged with `add_image`. Each loss becomes one grey pixel, and each loss above 1 is white."""

import io
import tempfile

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

with tempfile.TemporaryDirectory() as folder:
    writer = SummaryWriter(folder)
    for step, loss in enumerate(torch.tensor([2.31, 1.44, 0.53, 0.53001])):
        try:
            writer.add_image("loss", loss, step)
        except AssertionError:  # "size of input tensor and input format are different", so somebody reshapes:
            writer.add_image("loss", loss.view(1, 1, 1), step)  # the mistake
        writer.add_scalar("loss", loss, step)
    writer.close()
    events = EventAccumulator(folder, size_guidance={"images": 0}).Reload()
    images = [Image.open(io.BytesIO(event.encoded_image_string)) for event in events.Images("loss")]
    print("add_image: ", *[f"{image.getpixel((0, 0))[0]:7d}" for image in images])
    print("add_scalar:", *[f"{event.value:7.5f}" for event in events.Scalars("loss")])
