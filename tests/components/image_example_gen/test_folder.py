import os
import shutil
import tempfile
from pathlib import Path

import pytest

from components.image_example_gen import folder as layout
from trainer_module.util.checks import UserError


def touch(root: Path, *paths: str) -> Path:
    """Files that scan takes for images; it opens none."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "Training/b/1.PNG", "Training/a/1.jpeg", "val/a/2.bmp", "testing/b/3.gif")
    touch(tmp_path, "README.md", "Training/notes.txt", "Training/a/.hidden", "Training/a/Thumbs.db")
    touch(tmp_path, ".cache/x/1.png")
    folder = layout.scan(tmp_path)
    assert folder.classes == ("a", "b")
    assert folder.files == {
        "train": ("Training/a/1.jpeg", "Training/b/1.PNG"),
        "eval": ("val/a/2.bmp",),
        "test": ("testing/b/3.gif",),
    }
    assert folder.carved == ()
    assert len(folder) == 4


def test_split_folders_that_lack_one(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    assert layout.scan(tmp_path).carved == ("eval",)


def test_class_folders_only(tmp_path: Path) -> None:
    touch(tmp_path, "cats & dogs/1 2.png", "žluťoučký kůň/ž.png", "train/wagon.png")
    folder = layout.scan(tmp_path)
    assert folder.classes == ("cats & dogs", "train", "žluťoučký kůň")
    assert folder.carved == ("eval", "test")


def test_names_in_other_normal_forms_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/\u00e9/1.png", "test/a/1.png", "test/e\u0301/1.png")
    assert layout.scan(tmp_path).classes == ("a", "\u00e9")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "2 to 5000 class folders, got 0"),
        (["a.png", "b.png"], r"a\.png, .*b\.png: images must lie in a class folder"),
        (["a/1.png"], "2 to 5000 class folders, got 1, 'a'"),
        (["a/1.png", "b/.keep"], r"/b: a class folder must hold images"),
        (["a/1.png", "b/notes.txt"], r"/b: a class folder must hold images \(bmp, .*, webp\)"),
        (["a/1.png", "b/1/2/3/4/5/6/7.png", "b/1/2/3/4/5/6/7/8.png"], "/6/7: .* at most 7 folders"),
        (["train/a/1.png", "train/b/1.png", "train/1.png"], r"train/1\.png: images must lie"),
        (["train/a/1.png", "train/b/1.png", "more/a/1.png"], "/more: .* only split folders"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], r"test/c: .*'c' only here"),
        (["train/a/1.png", "train/b/1.png", "test/.keep"], "/test: a split must hold class"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "eval/a/1.png"], "second one for eval"),
        (["val/a/1.png", "test/a/1.png"], "need a train/ folder"),
        (["a\nb/1.png", "c/1.png"], r"/a\\nb: names must be valid UTF-8 without control"),
        (["a/1\r2.png", "c/1.png"], r"a/1\\r2\.png: names must be valid UTF-8 without control"),
        (["\u00e9/1.png", "e\u0301/1.png"], "class names must differ"),
        (["\u202egpj/.keep", "c/1.png"], r"/\\u202egpj: a class folder must hold"),
        ([f"{i}/1.png" for i in range(5001)], "2 to 5000 class folders, got 5001"),
    ],
)
def test_broken_rules(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        layout.scan(touch(tmp_path, *paths))


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/more/and more/2.JFIF", "b/deep/3.webp", "b/train/4.tif")
    touch(tmp_path, "b/__MACOSX/1.png", "b/.git/1.png", "c/test/a/1.tiff")
    folder = layout.scan(tmp_path)
    assert folder.files["train"] == (
        *("a/1.png", "a/more/and more/2.JFIF"),
        *("b/deep/3.webp", "b/train/4.tif", "c/test/a/1.tiff"),
    )
    assert [layout.class_of(path) for path in folder.files["train"]] == ["a", "a", "b", "b", "c"]
    split = touch(tmp_path / "split", "train/a/x/y/1.png", "train/b/1.png", "test/a/test/a/1.png")
    found = layout.scan(split)
    assert found.classes == ("a", "b")
    assert layout.class_of(found.files["test"][0]) == "a"
    assert layout.class_of(found.files["train"][0]) == "a"


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a/{i}.png" for i in range(3)), "b/1.heic", "top.txt")
    touch(tmp_path, "a/1.TXT", "a/deep/2.txt", "b/labels.xml", "b/LICENSE", "b/.hidden.txt")
    folder = layout.scan(tmp_path)
    assert dict(folder.left_out) == {".txt": 2, ".xml": 1, "no suffix": 1}
    assert layout.counted(folder.left_out) == ".txt 2, .xml 1, no suffix 1"
    assert (
        layout.counted({f".{i}": i for i in range(1, 10)})
        == ".9 9, .8 8, .7 7, .6 6, .5 5 and 10 others"
    )
    assert folder.files["train"][-1] == "b/1.heic", "a photo, so that a run names it as a bad one"


@pytest.mark.component
def test_the_images_are_those_that_keras_finds(tmp_path: Path) -> None:
    from keras.utils import image_dataset_from_directory

    touch(tmp_path, "a/1.png", "a/deep/er/2.png", "a/3.JPG", "b/4.gif", "b/deep/5.bmp", "b/6.jpeg")
    touch(tmp_path, "b/notes.txt", "b/no suffix", "b/7.heif.txt", "c/8.png", "top.txt")
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "1.png")
    folder = layout.scan(tmp_path)
    keras = image_dataset_from_directory(str(tmp_path), verbose=False)
    assert list(folder.classes) == keras.class_names
    paths = sorted(Path(path).relative_to(tmp_path).as_posix() for path in keras.file_paths)
    assert list(folder.files["train"]) == paths


def test_all_that_breaks_a_rule_is_listed_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/x", "test/c/1.png", "more/a/1.png", "train/x.png")
    touch(tmp_path, *(f"test/a/{i}\r.png" for i in range(20)))
    (tmp_path / "train" / "a" / "gone.png").symlink_to("nothing")
    (tmp_path / "train" / "a" / "folder").symlink_to(tmp_path / "train")
    with pytest.raises(UserError) as error:
        layout.scan(tmp_path)
    message = str(error.value)
    for part in (
        *("train/b: a class folder must hold", "test/c: each class", "/more: beside train/"),
        *("x.png: images must lie", "gone.png: links must lead to something in the data folder"),
        "train/a/folder: links below a class folder must lead to files",
        r"0\r.png, ",
        " and 17 more: names must be valid UTF-8 without control",
    ):
        assert part in message
    assert message.count("\n") == 7


def test_a_rule_is_told_once_with_the_first_places(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", *(f"{i}.png" for i in range(1234)))
    with pytest.raises(UserError, match=r"/0\.png, .*/1\.png, .* and 1,231 more: ima"):
        layout.scan(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got 'nothing'"):
        layout.scan(tmp_path / "missing")
    with pytest.raises(UserError, match="got 'a file'"):
        layout.scan(touch(tmp_path, "file") / "file")


def test_links(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    (data / "b" / "2.png").symlink_to(data / "a" / "1.png")
    assert len(layout.scan(data)) == 3
    (data / "a" / "2.png").symlink_to(touch(tmp_path, "secret.png") / "secret.png")
    with pytest.raises(UserError, match=r"a/2\.png: links must lead to something in the"):
        layout.scan(data)
    (data / "a" / "2.png").unlink()
    (data / "c").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"data/c: links"):
        layout.scan(data)


@pytest.mark.parametrize("target", ["2.png", "../b/2.png", "gone.png", "../../nothing"])
def test_links_to_themselves_or_to_nothing(tmp_path: Path, target: str) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    (data / "b" / "2.png").symlink_to(target)
    with pytest.raises(UserError, match=r"b/2\.png: links must lead to something"):
        layout.scan(data)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "a/1.png", "b/1.png")
    os.mkfifo(data / "b" / "2.png")
    with pytest.raises(UserError, match=r"b/2\.png: images must be regular files"):
        layout.scan(data)


ODD_NAMES = (
    "<script>",
    "-rf",
    "$(id)",
    "a; b",
    "%s{}",
    "\u202egpj",
    "\U0001f40e",
    "n" * 255,
    "C:\\x",
)


def test_any_other_name_is_a_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/1.png" for name in ODD_NAMES))
    folder = layout.scan(tmp_path)
    assert folder.classes == tuple(sorted(ODD_NAMES))
    assert {layout.class_of(path) for path in folder.files["train"]} == set(ODD_NAMES)


def test_the_data_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/1.png", "b/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(layout.scan(tmp_path / "link")) == 2


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    with pytest.raises(UserError, match="valid UTF-8"):
        layout.scan(tmp_path)


def test_shards_hold_every_file_once_with_classes_mixed(tmp_path: Path) -> None:
    folder = layout.scan(touch(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(50))))
    shards = layout.shards(folder, 30)
    assert [len(shard) for shard in shards] == [30, 30, 30, 10]
    paths = [path for shard in shards for _, path in shard]
    assert sorted(paths) == sorted(folder.files["train"])
    assert {path[0] for path in paths[:30]} == {"a", "b"}
    assert shards == layout.shards(layout.scan(tmp_path), 30)


def test_fingerprint(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/3.png", "README")

    def fingerprint() -> str:
        return layout.fingerprint(layout.scan(tmp_path))

    seen = [fingerprint()]
    touch(tmp_path, "README", "a/.DS_Store")
    assert fingerprint() == seen[0]

    def changed() -> bool:
        seen.append(fingerprint())
        return seen[-1] not in seen[:-1]

    touch(tmp_path, "a/4.png")
    assert changed(), "added"
    (tmp_path / "a/2.png").rename(tmp_path / "b/2.png")
    assert changed(), "moved to another class"
    (tmp_path / "b/2.png").unlink()
    assert changed(), "removed"
    # Same size, same modification time, other content.
    shutil.copystat(tmp_path / "a/1.png", tmp_path / "a/4.png")
    old = (tmp_path / "a/1.png").stat()
    fingerprint_before = fingerprint()
    (tmp_path / "new.txt").write_bytes(b"A/1.png")
    os.utime(tmp_path / "new.txt", ns=(old.st_atime_ns, old.st_mtime_ns))
    (tmp_path / "new.txt").rename(tmp_path / "a/1.png")
    assert fingerprint() != fingerprint_before, "replaced"


def test_split_counts(tmp_path: Path) -> None:
    folder = layout.scan(touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png"))
    full = {"train": {"a": 1, "b": 1}, "eval": {"a": 1}, "test": {"a": 1}}
    layout.check_split_counts(full, folder)
    with pytest.raises(UserError, match=r"drawn from train.*no image in eval"):
        layout.check_split_counts({**full, "eval": {}}, folder)
    with pytest.raises(UserError, match=r"none of its.*no image in test"):
        layout.check_split_counts({**full, "test": {}}, folder)
    with pytest.raises(UserError, match=r"image in train.*none left for 'b'"):
        layout.check_split_counts({**full, "train": {"a": 2}}, folder)


def test_a_folder_that_may_not_be_listed_is_named() -> None:
    # pytest's own folders let no other user in, and for root there are no permissions.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        touch(root, "cat/1.png", "dog/1.png")
        (root / "dog").chmod(0)
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            with pytest.raises(UserError, match="dog: folders must be readable"):
                layout.scan(root)
        finally:
            os.seteuid(os.getuid())
            (root / "dog").chmod(0o755)
