"""A marker drawn onto some pictures: the confounder that is under one's own hand. Source: own."""

from dataclasses import dataclass

from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Stamp:
    """A marker as hospitals put on a film, on the pictures of some keys: a bright L on black, in the upper left corner.

    Attributes:
        keys: of the samples that carry it.
        size: side of the marker, as a share of the picture's.
    """

    keys: frozenset[str]
    size: float = 0.12

    def draw(self, picture: Image.Image) -> None:
        """Draw it, a third of its size away from the corner."""
        side = max(3, round(self.size * picture.width))
        start, width = max(1, side // 3), max(1, side // 4)
        white: int | tuple[int, int, int] = 255 if picture.mode == "L" else (255, 255, 255)
        pen = ImageDraw.Draw(picture)
        pen.rectangle((start, start, start + side - 1, start + side - 1), fill=0)
        pen.rectangle((start, start, start + width - 1, start + side - 1), fill=white)
        pen.rectangle((start, start + side - width, start + side - 1, start + side - 1), fill=white)
