"""Keys: where everything lies, and names."""

from __future__ import annotations

import pytest

from node.bucket import keys


def test_every_key_is_where_the_layout_says() -> None:
    assert keys.node("n1") == "nodes/n1.json"
    assert keys.spec("acme") == "specs/acme.json"
    assert keys.owner("acme") == "owners/acme.json"
    assert keys.lineage("acme", 7) == "lineage/acme/00000007.json"
    assert keys.secret("acme", "API_KEY") == "secrets/acme/API_KEY.json"
    assert keys.app("ab" * 32) == f"apps/{'ab' * 32}.tar.gz"
    assert keys.epoch_data("acme", 7) == "data/acme/e00000007/"
    assert keys.database("acme", 7, "app.db") == "data/acme/e00000007/app.db"


def test_epochs_sort_as_numbers() -> None:
    epochs = [1, 9, 10, 15, 16, 255, 256, 0xFFFFFFFF]
    assert sorted(keys.lineage("t", e) for e in epochs) == [keys.lineage("t", e) for e in epochs]
    assert sorted(keys.epoch_data("t", e) for e in epochs) == [keys.epoch_data("t", e) for e in epochs]


def test_one_tenants_prefix_is_never_anothers() -> None:
    assert not keys.epoch_data("acme-2", 1).startswith(keys.tenant_data("acme"))
    assert not keys.lineage("acme-2", 1).startswith(keys.lineages("acme"))
    assert not keys.database("acme", 0x11, "a").startswith(keys.epoch_data("acme", 1))


def test_a_name_comes_back_from_its_key() -> None:
    for name in ("a", "acme", "a-1", "x" * 63):
        assert keys.name_of(keys.spec(name)) == keys.name_of(keys.owner(name)) == keys.name_of(keys.node(name)) == name


@pytest.mark.parametrize("name", ["a", "0", "acme", "a-b", "a--b", "9z", "x" * 63])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert keys.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", "x" * 64, "ü", "a\n", " a"])
def test_what_is_no_dns_label_is_no_name(name: str) -> None:
    assert not keys.is_name(name)
