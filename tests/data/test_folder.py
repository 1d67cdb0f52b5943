"""A team's own images: any size, depth and orientation; a word for everything that is wrong with a folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.sets import folder
from data.shards import Images


def write(path: Path, picture: Image.Image, **given: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **given)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name, colour in (("cat", "red"), ("dog", "blue")):
            write(tmp_path / split / name / "one.png", Image.new("RGB", (40, 30), colour))
    return tmp_path


def load(
    root: Path, split: str = "train", size: int | None = None, channels: int | None = None, **options: Any
) -> Images:
    return folder.load(split, root=root, size=size, channels=channels, **{"seed": 0, **options})


def image(images: Images, key: str) -> torch.Tensor:
    return images.pixels_NCHW[images.keys.index(key)]


def test_keys_labels_and_sizes(root: Path) -> None:
    write(root / "train" / "cat" / "more" / "two.JPG", Image.new("RGB", (33, 90), "red"), format="JPEG")
    images = load(root)
    assert images.keys == ("train/cat/more/two.JPG", "train/cat/one.png", "train/dog/one.png")
    assert images.classes == ("cat", "dog")
    assert images.labels_N.tolist() == [0, 0, 1]
    assert images.pixels_NCHW.shape == (3, 3, 28, 28)
    assert image(images, "train/cat/one.png")[:, 0, 0].tolist() == [255, 0, 0]
    assert load(root, "test", size=64, channels=1).pixels_NCHW.shape == (2, 1, 64, 64)


def test_the_middle_is_taken_and_shrunk_without_aliasing(root: Path) -> None:
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, :40], wide[:, 80:] = (255, 0, 0), (0, 255, 0)  # what is cut off
    wide[:, 40:80:2] = 255  # stripes of one pixel in what is kept
    write(root / "train" / "cat" / "wide.png", Image.fromarray(wide))
    found = image(load(root, size=10), "train/cat/wide.png")
    # far from the edge, where the filter ends, the stripes are an even grey
    assert (found[:, 2:8, 2:8].int() - 127).abs().max() <= 12
    assert found[:, :, 0].min() > 90, "at most the filter's edge is of what was cut off"


def test_grey_colour_palette_and_sixteen_bits(root: Path) -> None:
    at = root / "train" / "cat"
    write(at / "grey.png", Image.new("L", (28, 28), 100))
    write(at / "palette.png", Image.new("RGB", (28, 28), (10, 200, 30)).convert("P"))
    write(at / "deep.png", Image.fromarray(np.full((28, 28), 100 * 257, dtype=np.uint16)))
    write(at / "bit.png", Image.new("1", (28, 28), 1))
    colour, grey = load(root), load(root, channels=1)
    for name, value in (("grey", 100), ("deep", 100), ("bit", 255)):
        for images in (colour, grey):
            assert image(images, f"train/cat/{name}.png").unique().tolist() == [value], name
    red, green, blue = image(colour, "train/cat/palette.png")[:, 0, 0].tolist()
    assert green > 150 > 80 > max(red, blue)


def test_a_photo_taken_sideways_stands_upright(root: Path) -> None:
    sideways = Image.new("L", (28, 28), 0)
    sideways.paste(255, (0, 0, 14, 28))  # light on the left, and the camera says: turn by 90° clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    write(root / "train" / "cat" / "phone.jpg", sideways, exif=exif)
    found = image(load(root, channels=1), "train/cat/phone.jpg")[0]
    assert found[:10].min() > 200
    assert found[18:].max() < 50


def test_litter_of_an_operating_system_is_passed_over(root: Path) -> None:
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "cat" / "._one.png").write_bytes(b"x")
    (root / "train" / "notes.txt").write_text("x")
    write(root / "train" / "cat" / ".ipynb_checkpoints" / "one-checkpoint.png", Image.new("RGB", (40, 30)))
    assert len(load(root)) == 2
    assert load(root).classes == ("cat", "dog")


def test_a_missing_folder_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder of images at .*/none \(data\.root\)"):
        load(tmp_path / "none")
    (root / "test").rename(root / "held-out")
    with pytest.raises(
        FileNotFoundError,
        match=r"\(data\.root\) must hold .*, found train/; .*data\.test_share: 0\.2",
    ):
        load(root, "test")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="expected at least two classes, a folder each, .* got none"):
        load(tmp_path)
    write(tmp_path / "train" / "cat" / "one.png", Image.new("L", (9, 9)))
    with pytest.raises(ValueError, match="expected at least two classes, a folder each, .* got 1: cat"):
        load(tmp_path)


def test_a_class_without_images_is_named(root: Path) -> None:
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "one.heic").write_bytes(b"ftypheic")
    with pytest.raises(ValueError, match=r"every class needs images \(\.png, .*and there are none in .*train/eel$"):
        load(root)


def test_what_is_passed_over_is_counted_by_suffix(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(root)
    assert capsys.readouterr().out == ""
    for name in ("cat/a.HEIC", "dog/b.heic", "dog/Thumbs.db", "dog/raw", "dog/.hidden.txt"):
        (root / "train" / name).write_bytes(b"x")
    assert len(load(root)) == 2
    said = capsys.readouterr().out
    told = "2 .heic, 1 .db, 1 without a suffix; read are .png, .jpg"
    assert said.startswith(f"  passed over in {root / 'train'}: {told}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("suffix", [*folder.SUFFIXES, ".WEBP"])
def test_every_suffix_is_read_and_the_first_of_several_images_taken(root: Path, suffix: str) -> None:
    first, second = (Image.new("RGB", (30, 40), colour) for colour in ("lime", "blue"))
    several = suffix in (".gif", ".tif", ".tiff", ".webp", ".png")
    given = {"save_all": True, "append_images": [second]} if several else {}
    write(root / "train" / "cat" / f"two{suffix}", first, **given)
    red, green, blue = image(load(root), f"train/cat/two{suffix}")[:, 14, 14].tolist()
    assert green > 250 > 5 > max(red, blue)


def test_pixels_whose_white_is_not_known_are_refused(root: Path) -> None:
    at = root / "train" / "cat"
    write(at / "floats.tif", Image.fromarray(np.full((28, 28), 0.5, dtype=np.float32)))
    write(at / "long.tif", Image.fromarray(np.full((28, 28), 70_000, dtype=np.int32)))
    write(at / "deep.tif", Image.fromarray(np.full((28, 28), 100 * 257, dtype=np.uint16)))
    with pytest.raises(ValueError, match="2 of 5 files are no readable images") as caught:
        load(root)
    assert "floats.tif: its pixels are floating-point numbers" in str(caught.value)
    assert "long.tif: its pixels are not unsigned numbers of at most 16 bits" in str(caught.value)
    (at / "floats.tif").unlink()
    (at / "long.tif").unlink()
    assert image(load(root), "train/cat/deep.tif").unique().tolist() == [100]


def test_a_class_of_test_that_train_does_not_have_is_named(root: Path) -> None:
    write(root / "test" / "eel" / "one.png", Image.new("L", (9, 9)))
    with pytest.raises(ValueError, match="classes that train does not have: eel"):
        load(root, "test")


def test_a_picture_that_is_a_link_to_nowhere_is_named(root: Path) -> None:
    """As in a checkout of git-annex, or of DVC with links, whose content was not brought."""
    (root / "train" / "dog" / "two.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"1 of 3 files are no readable images; [^:]*:\n.*two\.png: .*No such file"):
        load(root)


def test_unreadable_files_are_counted_and_the_first_named(root: Path) -> None:
    at = root / "train" / "dog"
    sound = (at / "one.png").read_bytes()
    for i in range(6):
        (at / f"broken{i}.png").write_bytes(sound[: 40 + i] if i else b"")
    (at / "bitmap.png").write_bytes(b"BM" + bytes(200))
    with pytest.raises(ValueError, match="7 of 9 files are no readable images; mend or remove them") as caught:
        load(root)
    lines = str(caught.value).splitlines()
    assert [Path(line.split(": ")[0]).name for line in lines[1:6]] == ["bitmap.png"] + [
        f"broken{i}.png" for i in range(4)
    ]
    assert lines[6] == "and 2 more"


def test_linked_folders_are_followed_and_a_loop_of_links_ends(root: Path, tmp_path: Path) -> None:
    camera = tmp_path / "camera" / "monday"
    for i in range(3):
        write(camera / f"{i}.png", Image.new("RGB", (30, 30), (i, 0, 0)))
    (camera / "again").symlink_to(camera.parent)
    (root / "train" / "cat" / "batch1").symlink_to(tmp_path / "camera")
    images = load(root)
    assert images.keys[:3] == tuple(f"train/cat/batch1/monday/{i}.png" for i in range(3))
    assert len(images) == 5


def test_a_link_that_leads_to_itself_is_named(root: Path) -> None:
    (root / "train" / "cat" / "loop").symlink_to("loop")
    (root / "train" / "cat" / "loop.png").symlink_to("loop.png")
    with pytest.raises(ValueError, match=r"1 of 3 files are no readable images.*\n.*loop\.png: "):
        load(root)


def test_a_file_name_that_is_no_utf8_is_kept_as_text(root: Path) -> None:
    at = root / "train" / "cat"
    write(at / "new.png", Image.new("RGB", (9, 9)))
    latin1 = (at / "new.png").rename(at / os.fsdecode(b"caf\xe9.png"))
    write(at / "two\nlines.png", Image.new("RGB", (9, 9)))
    images = load(root)
    assert images.keys[0] == r"train/cat/caf\xe9.png"
    assert r"train/cat/two\nlines.png" in images.keys
    latin1.write_bytes(b"")
    with pytest.raises(ValueError, match=r"caf\\xe9\.png: it is none of PNG"):
        load(root)


def test_a_class_has_one_name_in_whichever_form_its_folders_are_written(root: Path) -> None:
    for split, form in (("train", "NFC"), ("test", "NFD")):
        write(root / split / unicodedata.normalize(form, "café") / "one.png", Image.new("RGB", (9, 9)))
    train, test = load(root), load(root, "test")
    assert train.classes == test.classes == ("café", "cat", "dog")
    assert test.labels_N.tolist() == [0, 1, 2]
    write(root / "train" / unicodedata.normalize("NFD", "café") / "two.png", Image.new("RGB", (9, 9)))
    with pytest.raises(ValueError, match="two folders that both read café, in different Unicode forms; move"):
        load(root)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_val_may_stand_for_test(root: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (root / "test").rename(root / name)
    load(root)
    assert capsys.readouterr().out == f"  {name}/ is taken as the test part\n"
    assert load(root, "test").keys == (f"{name}/cat/one.png", f"{name}/dog/one.png")
    assert capsys.readouterr().out == ""


def test_a_validation_part_beside_a_test_part_is_told_to_be_left_out(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(root / "val" / "cat" / "two.png", Image.new("RGB", (9, 9)))
    assert len(load(root)) == 2
    assert capsys.readouterr().out.startswith("  test/ is the test part; val/ is not read")
    assert load(root, "test").keys == ("test/cat/one.png", "test/dog/one.png")


@pytest.mark.parametrize("below", ["", "train"])
def test_a_share_of_each_class_is_held_out_where_there_is_no_test_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    draws = np.random.default_rng(0)
    for name, n in (("cat", 20), ("dog", 10)):
        for i in range(n):
            picture = Image.fromarray(draws.integers(0, 255, (9, 9, 3), np.uint8))
            write(tmp_path / below / name / f"{i:02d}.png", picture)
    train, test = (load(tmp_path, split, test_share=0.2) for split in ("train", "test"))
    assert (len(train), test.labels_N.bincount().tolist()) == (24, [4, 2])
    assert not set(train.keys) & set(test.keys)
    assert load(tmp_path, "test", test_share=0.2).keys == test.keys
    assert load(tmp_path, "test", test_share=0.2, seed=1).keys != test.keys
    assert f"no test part in {tmp_path}: 6 of 30 images are held out" in capsys.readouterr().out


def test_copies_of_a_picture_are_held_out_together(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for i in range(8):
            picture = Image.fromarray(draws.integers(0, 255, (9, 9, 3), np.uint8))
            for copy in ("a", "b"):
                write(tmp_path / name / f"{i}{copy}.png", picture)
    for seed in range(5):
        keys = load(tmp_path, "test", test_share=0.3, seed=seed).keys
        assert len(keys) == 12
        assert {key.replace("b.png", "a.png") for key in keys} == {key for key in keys if "a.png" in key}


def test_a_test_share_does_not_go_with_a_test_part(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.test_share is for images without a test part, .* holds test/"):
        load(root, test_share=0.2)
    for name in ("cat", "dog"):
        write(tmp_path / "few" / name / "one.png", Image.new("RGB", (9, 9)))
    with pytest.raises(ValueError, match=r"two different images at least, .*few/cat has 1 files"):
        load(tmp_path / "few", test_share=0.2)


def test_what_is_cut_off_by_cropping_is_there_after_padding(root: Path) -> None:
    write(root / "train" / "cat" / "wide.png", Image.fromarray(np.arange(60, dtype=np.uint8)[None].repeat(20, 0)))
    by_fit = {fit: image(load(root, size=20, fit=fit), "train/cat/wide.png") for fit in ("crop", "pad", "stretch")}
    assert int(by_fit["crop"].min()) >= 19
    assert int(by_fit["stretch"].min()) <= 2
    assert by_fit["pad"][:, :5].max() == 0
    assert int(by_fit["pad"][:, 10].max()) >= 57
