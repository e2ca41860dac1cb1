"""The pages that are made from the code say what the code says: `make docs` renews them."""

from tests import docs, evidence


def test_the_page_of_settings_is_current() -> None:
    assert (docs.LOOK_UP / "settings.md").read_text("utf-8") == docs.settings_page()


def test_the_page_of_the_first_boot_file_is_current() -> None:
    assert (docs.LOOK_UP / "first-boot.md").read_text("utf-8") == docs.first_boot_page()


def test_the_page_of_evidence_is_made_from_the_checked_in_files() -> None:
    assert evidence.PAGE.read_text("utf-8") == evidence.page()


def test_the_asyncapi_document_is_made_from_the_models_and_the_table_of_channels() -> None:
    assert (docs.LOOK_UP / "asyncapi.json").read_text("utf-8") == docs.asyncapi_document()
