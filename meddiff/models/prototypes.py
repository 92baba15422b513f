"""Prototypes: vectors that patches of an image are compared with, and how near the nearest patch comes to each.

With z the features of the patches of an image and p_j a prototype::

    d_j(u, v) = |z(u, v) - p_j|^2,   d_j = min over (u, v) of d_j(u, v),   s_j = log((d_j + 1) / (d_j + eps))

Source: Weng et al., ICLR 2026 (Patronus), spec section A2.1; the similarity is ProtoPNet's (Chen et al. 2019). Per-position
normalisation, the exact distance at the minimum and the checks are own.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.receptive_field import Layer, output_size

#: "kaiming", or the published N(0, 0.1^2), whose features explode where the stack is deep and its kernels wide.
Init = Literal["kaiming", "normal_0.1"]
#: Of the similarity; its largest value is log(1 / EPS) = 9.21.
EPS = 1e-4


def log_activation(d2: Tensor, eps: float = EPS) -> Tensor:
    """log((d + 1) / (d + eps)) of squared distances d: falls from log(1 / eps) at 0 towards 0, which it does not reach.

    Example:
        >>> [round(s, 2) for s in log_activation(torch.tensor([0.0, 0.05, 1.0, 10.0])).tolist()]
        [9.21, 3.04, 0.69, 0.1]
    """
    # log1p keeps what is near 0: at d = 1e4 the quotient is 1.0001, of which float32 keeps four digits
    return torch.log1p((1.0 - eps) / (d2 + eps))


def squared_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Squared Euclidean distances of all patches to all prototypes.

    ``|z|^2 - 2 z.p + |p|^2`` in float64: in float32 the terms cancel near zero distance, where the similarity is steepest (an
    activation moves by up to 0.1); summing (z - p)^2 outright (torch.cdist) takes seven times as long as the whole of
    :meth:`PrototypeEncoder.forward`, which is as fast as the identity in float32.

    Args:
        features: (B, D, H, W).
        prototypes: (m, D).

    Returns:
        (B, m, H, W), in the type of ``features``, at least 0.
    """
    exact = features.to(_exact(features)), prototypes.to(_exact(features))
    z, p = exact[0].flatten(2), exact[1]  # (B, D, H W), (m, D)
    cross = torch.matmul(p, z)  # (B, m, H W)
    d2 = z.square().sum(1, keepdim=True) - 2.0 * cross + p.square().sum(1)[None, :, None]
    return d2.clamp(min=0.0).to(features.dtype).unflatten(2, features.shape[2:])


def _exact(features: Tensor) -> torch.dtype:
    """Float64, where the device has it."""
    return torch.float32 if features.device.type == "mps" else torch.float64


def distinctness_loss(prototypes: Tensor, delta: float) -> Tensor:
    """Mean over prototypes of how much nearer than ``delta`` the most similar other one lies, in ``1 - |cos|``; ().

    0 for orthogonal prototypes, ``delta`` for copies (also turned round). Spec section A3.

    Args:
        prototypes: (m, D); with fewer than two there is nothing to tell apart, and the loss is 0.
        delta: in (0, 1].
    """
    if len(prototypes) < 2:
        return prototypes.sum() * 0.0
    return (delta - (1.0 - nearest_cosines(prototypes))).clamp(min=0.0).mean()


def nearest_cosines(prototypes: Tensor) -> Tensor:
    """``|cos|`` of each prototype with the other that is most like it, (m,), of (m, D) with m >= 2."""
    unit = nn.functional.normalize(prototypes, dim=1)
    cosines = (unit @ unit.T).abs()  # (m, m)
    itself = torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    return cosines.masked_fill(itself, -1.0).amax(dim=1)


def mean_cosine(prototypes: Tensor) -> Tensor:
    """Mean ``|cos|`` over pairs of prototypes (m, D), (); NaN of fewer than two."""
    unit = nn.functional.normalize(prototypes, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T).abs()[first, second].mean()


