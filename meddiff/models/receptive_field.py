"""Which pixels a cell of a stack of convolutions looks at: the arithmetic, for any kernels, strides and paddings. No torch.

Source: own; the recurrence is the usual one (Araujo et al., Distill 2019, eq. 2 to 4).
"""

from collections.abc import Sequence

#: Kernel, stride, padding and output channels of one convolution, the same along both axes.
Layer = tuple[int, int, int, int]


def receptive_field(layers: Sequence[Layer]) -> tuple[int, int, int]:
    """Size of a cell's field, cells of the input between two neighbours, and where the first one begins.

    The first field begins at minus the padding that has gathered, so the start is 0 or less.

    Example:
        >>> receptive_field([(3, 2, 1, 32), (3, 1, 0, 64), (3, 1, 0, 64), (3, 1, 0, 128)])
        (15, 2, -1)
    """
    size, jump, start = 1, 1, 0
    for kernel, stride, padding, _ in layers:
        size += (kernel - 1) * jump
        start -= padding * jump
        jump *= stride
    return size, jump, start


def output_size(layers: Sequence[Layer], input_size: int) -> int:
    """Cells along one side of what a stack makes of ``input_size``; 0 or less where a kernel does not fit.

    Example:
        >>> output_size([(5, 2, 1, 32), (5, 2, 1, 64), (5, 1, 0, 64), (5, 1, 0, 128), (5, 1, 0, 128)], 224)
        43
    """
    for kernel, stride, padding, _ in layers:
        input_size = (input_size + 2 * padding - kernel) // stride + 1
        if input_size < 1:
            return 0
    return input_size


def box_of(
    position: tuple[int, int], layers: Sequence[Layer], input_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """What the cell at ``position`` (row, column) looks at: (y0, x0, y1, x1), ends excluded, cut to the input.

    Cut at every layer and not at the end: what a cell at the rim sees of the padding of a middle layer is no pixel.

    Args:
        input_size: height and width of the input, in its own cells (pixels, or latents).

    Example:
        >>> box_of((0, 3), [(3, 2, 1, 32), (3, 1, 0, 64), (3, 1, 0, 64), (3, 1, 0, 128)], (64, 64))
        (0, 5, 14, 20)
    """
    (y0, y1), (x0, x1) = (_span(place, layers, length) for place, length in zip(position, input_size, strict=True))
    return y0, x0, y1 + 1, x1 + 1


def _span(place: int, layers: Sequence[Layer], length: int) -> tuple[int, int]:
    """First and last cell of the input that one cell sees along one side."""
    lengths = [length]
    for layer in layers:
        lengths.append(output_size([layer], lengths[-1]))
    first = last = place
    for (kernel, stride, padding, _), below in zip(reversed(layers), reversed(lengths[:-1]), strict=True):
        # windows that lie in the padding alone see nothing
        first = max(first, -((kernel - 1 - padding) // stride))
        last = min(last, (below - 1 + padding) // stride)
        first, last = max(0, first * stride - padding), min(below - 1, last * stride - padding + kernel - 1)
    return first, last
