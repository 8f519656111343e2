"""Stores and checks of videos with several labels."""

from toys import LIGHTS, write_lights

from tinyaction.data.annotations import find_data
from tinyaction.prepare.check import check_data
from tinyaction.prepare.store import make_store
from tinyaction.prepare.stored_file import StoreSettings


def test_a_store_and_a_check_know_all_labels(tmp_path):
    folder = write_lights(tmp_path / "lights", num_train=7, num_val=7)
    data = find_data(folder)
    make_store(folder, tmp_path / "store", StoreSettings(format="raw", short_side=16), num_workers=0)
    stored = find_data(tmp_path / "store")
    assert stored.class_names == data.class_names == list(LIGHTS)
    for before, after in ((data.train, stored.train), (data.val, stored.val)):
        assert after.label_sets.tolist() == before.label_sets.tolist()
    check = check_data(data, num_workers=1, clip_len=0)
    assert check.class_counts == {name: {"train": 4, "val": 4} for name in LIGHTS}
