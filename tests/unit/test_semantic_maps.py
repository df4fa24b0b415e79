"""Semantic maps and scene labels as files: found by path or hash, and refused where they cannot be right."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_files import COLOURS, write_classes

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.photo_keys import PhotoTable
from geofix.imagery.semantics import ClassList, SemanticMaps, fitted, read_class_list, read_class_map
from geofix.imagery.transforms import InputTransform
from geofix.training.scene_labels import NONE, SceneLabels, scene_number

SQUASH = InputTransform((12, 16), 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, fit="squash")


def save(path: Path, values: object, dtype: type = np.uint8) -> Path:
    Image.fromarray(np.asarray(values, dtype)).save(path)
    return path


def classes(folder: Path) -> ClassList:
    return read_class_list(write_classes(folder))


def test_photos_are_found_by_the_end_of_their_path_and_by_their_hash(tmp_path) -> None:
    photo = tmp_path / "b" / "x.png"
    photo.parent.mkdir()
    photo.write_bytes(b"photo")
    digest = hashlib.sha256(b"photo").hexdigest()
    table = PhotoTable([("a/x.jpg", 1), ("x.png", 2), ("b/x", 3)], "t")
    assert [table.find(uri) for uri in ("/r/a/x.jpg", "/r/x.png", "/r/b/x.png", "file:///q/x.png")] == [
        1,
        2,
        3,
        2,
    ]
    assert table.find("/r/ba/y.jpg") is None and table.find("/r/aa/x.jpg") is None
    assert PhotoTable([(digest.upper(), 7), ("b/x.png", 3)], "t").find(str(photo)) == 7
    assert PhotoTable([("a", 1), ("a", 1)], "t").find("a") == 1
    with pytest.raises(BadInputError, match="gives photo a 1 and 2"):
        PhotoTable([("a", 1), ("a", 2)], "t")


def test_numbers_palettes_and_colours_say_the_same(tmp_path) -> None:
    known, values = classes(tmp_path), np.arange(20).reshape(4, 5) % 5
    save(tmp_path / "numbers.png", values)
    save(tmp_path / "colours.png", np.array(COLOURS)[values])
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([5, 5, 5] * 5)
    image.save(tmp_path / "palette.png")
    for name in ("numbers", "colours", "palette"):
        assert np.array_equal(np.asarray(read_class_map(tmp_path / f"{name}.png", known)), values)


def test_maps_that_cannot_be_right_are_refused(tmp_path) -> None:
    known = classes(tmp_path)
    with pytest.raises(BadInputError, match="shows class 5; the list has 5"):
        read_class_map(save(tmp_path / "a.png", [[0, 5]]), known)
    with pytest.raises(BadInputError, match=r"shows colour \[1, 2, 3\]"):
        read_class_map(save(tmp_path / "b.png", [[[0, 0, 0], [1, 2, 3]]]), known)
    with pytest.raises(BadInputError, match="pixels of kind"):
        read_class_map(save(tmp_path / "c.png", [[0, 1]], np.uint16), known)
    with pytest.raises(NotFoundError, match="does not exist"):
        read_class_map(tmp_path / "no.png", known)
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    Image.new("RGB", (8, 8)).save(tmp_path / "e.jpg")
    for name in ("d.png", "e.jpg"):
        with pytest.raises(BadInputError, match="cannot be read"):
            read_class_map(tmp_path / name, known)


def test_a_map_of_another_size_is_fitted_where_it_has_the_photos_proportions() -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert fitted(image, (4, 3), "m") is image
    large = np.asarray(fitted(image, (8, 6), "m"))
    assert np.array_equal(large[::2, ::2], np.asarray(image)) and large.shape == (6, 8)
    assert fitted(Image.new("L", (1000, 667)), (683, 455), "m").size == (683, 455)  # rounded by one pixel
    with pytest.raises(BadInputError, match="4 x 3 pixels, its photo 30 x 40: other proportions"):
        fitted(image, (30, 40), "m")
    with pytest.raises(BadInputError, match="other proportions"):
        fitted(Image.new("L", (640, 480)), (640, 427), "m")


def test_folders_and_tables_of_maps(tmp_path) -> None:
    folder = tmp_path / "maps"
    write_classes(folder / "a")
    write_classes(folder)
    save(folder / "a" / "x.png", [[1, 2], [3, 4]])
    maps = SemanticMaps(folder)
    assert maps.classes.source == "made for a test"
    assert np.asarray(maps.read("/photos/a/x.jpg", (2, 2))).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(NotFoundError, match=r"no semantic map of photo /photos/b/x\.jpg"):
        maps.read("/photos/b/x.jpg", (2, 2))
    table = tmp_path / "maps.csv"
    table.write_text("photo,map\nb/x.jpg,maps/a/x.png\nb/y.jpg,maps/gone.png\n,\n")
    with pytest.raises(NotFoundError, match=r"semantics\.json"):
        SemanticMaps(table)
    listed = SemanticMaps(table, maps.classes)
    assert listed.read("/photos/b/x.jpg", (4, 4)).size == (4, 4)
    with pytest.raises(NotFoundError, match=r"gone\.png"):
        listed.read("/photos/b/y.jpg", (4, 4))
    table.write_text("name,map\na,b\n")
    with pytest.raises(BadInputError, match="columns name, map"):
        SemanticMaps(table, maps.classes)
    write_classes(tmp_path / "empty")
    with pytest.raises(BadInputError, match="holds no semantic map"):
        SemanticMaps(tmp_path / "empty")
    with pytest.raises(BadInputError, match="lists 5 classes, which are not the 2"):
        SemanticMaps(folder, ClassList(("a", "b"), ((0, 0, 0), (1, 1, 1))))
    with pytest.raises(NotFoundError, match="do not exist"):
        SemanticMaps(tmp_path / "nowhere", maps.classes)
    for mistyped in ("nowhere", "nofolder/maps", "mpas.csv"):
        with pytest.raises(NotFoundError, match=rf"Semantic maps .*{mistyped} do not exist.*semantics\.maps"):
            SemanticMaps(tmp_path / mistyped)
    rows = b"".join(b"b/%d.jpg,maps/a/x.png\n" % i for i in range(2000))
    table.write_bytes(b"photo,map\n" + rows + b"b\xe4um.jpg,maps/a/x.png\n")
    with pytest.raises(BadInputError, match=r"maps\.csv, line 2002: b'b\\xe4um.*UTF-8"):
        SemanticMaps(table, maps.classes)
    table.write_bytes(b'photo,map\n"' + b"x" * 200_000 + b'",a.png\n')
    with pytest.raises(BadInputError, match=r"no list of semantic maps: field larger"):
        SemanticMaps(table, maps.classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "no list of semantic classes"),
        ("{", "cannot be read"),
        ('{"classes": [{"name": "a", "rgb": [0, 0, 0]}]}', "list of 1 classes"),
        ('{"classes": [{"name": "a", "rgb": [0, 0, 0]}, {"name": "b", "rgb": [0, 0, 0]}]}', "same colour"),
        ('{"classes": [{"name": "a", "rgb": [0, 0, 0]}, {"name": "b", "rgb": [0, 0, 300]}]}', "0 to 255"),
        ('{"classes": [{"name": "a", "rgb": [0, 0]}, {"name": "b", "rgb": [0, 0, 3]}]}', "no list"),
    ],
)
def test_lists_of_classes_that_cannot_be_used(text: str, message: str, tmp_path) -> None:
    path = tmp_path / "semantics.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_class_list(path)


def test_planes_are_cut_as_their_photos_are() -> None:
    from geofix.localizers.crop_inputs import cut_crops
    from geofix.localizers.crops import POLICIES

    values = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3), 20, axis=0), 20, axis=1)
    photo = np.stack([values * 40] * 3, axis=2)
    for transform in (SQUASH, InputTransform((12, 12), 0.8, "bicubic", (0.5,) * 3, (0.5,) * 3)):
        for policy in POLICIES.values():
            made = cut_crops(photo, transform, policy, Image.fromarray(values))
            assert made.shape == (policy.count, 4, *transform.size)
            assert np.array_equal(made[:, :3], cut_crops(photo, transform, policy))
            assert set(np.unique(made[:, 3])) <= set(range(6))
            grey = (made[:, 0] * 0.5 + 0.5) * 255 / 40
            assert (
                np.mean(np.abs(grey - made[:, 3]) < 0.3) > 0.6
            )  # but for borders, which are smooth in the photo


def test_scenes_by_number_name_and_published_columns(tmp_path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("photo,s3,s16\na/1.jpg,urban,15\na/2.jpg,0,\na/3.jpg,,2\n")
    labels = SceneLabels(path)
    assert labels.table(["/r/a/1.jpg", "/r/a/2.jpg", "/r/a/3.jpg", "/r/4.jpg"], (3, 16)).tolist() == [
        [2, 15],
        [0, NONE],
        [NONE, 2],
        [NONE, NONE],
    ]
    with pytest.raises(BadInputError, match="no labels of 365"):
        labels.of("a/1.jpg", 365)
    path.write_text("IMG_ID,AUTHOR,S3_Label,S16_Label,S365_Label\n45/77/32.jpg,x,1,8,150\n")
    assert SceneLabels(path).table(["/p/45/77/32.jpg"], (3, 16, 365)).tolist() == [[1, 8, 150]]


@pytest.mark.parametrize(
    ("text", "count"), [("3", 3), ("beach", 3), ("16", 16), ("-1", 3), ("1.0", 3), ("urban", 16)]
)
def test_unknown_scenes_are_refused_with_their_line(text: str, count: int, tmp_path) -> None:
    with pytest.raises(BadInputError, match="is none of the"):
        scene_number(text, count, "x")
    path = tmp_path / "s.csv"
    path.write_text(f"photo,s{count}\na.jpg,1\nb.jpg,{text}\n")
    with pytest.raises(BadInputError, match="line 3"):
        SceneLabels(path)


def test_tables_of_scenes_without_the_columns_are_refused(tmp_path) -> None:
    path = tmp_path / "s.csv"
    for text in ("photo,scene\na,1\n", "name,s3\na,1\n", ""):
        path.write_text(text)
        with pytest.raises(BadInputError, match="is needed"):
            SceneLabels(path)
    path.write_bytes(b"photo,s3\n\xff\xfe,1\n")
    with pytest.raises(BadInputError, match="UTF-8"):
        SceneLabels(path)
    path.write_text("photo,s3\na.jpg,1\na.jpg,2\n")
    with pytest.raises(BadInputError, match=r"gives photo a\.jpg"):
        SceneLabels(path)


@pytest.mark.shared
def test_published_scene_labels_are_read(shared) -> None:
    path = shared / "eval/translocator_mit/im2gps_places365.csv"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = SceneLabels(path).table([f"/p/{row['IMG_ID']}" for row in rows], (3, 16, 365))
    assert len(found) == 237 and found.min() >= 0
    assert found[:, 2].tolist() == [int(row["S365_Label"]) for row in rows]


def test_segmentation_networks_that_are_not_opened(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    import zipfile

    from geofix.models.segmenter import Segmenter

    known = classes(tmp_path)

    def opened(path: Path) -> Segmenter:
        return Segmenter(path, hashlib.sha256(path.read_bytes()).hexdigest(), known, SQUASH)

    class Net(torch.nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, count, 1)

        def forward(self, images):
            return self.layer(images)

    path = tmp_path / "net.ts"
    torch.jit.trace(Net(5).eval(), torch.zeros(1, 3, 12, 16)).save(str(path))
    photo = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    image = opened(path).map_of(photo)
    assert image.size == (40, 30) and np.asarray(image).max() < 5
    with pytest.raises(BadInputError, match="sha256"):
        Segmenter(path, "0" * 64, known, SQUASH)
    torch.jit.trace(Net(4).eval(), torch.zeros(1, 3, 12, 16)).save(str(path))
    with pytest.raises(BadInputError, match=r"gives \(1, 4, 12, 16\)"):
        opened(path).map_of(photo)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(BadInputError, match="no TorchScript code"):
        opened(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BadInputError, match="no TorchScript"):
        opened(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/code/__torch__.py", "def f(): torch.from_file('/etc/passwd')")
    with pytest.raises(BadInputError, match="calls from_file"):
        opened(path)


def test_reading_maps_loads_no_torch() -> None:
    code = "import sys, geofix.imagery.semantics, geofix.world.semantics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_list_of_classes_is_written_as_it_is_read(tmp_path) -> None:
    known = classes(tmp_path)
    assert ClassList.from_dict(json.loads(json.dumps(known.as_dict())), "x") == known
