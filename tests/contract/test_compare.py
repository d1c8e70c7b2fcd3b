"""What an edit of a contract breaks, and for whom; and that the codecs, which know nothing of it, behave like that."""

import pytest

from tests.contract.editing import BASE, build, edited
from tests.contract.edits import EDITS, Edit
from wireproto.contract import Change, compare
from wireproto.schema import Service

OLD = build(BASE)
each_edit = pytest.mark.parametrize("edit", [pytest.param(edit, id=edit.name) for edit in EDITS])


def found(old: Service, new: Service) -> dict[str, Change]:
    """The changes by what they are about, but for the digests that follow from them."""
    return {
        f"{change.subject}: {change.what}": change for change in compare(old, new) if change.what != "another digest"
    }


@each_edit
def test_an_edit_breaks_what_it_says(edit: Edit) -> None:
    """Each edit of the table gets its verdict, per codec, version and peer."""
    changes = found(OLD, build(edited(edit.changes)))
    wanted = {edit.subject, *edit.others} - {""}
    missing = wanted - set(changes)
    assert not missing, f"{missing} not in {list(changes)}"
    if not edit.subject:
        assert changes == {}
        return
    change = changes[edit.subject]
    assert change.breaks == set(edit.breaks.split())
    assert (change.level or "") == edit.level
    if edit.level == "wire":
        assert ", ".join(sorted(change.peers)) == edit.peers
        assert sorted(change.versions) == list(edit.versions)
    if not edit.others and edit.level != "":
        quiet = [each for name, each in changes.items() if name != edit.subject and each.level == "wire"]
        assert not quiet or "places" in edit.name, [str(each) for each in quiet]
