"""A tiny labelled wave data set, a data module over it, and an augmentation that moves the label by a known amount."""

import math
from dataclasses import dataclass

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from pdessl.trajectory import Trajectories

FRAMES, POINTS = 10, 16


def waves(count, seed=0):
    """Decaying standing waves: u = a exp(-viscosity t) sin(x + phase), viscosity log-uniform in [0.1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    viscosity = 10 ** (torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    phase = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    time = torch.linspace(0, 2, FRAMES, dtype=torch.float64)
    x = torch.arange(POINTS, dtype=torch.float64) * 2 * math.pi / POINTS
    fields = torch.exp(-viscosity[:, None, None] * time[:, None]) * torch.sin(x + phase[:, None, None])
    return Trajectories(
        fields=(3 * fields[:, None] + 1).float(),
        time=time.expand(count, -1),
        space=(x.expand(count, -1),),
        lengths=torch.full((count, 1), 2 * math.pi, dtype=torch.float64),
        parameters={"viscosity": viscosity},
        index=torch.arange(count),
    )


class EpochOrder(Sampler):
    """Batches of indices in an order that depends on the epoch only (Lightning calls ``set_epoch``)."""

    def __init__(self, size, batch_size, shuffle):
        self.size, self.batch_size, self.shuffle, self.epoch = size, batch_size, shuffle, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        # A generator: on resume Lightning calls iter() before set_epoch() and draws the first batch after it.
        order = torch.arange(self.size)
        if self.shuffle:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch))
        yield from order.split(self.batch_size)

    def __len__(self):
        return math.ceil(self.size / self.batch_size)


class Held(torch.utils.data.Dataset):
    def __init__(self, trajectories):
        self.trajectories = trajectories

    def __len__(self):
        return len(self.trajectories)

    def __getitem__(self, key):
        return self.trajectories[key]


@dataclass
class FieldStatistics:
    mean: float
    std: float


class WaveData(lightning.LightningDataModule):
    def __init__(self, labels=False, count=32, batch_size=8):
        super().__init__()
        self.labels, self.batch_size = labels, batch_size
        self.training, self.labelled, self.held_out = waves(count, 1), waves(16, 2), waves(16, 3)

    @property
    def statistics(self):
        return {"u": FieldStatistics(float(self.training.fields.mean()), float(self.training.fields.std()))}

    def _loader(self, trajectories, shuffle):
        sampler = EpochOrder(len(trajectories), self.batch_size, shuffle)
        return DataLoader(Held(trajectories), sampler=sampler, batch_size=None)

    def train_dataloader(self):
        return self._loader(self.training if self.labels else self.training.without_parameters(), True)

    def val_dataloader(self):
        return [self._loader(self.labelled, False), self._loader(self.held_out, False)]


@dataclass
class Moved:
    log_parameter_shift: dict


class ShiftAndSlow(nn.Module):
    """Shift along x by whole nodes; with ``slow`` multiply time, and so viscosity, by a known factor (labels move)."""

    def __init__(self, slow=False):
        super().__init__()
        self.slow = slow

    def forward(self, batch, generator=None):
        roll = int(torch.randint(0, POINTS, (1,), generator=generator))
        fields = torch.roll(batch.fields, roll, dims=-1)
        shift = torch.zeros(len(batch), dtype=torch.float64)
        time = batch.time
        if self.slow:
            shift = 0.5 * torch.rand(len(batch), generator=generator, dtype=torch.float64)
            # exp(-v t) read on a clock that runs slower by exp(-shift): v grows by exp(shift).
            faster = (shift.exp() - 1) * self.rate(fields)
            factor = torch.exp(-faster[:, None] * time)[:, None, :, None]
            fields = ((fields - 1) * factor + 1).float()
        parameters = {n: p * shift.exp() for n, p in batch.parameters.items()}
        return batch.replace(fields=fields, parameters=parameters), Moved({"viscosity": shift})

    @staticmethod
    def rate(fields):
        """Viscosity read off the decay itself."""
        power = (fields.double() - 1).square().mean(dim=(1, 3))
        return -torch.log(power[:, -1] / power[:, 0]) / 4


def trainer(folder, epochs, **settings):
    defaults = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "num_sanity_val_steps": 0,
    }
    return lightning.Trainer(**(defaults | settings))
