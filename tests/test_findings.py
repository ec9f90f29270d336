import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2ct.errors import UserError
from text2ct.findings import ALIASES, AMBIGUOUS, FINDINGS, exact_name, normalise, resolve, resolve_list, slug


def test_effusion_is_pleural_and_says_what_else_it_could_be():
    match = resolve("effusion")
    assert match.finding == "Pleural effusion"
    assert match.given == "effusion"
    assert match.others == ("Pericardial effusion",)
    assert not match.exact


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("spell", [str, str.upper, str.lower, slug, lambda name: name.replace(" ", "_")])
def test_a_finding_resolves_to_itself_alone(finding, spell):
    match = resolve(spell(finding))
    assert (match.finding, match.others, match.exact) == (finding, (), True)
    assert exact_name(spell(finding)) == finding


@pytest.mark.parametrize(("finding", "alias"), [(f, a) for f, aliases in ALIASES.items() for a in aliases])
def test_every_alias_belongs_to_one_finding(finding, alias):
    first = AMBIGUOUS.get(normalise(alias), (finding,))[0]
    assert resolve(alias).finding == finding == first
    assert sum(alias in aliases for aliases in ALIASES.values()) == 1


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("cardiomegally", "Cardiomegaly"),
        ("plueral efusion", "Pleural effusion"),
        ("GGO", "Lung opacity"),
        ("nodules", "Lung nodule"),
        ("Hiatus Hernia", "Hiatal hernia"),
        ("atelektasis", "Atelectasis"),
        ("bronchiectasia", "Bronchiectasis"),
        ("mosaic", "Mosaic attenuation pattern"),
        ("coronary calcification", "Coronary artery wall calcification"),
        ("  consolidation ", "Consolidation"),
    ],
)
def test_common_spellings(text, finding):
    assert resolve(text).finding == finding


@pytest.mark.parametrize("text", ["efusion", "effusions"])
def test_a_misspelled_ambiguous_word_still_names_a_finding(text):
    assert resolve(text).finding == "Pleural effusion"


def test_an_unknown_finding_gets_the_nearest_names():
    with pytest.raises(UserError, match=r"'fracture' is none of the 18 findings; nearest: "):
        resolve("fracture")
    with pytest.raises(UserError, match="empty"):
        resolve("  ")
    with pytest.raises(UserError, match="none of the 18"):
        resolve("xyz")


def test_lists_keep_order_and_name_each_finding_once():
    found = [match.finding for match in resolve_list("nodule, effusion; Lung nodule")]
    assert found == ["Lung nodule", "Pleural effusion"]


def test_all_unknown_names_of_a_list_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        resolve_list("effusion, fracture, tumour mass")
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError, match="no finding is named"):
        resolve_list(" , ")


def test_slugs_differ():
    assert slug("Pleural effusion") == "pleural-effusion"
    assert len({slug(finding) for finding in FINDINGS}) == 18


@given(st.text(max_size=40))
def test_resolving_any_text_gives_a_finding_or_a_clear_error(text):
    try:
        match = resolve(text)
    except UserError:
        return
    assert match.finding in FINDINGS
    assert match.finding not in match.others
    assert set(match.others) <= set(FINDINGS)


def test_a_misspelt_ambiguous_word_names_the_other_candidate():
    match = resolve("efusion")
    assert match.finding == "Pleural effusion"
    assert "Pericardial effusion" in match.others
