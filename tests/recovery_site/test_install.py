"""The packages come from where pip's configuration says, also when uv fetches them."""

import importlib.util
from pathlib import Path

import pytest
from django.conf import settings

_path = Path(settings.BASE_DIR) / "requirements" / "install.py"
_spec = importlib.util.spec_from_file_location("install", _path)
assert _spec is not None
assert _spec.loader is not None
install = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(install)

LOCKED = {"django", "uv"}


def test_variables_win_over_install_section_over_global_one() -> None:
    listing = (
        ":env:.index-url='https://variable.example/simple'\n"
        "global.cert='/etc/ssl/own.pem'\n"
        "global.index-url='https://global.example/simple'\n"
        "install.index-url='https://install.example/simple'\n"
        "install.no_index='false'\n"
        "download.no-index='true'\n"
    )
    assert install.pip_options(listing) == {
        "index-url": "https://variable.example/simple",
        "cert": "/etc/ssl/own.pem",
        "no-index": "false",
    }


def test_uv_is_told_what_pip_was_told() -> None:
    options = {
        "index-url": "https://user:secret@index.example/simple",
        "extra-index-url": "\nhttps://one.example/simple\nhttps://two.example/simple",
        "find-links": "/opt/wheels https://links.example/",
        "cert": "/etc/ssl/own.pem",
        "no-index": "true",
        "default-timeout": "180",
        "disable-pip-version-check": "1",
    }
    arguments, environment = install.uv_plan(options, LOCKED)
    assert arguments == ["--find-links", "/opt/wheels", "--find-links", "https://links.example/", "--no-index"]
    assert environment == {
        "UV_DEFAULT_INDEX": "https://user:secret@index.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "UV_HTTP_TIMEOUT": "180",
    }


@pytest.mark.parametrize("options", [{"no-binary": ":all:"}, {"client-cert": "/own.pem"}, {"constraint": "/not/there"}])
def test_pip_installs_what_uv_has_no_word_for(options: dict[str, str]) -> None:
    assert install.uv_plan(options, LOCKED) is None


def test_only_constraints_on_locked_packages_need_pip(tmp_path: Path) -> None:
    for content, fits in [("# a cap\nTorch<=2\n", True), ("DJANGO<6\n", False)]:
        constraints = tmp_path / "constraints.txt"
        constraints.write_text(content)
        assert (install.uv_plan({"constraint": str(constraints)}, LOCKED) is not None) is fits


def test_the_lock_files_pin_uv_by_hash_and_alone() -> None:
    pinned = install.uv_lines((_path.parent / "dev.lock").read_text())
    assert pinned.startswith("uv==")
    assert "--hash=sha256:" in pinned
    assert install.pinned_names(pinned) == {"uv"}