class PrototypeEncoder(nn.Module):
    """A shallow stack of convolutions and ReLUs, and the distances of its patches to learned prototypes.

    Args:
        layers: (kernel, stride, padding, channels) of each convolution; the last has ``dimension`` channels.
        in_channels: of the input.
        prototypes: how many, m.
        dimension: of a prototype, D.
        init: of the convolutions. Prototypes are drawn from U(0, 1), as features after a ReLU lie.
        normalise: bring the features of each patch to zero mean and unit variance over its channels before the last ReLU and
            divide by sqrt(D), so that distances are of the order of 1, where the similarity tells images apart, whatever the
            depth of the stack. A patch is normalised by itself: a norm over the image would let every patch see all of it.

    Attributes:
        vectors: the prototypes, (m, D).

    Raises:
        UserError: a stack or a number that cannot be.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[int]],
        in_channels: int,
        prototypes: int = 100,
        dimension: int = 128,
        init: Init = "kaiming",
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.layers = checked_layers(layers, dimension)
        if prototypes < 1:
            raise UserError(f"prototypes is {prototypes}; it must be at least 1.")
        if init not in ("kaiming", "normal_0.1"):
            raise UserError(f"init is {init!r}; it must be 'kaiming' or 'normal_0.1'.")
        self.init, self.normalise, self.in_channels = init, normalise, in_channels
        widths = [in_channels, *(channels for *_, channels in self.layers)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, channels, kernel, stride, padding)
            for before, (kernel, stride, padding, channels) in zip(widths, self.layers, strict=False)
        )
        self.vectors = nn.Parameter(torch.empty(prototypes, dimension))
        self.reset()

    def reset(self) -> None:
        """Draw all weights anew from torch's generator."""
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            if self.init == "normal_0.1":
                nn.init.normal_(convolution.weight, 0.0, 0.1)
            else:
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                assert convolution.bias is not None
                nn.init.zeros_(convolution.bias)
        nn.init.uniform_(self.vectors)
        if self.normalise:
            with torch.no_grad():
                self.vectors.mul_(self.vectors.shape[1] ** -0.5)

    @property
    def m(self) -> int:
        """How many prototypes there are."""
        return len(self.vectors)

    def features(self, x0: Tensor) -> Tensor:
        """Patches (B, D, H', W') of images or latents (B, C, H, W), float32, at least 0.

        Raises:
            UserError: the images are smaller than the stack takes.
        """
        if any(output_size(self.layers, side) < 1 for side in x0.shape[2:]):
            raise UserError(
                f"Prototypes look at patches that do not fit into an input of {x0.shape[2]} x {x0.shape[3]} cells: take "
                f"smaller kernels or strides, or fewer layers."
            )
        # half precision has no room for distances near zero
        with torch.autocast(x0.device.type, enabled=False):
            z = x0.float()
            for place, convolution in enumerate(self.convolutions):
                z = convolution(z)
                if self.normalise and place == len(self.convolutions) - 1:
                    z = nn.functional.layer_norm(z.movedim(1, -1), (z.shape[1],)).movedim(-1, 1) * z.shape[1] ** -0.5
                z = z.relu()
        return z

    def distances(self, x0: Tensor) -> Tensor:
        """Squared distance of every patch to every prototype, (B, m, H', W')."""
        return squared_distances(self.features(x0), self.vectors)

    def maps(self, x0: Tensor) -> Tensor:
        """Activation of every prototype at every patch, (B, m, H', W')."""
        return log_activation(self.distances(x0))

    def forward(self, x0: Tensor) -> Tensor:
        """Activations (B, m) of images or latents (B, C, H, W), each that of the nearest patch; in (0, 9.22).

        Distances are searched without a graph, and the gradient goes through the nearest patch alone, whose distance is
        computed outright: that is what a minimum passes on, at a fraction of the cost.
        """
        z = self.features(x0)  # (B, D, H', W')
        with torch.no_grad():
            places = squared_distances(z, self.vectors).flatten(2).argmin(dim=2)  # (B, m)
        rows = torch.arange(len(z), device=z.device)[:, None]
        # indexing, not gather: its backward pass adds up in a fixed order on a GPU too
        nearest = z.flatten(2).transpose(1, 2)[rows, places]  # (B, m, D)
        return log_activation((nearest - self.vectors).square().sum(dim=2))

    @torch.no_grad()
    def nearest(self, x0: Tensor) -> Tensor:
        """Row and column of the patch that is nearest to each prototype, int64 (B, m, 2)."""
        d2 = self.distances(x0)
        places = d2.flatten(2).argmin(dim=2)  # (B, m)
        return torch.stack([places // d2.shape[3], places % d2.shape[3]], dim=2)


def checked_layers(layers: Sequence[Sequence[int]], dimension: int) -> tuple[Layer, ...]:
    """A stack as tuples.

    Raises:
        UserError: empty, a number that cannot be, or a last layer that is not as wide as the prototypes.
    """
    if not layers:
        raise UserError(
            "prototypes.layers is empty: give [kernel, stride, padding, channels] of at least one convolution."
        )
    found: list[Layer] = []
    for layer in layers:
        numbers = list(layer)
        whole = len(numbers) == 4 and all(isinstance(one, int) and not isinstance(one, bool) for one in numbers)
        if not whole or min(numbers[0], numbers[1], numbers[3]) < 1 or not 0 <= numbers[2] < numbers[0]:
            raise UserError(
                f"prototypes.layers holds {numbers}; it must be [kernel, stride, padding, channels] in whole numbers, with a "
                f"padding below the kernel."
            )
        found.append((numbers[0], numbers[1], numbers[2], numbers[3]))
    if found[-1][3] != dimension:
        raise UserError(
            f"The last of prototypes.layers has {found[-1][3]} channels and prototypes have {dimension}: set both alike."
        )
    return tuple(found)
