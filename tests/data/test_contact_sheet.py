"""The contact sheet shows a class in each row, as the network sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import contact_sheet
from data.shards import Images


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_for_each_class_and_white_where_it_has_no_more(tmp_path: Path, channels: int) -> None:
    pixels_NCHW = torch.stack([torch.full((channels, 10, 10), 10 * i) for i in range(20)]).to(torch.uint8)
    labels_N = torch.tensor([0] * 18 + [1] * 2)
    images = Images(pixels_NCHW, labels_N, tuple(map(str, range(20))), ("many", "few"))
    assert contact_sheet.write(tmp_path / "new" / "sheet.png", images) == ["many", "few"]
    sheet = np.array(Image.open(tmp_path / "new" / "sheet.png").convert("L"))
    side = 70 + contact_sheet.GAP  # ten pixels, seven times as large
    centres = [[int(sheet[2 + row * side + 35, 2 + column * side + 35]) for column in range(12)] for row in (0, 1)]
    assert centres[0] == [0, 20, 40, 60, 80, 100, 120, 140, 160, 255, 255, 255]
    assert centres[1] == [180, 190, *[255] * 10]
