"""What a cluster is asked to serve, and to whom."""

import pytest
from pydantic import ValidationError

from core.errors import UserError
from deploy.cluster.page import Cluster
from webapp.auth import VARIABLE


@pytest.fixture(autouse=True)
def no_password_from_outside(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_cluster_lets_nobody_in_unless_told_whom():
    with pytest.raises(UserError, match=r"Nothing says who may draw. Set SD_POKEMON_PASSWORD"):
        Cluster().password()


def test_a_password_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    assert Cluster(password_file=str(secret)).password().text == "correct horse"
    monkeypatch.setenv(VARIABLE, "battery staple")
    assert Cluster().password().text == "battery staple"


def test_everybody_and_a_password_are_not_both_meant(monkeypatch):
    monkeypatch.setenv(VARIABLE, "battery staple")
    with pytest.raises(UserError, match="Leave one of the two out"):
        Cluster(public=True).password()


@pytest.mark.parametrize("settings", [{"public": True}, {"loopback": True}])
def test_a_page_without_a_password_is_one_that_says_so(settings):
    assert Cluster(**settings).password() is None


@pytest.mark.parametrize(
    "settings", [{"models": "other"}, {"max_replicas": 0}, {"num_gpus": -1}, {"pages": "many"}]
)
def test_a_setting_that_is_none_is_refused(settings):
    with pytest.raises(ValidationError):
        Cluster(**settings)


def test_words_of_a_command_line_are_settings():
    """As `serve run deploy.ray_serve:app public=true num_gpus=0.5` gives them."""
    cluster = Cluster(public="true", num_gpus="0.5", max_replicas="4")
    assert (cluster.public, cluster.num_gpus, cluster.max_replicas) == (True, 0.5, 4)
