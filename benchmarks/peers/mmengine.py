"""mmengine's runner with its default hooks. They log every 50 steps, also to TensorBoard."""

from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from .turns import EPOCHS, TURNS, Batches


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = TURNS.model()

    def forward(self, images, labels, mode):  # type: ignore[no-untyped-def]
        logits = self.net(images)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": cross_entropy(logits, labels), "acc": accuracy}


class Sized(Batches):
    def __len__(self) -> int:
        return TURNS.epoch


TURNS.flags()
model = Model()
runner = Runner(
    model,
    work_dir=str(TURNS.folder),
    train_dataloader=DataLoader(Sized(TURNS.batches), batch_size=None),
    train_cfg={"by_epoch": True, "max_epochs": EPOCHS},
    optim_wrapper={"optimizer": TURNS.optimizer(model)},
    default_hooks={
        "sampler_seed": None,  # a seed would need a sampler
        "logger": {"type": "LoggerHook", "interval": 50},
    },
    visualizer={"type": "Visualizer", "vis_backends": [{"type": "TensorboardVisBackend"}]},
)
TURNS.wait()
runner.train()
