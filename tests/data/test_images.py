"""Pixel formats, EXIF, masks, broken files, and crops checked by projecting dots."""

import numpy as np
import pytest
from PIL import Image

from lgs_jax.data import crops, images, lens
from lgs_jax.data.report import DataError

OPTIONS = images.ReadOptions()


def read(path, options=OPTIONS, mask=None):
    size = images.stored_size(str(path), options)
    return images.read_frame(images.FrameFile(str(path), size, mask and str(mask)), options)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def test_rgb_png_is_exact(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), rgb)


@pytest.mark.parametrize(("background", "value"), [("black", 0), ("white", 255)])
def test_straight_alpha_is_composited(tmp_path, rgb, background, value):
    alpha = np.random.default_rng(1).integers(0, 256, (6, 9, 1), np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], -1)).save(tmp_path / "a.png")
    a = alpha / 255.0
    found = read(tmp_path / "a.png", images.ReadOptions(background=background))
    np.testing.assert_allclose(found, rgb * a + value * (1 - a), atol=0.5001)


def test_palette_transparency_is_composited(tmp_path):
    image = Image.new("P", (4, 2), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    found = read(tmp_path / "a.png", images.ReadOptions(background="white"))
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(found[0, 1], [0, 255, 0])


def test_grey_and_16_bit_grey(tmp_path):
    grey = np.array([[0, 1, 128, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    expected = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(read(tmp_path / "8.png"), expected)
    np.testing.assert_array_equal(read(tmp_path / "16.png"), expected)


def test_cmyk_jpeg(tmp_path):
    flat = np.broadcast_to(np.array([200, 60, 30], np.uint8), (16, 16, 3))
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    # JPEG and the CMYK conversion round: a few levels.
    np.testing.assert_allclose(read(tmp_path / "a.jpg"), flat, atol=6)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unknown_ranges_are_refused(tmp_path, mode):
    values = np.full((2, 2), 1e6, np.float32 if mode == "F" else np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*store .*8 or 16 bits"):
        read(tmp_path / "a.tif")


def save_turned(path, pixels, orientation):
    """Stores the image such that undoing `orientation` shows `pixels`."""
    exif = Image.Exif()
    exif[274] = orientation
    stored = {3: np.rot90(pixels, 2), 6: np.rot90(pixels, 1), 8: np.rot90(pixels, -1)}[orientation]
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_is_applied_or_ignored_on_request(tmp_path, rgb, orientation):
    path = tmp_path / "a.png"
    save_turned(path, rgb, orientation)
    np.testing.assert_array_equal(read(path, images.ReadOptions(exif="apply")), rgb)
    stored = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read(path, images.ReadOptions(exif="ignore")), stored)


def test_exif_follows_the_declared_size(tmp_path, rgb):
    path = str(tmp_path / "a.png")
    save_turned(path, rgb, 6)
    assert images.stored_size(path, OPTIONS, (6, 9)) == (6, 9)
    turned = images.read_frame(images.FrameFile(path, (6, 9)), OPTIONS)
    np.testing.assert_array_equal(turned, rgb)
    assert images.stored_size(path, OPTIONS, (9, 6)) == (9, 6)
    assert images.read_frame(images.FrameFile(path, (9, 6)), OPTIONS).shape == (9, 6, 3)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_that_nothing_decides_is_refused(tmp_path, rgb, orientation):
    path = tmp_path / "a.png"
    save_turned(path, rgb[:6, :6], orientation)
    with pytest.raises(DataError, match=r"a\.png.*orientation.*exif='apply' or exif='ignore'"):
        images.stored_size(str(path), OPTIONS, (6, 6))


@pytest.mark.parametrize(("mode", "value"), [("black", 0), ("white", 255)])
def test_masks(tmp_path, rgb, mode, value):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    inside = np.random.default_rng(2).random((6, 9)) < 0.5
    Image.fromarray((inside * 255).astype(np.uint8)).save(tmp_path / "m.png")
    found = read(tmp_path / "a.png", images.ReadOptions(masks=mode), tmp_path / "m.png")
    np.testing.assert_array_equal(found, np.where(inside[..., None], rgb, value))
    ignored = read(tmp_path / "a.png", OPTIONS, tmp_path / "m.png")
    np.testing.assert_array_equal(ignored, rgb)


def test_mask_of_another_size_is_refused(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png has 3x3 pixels, its image 9x6; resize"):
        read(tmp_path / "a.png", images.ReadOptions(masks="black"), tmp_path / "m.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cut_off_files_are_found_without_a_full_scan(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be decoded.*restore the file"):
        images.stored_size(str(path), OPTIONS)
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be decoded"):
        images.read_frame(images.FrameFile(str(path), (64, 64)), OPTIONS)


def test_bytes_after_the_end_of_a_jpeg_are_harmless(tmp_path, rgb):
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).save(path)
    path.write_bytes(path.read_bytes() + b"camera notes")
    assert images.stored_size(str(path), OPTIONS) == (6, 9)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded"):
        images.stored_size(str(tmp_path / "a.jpg"), OPTIONS)


def test_more_pixels_than_pillow_reads(tmp_path, rgb, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", rgb[..., 0].size // 2 - 1)
    limit = 2 * Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=rf"huge\.png is larger than Pillow's limit of {limit} pix"):
        images.stored_size(str(tmp_path / "huge.png"), OPTIONS)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg is missing; restore it"):
        images.stored_size(str(tmp_path / "a.jpg"), OPTIONS)


@pytest.mark.parametrize(("name", "found"), [("a.jpg", "is not there"), (".", "is a folder")])
def test_a_photograph_that_is_no_file_is_named(tmp_path, name, found):
    with pytest.raises(DataError, match=f"{found}; give the path of one image file"):
        images.read_photograph(str(tmp_path / name))


def test_changed_size_is_noticed(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has 9x6 pixels, expected 8x5"):
        images.read_frame(images.FrameFile(str(tmp_path / "a.png"), (5, 8)), OPTIONS)


def smooth(height, width):
    """A picture without fine detail, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 3 * y), np.cos(7 * y - 2 * x), np.sin(8 * x * y + 1)]
    return np.rint(127 + 110 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize("size", [(160, 240), (161, 243), (33, 47)])
@pytest.mark.parametrize(("factor", "n"), [(1.9, 1), (2.0, 2), (5.0, 4), (100.0, 8)])
def test_jpeg_files_are_reduced_while_decoded(tmp_path, size, factor, n):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth(*size)).save(path, quality=95)
    file, options = images.FrameFile(str(path), size), images.ReadOptions()
    reduced = images.read_reduced(file, options, factor)
    assert reduced.shape[:2] == (-(-size[0] // n), -(-size[1] // n))
    assert images.reduction(size, reduced) == n
    whole = images.read_frame(file, options)
    box = (5.0, 3.0, 29.0, 27.0)
    ours = crops.crop_resize(reduced, tuple(edge / n for edge in box), 3, 3)
    theirs = crops.crop_resize(whole, box, 3, 3)
    # Filters of another shape see waves a little differently; a shift of n / 2 makes 20 and more.
    assert np.abs(ours.astype(int) - theirs).mean() <= 8


@pytest.mark.parametrize("case", ["png", "turned", "masked", "lens"])
def test_other_frames_come_whole(tmp_path, case):
    picture = Image.fromarray(smooth(40, 60))
    path = tmp_path / ("a.png" if case == "png" else "a.jpg")
    exif = Image.Exif()
    if case == "turned":
        exif[274] = 6
    picture.save(path, exif=exif)
    size = (60, 40) if case == "turned" else (40, 60)
    mask = None
    if case == "masked":
        mask = str(tmp_path / "mask.png")
        Image.new("L", (60, 40), 255).save(mask)
    bent = lens.Lens((50.0, 50.0, 30.0, 20.0), (-0.1,), size) if case == "lens" else None
    file = images.FrameFile(str(path), size, mask, bent)
    options = images.ReadOptions(exif="apply", masks="black" if mask else "ignore")
    np.testing.assert_array_equal(
        images.read_reduced(file, options, 8.0), images.read_frame(file, options)
    )
    assert (images.read_original(file, options) is None) == (case != "png")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_tiff_is_turned_once(tmp_path, rgb, orientation):
    path = tmp_path / "a.tif"
    save_turned(path, rgb, orientation)
    for exif in ("apply", "auto"):
        np.testing.assert_array_equal(read(path, images.ReadOptions(exif=exif)), rgb)
    with pytest.raises(DataError, match=r"a\.tif is a TIFF.*store it as PNG or JPEG"):
        read(path, images.ReadOptions(exif="ignore"))
    save_turned(path.with_suffix(".png"), rgb, orientation)
    upright = images.read_photograph(str(path.with_suffix(".png")))
    np.testing.assert_array_equal(images.read_photograph(str(path)), upright)
