"""Several processes started by torchrun: each computes its part of every batch; only rank 0 writes and prints.

    torchrun --nproc_per_node 2 train_siamese.py …

Every rank draws the same batches and the same random numbers, those of the whole batch, and the scores of all parts are
gathered before the loss, so N processes learn what one would. In a single process these functions are no-ops.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from device import select_device
from utils import UserError, rank

Rows = TypeVar("Rows", np.ndarray, Tensor)
_batch = 0  # pictures in the batch that is trained on, in all processes together; 0 in a single process


def join(device: str) -> None:
    """Join the process group of torchrun; a no-op without torchrun. `device` is the value of --device."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return
    own_gpu = select_device(device).type == "cuda" and torch.cuda.device_count() >= int(
        os.environ.get("LOCAL_WORLD_SIZE", "1")
    )
    # Others may wait for rank 0 for hours; that one of them has died, torchrun sees by itself.
    dist.init_process_group("cpu:gloo,cuda:nccl" if own_gpu else "gloo", timeout=datetime.timedelta(days=7))


def leave() -> None:
    """Once all are here: a process that ends while another still talks to it, or whose networks outlive the group, may
    be aborted at its very end."""
    _spread.cache_clear()
    barrier()
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all processes, so that what rank 0 has written is visible to the others."""
    if world() > 1:
        dist.all_reduce(torch.zeros(1))


# --- parts of a batch -----------------------------------------------------------------------------------------------
def bounds(n: int) -> slice:
    """This process's part of n rows; the sizes of the parts differ by at most one."""
    return slice(n * rank() // world(), n * (rank() + 1) // world()) if world() > 1 else slice(n)


def part(rows: Rows) -> Rows:
    return rows[bounds(len(rows))]


def begin(places: Rows) -> Rows:
    """This process's part of a batch to train on, whose random numbers and scores the functions below are about."""
    global _batch
    if world() > 1:
        _batch = len(places)
        if _batch < world():
            raise UserError(f"a batch of {_batch} pictures cannot be split over {world()} processes")
    return part(places)


def whole(n: int) -> int:
    """The size of the whole batch, of which n pictures are on this process."""
    return _batch or n


def mean_part(n: int) -> float:
    """Pictures a process: the gradients of the parts are averaged, so that what is divided by the whole batch's size
    when one process works is divided by this."""
    return whole(n) / world()


def own(numbers: Tensor) -> Tensor:
    """The rows of this process's pictures, from what was drawn for the whole batch."""
    return numbers[bounds(len(numbers))] if _batch else numbers


def gather(rows: Tensor, n: int | None = None) -> Tensor:
    """The rows of all processes, in rank order, with gradient; n of them, by default the whole batch."""
    if world() == 1:
        return rows
    n = n or _batch
    before, after = bounds(n).start, n - bounds(n).stop
    zeros = [rows.new_zeros(length, *rows.shape[1:]) for length in (before, after)]
    return _Sum.apply(torch.cat([zeros[0], rows, zeros[1]]))


class _Sum(torch.autograd.Function):
    """The sum over processes, of tensors and of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.contiguous().clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


# --- networks -------------------------------------------------------------------------------------------------------
def spread(forward: Callable, compiled: bool = False) -> Callable:
    """A network's method that trains it: its gradients are averaged over the processes; with `compiled` compiled."""
    return _spread(forward, compiled) if compiled or world() > 1 else forward


@functools.lru_cache(maxsize=1)  # an epoch asks for what the last one had
def _spread(forward: Callable, compiled: bool) -> Callable:
    if world() > 1:
        network, device = forward.__self__, next(forward.__self__.parameters()).device
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        for module in network.modules():
            module.__class__ = _of_the_whole_batch().get(type(module), type(module))
        forward = DistributedDataParallel(_Method(forward), forward_sync_buffers=False, gradient_as_bucket_view=True)
    if not compiled:
        return forward
    torch._dynamo.config.suppress_errors = True  # without a compiler it warns and computes as ever
    return torch.compile(forward)


class _Method(nn.Module):
    """A method of a network as a module, which is what DistributedDataParallel takes."""

    def __init__(self, method: Callable) -> None:
        super().__init__()
        self.network, self.name = method.__self__, method.__name__

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.network, self.name)(*inputs)


class _Drop:
    """Drops what a single process would: drawn for the whole batch, of which the own part is taken."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mine = bounds(_batch)
        views = len(x) // (mine.stop - mine.start)  # of each picture
        kept = super().forward(x.new_ones(views * _batch, *x.shape[1:]))
        return x * kept.unflatten(0, (views, _batch))[:, mine].flatten(0, 1)


class _Dropout(_Drop, nn.Dropout):
    pass


class _BatchNorm(nn.BatchNorm2d):
    """Normalises by the mean and variance of the whole batch. torch.nn.SyncBatchNorm wants a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        shape, n = (1, -1, 1, 1), _Sum.apply(x.new_tensor(float(x[:, 0].numel())))
        mean = _Sum.apply(x.sum((0, 2, 3))) / n
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            pace = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
            self.running_mean.lerp_(mean, pace)
            self.running_var.lerp_(variance * n / (n - 1), pace)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(shape) + self.bias.view(shape)


@functools.cache
def _of_the_whole_batch() -> dict[type, type]:
    """What takes the place of the layers that look at other pictures of the batch, or draw numbers for them."""
    from torchvision.ops import StochasticDepth  # its import takes two seconds, and one process needs none

    class _StochasticDepth(_Drop, StochasticDepth):
        pass

    return {nn.Dropout: _Dropout, StochasticDepth: _StochasticDepth, nn.BatchNorm2d: _BatchNorm}
