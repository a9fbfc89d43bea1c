"""Making layers without drawing their weights twice."""

from __future__ import annotations

import torch
from torch import nn

from metta.agent.paths import ComputePath


def dense(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A linear layer whose weights are not initialised: its owner does that, with a generator of its choice."""
    with torch.device("meta"):
        layer = nn.Linear(num_inputs, num_outputs)
    return layer.to_empty(device="cpu")


class Convolution(nn.Conv2d):
    """A convolution `[N, C, height, width]` that is one matrix product where its kernel fits the image just once.

    Args:
        path: `plain`: torch's own convolution; else that product, which a general routine takes several times as long for.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        kernel: tuple[int, int],
        stride: int,
        padding: int,
        path: ComputePath,
    ) -> None:
        super().__init__(num_inputs, num_outputs, kernel, stride, padding)
        self.path: ComputePath = path

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve."""
        if not self.fits_once(input):
            return super().forward(input)
        out = nn.functional.linear(self.flat(input), self.flat(self.weight), self.bias)
        return out.view(*out.shape, 1, 1)

    def fits_once(self, images: torch.Tensor) -> bool:
        """Whether it is one product of `flat` images and the `flat` weight."""
        once = images.shape[2:] == self.weight.shape[2:] and self.padding == (0, 0)
        return once and self.path != "plain"

    @staticmethod
    def flat(images: torch.Tensor) -> torch.Tensor:
        """`[N, C, height, width]` as `[N, height * width * C]`."""
        # Channels last, as a token layer gives them: then nothing but the weights has to be put in order.
        return images.permute(0, 2, 3, 1).flatten(1)


def convolution(
    num_inputs: int,
    num_outputs: int,
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    path: ComputePath = "auto",
) -> nn.Conv2d:
    """A convolution whose weights are not initialised; see `dense`."""
    with torch.device("meta"):
        layer = Convolution(num_inputs, num_outputs, kernel, stride, padding, path)
    return layer.to_empty(device="cpu")
