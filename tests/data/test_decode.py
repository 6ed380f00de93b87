import io
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tombola.data import hub
from tombola.errors import DataError

HERE = Path(__file__).parent
CLASS = datasets.ClassLabel(names=["b", "a"])
NUMBER = datasets.Value("int64")


def table(images: list[Image.Image], **columns: list[object]) -> datasets.Dataset:
    features = {"image": datasets.Image()} | {
        name: datasets.Value("string" if isinstance(values[0], str) else "int64")
        for name, values in columns.items()
    }
    return datasets.Dataset.from_dict({"image": images, **columns}, features=datasets.Features(features))


@pytest.mark.parametrize("column", ["image", "img", "picture"])
def test_the_image_column_is_found_by_name_or_type(column: str) -> None:
    assert hub.image_column({"id": NUMBER, column: datasets.Image()}, "x") == column


def test_a_stored_image_without_type_information_is_an_image() -> None:
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    assert hub.image_column({"picture": stored}, "x") == "picture"


def test_image_wins_over_other_image_columns() -> None:
    assert hub.image_column({"mask": datasets.Image(), "image": datasets.Image()}, "x") == "image"


def test_no_or_several_image_columns_are_refused_with_what_was_seen() -> None:
    with pytest.raises(DataError, match="x: no images; columns seen: 'text', 'label'"):
        hub.image_column({"text": NUMBER, "label": CLASS}, "x")
    with pytest.raises(DataError, match="several image columns"):
        hub.image_column({"a": datasets.Image(), "b": datasets.Image()}, "x")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["label"], "label"),
        (["labels"], "labels"),
        (["coarse_label", "fine_label"], "fine_label"),
        (["species"], "species"),
    ],
)
def test_the_label_column_is_found_by_name_or_type(columns: list[str], found: str) -> None:
    assert hub.label_column(dict.fromkeys(columns, CLASS), "x") == found


def test_the_preferred_label_column_wins() -> None:
    assert (
        hub.label_column({"label": CLASS, "fine_label": CLASS}, "x", preferred="fine_label") == "fine_label"
    )


def test_no_label_column_is_refused_with_what_was_seen() -> None:
    with pytest.raises(DataError, match=r"x: no label column; wanted one of 'label', .* seen: 'image', 'id'"):
        hub.label_column({"image": datasets.Image(), "id": NUMBER}, "x")


def test_grey_images_among_colour_ones_become_colour() -> None:
    grey, red = Image.new("L", (2, 1), 77), Image.new("RGB", (2, 1), (255, 0, 9))
    split, other = hub.decoded([table([grey]), table([red])], "image", "x", HERE)
    assert split[0, :, 0, 0].tolist() == [77, 77, 77]
    assert other[0, :, 0, 1].tolist() == [255, 0, 9]


def test_grey_images_alone_stay_grey() -> None:
    (split,) = hub.decoded([table([Image.new("L", (2, 1), 77)])], "image", "x", HERE)
    assert tuple(split.shape) == (1, 1, 1, 2)


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("1", (1, 1), 1), [255]),
        (Image.new("LA", (1, 1), (40, 128)), [40]),
        (Image.fromarray(np.full((1, 1), 65535, dtype=np.uint16)), [255]),
        (Image.fromarray(np.full((1, 1), 257 * 100, dtype=np.uint16)), [100]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 128)), [1, 2, 3]),
        (Image.new("RGB", (1, 1), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE), [9, 8, 7]),
    ],
)
def test_every_pixel_mode_becomes_eight_bit_grey_or_colour(image: Image.Image, pixel: list[int]) -> None:
    (split,) = hub.decoded([table([image])], "image", "x", HERE)
    assert split[0, :, 0, 0].tolist() == pixel


def test_differing_sizes_are_refused_with_the_sizes() -> None:
    images = [Image.new("L", size) for size in [(2, 3), (2, 3), (4, 5)]]
    with pytest.raises(
        DataError, match=r"x: images of 2 sizes, 2x3 \(2\), 4x5 \(1\); all must be of one size"
    ):
        hub.decoded([table(images)], "image", "x", HERE)


def test_an_image_that_cannot_be_read_is_named() -> None:
    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "PNG")
    features = datasets.Features(image=datasets.Image())
    cells = [{"bytes": buffer.getvalue(), "path": "good.png"}, {"bytes": b"no image", "path": "bad.png"}]
    broken = datasets.Dataset.from_dict({"image": cells}, features=features)
    with pytest.raises(DataError, match=r"x: image 1 \(bad.png\) cannot be read"):
        hub.decoded([broken], "image", "x", HERE)


def test_class_names_keep_their_official_order() -> None:
    columns = datasets.Dataset.from_dict({"label": [1, 0]}, features=datasets.Features(label=CLASS))
    (labels,), names = hub.class_indices([columns], "label", "x")
    assert names == ("b", "a")
    assert labels.tolist() == [1, 0]


def test_plain_labels_become_classes_in_sorted_order_over_all_splits() -> None:
    def column(values: list[object]) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"label": values})

    (train, test), names = hub.class_indices([column([10, 2]), column([7])], "label", "x")
    assert names == ("2", "7", "10")
    assert (train.tolist(), test.tolist()) == ([2, 0], [1])
    (train,), names = hub.class_indices([column(["cat", "ant"])], "label", "x")
    assert names == ("ant", "cat")
    assert train.tolist() == [1, 0]


def test_missing_and_fractional_labels_are_refused() -> None:
    for values, seen in (([1, None], "int, missing"), ([0.5], "float")):
        columns = datasets.Dataset.from_dict({"label": values})
        with pytest.raises(DataError, match=f"whole numbers or texts; seen: {seen}"):
            hub.class_indices([columns], "label", "x")
