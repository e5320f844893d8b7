"""Small pictures within a page, as data URIs."""

import base64
from io import BytesIO

from PIL import Image
from torch import Tensor

BUDGET = 2_500_000
"""The number of bytes that all pictures of a page may take."""

SIDE = 112
"""The largest height or width of a picture in pixels."""

SMALL = 32
"""Up to this height and width, a picture is kept as it is, without loss."""


class Thumbnails:
    """Pictures of one page, which together stay within a number of bytes.

    Args:
        budget: The number of bytes.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.left = budget

    def uri(self, pixels: Tensor) -> str | None:
        """Make the data URI of an image, `uint8 [3, H, W]`; None if the page has no room for it."""
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        content = BytesIO()
        if max(image.size) <= SMALL:
            kind = "png"
            image.save(content, "PNG", optimize=True)
        else:
            kind = "jpeg"
            image.thumbnail((SIDE, SIDE))
            image.save(content, "JPEG", quality=80)
        uri = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
        if len(uri) > self.left:
            return None
        self.left -= len(uri)
        return uri
